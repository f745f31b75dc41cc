"""The schema of a run's config: what each key may be, checked before anything is created.

The sections of the run itself are declared here. What `model.*` and `data.*` may be is said by the constructors'
annotations and their own checks of ranges, what `optimizer.*`, `scheduler.*` and `averaging.*` may be by
`zoo.optimizers.options`.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypedDict

from zoo.checks import Range, check_type
from zoo.errors import ZooError, nearest

__all__ = ["Config", "check_config", "check_groups", "keys_of", "leave_out_unused"]

MODULE = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
Count = Annotated[int, Range(1)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
Share = Annotated[float, Range(0, 1)]
ShareAboveZero = Annotated[float, Range(0, 1, open_low=True)]


class EarlyStopping(TypedDict):
    """`regularization.early_stopping`."""

    patience: Annotated[int, Range(0)]
    min_delta: NotNegative


class Regularization(TypedDict):
    """`regularization`."""

    l1: NotNegative
    l2: NotNegative
    l1_steps: Literal["gradient", "proximal"]
    dropout: Share | None
    mixup: NotNegative
    label_noise: Share
    weight_noise: NotNegative
    gradient_clip_val: Positive | None
    gradient_clip_algorithm: Literal["norm", "value"]
    early_stopping: EarlyStopping | None


class Trainer(TypedDict):
    """`trainer`: the options of Lightning's Trainer that a run may choose."""

    max_epochs: Count | Literal[-1] | None
    max_steps: Count | Literal[-1]
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Count | Literal[-1, "auto"] | list[Annotated[int, Range(0)]]
    strategy: Literal["auto", "ddp", "fsdp"]
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "32", "64", 32, 64]
    accumulate_grad_batches: Count
    fast_dev_run: bool | Count
    limit_train_batches: Count | ShareAboveZero
    limit_val_batches: Annotated[int, Range(0)] | Share
    limit_test_batches: Annotated[int, Range(0)] | Share
    check_val_every_n_epoch: Count | None
    val_check_interval: Count | ShareAboveZero | None
    log_every_n_steps: Count
    deterministic: bool | Literal["warn"]
    compile: bool
    activation_checkpointing: bool


class MoreTrainer(TypedDict, total=False):
    """What `+trainer.KEY=VALUE` adds."""

    min_epochs: Count | None
    min_steps: Count | None
    max_time: str | None
    profiler: Literal["simple", "advanced", "pytorch"] | None
    detect_anomaly: bool
    benchmark: bool
    sync_batchnorm: bool
    num_nodes: Count


class Training(TypedDict):
    """`training`: what a step sees."""

    name: Literal["batch", "stochastic", "minibatch"]


class Config(TypedDict):
    """The keys of configs/train.yaml; what `model`, `data`, `optimizer`, `scheduler` and
    `averaging` hold their factories check."""

    seed: Annotated[int, Range(0, 2**32 - 1)]
    run_dir: str
    pretrained: str | None
    checkpoint_seconds: NotNegative
    kernels: bool
    regularization: Regularization
    logger: list[Literal["tensorboard", "csv", "wandb", "mlflow"]]
    histograms: bool
    find_lr: bool
    check_gradients: bool
    diagnosis: bool
    plugins: list[str]
    debug: bool
    trainer: Trainer
    training: Training
    averaging: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]


INSTEAD = {  # of a key that Lightning has and a run sets elsewhere
    "trainer.gradient_clip_val": "regularization.gradient_clip_val=NORM",
    "trainer.gradient_clip_algorithm": "regularization.gradient_clip_algorithm=value",
    "trainer.logger": "logger=NAME",
    "trainer.default_root_dir": "run_dir=FOLDER",
    "trainer.num_sanity_val_steps": "trainer.fast_dev_run=true",
    "trainer.overfit_batches": "trainer.limit_train_batches=N data.shuffle=false",
}


