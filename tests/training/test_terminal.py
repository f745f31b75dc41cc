"""What a run shows: its start, its progress, its end, at any width, in a pipe, on a dumb terminal."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from sklearn.exceptions import ConvergenceWarning
from support import CPU, run_command

import zoo
from zoo.data.array_data import ArrayData
from zoo.errors import NotConverged
from zoo.training.checkpoint import described, save_checkpoint
from zoo.training.convergence import still_falling
from zoo.training.progress import Progress, Standing
from zoo.training.trainer import make_trainer

WIDTHS = (40, 60, 80, 132, 250)
COPIED = (
    "run folder",
    "written to",
    "evaluate",
    "predict",
    "look",
    "profile",
)  # rows that are left whole, to be copied
VALUES = {"loss": 0.123456, "val/accuracy": 0.98765, "val/loss": 1.2345e-7, "val/squared_distance": 1234567.0}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def drawn(standing: Standing, width: int) -> str:
    """The line of a terminal as it is seen."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(standing.bar(width))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("batches", [None, 7, 12345])
@pytest.mark.parametrize("name", ["epoch", "pass"])
def test_the_progress_is_one_line_that_fits(width: int, batches: int | None, name: str) -> None:
    last = 199 if name == "epoch" else None
    standing = Standing(name, 11, last, 7, batches, VALUES, elapsed=3723.0, left=61.0 if last else None)
    line = drawn(standing, width)
    assert line.count("\n") == 1
    assert len(line.rstrip("\n")) <= width
    assert line.startswith("epoch 11/199" if name == "epoch" else "pass 11 ")
    assert ("1:01 left" if last else "1:02:03") in line
    assert "…" not in line
    plain = standing.line(width)
    assert len(plain) <= width
    assert plain.startswith(standing.title)
    for word in (w for text in (line, plain) for w in re.findall(r"[\w/]*[a-z]+/\w+ [\d.e+-]+", text)):
        name_shown, _, value = word.partition(" ")
        assert value == f"{VALUES[name_shown]:.4g}", word  # whole, or left out
    if width >= 80:
        assert "loss 0.1235" in line
        assert "loss 0.1235" in plain


def fit_shown(console: Console) -> str:
    """What a console is shown of a fit of k-means."""
    model = zoo.create_model("kmeans")
    trainer = make_trainer(model, progress=False, callbacks=[Progress(console)], accelerator="cpu")
    rows = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    trainer.fit(model, datamodule=ArrayData(rows, None, None, batch_size=40, val_fraction=0.2))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_gets_one_line_that_is_drawn_anew_and_goes() -> None:
    began = time.monotonic()
    out = fit_shown(Console(file=Terminal(), width=80, force_terminal=True, color_system=None, legacy_windows=False))
    seconds = time.monotonic() - began
    frames = [re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", frame) for frame in re.split(r"[\r\n]+", out)]
    frames = [frame for frame in frames if frame.strip()]
    assert all(len(frame) <= 80 for frame in frames)
    assert all(re.match(r"pass \d+( validation)? ", frame) for frame in frames)
    assert len(frames) <= 2 * (10 * seconds + 2)  # drawn ten times a second at most, and once more at the end
    assert "\x1b[1A\x1b[2K" in out[-20:]  # the line is taken away


@pytest.mark.parametrize("term", ["dumb", "pipe"])
def test_a_dumb_terminal_and_a_pipe_get_plain_lines(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    if term == "dumb":
        monkeypatch.setenv("TERM", "dumb")
        file = Terminal()
    began = time.monotonic()
    lines = fit_shown(Console(file=file, width=80)).splitlines()
    seconds = time.monotonic() - began
    assert all(re.match(r"pass \d+  .*\d:\d\d$", line) for line in lines), lines
    assert "\x1b" not in "".join(lines)
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers[:10] == list(range(10))
    assert len(numbers) <= 10 + seconds + 1  # after the tenth one a second at most, and the last
    assert numbers[-1] > 10
    assert all(len(line) <= 80 for line in lines)


def test_a_long_epoch_gets_lines_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.training.progress.WITHIN", 0.0)
    monkeypatch.setattr(Progress, "_pause", lambda *_: 0.0)
    lines = fit_shown(Console(file=io.StringIO(), width=80)).splitlines()
    first = [line for line in lines if line.startswith("pass 0")]
    assert [line.split()[2] for line in first[:-1]] == [f"{100 * batch // 8}" for batch in range(1, 9)]
    assert all(len(line) <= 80 for line in lines)


def test_a_run_is_told_within_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    command = ["model=kmeans", "model.num_clusters=3", "trainer.max_epochs=3", "+trainer.profiler=simple", CPU]
    assert run_command(command) == 0
    out, error = capsys.readouterr()
    lines = out.splitlines()
    assert "\x1b" not in out
    assert all(len(line) <= 80 or line.startswith(COPIED) for line in lines)
    assert lines[0].startswith("kmeans on blobs: 700 train, 100 val, 200 test rows, 2 features, cpu")
    (folder,) = tmp_path.glob("runs/kmeans/blobs/*")
    said = [line.split()[-1] for line in lines if line.startswith("run folder")]
    assert said == [str(folder.relative_to(tmp_path))] * 2
    assert any(re.fullmatch(r"ended        after 3 passes in \d+:\d\d: trainer\.max_epochs=3", line) for line in lines)
    assert f"profile      {said[0]}/fit-profile.txt" in lines
    assert (folder / "fit-profile.txt").stat().st_size
    assert "warning: kmeans is not finished: it was stopped after 3 passes" in error
    assert error.count("\n") == 1


def test_a_terminal_that_knows_ascii_alone_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert run_command(["list=models"]) == 0
    sys.stdout.flush()
    assert b"kmeans" in raw.getvalue()


def test_a_checkpoint_says_which_epoch_it_is_of(tmp_path: Path) -> None:
    for stem, said in {"best": "best checkpoint, epoch 7", "last": "last checkpoint, after 7 epochs"}.items():
        save_checkpoint({"epoch": 7, "state_dict": {}}, tmp_path / f"{stem}.ckpt")
        assert described(tmp_path / f"{stem}.ckpt") == said


def test_a_loss_that_still_falls_is_told_from_one_at_rest() -> None:
    assert still_falling([1 / n for n in range(1, 100)]) == pytest.approx(0.1, abs=0.02)
    assert still_falling([1 + 0.9**n for n in range(100)]) is None
    assert still_falling([1.0]) is None
    assert still_falling([0.5**n for n in range(100)]) is None  # all of it is gone
    assert still_falling([1.0, 2.0, 4.0]) is None  # rising is another matter
    assert still_falling([1.0 - 0.008 * n for n in range(5)])  # a step that is too small, from first to last
    noise = torch.randn(1000, 20, generator=torch.Generator().manual_seed(0)) / 50
    assert sum(still_falling(row) is not None for row in (0.5 + noise).tolist()) < 50  # 1 in 24 falls by chance


def separated() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) + torch.randn(200, generator=torch.Generator().manual_seed(1)) > 0).long()


