"""hydra/sweeper=optuna: what is searched, pruned, gone on with, and told at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import CPU, run_command

from zoo.errors import ZooError
from zoo.training.search import space_of

optuna = pytest.importorskip("optuna")
RUN = ["-m", "hydra/sweeper=optuna", "model=mlp", "data=iris", "model.widths=[4]", "trainer.max_epochs=3", "logger=[]",
       "diagnosis=false", CPU]  # fmt: skip
RATES = "optimizer.lr=tag(log, interval(1e-4, 1.0))"


def test_what_is_searched_is_read_from_the_overrides() -> None:
    fixed, space = space_of(
        ["model=mlp", RATES, "data.batch_size=range(16, 65, 16)", "model.widths=[8],[16,16]",
         "trainer.max_epochs=int(interval(2, 9))", "optimizer=choice(adam,sgd)", "+trainer.max_time=null"]
    )  # fmt: skip
    assert fixed == ["model=mlp", "+trainer.max_time=null"]
    kinds = optuna.distributions
    assert space == {
        "optimizer.lr": kinds.FloatDistribution(1e-4, 1.0, log=True),
        "data.batch_size": kinds.IntDistribution(16, 64, step=16),
        "model.widths": kinds.CategoricalDistribution(["[8]", "[16,16]"]),
        "trainer.max_epochs": kinds.IntDistribution(2, 9),
        "optimizer": kinds.CategoricalDistribution(["adam", "sgd"]),
    }
    with pytest.raises(ZooError, match="finds nothing to search"):
        space_of(["model=mlp"])


@pytest.mark.slow
def test_a_search_prunes_goes_on_and_tells_what_counts(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    where = [f"hydra.sweep.dir={tmp_path / 'search'}", f"run_dir={tmp_path / 'run'}"]
    assert run_command([*RUN, *where, "hydra.sweeper.num_trials=6", RATES], pictures=True) == 0
    study = optuna.load_study(
        study_name="zoo",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "search/optuna.log"))
        ),
    )
    assert len(study.trials) == 6
    assert (tmp_path / "search/importance.png").exists()
    capsys.readouterr()
    assert run_command([*RUN, *where, "hydra.sweeper.num_trials=7", RATES], pictures=True) == 0
    said = capsys.readouterr().out
    assert "goes on after 6 runs" in said
    assert "sweep of 7 runs by val/accuracy, best first" in said
    rows = (tmp_path / "search/sweep.csv").read_text().splitlines()
    assert len(rows) == 8


def test_what_cannot_be_searched_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "search"
    for options, why in (
        ([RATES, "hydra.sweeper.sampler=grid"], "Unknown hydra.sweeper.sampler 'grid'"),
        (["optimizer.lr=0.1"], "finds nothing to search"),
    ):
        assert run_command([*RUN, f"hydra.sweep.dir={folder}", *options]) == 1
        assert why in capsys.readouterr().err
    assert not folder.exists()
