"""The compiled passes of the recurrent layers against torch.nn, in their own dtype."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import zoo.layers

KINDS = ("RNN", "LSTM", "GRU")


SIZES = [(6, 3, 5, 7), (5, 17, 3, 70), (1, 1, 1, 1), (4, 8, 6, 64), (3, 13, 6, 65), (130, 2, 4, 16), (2, 150, 3, 16)]
SIZES += [(3, 1, 5, 261), (4, 20, 6, 256)]  # threads share out units


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, {}) for kind in KINDS), *((kind, {"bias": False}) for kind in KINDS), ("RNN", {"nonlinearity": "relu"})],
)
def test_equal_torchs(kernels: str, kind: str, options: dict, sizes: tuple, threads: int) -> None:
    """Results and gradients, dense and packed, both directions, to the rounding of float32."""
    torch.set_num_threads(threads)
    steps, rows, inputs, hidden = sizes
    ours = getattr(zoo.layers, kind)(inputs, hidden, bidirectional=True, **options)
    theirs = getattr(nn, kind)(inputs, hidden, bidirectional=True, **options).double()
    theirs.load_state_dict(ours.state_dict())
    lengths = torch.randint(1, steps + 1, (rows,))
    x = torch.randn(steps, rows, inputs, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    for pack in (False, True):
        results = []
        for module, value in ((ours, x), (theirs, wide)):
            fed = pack_padded_sequence(value, lengths, enforce_sorted=False) if pack else value
            output, state = module(fed)
            output = output.data if pack else output
            states = state if isinstance(state, tuple) else (state,)
            loss = output.square().sum() + sum(s.sin().sum() for s in states)
            results.append([output, *states, *torch.autograd.grad(loss, [value, *module.parameters()])])
            with torch.no_grad():
                silent = module(fed)[0]
                results[-1].append(silent.data if pack else silent)
        for a, b in zip(*results, strict=True):
            assert (a - b).norm() <= 1e-5 * b.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_change_a_bit(compiled: str, kind: str) -> None:
    for rows, hidden in ((1, 300), (2, 256), (9, 270), (40, 256)):
        layer = getattr(zoo.layers, kind)(5, hidden, bidirectional=True)
        fed = pack_padded_sequence(torch.randn(6, rows, 5), torch.arange(rows) % 6 + 1, enforce_sorted=False)
        x = fed.data.requires_grad_()
        found = []
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            output, state = layer(fed._replace(data=x))
            output = output.data
            states = state if isinstance(state, tuple) else (state,)
            loss = output.square().sum() + sum(s.sin().sum() for s in states)
            with torch.no_grad():
                silent = layer(fed)[0].data
            found.append([output, *states, silent, *torch.autograd.grad(loss, x)])
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0][:-1], other[:-1], strict=True)), (rows, hidden)
            torch.testing.assert_close(found[0][-1], other[-1])  # by torch's product


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_stays_in_its_row(kernels: str, kind: str) -> None:
    module = getattr(zoo.layers, kind)(3, 20)
    x = torch.randn(4, 5, 3)
    x[1, 2, 0] = float("nan")
    output, _ = module(x)
    assert output[1:, 2].isnan().all()
    assert output[0].isfinite().all()
    assert output[:, [0, 1, 3, 4]].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 50.0, 1e4, 1e30])
def test_small_and_huge_values(kernels: str, kind: str, scale: float) -> None:
    """Saturated gates are 0 and 1, and small values keep their relative accuracy."""
    module = getattr(zoo.layers, kind)(3, 20, bias=False)
    oracle = getattr(nn, kind)(3, 20, bias=False).double()
    oracle.load_state_dict(module.state_dict())
    x = scale * torch.randn(4, 5, 3)
    with torch.no_grad():
        ours, expected = module(x)[0].double(), oracle(x.double())[0]
    assert (ours - expected).norm() <= 2e-4 * expected.norm()  # at 1e4 rounding of the sums decides which gates open


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), 1e30, -3e38, 90.0, -100.0])
def test_gradients_of_extreme_values_are_torchs(kernels: str, kind: str, value: float) -> None:
    """Closed gates are 0, so that what they multiply may be infinite: the same numbers, infinities and NaN."""
    for options in [{"nonlinearity": phi} for phi in ("tanh", "relu")] if kind == "RNN" else [{}]:
        ours = getattr(zoo.layers, kind)(4, 20, **options)
        theirs = getattr(nn, kind)(4, 20, **options)
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(5, 3, 4)
        x[2, 1, 0] = value
        found = []
        for module in (ours, theirs.double()):
            fed = x.to(module.weight_hh_l0.dtype).requires_grad_()
            output = module(fed)[0]
            found.append([output, *torch.autograd.grad(output.sum(), [fed, *module.parameters()])])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b.float(), rtol=1e-4, atol=1e-5, equal_nan=True)
