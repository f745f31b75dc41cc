"""The kernels compiled with the address and the undefined-behaviour sanitizer, and a script run with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support import CHECKOUT

__all__ = ["compile_sanitized", "run_sanitized"]

SETTING = """
import sys
from pathlib import Path
import zoo.kernels
zoo.kernels._FOLDER = Path(sys.argv[1])
assert zoo.kernels.status().variant == sys.argv[2], zoo.kernels.status()
"""


def _library(name: str) -> Path:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return Path(found.stdout.strip())


def compile_sanitized(variant: str, folder: Path) -> None:
    """Compile one variant of the kernels into a folder; skip where there is no gcc or it has no sanitizer."""
    if shutil.which("gcc") is None or not _library("libasan.so").is_absolute():
        pytest.skip("needs gcc and its address sanitizer")
    flags = {"avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma", "avx2": "-mavx2 -mfma"}.get(variant, "")
    openmp = [] if variant == "serial" else ["-fopenmp"]
    library = folder / f"{variant}{sysconfig.get_config_var('EXT_SUFFIX')}"
    objects = []
    for source in (CHECKOUT / "zoo" / "kernels").glob("*.c"):
        objects.append(folder / f"{source.stem}.o")
        command = ["gcc", "-O1", "-g", "-std=gnu11", "-fPIC", "-fsanitize=address,undefined", *openmp, *flags.split()]
        subprocess.run([*command, "-Wno-psabi", "-c", source, "-o", objects[-1]], check=True)
    subprocess.run(["gcc", "-shared", "-fsanitize=address,undefined", *objects, "-o", library], check=True)


def run_sanitized(variant: str, folder: Path, script: str) -> None:
    """Run a script with the variant that was compiled into a folder; fail with what a sanitizer found."""
    preload = [_library("libasan.so"), _library("libstdc++.so")]  # the second, so that the first finds what throws
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(str(path.resolve()) for path in preload if path.is_absolute()),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests"), str(CHECKOUT / "tests" / "kernels")]),
        "PYTHONMALLOC": "malloc",
        "ZOO_KERNELS": variant,
    }
    command = [sys.executable, "-c", SETTING + script, str(folder), variant]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
