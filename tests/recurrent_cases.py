"""Drawn cases of a recurrent layer in float32: what lies oddly in memory, of odd sizes, against torch.nn in float64."""

from __future__ import annotations

import random
import sys
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import zoo.layers

LAYOUTS = ("plain", "columns", "rows", "steps", "transposed", "strided", "expanded", "shifted", "negated")


def laid_out(shape: tuple[int, ...], layout: str) -> Tensor:
    """Random numbers of a shape, as a view of something else."""
    if layout == "columns":
        return torch.randn(*shape[:-1], shape[-1] + 5)[..., 2 : shape[-1] + 2]
    if layout == "rows" and len(shape) == 3:
        return torch.randn(shape[0], shape[1] + 3, shape[2])[:, 1 : shape[1] + 1]
    if layout == "steps":
        return torch.randn(2 * shape[0], *shape[1:])[::2]
    if layout == "transposed":
        return torch.randn(*shape[:-2], shape[-1], shape[-2]).transpose(-1, -2)  # features.T, the output of a Conv1d
    if layout == "strided":
        return torch.randn(*shape[:-1], 3 * shape[-1])[..., ::3]
    if layout == "expanded":
        return torch.randn(*shape[:-2], 1, shape[-1]).expand(shape)
    if layout == "shifted":  # no multiple of a vector from the start of the memory
        return torch.randn(torch.Size(shape).numel() + 3)[3:].view(shape)
    if layout == "negated":  # a lazy minus sign
        return torch.randn(*shape, dtype=torch.complex64).conj().imag
    return torch.randn(shape)


def draw(seed: int) -> dict[str, Any]:
    """One case."""
    rng = random.Random(seed)
    kind = rng.choice(["RNN", "LSTM", "LSTM", "GRU"])
    hidden = rng.choice([1, 2, 7, 15, 16, 17, 31, 33, 64, 65, 70])
    options: dict[str, Any] = {
        "num_layers": rng.choice([1, 1, 2]), "bias": rng.random() < 0.8, "batch_first": rng.random() < 0.5,
        "bidirectional": rng.random() < 0.4,
    }  # fmt: skip
    if kind == "RNN":
        options["nonlinearity"] = rng.choice(["tanh", "relu"])
    if kind == "LSTM" and hidden > 1 and rng.random() < 0.15:
        options["proj_size"] = rng.randrange(1, hidden)
    return {
        "seed": seed, "kind": kind, "options": options, "inputs": rng.choice([1, 3, 5, 16, 29, 40]), "hidden": hidden,
        "steps": rng.choice([1, 2, 5, 9, 20]), "rows": rng.choice([0, 1, 1, 2, 5, 6, 7, 13, 25]),
        "form": rng.choice(["dense", "dense", "unbatched", "packed", "packed sorted"]), "layout": rng.choice(LAYOUTS),
        "state": rng.choice([None, *LAYOUTS]), "weights": rng.choice(["plain", "plain", "transposed"]),
        "frozen": rng.random() < 0.1, "summed": rng.random() < 0.3, "threads": rng.choice([1, 1, 1, 1, 3]),
    }  # fmt: skip


def tensors(case: dict[str, Any]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The input, and the initial states if there are any."""
    torch.manual_seed(case["seed"])
    options, rows = case["options"], case["rows"]
    batched = case["form"] != "unbatched"
    shape = (rows, case["steps"]) if options["batch_first"] else (case["steps"], rows)
    x = laid_out((*(shape if batched else (case["steps"],)), case["inputs"]), case["layout"])
    if case["state"] is None:
        return x, ()
    layers = options["num_layers"] * (2 if options["bidirectional"] else 1)
    head = (layers, rows) if batched else (layers,)
    sizes = (options.get("proj_size") or case["hidden"], case["hidden"])
    return x, tuple(laid_out((*head, n), case["state"]) for n in sizes[: 2 if case["kind"] == "LSTM" else 1])


def results(module: nn.Module, case: dict[str, Any], x: Tensor, states: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs, final states, and the gradients of everything."""
    leaves = [t.requires_grad_() for t in (x, *states)]
    fed: Tensor | PackedSequence = x
    if case["form"].startswith("packed"):
        lengths = torch.randint(1, case["steps"] + 1, (case["rows"],), generator=torch.Generator().manual_seed(1))
        lengths[:1] = case["steps"]
        lengths = lengths.sort(descending=True)[0] if "sorted" in case["form"] else lengths
        fed = pack_padded_sequence(x, lengths, case["options"]["batch_first"], "sorted" in case["form"])
    module.weight_hh_l0.requires_grad_(not case["frozen"])
    output, final = module(fed, (states if len(states) > 1 else states[0]) if states else None)
    output = output.data if isinstance(output, PackedSequence) else output
    values = [output, *(final if isinstance(final, tuple) else (final,))]
    generator = torch.Generator().manual_seed(2)
    ones = case["summed"]
    weights = [torch.ones(()) if ones else torch.randn(v.shape, generator=generator) for v in values]
    loss = sum((v * w.to(v.dtype)).sum() for v, w in zip(values, weights, strict=True))
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [*leaves, *parameters])
    with torch.no_grad():
        silent = module(fed, (states if len(states) > 1 else states[0]) if states else None)[0]
    return [*values, *gradients, silent.data if isinstance(silent, PackedSequence) else silent]


def worst(seed: int) -> float:
    """The largest relative error of a case, over outputs, states and gradients, beside torch.nn in float64."""
    case = draw(seed)
    if case["form"].startswith("packed"):
        case["rows"] = max(1, case["rows"])
    torch.set_num_threads(case["threads"])
    x, states = tensors(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = getattr(zoo.layers, case["kind"])(case["inputs"], case["hidden"], **case["options"])
        theirs = getattr(nn, case["kind"])(case["inputs"], case["hidden"], **case["options"]).double()
    theirs.load_state_dict(ours.state_dict())
    if case["weights"] == "transposed":
        for parameter in ours.parameters():
            if parameter.dim() == 2:
                parameter.data = parameter.data.t().contiguous().t()
    oracle = results(theirs, case, x.detach().double(), tuple(s.detach().double() for s in states))
    found = results(ours, case, x.detach(), tuple(s.detach() for s in states))
    errors = []
    for a, b in zip(found, oracle, strict=True):
        assert a.shape == b.shape, (case, a.shape, b.shape)
        assert a.isfinite().all(), case
        # Gradients below 0.01 come through saturated units, whose 1 - h² loses digits in torch too.
        errors.append(((a - b).norm() / b.norm().clamp_min(0.01)).item())
    return max(errors)


if __name__ == "__main__":  # first seed, number of cases
    first, count = map(int, sys.argv[1:])
    print(max((worst(seed), seed) for seed in range(first, first + count)))