def test_a_convex_fit_that_stops_short_says_so_and_what_to_do(recwarn: pytest.WarningsRecorder) -> None:
    x, y = separated()
    with pytest.warns(NotConverged, match=r"still fell by .* the last epoch of 3 epochs\. Raise max_epochs .*exact"):
        zoo.fit(
            zoo.create_model("logistic_regression", solver="gradient"), x, y, max_epochs=3, device="cpu", batch_size=20
        )
    recwarn.clear()
    zoo.fit(zoo.create_model("logistic_regression", solver="gradient"), x, y, max_epochs=30, lr=0.1, batch_size=20)
    zoo.fit(zoo.create_model("logistic_regression", solver="exact"), x, y)
    zoo.fit(zoo.create_model("mlp", widths=[4]), x, y, max_epochs=2, device="cpu")  # which has no one minimum
    assert not [w for w in recwarn if issubclass(w.category, NotConverged)]


def test_a_solved_model_that_stops_short_says_so_and_what_to_do(recwarn: pytest.WarningsRecorder) -> None:
    x, y = separated()
    with pytest.warns(NotConverged, match=r"stopped after 2 passes, .*Raise max_epochs"):
        zoo.fit(zoo.create_model("kmeans", num_clusters=3), x, max_epochs=2)
    with pytest.warns(NotConverged, match=r"kmeans has not converged in 2 iterations: raise model\.max_iter"):
        zoo.fit(zoo.create_model("kmeans", num_clusters=9, max_iter=2), x)
    with pytest.warns(NotConverged, match=r"bisecting_kmeans has not converged in 1 iterations"):
        zoo.fit(zoo.create_model("bisecting_kmeans", num_clusters=3, max_iter=1), x)
    recwarn.clear()
    zoo.fit(zoo.create_model("kmeans", num_clusters=3), x)
    zoo.fit(zoo.create_model("bisecting_kmeans", num_clusters=3), x)
    zoo.fit(zoo.create_model("naive_bayes"), x, y, max_epochs=1)
    assert not [w for w in recwarn if issubclass(w.category, NotConverged)]


@pytest.mark.parametrize("name", ["KMeans", "BisectingKMeans"])
def test_scikit_learns_face_says_it_in_its_own_words(name: str, recwarn: pytest.WarningsRecorder) -> None:
    import zoo.sklearn

    estimator, rows = getattr(zoo.sklearn, name), separated()[0].numpy()
    with pytest.warns(ConvergenceWarning, match=f"{name} did not converge within max_iter: raise it"):
        estimator(9, max_iter=1, random_state=0).fit(rows)
    recwarn.clear()
    estimator(3, random_state=0).fit(rows)
    assert not recwarn.list
