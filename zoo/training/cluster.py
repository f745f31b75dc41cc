"""A run on the machines of a Ray cluster: Ray Train starts its processes, which find each other as under torchrun.

`cluster=ray` is no part of a run's config, as torchrun is none: it says who starts the processes. Each of them repeats
the command without it, in the folder that it was given in where the machine has that, so that a run on a cluster is the
run that all others are, and goes on by any other way.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypedDict, get_type_hints

from zoo.checks import Range, check_type
from zoo.errors import ZooError, nearest, unknown_name

__all__ = ["asked", "environments", "on_cluster"]

_IN_WORKER = "ZOO_IN_RAY"  # set in the processes that Ray starts


class Options(TypedDict):
    """What `cluster.KEY=VALUE` says."""

    num_workers: Annotated[int, Range(1)]  # processes in all
    cpus_per_worker: Annotated[int, Range(1)]  # cores that each of them is given
    gpus_per_worker: Annotated[int, Range(0)]  # 1 to train on GPUs
    max_failures: Annotated[int, Range(0)]  # how often a run that lost a process goes on by itself
    address: str | None  # of a cluster, such as ray://host:10001; None for one of this machine


_DEFAULTS: Options = {
    "num_workers": 2, "cpus_per_worker": 1, "gpus_per_worker": 0, "max_failures": 0, "address": None,
}  # fmt: skip


def asked(arguments: Iterable[str]) -> tuple[list[str], Options | None]:
    """Return a command line without what it says of a cluster, and that, or None where it asks for none.

    Raises:
        ZooError: for another cluster than Ray's, or an option that it does not have.

    Example:
        >>> asked(["model=mlp", "cluster=ray", "cluster.num_workers=4"])[0]
        ['model=mlp']
    """
    kept, name, given = [], "none", {}
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        if key == "cluster":
            name = value
        elif key.startswith("cluster."):
            given[key.removeprefix("cluster.")] = value
        else:
            kept.append(argument)
    if name not in ("none", "ray"):
        raise unknown_name("cluster", name, ("none", "ray"))
    options: dict[str, Any] = {**_DEFAULTS}
    types = get_type_hints(Options, include_extras=True)
    for key, value in given.items():
        if key not in types:
            raise ZooError(f"cluster has no key '{key}'.{nearest(key, types)} Valid: {', '.join(types)}.")
        plain = value if key == "address" else int(value) if value.lstrip("-").isdigit() else value
        options[key] = check_type(f"cluster.{key}", plain, types[key])
    if given and name == "none":
        raise ZooError(f"cluster.{next(iter(given))} does nothing without cluster=ray: add it, or leave it out.")
    return kept, options if name == "ray" else None  # type: ignore[return-value]


def on_cluster(train: Callable[[], int], arguments: list[str], options: Options) -> None:
    """Train by the processes of `cluster=ray`, and return when they have ended.

    Args:
        train: the command, which returns its exit code.
        arguments: the command line, without what it says of the cluster.
        options: that.

    Raises:
        ZooError: where Ray is not installed, or the processes failed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ZooError("cluster=ray needs the package ray: pip install 'refzoo[ray]'.")
    if options["max_failures"] and not any(argument.startswith("run_dir=") for argument in arguments):
        raise ZooError("cluster.max_failures starts a run again, which goes on in its folder: pass run_dir=FOLDER.")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")  # a loaded machine may need minutes
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus, notes = options["gpus_per_worker"], Path("runs", ".ray").absolute()  # Ray's own, of no use afterwards
    if not ray.is_initialized():
        ray.init(address=options["address"], logging_level=logging.WARNING, include_dashboard=False)
    resources = {"CPU": options["cpus_per_worker"], **({"GPU": gpus} if gpus else {})}
    trainer = TorchTrainer(
        train_in_worker,
        train_loop_config={"train": train, "arguments": arguments, "folder": os.getcwd(), "path": sys.path[:]},
        scaling_config=ScalingConfig(
            num_workers=options["num_workers"], use_gpu=bool(gpus), resources_per_worker=resources
        ),
        run_config=RunConfig(storage_path=str(notes), failure_config=FailureConfig(options["max_failures"])),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise ZooError("the run on Ray's cluster has failed, as its processes say: repeat the command.") from error
    finally:
        shutil.rmtree(notes, ignore_errors=True)
        ray.shutdown()


def train_in_worker(command: dict[str, Any]) -> None:
    """Do in a process of Ray's what the command does in a process of this machine."""
    sys.path[:] = [*command["path"], *(entry for entry in sys.path if entry not in command["path"])]
    with contextlib.suppress(OSError):
        os.chdir(command["folder"])
    os.environ[_IN_WORKER] = "1"
    sys.argv = ["train.py", *command["arguments"]]
    code = command["train"]()
    if code:
        raise RuntimeError(f"exit code {code}")


def environments() -> list[Any]:
    """Return what tells Lightning of the processes that Ray has started, in one of these."""
    if _IN_WORKER not in os.environ:
        return []
    from ray.train.lightning import RayLightningEnvironment

    return [RayLightningEnvironment()]
