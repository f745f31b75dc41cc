"""Drawn cases of the recurrent layers in float32 against torch.nn: strides, odd sizes, packed, empty, many threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from recurrent_cases import worst

import zoo.kernels

CHECKOUT = Path(__file__).resolve().parents[2]
BOUND = 2e-5


def test_drawn_cases_equal_torchs(kernels: str) -> None:
    for seed in range(150 if kernels != "0" else 50):
        assert worst(seed) <= BOUND, seed


@pytest.mark.slow
def test_many_drawn_cases_equal_torchs(kernels: str) -> None:
    for seed in range(1000, 3000):
        assert worst(seed) <= BOUND, seed


CHILD = """
import sys
from pathlib import Path
import zoo.kernels
zoo.kernels._FOLDER = Path(sys.argv[1])
assert zoo.kernels.status().variant == sys.argv[2], zoo.kernels.status()
from recurrent_cases import worst
for seed in range(5000, 5400):
    assert worst(seed) <= 2e-5, seed
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc and its address sanitizer")
@pytest.mark.parametrize("variant", zoo.kernels.runnable())
def test_no_finding_under_the_address_sanitizer(variant: str, tmp_path: Path) -> None:
    flags = {"avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma", "avx2": "-mavx2 -mfma"}.get(variant, "")
    openmp = [] if variant == "serial" else ["-fopenmp"]
    library = tmp_path / f"{variant}{sysconfig.get_config_var('EXT_SUFFIX')}"
    objects = []
    for source in (CHECKOUT / "zoo" / "kernels").glob("*.c"):
        objects.append(tmp_path / f"{source.stem}.o")
        command = ["gcc", "-O1", "-g", "-std=gnu11", "-fPIC", "-fsanitize=address,undefined", *openmp, *flags.split()]
        subprocess.run([*command, "-Wno-psabi", "-c", source, "-o", objects[-1]], check=True)
    subprocess.run(["gcc", "-shared", "-fsanitize=address,undefined", *objects, "-o", library], check=True)
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    preload = Path(found.stdout.strip())
    if not preload.is_absolute():
        pytest.skip("no libasan")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(preload.resolve()),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")]),
        "PYTHONMALLOC": "malloc",
        "ZOO_KERNELS": variant,
    }
    command = [sys.executable, "-c", CHILD, str(tmp_path), variant]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_seam_refuses_what_does_not_fit() -> None:
    """What a kernel would read beyond: sizes, types, and steps that do not add up."""
    operator = torch.ops.zoo.gru
    x, h0, w_ih, w_hh = torch.randn(4, 2, 3), torch.zeros(2, 5), torch.randn(15, 3), torch.randn(15, 5)
    good = (x, h0, None, w_ih, w_hh, None, None, None, None, False, False)
    assert operator(*good)[0].shape == (4, 2, 5)
    flat, sizes = x.view(8, 3), torch.tensor([2, 2, 2, 2])
    assert operator(flat, *good[1:8], sizes, False, False)[0].shape == (8, 5)
    wrong = [
        (x[..., :2], *good[1:]), (x.double(), *good[1:]), (x, h0[:1], *good[2:]), (x, h0[:, :4], *good[2:]),
        (x, h0, h0, *good[3:]), (*good[:3], w_ih[:14], *good[4:]), (*good[:4], w_hh[:, :4], *good[5:]),
        (*good[:5], torch.zeros(15), *good[6:]), (*good[:5], torch.zeros(9), torch.zeros(9), *good[7:]),
        (flat, *good[1:]), (flat, *good[1:8], torch.tensor([]).long(), False, False),
        *((flat, *good[1:8], torch.tensor(s), False, False) for s in ([2, 2, 2], [2, 2, 2, 3], [1, 7], [3, 3, 2])),
        (flat, *good[1:8], sizes.int(), False, False), (flat, *good[1:8], torch.tensor([5, 5, -2]), False, False),
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(RuntimeError, match="zoo::gru: inputs do not fit together"):
            operator(*arguments)