def instead(key: str) -> str:
    """Return what to pass in the place of a key of Lightning's Trainer that the config does not hold.

    >>> instead("trainer.profiler"), instead("trainer.logger")
    (' Pass +trainer.profiler=VALUE.', ' Pass logger=NAME.')
    """
    if key in INSTEAD:
        return f" Pass {INSTEAD[key]}."
    more = [f"trainer.{name}" for name in MoreTrainer.__annotations__]
    return f" Pass +{key}=VALUE." if key in more else ""


def check_config(settings: dict[str, Any]) -> None:
    """Raise one line for the first key of a resolved config that is unknown, missing, or has a value of no use."""
    _check_section("", settings, Config)
    if not settings["run_dir"].strip():
        raise ZooError("run_dir is empty: pass run_dir=FOLDER, or leave it out.")
    if settings["histograms"] and "tensorboard" not in settings["logger"]:
        raise ZooError("histograms=true is for TensorBoard: add tensorboard to logger, or leave it out.")
    devices, cores = settings["trainer"]["devices"], os.cpu_count() or 1
    if (
        isinstance(devices, int)
        and devices > max(8, 4 * cores)
        and settings["trainer"]["accelerator"] in ("cpu", "auto")
    ):
        raise ZooError(f"trainer.devices={devices} must be at most {max(8, 4 * cores)} processes on {cores} cores.")
    for module in settings["plugins"]:
        if not re.fullmatch(MODULE, module):
            raise ZooError(f"plugins must be names of modules, such as plugins=[my_models], not {module!r}.")
    for group in ("model", "data", "optimizer", "scheduler", "averaging"):
        if not isinstance(settings[group].get("name"), str):
            raise ZooError(f"{group}.name must be a string: choose with {group}=NAME.")


def _check_section(prefix: str, section: Any, declared: Any) -> None:
    types = typing.get_type_hints(declared, include_extras=True)
    more = typing.get_type_hints(MoreTrainer, include_extras=True) if declared is Trainer else {}
    where = prefix.rstrip(".") or "the config"
    for key, value in section.items():
        if key not in types | more:
            full = prefix + str(key)
            remedy = instead(full) or nearest(str(key), types | more)
            raise ZooError(f"{where} has no key '{key}'.{remedy} Valid: {', '.join(types | more)}.")
        _check_value(prefix + key, value, (types | more)[key])
    for key in types:
        if key not in section:
            raise ZooError(f"{prefix}{key} is missing: leave ~{prefix}{key} out.")


def _check_value(key: str, value: Any, annotation: Any) -> None:
    declared = _section_of(annotation)
    if declared is None:
        check_type(key, value, annotation)
    elif isinstance(value, dict):
        _check_section(f"{key}.", value, declared)
    elif value is not None or annotation is declared:
        keys = ", ".join(typing.get_type_hints(declared))
        name = key.rpartition(".")[2]
        raise ZooError(f"{key} must hold {keys}, not {value!r}: choose with {key.split('.')[0]}={name}.")


def _section_of(annotation: Any) -> Any:
    """The TypedDict that an annotation is, or may be, else None."""
    options = (annotation, *typing.get_args(annotation))
    return next((option for option in options if typing.is_typeddict(option)), None)


def keys_of(declared: Any = Config, prefix: str = "") -> dict[str, Any]:
    """Return every key of the run's own sections with its annotation.

    >>> "trainer.accumulate_grad_batches" in keys_of()
    True
    """
    found: dict[str, Any] = {}
    for key, annotation in typing.get_type_hints(declared, include_extras=True).items():
        section = _section_of(annotation)
        found |= {prefix + key: annotation} if section is None else keys_of(section, f"{prefix}{key}.")
    return found


GROUPS = ("model", "data", "optimizer", "scheduler", "trainer", "training", "averaging")  # of each there is exactly one


