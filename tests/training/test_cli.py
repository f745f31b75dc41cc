"""The commands as a user meets them: help, lists, one line for each mistake, exit codes, sweeps."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hydra.core.plugins import Plugins
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from support import CHECKOUT, CPU, checkpoint_bits, run_command, run_forked, spawn

import zoo
from zoo.models.mlp import MLP
from zoo.registry import _REGISTRY
from zoo.training.logger import make_loggers
from zoo.training.main import config_dir

METRICS = ("val/accuracy", "val/loss")
SHORT = ["model=mlp", "data=iris", "model.widths=[4]", "trainer.max_epochs=1", CPU]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert run_command([*SHORT, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], command: str = "train") -> str:
    """Run a command that must fail, and return the one line that it printed."""
    capsys.readouterr()
    code = run_command(arguments, command)
    error = capsys.readouterr().err
    assert code == 1, (code, error)
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error.removeprefix("error: ").strip()


def test_a_run_imports_neither_the_compiler_nor_sharded_tensors(tmp_path: Path) -> None:
    """Which takes seconds; and the graph, which is traced without them, is there."""
    code = (
        "import sys\nfrom zoo.training.main import train\n"
        "sys.argv = ['train.py', 'model=mlp', 'data=iris', 'trainer.max_epochs=1']\n"
        "code = train()\nheavy = {'torch._dynamo', 'torch.distributed.tensor', 'sympy'} & set(sys.modules)\n"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert any(b"aten::linear" in file.read_bytes() for file in tmp_path.rglob("events*"))


def test_help_shows_groups_and_choices_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom zoo.training.main import train\nsys.argv = ['train.py', '--help']\n"
        "try:\n    code = train()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'lightning', 'sklearn', 'numpy'} & {name.partition('.')[0] for name in sys.modules}\n"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for group in ("model", "data", "optimizer", "scheduler", "regularization", "trainer"):
        listed = re.search(rf"^  {group}: ((?:[\w, \n])+)$", done.stdout, re.M)  # folded over several lines
        choices = {file.stem for file in (config_dir() / group).glob("*.yaml")}
        assert listed
        assert choices <= set(re.split(r"[,\s]+", listed[1])), group


def test_from_another_folder_hydra_finds_the_callbacks_too(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "zoo", "train", "model=kmeans", "data=iris", "run_dir=run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if "No module named zoo" in done.stderr:
        pytest.skip("zoo is not installed here")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run").exists()


def test_the_lists(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert run_command(["list=models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in zoo.list_models():
        entry = zoo.model_entry(name)
        line = next(line for line in lines if line.split()[:1] == [name])
        assert entry.family in line
        assert all(task in line for task in entry.task)
        assert all(kind in line for kind in entry.kinds)
        assert entry.summary[:20] in line
    assert run_command(["list=data"]) == 0
    words = capsys.readouterr().out.split()
    assert set(zoo.list_data()) <= set(words)
    assert "Did you mean models" in one_line(capsys, ["list=model"])


MISTAKES = {
    "unknown model": (["model=mpl"], r"Unknown model 'mpl'\. Did you mean mlp\? Available: .*cnn"),
    "unknown data": (["data=digit"], r"Unknown data 'digit'\. Did you mean digits"),
    "unknown optimizer": (["optimizer=adm"], r"Unknown optimizer 'adm'\. Did you mean adam"),
    "unknown list": (["list=modles"], r"Unknown list 'modles'\. Did you mean models"),
    "unknown group": (["modle=cnn"], r"modle.* Did you mean model"),
    "unknown key": (["model=mlp", "model.width=3"], r"model has no key 'width'\. Did you mean widths\? Valid: widths"),
    "unknown data key": (["data.batchsize=3"], r"data has no key 'batchsize'\. Did you mean batch_size\?"),
    "unknown optimizer key": (["optimizer=sgd", "optimizer.beta=1"], r"optimizer has no key 'beta'\. .*Valid: lr, mom"),
    "unknown trainer key": (["+trainer.epochs=3", "model=mlp"], r"trainer has no key 'epochs'\. .*max_epochs"),
    "no override": (["mlp"], r"'mlp' is not an override of the form key=value"),
    "a mapping for a list": (["data=csv", "data.replace={a:1}"], r"data\.replace must be of .*help data\.replace"),
    "a file for a folder": (["run_dir=/etc/hostname", "model=mlp"], r"run_dir=.* is a file: pass run_dir=FOLDER"),
    "too many processes": (["trainer.devices=99"], r"trainer\.devices=99 must be at most \d+ processes on \d+ cores"),
    "out of range": (["model=mlp", "model.dropout=1.5"], r"model\.dropout must be at least 0 and at most 1, not 1\.5"),
    "width of 0": (["model=mlp", "model.widths=[0]"], r"model\.widths must all be at least 1"),
    "negative batch": (["data.batch_size=-1"], r"data\.batch_size must be positive"),
    "fractions": (["data.test_fraction=1"], r"data\.test_fraction must be at least 0 and below 1, not 1"),
    "wrong type": (["model=mlp", "model.dropout=abc"], r"model\.dropout must be a number, not 'abc'"),
    "wrong type of data": (["data.batch_size=x"], r"data\.batch_size must be an integer, not 'x'"),
    "wrong type of lr": (["optimizer.lr=abc"], r"optimizer\.lr must be a number above 0, not 'abc'"),
    "wrong type of l2": (["regularization.l2=abc"], r"regularization\.l2 must be a number of at least 0, not 'abc'"),
    "wrong type of seed": (["seed=abc"], r"seed must be an integer of at least 0 .*, not 'abc'"),
    "wrong type of epochs": (["trainer.max_epochs=abc"], r"trainer\.max_epochs must be .*integer.*not 'abc'"),
    "wrong type of seconds": (["checkpoint_seconds=abc"], r"checkpoint_seconds must be a number .*, not 'abc'"),
    "wrong precision": (["trainer.precision=12"], r"trainer\.precision must be one of 32-true"),
    "wrong accelerator": (["trainer.accelerator=abacus"], r"trainer\.accelerator must be one of auto, cpu, .*'abacus'"),
    "wrong strategy": (["trainer.strategy=dpd"], r"trainer\.strategy must .*'dpd'\. Did you mean ddp"),
    "negative lr": (["optimizer.lr=-1"], r"optimizer\.lr must be a number above 0, not -1"),
    "negative l2": (["regularization.l2=-1"], r"regularization\.l2 must be a number of at least 0, not -1"),
    "wrong choice": (["model=mlp", "model.activation=rellu"], r"model\.activation must be one of .*Did you mean relu"),
    "incompatible data": (["model=linear_regression", "data=digits"], r"linear_regression takes tabular data with "
                          r"value targets, but was given image data \(1×8×8\) with class targets and 10 classes\. "
                          r"Data that fit: .*diabetes"),
    "values for classes": (["model=logistic_regression", "data=diabetes"], r"by data\.task=classification"),
    "missing file": (["data=csv", "data.path=nowhere.csv", "data.target=y"], r"nowhere\.csv"),
    "missing path": (["data=csv"], r"data\.path"),
    "l2 twice": (["model=mlp", "regularization=l2", "optimizer.weight_decay=0.1"], r"both shrink the weights"),
    "dropout nowhere": (["model=linear_regression", "regularization=dropout"], r"linear_regression has no dropout"),
    "endless cosine": (["model=mlp", "scheduler=cosine", "trainer.max_epochs=-1"], r"scheduler=cosine .*max_epochs"),
    "plateau without validation": (["model=mlp", "data=iris", "data.val_fraction=0", "scheduler=plateau",
                                    "trainer.max_epochs=1"], r"val/loss"),
    "plateau by steps": (["model=gpt", "scheduler=plateau"], r"trainer\.check_val_every_n_epoch=1"),
    "early stopping without validation": (["model=mlp", "data=iris", "data.val_fraction=0", "trainer.max_epochs=1",
                                           "regularization=early_stopping"], r"val/accuracy"),
    "accumulation of -1": (["trainer.accumulate_grad_batches=-1"], r"must be an integer of at least 1, not -1"),
    "NaN seconds": (["checkpoint_seconds=nan"], r"checkpoint_seconds must be a number of at least 0, not nan"),
    "negative clipping": (["regularization.gradient_clip_val=-1"], r"must be a number above 0 or null, not -1"),
    "no batches": (["trainer.limit_train_batches=0"], r"limit_train_batches must be an integer of at least 1 or"),
    "perhaps deterministic": (["trainer.deterministic=maybe"], r"must be true or false or warn, not 'maybe'"),
    "negative patience": (["regularization=early_stopping", "regularization.early_stopping.patience=-1"], r"least 0"),
    "more support than baskets": (["model=apriori", "model.min_support=1000000"], r"min_support=1000000 .* baskets"),
    "no folder": (["run_dir="], r"run_dir is empty"),
    "seed of -1": (["seed=-1"], r"seed must be an integer of at least 0 and at most 4294967295, not -1"),
    "model of null": (["model=null"], r"a run needs one model"),
    "no model": (["~model"], r"a run needs one model"),
    "empty plugin": (["plugins=['']"], r"plugins must be names of modules"),
    "one beta": (["optimizer.betas=[0.9]"], r"optimizer\.betas must be a list of 2"),
    "steps of 0": (["scheduler=step", "scheduler.step_size=0"], r"scheduler\.step_size must be .* at least 1, not 0"),
    "a TPU": (["trainer.accelerator=tpu"], r"trainer\.accelerator must be one of auto, cpu, gpu"),
    "validation after 1000": (["model=mlp", "trainer.val_check_interval=1000"], r"trainer: .*val_check_interval"),
    "no layer": (["model=lstm", "model.hidden_size=[]"], r"model\.hidden_size"),
    "early stopping of true": (["regularization.early_stopping=true"], r"pass|choose with regularization=early_stop"),
    "clipping elsewhere": (["+trainer.gradient_clip_val=1"], r"Pass regularization\.gradient_clip_val"),
    "clipping there": (["trainer.gradient_clip_val=1"], r"gradient_clip_val.\. Pass regularization\.gradient_clip_val"),
    "a profiler": (["trainer.profiler=simple"], r"no key 'profiler'\. Pass \+trainer\.profiler=VALUE"),
    "two models": (["model=[mlp,cnn]"], r"a run needs one model"),
    "a kernel": (["kernels=avx"], r"kernels must be true or false"),
    "optimizer of k-means": (["model=kmeans", "optimizer.lr=0.1"], r"optimizer\.lr=0\.1 does nothing for kmeans"),
    "scheduler of PCA": (["model=pca", "scheduler=cosine"], r"scheduler=cosine does nothing for pca"),
    "scheduler of t-SNE": (["model=tsne", "scheduler=cosine"], r"scheduler=cosine does nothing for tsne"),
    "clipping of k-means": (["model=kmeans", "regularization=gradient_clipping"], r"does nothing for kmeans: .*clip"),
    "penalty of k-means": (["model=kmeans", "regularization=[l2]"], r"does nothing for kmeans: .*penalize"),
    "accumulation of k-means": (["model=kmeans", "trainer.accumulate_grad_batches=2"], r"does nothing for kmeans"),
    "unknown plugin": (["plugins=[no_such_module]"], r"no_such_module"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.usefixtures("here")
def test_a_mistake_is_one_line(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = MISTAKES[mistake]
    if not any(argument.startswith("trainer.accelerator") for argument in arguments):
        arguments = [*arguments, CPU]
    assert re.search(message, one_line(capsys, arguments)), mistake
    assert os.listdir() == [], "a refused run leaves no folder"


@pytest.mark.parametrize(
    ("data", "message"),
    [("csv", r"Pass data\.target=COLUMN"), ("npy", r"it is no \.npy file, as numpy\.save writes them")],
)
def test_a_table_without_what_it_is_for_is_one_line(
    data: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("table.csv").write_text("a,y\n1,2\n3,4\n5,6\n7,8\n")
    assert re.search(message, one_line(capsys, ["model=mlp", f"data={data}", "data.path=table.csv", CPU]))


@pytest.mark.usefixtures("here")
def test_a_model_with_options_for_its_own_schedule_takes_another(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["model=transformer_encoder", "scheduler=plateau", "model.hidden_size=8", "model.num_heads=1", CPU]
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    assert run_command([*command, *short, "run_dir=run"]) == 0, capsys.readouterr().err
    assert "warmup_steps" not in (Path("run") / "config.yaml").read_text()
    assert run_command([*command, *short, "run_dir=other", "scheduler.warmup_steps=3"]) == 1
    assert "scheduler 'plateau' has no option 'warmup_steps'" in capsys.readouterr().err


FILES = {
    "missing column": ("a,b\n1,2\n3,4\n", "target", r"target"),
    "empty file": ("", "y", r"table\.csv"),
    "header alone": ("a,y\n", "y", r"table\.csv"),
    "missing value": ("a,y\n1,2\n,4\n3,5\n4,4\n", "y", r"'?a'?"),
    "NaN": ("a,y\n1,2.5\nnan,4.5\n3,5.5\n", "y", r"'?a'?"),
    "infinity": ("a,y\n1,2.5\ninf,4.5\n3,5.5\n", "y", r"'?a'?"),
    "ragged": ("a,y\n1,2.5\n1,2,3\n", "y", r"table\.csv"),
}


@pytest.mark.parametrize("mistake", FILES)
def test_a_broken_table_is_one_line(mistake: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, target, message = FILES[mistake]
    (here / "table.csv").write_text(text)
    arguments = ["model=linear_regression", "data=csv", "data.path=table.csv", f"data.target={target}", CPU]
    assert re.search(message, one_line(capsys, arguments))


def test_an_incompatible_table_says_what_the_model_takes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "table.csv").write_text("a,y\n" + "".join(f"{i},{'xyz'[i % 3]}\n" for i in range(30)))
    line = one_line(capsys, ["model=linear_regression", "data=csv", "data.path=table.csv", "data.target=y", CPU])
    assert "class targets" in line
    assert "diabetes" in line


def test_the_first_mistake_of_evaluation_is_one_line(
    here: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search("run is missing: pass run=", one_line(capsys, [], "evaluate"))
    assert "nowhere" in one_line(capsys, ["run=nowhere"], "evaluate")
    assert "has no key" in one_line(capsys, ["runs=nowhere"], "evaluate")
    assert "no split 'tset'" in one_line(capsys, [f"run={finished}", "split=tset"], "evaluate")
    assert "no checkpoint named first" in one_line(capsys, [f"run={finished}", "checkpoint=first"], "evaluate")
    (here / "empty").mkdir()
    assert "holds no checkpoint" in one_line(capsys, ["run=empty"], "evaluate")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_truncated_checkpoint_is_one_line(
    command: str, here: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, here / "run")
    for path in (here / "run" / "checkpoints").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    arguments = [*SHORT, "run_dir=run"] if command == "train" else ["run=run"]
    assert re.search(r"\.ckpt was altered or truncated", one_line(capsys, arguments, command))


def test_a_folder_that_cannot_be_written_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").touch()
    assert "file" in one_line(capsys, [*SHORT, "run_dir=file/run"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 kB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_is_one_line(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["model=mlp", "data=iris", "model.widths=[128]", "trainer.max_epochs=2", CPU]
    line = one_line(capsys, [*arguments, f"run_dir={small_disk / 'run'}", "checkpoint_seconds=0"])
    assert "No space left on device" in line


def test_the_traceback_is_shown_on_demand(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(zoo.ZooError, match="must be a number"):
        run_command(["model=mlp", "model.dropout=abc", "debug=true"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(zoo.ZooError, match="must be a number"):
        run_command(["model=mlp", "model.dropout=abc"])


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Once as a user sees it: exit code, one line, and nothing else."""
    process = spawn(["model=mpl"], tmp_path)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert out == ""
    assert error.startswith("error: Unknown model 'mpl'. Did you mean mlp?")
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_a_loss_that_is_not_finite_stops_before_the_update(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.models.mlp import MLP

    output, calls = MLP.output, []

    def poisoned(self: MLP, batch: zoo.Batch) -> torch.Tensor:
        result = output(self, batch)
        calls.append(checksum := sum(float(p.detach().sum()) for p in self.parameters()))
        assert checksum == checksum
        return result * float("nan") if self.training and len(calls) >= 7 else result

    monkeypatch.setattr(MLP, "output", poisoned)
    command = ["model=mlp", "data=iris", "data.batch_size=32", "trainer.max_epochs=9", CPU, "checkpoint_seconds=0"]
    line = one_line(capsys, [*command, "run_dir=run"])
    assert re.search(r"The loss is nan at step \d+ \(epoch 1, batch \d\): no update was made", line)
    for name in ("last", "best"):
        model = zoo.load_model(here / "run" / "checkpoints" / f"{name}.ckpt")
        assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    before = checkpoint_bits(here / "run" / "checkpoints" / "last.ckpt")
    one_line(capsys, [*command, "run_dir=run"])  # the same batch comes again
    assert checkpoint_bits(here / "run" / "checkpoints" / "last.ckpt") == before


def test_a_gradient_that_overflows_leaves_the_last_good_checkpoint(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["model=mlp", "data=diabetes", "optimizer=sgd", "optimizer.lr=1e30", CPU, "checkpoint_seconds=0"]
    assert "not finite" in (line := one_line(capsys, [*command, "run_dir=run"])) or "The loss is" in line
    last = here / "run" / "checkpoints" / "last.ckpt"
    if last.exists():
        assert all(bool(torch.isfinite(p).all()) for p in zoo.load_model(last).parameters())


def test_a_sweep_runs_all_combinations_into_folders_of_their_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_command(["-m", "model=mlp,linear_regression", "seed=0,1", "trainer.max_epochs=1", CPU])
    assert code == 0
    runs = sorted(path.parent for path in here.glob("runs/*/*/*/config.yaml"))
    assert [run.parts[-3] for run in runs] == ["linear_regression"] * 2 + ["mlp"] * 2
    assert all((run / "checkpoints" / "last.ckpt").exists() for run in runs)
    assert sorted(os.listdir(here)) == ["runs"]
    run = zoo.load_model(runs[0])
    assert run.entry.name == "linear_regression"
    (table,) = here.glob("runs/sweeps/*/sweep.csv")
    rows = list(csv.DictReader(table.open(newline="")))
    assert [row["metric"] for row in rows] == ["val/accuracy"] * 2 + ["val/loss"] * 2
    accuracies, losses = ([float(row["value"]) for row in rows if row["metric"] == name] for name in METRICS)
    assert accuracies == sorted(accuracies, reverse=True)
    assert losses == sorted(losses)
    assert sorted(row["folder"] for row in rows) == sorted(map(str, runs))
    for row in rows:
        ended = json.loads((Path(row["folder"]) / "metrics.json").read_text())["metrics"]
        assert float(row["value"]) == ended[row["metric"]]
    out = capsys.readouterr().out
    assert "sweep of 4 runs, best first" in out
    assert str(table.relative_to(here)) in out


def test_a_sweep_whose_runs_are_all_refused_leaves_no_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["-m", "model=kmeans,pca", "optimizer.lr=0.1", CPU]) == 1
    out, error = capsys.readouterr()
    assert "sweep.csv" not in out
    assert error.splitlines()[-1] == "error: 2 of 2 runs failed: 0, 1."
    assert os.listdir() == []


def test_a_sweep_that_hydra_refuses_leaves_what_was_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["-m", "model=kmeans,nosuch", CPU]) == 1
    assert "Unknown model 'nosuch'" in capsys.readouterr().err
    assert os.listdir() == []
    Path("earlier").mkdir()
    Path("earlier", "sweep.csv").write_text("run\n")
    assert run_command(["-m", "model=kmeans,nosuch", "hydra.sweep.dir=earlier", CPU]) == 1
    assert Path("earlier", "sweep.csv").read_text() == "run\n"


