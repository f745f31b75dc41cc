"""What code around torch's recurrent layers touches is there on ours too, and behaves alike."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import zoo.layers


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_lists_of_weights_are_torchs(kind: str) -> None:
    options = {"num_layers": 2, "bidirectional": True, **({"proj_size": 2} if kind == "LSTM" else {})}
    ours, theirs = (getattr(home, kind)(3, 4, **options) for home in (zoo.layers, nn))
    assert ours._flat_weights_names == theirs._flat_weights_names
    assert ours._all_weights == theirs._all_weights
    assert [w.shape for w in ours._flat_weights] == [w.shape for w in theirs._flat_weights]
    named = zip(ours._flat_weights_names, ours._flat_weights, strict=True)
    assert all(weight is getattr(ours, name) for name, weight in named)
    assert ours.mode == theirs.mode or kind == "RNN"


@pytest.mark.parametrize("options", [{}, {"proj_size": 2}], ids=str)
def test_types_of_the_state_under_autocast_are_torchs(options: dict) -> None:
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, expected = (home.LSTM(3, 4, **options)(x) for home in (zoo.layers, nn))
    assert [t.dtype for t in (found[0], *found[1])] == [t.dtype for t in (expected[0], *expected[1])]


def test_a_trace_says_that_it_holds_for_one_length() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.jit.trace(zoo.layers.GRU(3, 4), (torch.randn(5, 2, 3),), check_trace=False)
    assert len([w for w in caught if "unrolls GRU over the steps of its example" in str(w.message)]) == 1
