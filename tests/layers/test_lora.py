"""Low-rank adapters beside the formula, in our layers and torch's: nothing else learns, and merging changes no bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from zoo import layers
from zoo.layers.lora import LowRank, add_lora, lora_parameters, merge_lora, plain_state


def encoder(ops: Any, dtype: torch.dtype = torch.float32) -> nn.Module:
    layer = ops.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, dtype=dtype)
    return ops.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def drawn(module: nn.Module) -> nn.Module:
    for parameter in lora_parameters(module):
        nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_the_formula_and_its_gradients(alpha: float | None) -> None:
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    low = LowRank(weight, rank=2, alpha=alpha)
    nn.init.normal_(low.b)
    scale = (2.0 if alpha is None else alpha) / 2
    expected = weight + scale * low.b @ low.a
    torch.testing.assert_close(low(weight), expected, rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(lambda w, a, b: torch.addmm(w, b, a, alpha=scale), (weight, low.a, low.b))


@pytest.mark.parametrize("ops", [layers, nn], ids=["zoo", "torch"])
def test_adapters_alone_learn_from_where_the_layers_were(ops: Any) -> None:
    module, x = encoder(ops, torch.float64), torch.randn(3, 5, 8, dtype=torch.float64)
    before = module(x)
    add_lora(module, rank=2)
    assert torch.equal(module(x), before)
    drawn(module)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.1)
    module(x).square().sum().backward()
    optimizer.step()
    learnt = {name for name, value in module.state_dict().items() if not torch.equal(value, state[name])}
    assert learnt == {name for name in state if name.endswith((".a", ".b"))}
    assert len(learnt) == 2 * 2 * 4  # of two layers, four matrices each


@pytest.mark.parametrize("ops", [layers, nn], ids=["zoo", "torch"])
@pytest.mark.parametrize("training", [True, False])
def test_merging_changes_no_bit(ops: Any, training: bool) -> None:
    module, plain, x = encoder(ops), encoder(ops), torch.randn(3, 5, 8)
    add_lora(module, rank=3, alpha=6)
    answer = drawn(module).train(training)(x)
    other = copy.deepcopy(module)
    plain.train(training).load_state_dict(plain_state(module))
    assert torch.equal(plain(x), answer)
    merge_lora(module)
    assert torch.equal(module(x), answer)
    assert torch.equal(other(x), answer)  # as it was, though torch gives copies one class
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert module.state_dict().keys() == plain.state_dict().keys()


def test_what_cannot_be_adapted() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LowRank(torch.ones(2, 2), 0)
    with pytest.raises(ValueError, match="needs a matrix"):
        LowRank(torch.ones(2), 1)
    layer = nn.Linear(2, 2)
    add_lora(layer, 1)
    with pytest.raises(ValueError, match="adapters already"):
        add_lora(layer, 1)