def check_groups(arguments: Iterable[str]) -> None:
    """Raise one line if a command line takes a group away, or chooses several of which there can be but one."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        group = name.lstrip("~+")
        if group in GROUPS and (name.startswith("~") or value.strip() in ("", "null") or value.lstrip()[:1] in "[{"):
            raise ZooError(f"{argument}: a run needs one {group}, such as {group}=NAME (--help shows the choices).")
        if group == "regularization" and (name.startswith("~") or value.strip() in ("", "null", "[]")):
            raise ZooError(f"{argument}: pass regularization=none, or leave it out.")


def module_names(text: str) -> list[str]:
    """Return the names of modules in `plugins=[...]` as it stands on a command line.

    >>> module_names("[my_models,lab.data,-1]"), module_names("null")
    (['my_models', 'lab.data'], [])
    """
    words = re.split(r"[\[\],\s'\"]+", text)
    return [name for name in words if re.fullmatch(MODULE, name) and name.lower() not in ("null", "true", "false")]


_REGULARIZATION = {"gradient_clipping": "gradient_clip_val", "l1": "l1", "l2": "l2", "elastic_net": "l1"}
_DEFAULTS = (("scheduler", "none"), ("trainer", "default"), ("training", "minibatch"), ("averaging", "none"))
_OF_STEPS = ("max_steps", "accumulate_grad_batches", "val_check_interval", "log_every_n_steps")


def leave_out_unused(settings: dict[str, Any], model: Any, given: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings without those that the model cannot use; one that was `given` raises in one line.

    Args:
        settings: a resolved config.
        model: the created model, which says in `heeds` what it uses.
        given: the overrides of the command line.
    """
    unused = {part: f"{part} means nothing to it" for part in ("optimizer", "scheduler") if part not in model.heeds}
    if "gradient_clipping" not in model.heeds:
        unused |= {f"regularization.gradient_clip_{key}": "it has no gradient to clip" for key in ("val", "algorithm")}
        unused["trainer.accumulate_grad_batches"] = "it has no gradient to add up"
    if "steps" not in model.heeds:
        unused |= {f"trainer.{key}": "it takes no steps" for key in _OF_STEPS}
        of_steps = ("histograms", "check_gradients", "find_lr", "training", "averaging")
        unused |= dict.fromkeys(of_steps, "it takes no steps")
    if "compile" not in model.heeds:
        unused["trainer.compile"] = "torch.compile finds nothing in it to join"
    if "activation_checkpointing" not in model.heeds:
        unused["trainer.activation_checkpointing"] = "it has no transformer layers"
    if "penalties" not in model.heeds:
        own = next((key for key in ("C", "l2") if key in model.hparams), None)
        why = f"its own model.{own} says how much it is held back" if own else "it has no weights to penalize"
        unused |= {f"regularization.{key}": why for key in ("l1", "l2")}
    if "penalties" not in model.heeds or "steps" not in model.heeds:
        of_gradients = ("l1_steps", "mixup", "label_noise", "weight_noise")
        unused |= {f"regularization.{key}": "it takes no steps by the gradient of a loss" for key in of_gradients}
    for override in given:
        for key in _keys_set_by(override):
            reason = next((why for part, why in unused.items() if f"{key}.".startswith(f"{part}.")), None)
            if reason:
                raise ZooError(f"{override} does nothing for {model.entry.name}: {reason}. Leave it out.")
    return {
        section: {k: v for k, v in value.items() if f"{section}.{k}" not in unused}
        if isinstance(value, dict)
        else value
        for section, value in settings.items()
        if section not in unused
    }


def _keys_set_by(override: str) -> list[str]:
    """The keys that an override sets to more than the default: those that `regularization=l2` sets too."""
    key, _, value = override.lstrip("+~").partition("=")
    if key == "regularization":
        names = re.findall(r"\w+", value)
        return [f"regularization.{_REGULARIZATION.get(name, name)}" for name in names if name != "none"]
    return [] if (key, value) in _DEFAULTS else [key]
