"""The package installs where there is a compiler, where there is none, and where the compiler fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
COMPILER = any(map(shutil.which, ("cc", "gcc", "clang")))
USE = """
import sys, torch, zoo, zoo.kernels, zoo.layers
assert zoo.__file__.startswith(sys.argv[1]), zoo.__file__
assert zoo.layers.LSTM(3, 4)(torch.zeros(2, 1, 3))[0].shape == (2, 1, 4)
print(zoo.kernels.status(), "|", zoo.kernels.runnable()[0])
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize(
        ("compiler", "built"),
        [
            pytest.param("as it is", True, marks=pytest.mark.skipif(not COMPILER, reason="no C compiler")),
            ("fails", False),
            ("absent", False),
        ],
    ),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what is installed, so that the checkout stays as it is."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")
    for folder in ("zoo", "configs", "hydra_plugins"):
        shutil.copytree(CHECKOUT / folder, tmp_path / "source" / folder, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / file, tmp_path / "source" / file)
    return tmp_path / "source"


def environment(compiler: str, tmp_path: Path) -> dict[str, str]:
    """Variables under which setuptools finds that compiler."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    if compiler == "fails":
        variables |= {"CC": "false"}
    if compiler == "absent":
        (tmp_path / "empty").mkdir()
        variables |= {"PATH": str(tmp_path / "empty")}
    return variables


def status(package: Path, variables: dict[str, str]) -> str:
    """What a process that has the package from there says of the kernels."""
    variables = {**variables, "PYTHONPATH": str(package)}
    command = [sys.executable, "-c", USE, str(package)]
    done = subprocess.run(command, cwd=package.parent, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def check(said: str, built: bool) -> None:
    if built:
        assert said.startswith(f"kernels: {said.partition(' | ')[2]};")
    else:
        assert said.startswith("kernels: none — not built: install the package where there is a C compiler")


def test_a_wheel(source: Path, tmp_path: Path, compiler: str, built: bool) -> None:
    pytest.importorskip("build")
    variables = environment(compiler, tmp_path)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(command, cwd=source, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "elsewhere")
    assert bool(list((tmp_path / "elsewhere").rglob("kernels/built/*.so"))) == built
    check(status(tmp_path / "elsewhere", variables), built)


def test_an_editable_installation(source: Path, tmp_path: Path, compiler: str, built: bool) -> None:
    variables = environment(compiler, tmp_path)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--prefix", str(tmp_path / "prefix"), "--ignore-installed", "--editable", str(source)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert bool(list(source.glob("zoo/kernels/built/*.so"))) == built
    check(status(source, variables), built)
