"""What a config may hold: wrong values drawn from the schema, and options that a model cannot use."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import CPU, compose, run_command

import zoo
from zoo.checks import _fits
from zoo.data.registry import _options, data_entries
from zoo.optimizers import AVERAGES, OPTIMIZERS, SCHEDULERS
from zoo.optimizers.options import option_types
from zoo.registry import _annotations, model_entry
from zoo.training.main import config_dir
from zoo.training.schema import check_config, keys_of, leave_out_unused

VALUES: dict[str, Any] = {
    "abc": "abc", "-1": -1, "-0.5": -0.5, "0": 0, "1.5": 1.5, "7": 7, "4294967296": 2**32, "true": True, "null": None,
    "nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "[]": [], "[abc]": ["abc"], "[-1]": [-1],
    "{a:1}": {"a": 1}, "''": "",
}  # fmt: skip
"""How values are written on a command line, and what they are."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused with one line and leave nothing behind; return the line."""
    capsys.readouterr()
    code = run_command(arguments)
    out, error = capsys.readouterr()
    assert code == 1, (arguments, code, out, error)
    assert error.startswith("error: "), (arguments, error)
    assert error.count("\n") == 1, (arguments, error)
    assert os.listdir() == [], arguments
    return error.removeprefix("error: ").strip()


def wrong(key: str, annotation: Any) -> Iterator[str]:
    """The overrides of a key that its annotation does not fit."""
    yield from (f"{key}={text}" for text, value in VALUES.items() if not _fits(value, annotation))


def wrong_overrides() -> Iterator[list[str]]:
    """Command lines with one wrong value each: of the run's own keys, and of every choice of every group."""
    for key, annotation in keys_of().items():
        if "." in key or key not in ("model", "data", "optimizer", "scheduler", "averaging"):
            base = ["model=mlp", "data=iris", "regularization=early_stopping"]
            yield from ([*base, override] for override in wrong(key, annotation))
    for group, factories in (("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS), ("averaging", AVERAGES)):
        for name, factory in factories.items():
            for key, annotation in option_types(factory).items():
                if re.search(rf"^{key}:", (config_dir() / group / f"{name}.yaml").read_text(), re.M):
                    base = ["model=mlp", "data=iris", f"{group}={name}"]
                    yield from ([*base, override] for override in wrong(f"{group}.{key}", annotation))
    for name in zoo.list_models():
        for key, annotation in _annotations(model_entry(name).cls).items():
            if key in model_entry(name).hyperparameters:
                yield from ([f"model={name}", override] for override in wrong(f"model.{key}", annotation))
    for name, entry in data_entries().items():
        for key, annotation in _options(entry.cls).items():
            yield from (["model=mlp", f"data={name}", override] for override in wrong(f"data.{key}", annotation))


STREAMING = ["kmeans", "pca", "linear_regression", "apriori"]


@pytest.mark.parametrize("name", STREAMING)
def test_what_a_streaming_model_cannot_use_is_in_no_config(name: str) -> None:
    settings = compose(f"model={name}")
    left = leave_out_unused(settings, zoo.create_model(name))
    assert not {"optimizer", "scheduler"} & set(left)
    assert "gradient_clip_val" not in left["regularization"]
    assert ("l2" in left["regularization"]) == (name == "linear_regression")  # its exact solver shrinks weights
    assert "accumulate_grad_batches" not in left["trainer"]
    assert left["model"] == settings["model"]


def test_a_gradient_model_uses_everything_and_t_sne_an_optimizer() -> None:
    settings = compose("model=gpt")
    assert leave_out_unused(settings, zoo.create_model("gpt"), ["optimizer.lr=1", "scheduler=cosine"]) == settings
    left = leave_out_unused(compose("model=tsne"), zoo.create_model("tsne"), ["optimizer.lr=100"])
    assert left["optimizer"]["name"] == "tsne"
    assert "scheduler" not in left


def test_defaults_that_are_said_aloud_are_not_refused() -> None:
    given = ["scheduler=none", "regularization=none", "trainer=default", "model.num_clusters=3"]
    leave_out_unused(compose("model=kmeans"), zoo.create_model("kmeans"), given)


def test_every_shipped_config_fits_the_schema() -> None:
    for name in zoo.list_models():
        check_config(compose(f"model={name}"))
    for file in (config_dir() / "experiment").glob("*.yaml"):
        check_config(compose(f"experiment={file.stem}"))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_wrong_values_drawn_from_the_schema_are_one_line_each(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = random.Random(int(os.environ.get("ZOO_SEED", "0"))).sample(list(wrong_overrides()), 500)
    failures = []
    for arguments in drawn:
        on_cpu = [] if arguments[-1].startswith("trainer.accelerator") else [CPU]
        key = arguments[-1].partition("=")[0]
        try:
            line = refused([*on_cpu, "trainer.max_epochs=1", *arguments], capsys)
            if key.rpartition(".")[2] not in line or not re.search(r" must |: pass | missing|choose|leave", line):
                failures.append((arguments, line))
        except BaseException as error:
            failures.append((arguments, str(error)[:300]))
    assert not failures, f"{len(failures)} of {len(drawn)}: " + "\n".join(map(str, failures))
