"""`evaluate.py analysis=NAME`: its options are the functions', and a finished run answers with tables and pictures."""

from __future__ import annotations

import csv
import importlib
import inspect
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from support import CPU, compose, run_command

from zoo.analysis.learners import RunLearner, measure
from zoo.errors import ZooError
from zoo.training.analyses import ANALYSES, check_analyses, options_of


@pytest.mark.parametrize("name", sorted(ANALYSES))
def test_the_config_lists_every_option_with_its_default(name: str) -> None:
    parameters = inspect.signature(importlib.import_module(ANALYSES[name]).analyze).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert compose(name="evaluate").get(name, {}) == options
    assert set(options_of(name)) == set(options)
    assert not any(typing.get_origin(kind) is None and kind is Any for kind in options_of(name).values())


@pytest.mark.parametrize(
    ("asked", "section", "message"),
    [
        ("cross_validatoin", {}, "cross_validation"),
        ("calibration", {"cross_validation": {"folds": 3}}, "cross_validation.folds is of use with analysis=cross_val"),
        ("calibration", {"calibration": {"bins": 0}}, "calibration.bins must be an integer of at least 1"),
        ("bias_variance", {"bias_variance": {"resample": "both"}}, "bias_variance.resample must be"),
    ],
)
def test_an_option_of_no_use_or_out_of_range_is_refused(asked: str, section: dict[str, Any], message: str) -> None:
    config = compose(name="evaluate")
    for name, values in section.items():
        config[name] |= values
    with pytest.raises(ZooError, match=message):
        check_analyses(asked, config)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of a table with a column that is coded, and one that says what belongs together."""
    folder, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    size, kind, person = rng.normal(size=60), rng.integers(0, 3, 60), rng.integers(0, 12, 60)
    rows = [
        f"{s:.4f},{'abc'[k]},p{p},{'yes' if s + k > 1 else 'no'}" for s, k, p in zip(size, kind, person, strict=True)
    ]
    (folder / "rows.csv").write_text("\n".join(["size,kind,person,bought", *rows]))
    told = ["model=decision_tree", "model.max_depth=3", "data=csv", f"data.path={folder}/rows.csv", CPU]
    assert run_command([*told, "data.target=bought", "data.drop=[person]", f"run_dir={folder}/run"]) == 0
    return folder / "run"


ASKED = ("bias_variance", "calibration", "cross_validation", "learning_curve", "permutation_importance")


def test_a_run_answers_all_of_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["cross_validation.groups=person", "cross_validation.folds=3", "learning_curve.folds=2",
            "learning_curve.sizes=[0.5,1.0]", "bias_variance.samples=2", "bias_variance.parameter=max_depth",
            "bias_variance.values=[1,3]", "accelerator=cpu"]  # fmt: skip
    assert run_command([f"run={run}", f"analysis=[{','.join(ASKED)}]", *told], "evaluate") == 0
    folder, said = run / "evaluation" / "analysis", capsys.readouterr().out
    for name in ASKED:
        assert (folder / f"{name}.png").is_file()
        assert f"{name}: " in said
    table = {name: list(csv.DictReader((folder / f"{name}.csv").open())) for name in ASKED}
    assert [row["fold"] for row in table["cross_validation"]] == ["0", "1", "2"]
    assert {row["feature"] for row in table["permutation_importance"]} == {"size", "kind"}  # as the user has them
    assert [row["max_depth"] for row in table["bias_variance"]] == ["1", "3"]
    assert sum(int(row["answers"]) for row in table["calibration"]) == 12


def test_folds_of_groups_share_none(run: Path) -> None:
    from zoo.analysis.cross_validation import divisions
    from zoo.data.provenance import absolute_paths
    from zoo.training.run_config import read_config

    settings = read_config(run / "config.yaml")
    learner = RunLearner(settings | {"data": absolute_paths(settings["data"], run)}, "cpu")
    population = learner.population()
    people = learner.column("person")
    assert len(people) == 60
    for train, held in divisions(population, 4, groups=people[population.pool.numpy()]):
        assert not set(people[train.numpy()]) & set(people[held.numpy()])
    with pytest.raises(ZooError, match=r"no column 'persn'.*person"):
        learner.column("persn")


def test_a_training_that_may_stop_early_ends_as_the_run_did_with_its_best_weights() -> None:
    told = ["model=mlp", "model.widths=[8]", "data=iris", "optimizer.lr=0.3", "trainer.max_epochs=12"]
    settings = compose(*told, "regularization=early_stopping", "regularization.early_stopping.patience=2")
    learner, rows = RunLearner(settings, "cpu"), torch.randperm(150, generator=torch.Generator().manual_seed(0))
    assert 0 < learner.validation < 0.2
    model, data = learner.fit({"train": rows[:60], "val": rows[60:90], "held": rows[90:]}, 0, {})
    (stopping,) = (callback for callback in model.trainer.callbacks if isinstance(callback, EarlyStopping))
    best = float(stopping.best_score)
    assert stopping.wait_count == 2  # it went on behind the best
    assert measure(model, data.rows("val"))[0]["accuracy"] == pytest.approx(best)


def test_an_analysis_that_is_not_for_the_model_is_refused_before_anything_is_written(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [f"run={run}", "analysis=[calibration,sequential_jacobian]", "split=val", "accelerator=cpu"]
    assert run_command(told, "evaluate") == 1
    assert "have no steps" in capsys.readouterr().err
    assert not (run / "evaluation" / "val").exists()


def test_what_cannot_be_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["analysis=cross_validation", "cross_validation.groups=nobody", "accelerator=cpu"]
    assert run_command([f"run={run}", *told], "evaluate") == 1
    error = capsys.readouterr().err
    assert "has no column 'nobody'" in error
    assert error.count("\n") == 1
    with pytest.raises(ZooError, match=r"pass validation_curve\.parameter=model\.KEY"):
        importlib.import_module(ANALYSES["validation_curve"]).analyze(None)