def test_sweepers_are_given_the_monitored_value(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = Plugins.instance().class_name_to_class["hydra._internal.core_plugins.basic_launcher.BasicLauncher"]
    launch, jobs = launcher.launch, []
    monkeypatch.setattr(launcher, "launch", lambda *args, **options: jobs.extend(launch(*args, **options)) or jobs)
    command = ["-m", "model=mlp", "data=iris", "model.widths=[4]", "trainer.max_epochs=3", CPU, "optimizer.lr=0.1,1e-4"]
    assert run_command([*command, "run_dir=run"]) == 0
    values = [job.return_value for job in jobs]
    assert len(values) == 2
    for number, value in enumerate(values):  # the best of the validations, by which best.ckpt was chosen
        history = csv.DictReader((here / f"run_{number}" / "history.csv").open())
        assert value == pytest.approx(max(float(row["val/accuracy"]) for row in history))


def test_a_failing_job_of_a_sweep_is_an_exit_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-m", "model=mlp,linear_regression", "data=iris", "trainer.max_epochs=1", CPU]
    assert run_command(arguments) == 1
    out, error = capsys.readouterr()
    assert "run 1 failed: linear_regression takes tabular data" in error
    assert error.endswith("error: 1 of 2 runs failed: 1.\n")
    assert re.search(r"^1 +linear_regression +failed", out, re.M)
    assert len(list(here.glob("runs/mlp/*/*/checkpoints/last.ckpt"))) == 1


def test_the_run_folder_holds_all_that_a_run_leaves(finished: Path) -> None:
    assert {"config.yaml", "checkpoints", "pictures"} <= set(os.listdir(finished))
    assert list(finished.glob("events.out.tfevents.*"))
    assert {"best.ckpt", "last.ckpt"} <= set(os.listdir(finished / "checkpoints"))


def test_a_run_says_where_it_came_from_and_of_what_its_numbers_are(finished: Path) -> None:
    history = list(csv.DictReader((finished / "history.csv").open()))
    assert [row["epoch"] for row in history] == ["0"]
    assert {"train/loss", "val/loss", "val/accuracy"} <= set(history[0])
    environment = json.loads((finished / "environment.json").read_text())
    assert "model=mlp" in environment["command"]
    assert environment["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert set(environment["kernels"]) == {"variant", "reason", "gpu"}
    end = json.loads((finished / "metrics.json").read_text())
    assert end["of"]["test/loss"] == "best checkpoint, epoch 0"
    assert end["of"]["train/loss"] == "last epoch, 0"
    assert end["metrics"]["train/loss"] == float(history[0]["train/loss"])


def test_evaluation_of_another_split_says_so_and_overwrites_nothing(
    here: Path, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree(finished, here / "run")
    capsys.readouterr()
    assert run_command(["run=run", "accelerator=cpu"], "evaluate") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"test/accuracy +[\d.]+ +best checkpoint, epoch 0 *", line) for line in lines), lines
    assert "written to   run/evaluation" in lines
    assert all(len(line) <= 80 for line in lines)
    of_test = (here / "run" / "evaluation" / "metrics.json").read_bytes()
    assert run_command(["run=run", "split=val", "accelerator=cpu"], "evaluate") == 0
    assert (here / "run" / "evaluation" / "metrics.json").read_bytes() == of_test
    metrics = json.loads((here / "run" / "evaluation" / "val" / "metrics.json").read_text())
    assert {key.partition("/")[0] for key in metrics} == {"split", "val"}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_whose_package_is_missing_is_one_line(
    name: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted, *args: None if wanted == name else found(wanted, *args)
    )
    assert f"pip install 'refzoo[{name}]'" in one_line(capsys, [*SHORT, f"logger=[{name}]"])
    assert os.listdir() == []


def test_an_unknown_logger_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "logger must be" in one_line(capsys, [*SHORT, "logger=[abacus]"])


@pytest.mark.parametrize(("name", "kind"), [("wandb", WandbLogger), ("mlflow", MLFlowLogger)])
def test_a_logger_by_name_keeps_to_the_run_folder(
    name: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # as it is set for the process, and taken back after the test
    run = tmp_path / "mlp" / "iris" / "now"
    (logger,) = make_loggers([name], run)
    assert type(logger) is kind
    if name == "wandb":  # begins a process of its own where it is used
        assert logger._offline  # type: ignore[attr-defined]
        assert logger.save_dir == str(run)
    else:
        logger.log_metrics({"val/loss": 0.5}, step=3)
        (file,) = run.glob("mlruns/*/*/metrics/val/loss")
        assert file.read_text().split()[1:] == ["0.5", "3"]


OUT_OF_MEMORY = {
    "torch's, of the CPU": lambda: torch.empty(1 << 55),
    "NumPy's": lambda: np.empty(1 << 55),
    "torch's, of a GPU": lambda: raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
    "CUDA's": lambda: raises(RuntimeError("CUDA error: out of memory")),
    "cuBLAS's": lambda: raises(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")),
}


def raises(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("whose", OUT_OF_MEMORY)
def test_out_of_memory_is_one_line(
    whose: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MLP, "forward", lambda self, x: OUT_OF_MEMORY[whose]())
    line = one_line(capsys, [*SHORT, "run_dir=run"])
    assert line.startswith("out of memory: lower data.batch_size or the model's sizes")
    assert ("trainer.accelerator=cpu" in line) == (whose not in ("torch's, of the CPU", "NumPy's"))
    assert os.listdir() == []


PLUGIN = """
import torch
import zoo
from torch import nn
from zoo.models.base import GradientModel

@zoo.register_model("my_softmax", family="mine", accepts={"tabular": "class"}, source="me")
class MySoftmax(GradientModel):
    '''Softmax regression of one's own.'''

    def __init__(self, *, scale: float = 1.0):
        super().__init__()
        self.save_hyperparameters()
        self.scale = scale

    def initialize(self, spec):
        self.linear = nn.Linear(spec.num_features, self.objective.num_outputs)

    def forward(self, x):
        return self.scale * self.linear(x)
"""


def test_a_model_of_ones_own_is_trained_and_evaluated(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by a process that has not heard of it: one of its own, and this one."""
    (here / "my_models.py").write_text(textwrap.dedent(PLUGIN))
    command = ["model=my_softmax", "data=iris", "plugins=[my_models]", "model.scale=2", "trainer.max_epochs=1", CPU]
    printed = run_forked([*command, "run_dir=run"], here, path=str(here))
    assert any("my_softmax on iris" in line for line in printed)
    assert "my_softmax" not in zoo.list_models()
    monkeypatch.syspath_prepend(here)
    with mock.patch.dict(_REGISTRY):
        code = run_command(["run=run", "accelerator=cpu", "plugins=[my_models]"], "evaluate")
    del sys.modules["my_models"]
    assert code == 0
    assert 0 <= json.loads((here / "run" / "evaluation" / "metrics.json").read_text())["test/accuracy"] <= 1
