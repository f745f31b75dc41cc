"""The wheel carries all that is needed: unpacked elsewhere it trains, and gives its models to other projects."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from sklearn import datasets
from support import CHECKOUT

import zoo

# One after the other in one process: most of what each takes is to import torch and Lightning.
COMMANDS = """
import sys
from zoo.training.main import evaluate, train

unpacked, compiler = sys.argv[1:]
for command, *arguments in (
    (train, "model=kmeans", "data=iris", "model.num_clusters=3", "run_dir=run"), (evaluate, "run=run")
):
    sys.argv[1:] = arguments
    assert command() == 0, arguments
"""
OTHER_PROJECT = """
import torch, zoo, zoo.kernels
from zoo.layers import LSTM
from zoo.models.base import GradientModel

assert zoo.__file__.startswith(unpacked), zoo.__file__
x = torch.cat([torch.randn(30, 2) + 9 * i for i in range(3)])
model = zoo.create_model("kmeans", num_clusters=3)
zoo.fit(model, x)
labels = model.predict(x)
assert sorted(labels.bincount().tolist()) == [30, 30, 30], labels
assert zoo.load_model("run").predict(torch.zeros(5, 4)).shape == (5,)
assert LSTM(3, 4)(torch.zeros(2, 1, 3))[0].shape == (2, 1, 4)
assert zoo.kernels.status().variant is not None or not int(compiler), zoo.kernels.status()

@zoo.register_model("mine", family="mine", accepts={"tabular": "class"}, source="me")
class Mine(GradientModel):
    '''A model of one's own.'''
    def __init__(self, *, bias: bool = True):
        super().__init__()
        self.save_hyperparameters()
    def initialize(self, spec):
        self.linear = torch.nn.Linear(spec.num_features, self.objective.num_outputs, bias=self.hparams.bias)
    def forward(self, x):
        return self.linear(x)

assert "mine" in zoo.list_models(family="mine")
zoo.fit(zoo.create_model("mine"), x, labels, max_epochs=1, device="cpu")
"""


def build_wheel(source: Path, *, kernels: Path | None = None) -> Path:
    """Return the wheel, built in `source` from a copy so that the checkout stays clean.

    Compiling takes half a minute, so that `kernels`, compiled when the checkout was installed, may take their place.
    """
    pytest.importorskip("build")
    pytest.importorskip("setuptools")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")
    for folder in ("zoo", "configs", "hydra_plugins"):
        shutil.copytree(CHECKOUT / folder, source / folder, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / file, source / file)
    if kernels is not None:
        library = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        target = source / "build" / library / "zoo" / "kernels" / "built"
        target.mkdir(parents=True)
        for file in kernels.glob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"):
            shutil.copyfile(file, target / file.name)  # newer than its sources
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (found,) = (source / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel") / "source", kernels=CHECKOUT / "zoo" / "kernels" / "built")


@pytest.fixture(scope="module")
def unpacked(wheel: Path) -> Path:
    """The wheel's content in a folder of its own."""
    folder = wheel.parent.parent.parent / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(code: str, arguments: list[str], unpacked: Path, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def files(folder: Path, suffixes: set[str]) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in suffixes}


def test_the_wheel_holds_every_module_and_every_config(unpacked: Path) -> None:
    sources = {".py", ".c", ".h", ".typed"}
    assert files(CHECKOUT / "zoo", sources) <= files(unpacked / "zoo", sources)
    assert files(CHECKOUT / "configs", {".yaml"}) == files(unpacked / "zoo" / "configs", {".yaml"})
    assert (unpacked / "zoo" / "py.typed").is_file()
    assert {path.name for path in unpacked.iterdir() if path.suffix != ".dist-info"} == {"zoo", "hydra_plugins"}


def test_the_wheel_names_its_commands_and_its_licence(unpacked: Path) -> None:
    (info,) = unpacked.glob("*.dist-info")
    assert info.name == f"refzoo-{zoo.__version__}.dist-info"
    commands = (info / "entry_points.txt").read_text()
    assert "zoo-train = zoo.training.main:train" in commands
    assert "zoo = zoo.training.main:main" in commands
    assert "zoo-evaluate = zoo.training.main:evaluate" in commands
    assert "zoo-predict = zoo.training.main:predict" in commands
    assert "zoo-demo = zoo.training.main:demo" in commands
    metadata = (info / "METADATA").read_text()
    assert "License-Expression: Apache-2.0" in metadata
    assert (info / "licenses" / "LICENSE").is_file()


def test_the_unpacked_wheel_trains_evaluates_and_serves_another_project(unpacked: Path, tmp_path: Path) -> None:
    compiler = any(map(shutil.which, ("cc", "gcc", "clang")))  # where there is one, the wheel has the kernels
    out = run(COMMANDS + OTHER_PROJECT, [str(unpacked), str(int(compiler))], unpacked, tmp_path)
    assert "kmeans on iris" in out
    assert (tmp_path / "run" / "evaluation" / "metrics.json").is_file()


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path / "source")
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    subprocess.run([binaries / "pip", "install", "--quiet", str(wheel)], check=True, timeout=1800)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    arguments = ["model=mlp", "data=iris", "trainer.max_epochs=1", "run_dir=run"]
    listed, zoo = [binaries / "zoo", "list", "models"], [binaries / "zoo", "help", "model.widths"]
    for command in ([binaries / "zoo-train", *arguments], [binaries / "zoo-evaluate", "run=run"], listed, zoo):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "evaluation" / "predictions.parquet").is_file()
    iris = datasets.load_iris(as_frame=True).data
    iris.sample(frac=1, axis=1, random_state=0).to_csv(tmp_path / "new.csv", index=False)  # columns in another order
    arguments = ["run=run", "data.path=new.csv", "output=answers.csv"]
    done = subprocess.run(
        [binaries / "zoo-predict", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert "probability_setosa" in answers[0]
    assert len(answers) == 151
