"""The diagnosis at the end of a training: thirty constructed runs across families, and what cannot be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_friedman1
from support import CPU, run_command
from torch import Tensor

import zoo
from zoo.data.array_data import ArrayData
from zoo.training.diagnosis import Diagnosis, Evidence, constant_error, diagnose
from zoo.training.history import History
from zoo.training.trainer import make_trainer

Rows = tuple[Tensor, Tensor]


def rings(seed: int = 0, rows: int = 600, noise: float = 0.0) -> Rows:
    """Two classes by the distance from the middle, which no straight line parts, some of them told wrongly."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 2, generator=generator)
    y = (x.norm(dim=1) > 1.2).long()
    return x, torch.where(torch.rand(rows, generator=generator) < noise, 1 - y, y)


def coins(seed: int = 0, rows: int = 400, features: int = 20) -> Rows:
    """Classes that the features say almost nothing of: what is learnt is learnt by heart."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, features, generator=generator)
    return x, (x[:, 0] + 2 * torch.randn(rows, generator=generator) > 0).long()


def friedman(seed: int = 0, rows: int = 600, noise: float = 1.0, features: int = 10) -> Rows:
    x, y = make_friedman1(rows, n_features=features, noise=noise, random_state=seed)
    return torch.tensor(x).float(), torch.tensor(y).float()


def line(seed: int = 0, rows: int = 400, noise: float = 0.3, features: int = 5) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, features, generator=generator)
    return x, x @ torch.arange(1.0, features + 1) + noise * torch.randn(rows, generator=generator)


def wave(seed: int = 0, rows: int = 400, noise: float = 0.1) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    x = 6 * torch.rand(rows, 1, generator=generator) - 3
    return x, (3 * x[:, 0]).sin() + noise * torch.randn(rows, generator=generator)


# model, hyperparameters, rows, options of the training
Case = tuple[str, dict[str, Any], Rows, dict[str, Any]]
SMALL: list[Case] = [  # too small, or trained too short
    ("logistic_regression", {}, rings(), {}),
    ("linear_regression", {}, wave(), {}),
    ("naive_bayes", {}, (rings()[0] * torch.tensor([1.0, 0.0]), (rings()[0].prod(1) > 0).long()), {}),
    ("decision_tree", {"max_depth": 1}, wave(), {}),
    ("gradient_boosting", {"num_trees": 2, "learning_rate": 0.05}, friedman(), {}),
    ("random_forest", {"max_depth": 1, "num_trees": 10}, friedman(1), {}),
    ("svm", {}, rings(1), {}),
    ("mlp", {"widths": [2]}, wave(1), {"max_epochs": 3}),
    ("mlp", {"widths": [32]}, rings(2), {"max_epochs": 1, "optimizer": "sgd", "lr": 1e-3}),
    ("mlp", {"widths": [16]}, friedman(2), {"max_epochs": 1, "lr": 1e-4}),
]
LARGE: list[Case] = [  # they learn their rows by heart
    ("decision_tree", {}, coins(), {}),
    ("decision_tree", {}, friedman(3, noise=3.0), {}),
    ("random_forest", {"num_trees": 20}, coins(1), {}),
    ("gradient_boosting", {"min_samples_leaf": 1, "num_trees": 200}, coins(2), {}),
    ("kernel_svm", {"gamma": 10.0, "C": 100.0}, coins(3), {}),
    ("logistic_regression", {}, coins(4, rows=90, features=60), {}),
    ("linear_regression", {}, line(1, rows=80, noise=20.0, features=50), {}),
    ("mlp", {"widths": [256, 256]}, coins(5, rows=300), {"max_epochs": 60}),
    ("mlp", {"widths": [256]}, friedman(4, rows=200, noise=5.0), {"max_epochs": 300, "lr": 3e-3}),
    ("mlp", {"widths": [128, 128]}, rings(3, rows=300, noise=0.3), {"max_epochs": 300, "lr": 3e-3}),
]
SOUND: list[Case] = [  # as good as the rows allow, some of which are told wrongly
    ("logistic_regression", {}, (line(2)[0], (line(2, noise=2.0)[1] > 0).long()), {}),
    ("linear_regression", {}, line(3, noise=2.0), {}),
    ("naive_bayes", {}, rings(4), {}),
    ("decision_tree", {"max_depth": 6, "min_samples_leaf": 10}, rings(5, rows=2000, noise=0.1), {}),
    ("random_forest", {"min_samples_leaf": 10, "num_trees": 30}, rings(6, rows=2000, noise=0.1), {}),
    ("gradient_boosting", {"num_trees": 40}, friedman(5, rows=3000), {}),
    ("kernel_svm", {}, rings(7, noise=0.05), {}),
    ("svm", {}, (line(4)[0], (line(4, noise=1.0)[1] > 0).long()), {}),
    ("mlp", {"widths": [16]}, rings(8, rows=2000, noise=0.1), {"max_epochs": 30, "lr": 5e-3}),
    ("mlp", {"widths": [32]}, friedman(6, rows=3000), {"max_epochs": 60, "lr": 3e-3}),
]
EXPECTED = [("underfitting", SMALL), ("overfitting", LARGE), ("neither", SOUND)]


def found(case: Case, folder: Path) -> Any:
    """The diagnosis of a run on rows of which a share of 0.3 validates."""
    name, hparams, (x, y), options = case
    options = dict(options)
    model = zoo.create_model(name, **hparams)
    recipe = {key: options.pop(key) for key in ("optimizer", "lr") if key in options}
    if recipe:
        model.train_by(zoo.optimizers.Recipe(recipe.get("optimizer", "adam"), {"lr": recipe["lr"]}))
    data = ArrayData(x, y, None, standardize=not model.streaming, val_fraction=0.3, seed=0,
                     batch_size=256 if model.streaming else 32)  # fmt: skip
    diagnosis = Diagnosis()
    torch.manual_seed(0)
    trainer = make_trainer(
        model, accelerator="cpu", progress=False, callbacks=[diagnosis, History(folder / "history.csv")], **options
    )
    trainer.fit(model, datamodule=data)
    return diagnosis.finding


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::zoo.errors.NotConverged")
def test_of_thirty_runs_at_least_twenty_eight_are_told_right(tmp_path: Path) -> None:
    wrong = []
    for expected, cases in EXPECTED:
        for number, case in enumerate(cases):
            finding = found(case, tmp_path / f"{expected}{number}")
            print(expected, case[0], finding)
            if finding.verdict != expected:
                wrong.append((expected, case[0], case[1], str(finding)))
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize(("expected", "cases"), EXPECTED)
def test_one_of_each_kind_is_told_right(expected: str, cases: list[Case], tmp_path: Path) -> None:
    assert found(cases[3 if expected == "underfitting" else 0], tmp_path).verdict == expected


def test_a_sentence_says_what_was_seen_and_names_options() -> None:
    finding = diagnose(
        Evidence(torch.zeros(100), torch.ones(100) * 0.4, 0.5, measure="share of wrong answers"), "", "more rows"
    )
    assert str(finding).startswith("overfitting: share of wrong answers 0 in training and 0.4 in validation")
    assert "where a constant answer gets 0.5" in str(finding)
    assert str(finding).endswith("Try more rows.")


@pytest.mark.parametrize(
    ("evidence", "verdict", "words"),
    [
        (Evidence(torch.zeros(9), torch.zeros(1), 1.0), "unknown", "1 validation row cannot tell"),
        (Evidence(torch.zeros(9), torch.zeros(0), 1.0), "unknown", "without validation rows"),
        (Evidence(torch.zeros(9), torch.zeros(30), 0.0), "unknown", "the target is constant"),
        (Evidence(torch.full((9,), torch.inf), torch.zeros(30), 1.0), "underfitting", "has diverged"),
        (Evidence(torch.full((99,), 7.0), torch.full((30,), 7.0), 1.0), "underfitting", "worse than a constant"),
        (Evidence(torch.zeros(0), torch.zeros(0), 1.0), "unknown", "no training row"),
        (Evidence(torch.full((99,), 0.9), torch.full((1,), 0.9), 1.0), "underfitting", "0.9 in training"),
        (Evidence(torch.rand(99) / 9, torch.rand(30) / 5, 1.0, (1, 0.5, 0.1), (1, 0.6, 0.9)), "overfitting", "50 %"),
        (Evidence(torch.full((99,), 0.4), torch.full((30,), 0.4), 1.0, (1, 0.8, 0.6), (), "loss", 1.0), "underfitting",
         "falls"),
    ],
)  # fmt: skip
def test_what_the_evidence_says(evidence: Evidence, verdict: str, words: str) -> None:
    finding = diagnose(evidence)
    assert (finding.verdict, words in finding.why) == (verdict, True), finding


def test_a_constant_answer_is_what_the_training_targets_say() -> None:
    y, answers = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([2.0, 4.0])
    assert constant_error(y, answers, "value")[0] == pytest.approx(np.mean((answers.numpy() - 2) ** 2))
    assert constant_error(torch.ones(5), answers, "value") == (0.0, 0.0)
    error, loss = constant_error(torch.tensor([0] * 30 + [1] * 10), torch.tensor([0, 1, 1, 1]), "class")
    assert error == 0.75
    assert loss == pytest.approx(-np.mean(np.log([30.5 / 41, *[10.5 / 41] * 3])))


def run(folder: Path, *overrides: str) -> int:
    return run_command(
        ["model=mlp", "data=csv", "data.target=y", "trainer.max_epochs=1", *overrides, CPU, f"run_dir={folder}"]
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).normal(size=(40, 2))
    (tmp_path / "line.csv").write_text("a,y\n" + "\n".join(f"{a},{3 * a + b}" for a, b in rows))
    (tmp_path / "flat.csv").write_text("a,y\n" + "\n".join(f"{a},2.5" for a, b in rows))
    return tmp_path


def test_the_command_line_says_it(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(table / "run", f"data.path={table / 'line.csv'}", "data.val_fraction=0.5", "data.test_fraction=0") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "diagnosis underfitting: squared error" in out
    assert "trainer.max_epochs or optimizer.lr higher, model.widths larger." in out
    assert run(table / "off", f"data.path={table / 'line.csv'}", "diagnosis=false") == 0
    assert "diagnosis" not in capsys.readouterr().out


def test_a_machine_for_values_gets_a_sentence(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(table / "machine", f"data.path={table / 'line.csv'}", "model=kernel_svm", "logger=[]") == 0
    assert "\ndiagnosis " in capsys.readouterr().out


def test_one_row_a_constant_target_and_a_diverging_run_get_a_sentence(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = [f"data.path={table / 'line.csv'}", "data.val_fraction=0.025", "data.test_fraction=0"]
    assert run(table / "one", *one, "model=linear_regression", "logger=[]") == 0
    assert "1 validation row cannot tell" in " ".join(capsys.readouterr().out.split())
    assert run(table / "flat", f"data.path={table / 'flat.csv'}", "logger=[]") == 0
    said = capsys.readouterr()
    assert "the target is constant" in " ".join(said.out.split())
    assert "Traceback" not in said.err
    wild = ["optimizer=sgd", "optimizer.lr=1e30", "model.activation=identity", "trainer.max_epochs=50"]
    assert run(table / "wild", f"data.path={table / 'line.csv'}", *wild) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: The loss is ")
    assert "Lower optimizer.lr" in error
    assert error.count("\n") == 1
