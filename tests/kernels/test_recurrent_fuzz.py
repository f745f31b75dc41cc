"""Drawn cases of the recurrent layers in float32 against torch.nn: strides, odd sizes, packed, empty, many threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from recurrent_cases import worst

BOUND = 2e-5


def test_drawn_cases_equal_torchs(kernels: str) -> None:
    for seed in range(150 if kernels != "0" else 50):
        assert worst(seed) <= BOUND, seed


@pytest.mark.slow
def test_many_drawn_cases_equal_torchs(kernels: str) -> None:
    for seed in range(1000, 3000):
        assert worst(seed) <= BOUND, seed


def test_no_finding_under_the_address_sanitizer(sanitized: Callable[[str], None]) -> None:
    script = f"""
from recurrent_cases import worst
for seed in range(5000, 5400):
    assert worst(seed) <= {BOUND}, seed
import torch
import zoo.layers
torch.set_num_threads(3)
for kind in ("RNN", "LSTM", "GRU"):
    for rows, hidden in ((1, 300), (2, 256), (20, 261)):  # threads share out units
        layer = getattr(zoo.layers, kind)(5, hidden, bidirectional=True)
        layer(torch.randn(3, rows, 5))[0].sum().backward()
        with torch.no_grad():
            layer(torch.randn(3, rows, 5))
"""
    sanitized(script)


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
