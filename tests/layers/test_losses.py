"""Losses against torch's: values and gradients, every option, classes of several axes, extreme scores, no row."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers import losses

REDUCTIONS = ("none", "mean", "sum")
TOLERANCE = {torch.float64: (1e-10, 1e-10), torch.float32: (2e-5, 2e-5)}


def check(
    ours: Callable, theirs: Callable, x: Tensor, *rest: Any, dtypes: Any = tuple(TOLERANCE), **options: Any
) -> None:
    """Hold value and gradient together, in float64 and float32."""
    for dtype, (rtol, atol) in TOLERANCE.items():
        if dtype not in dtypes:
            continue
        found = []
        for loss in (ours, theirs):
            leaf = x.detach().to(dtype).requires_grad_()
            cast = [r.to(dtype) if isinstance(r, Tensor) and r.is_floating_point() else r for r in rest]
            named = {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in options.items()}
            value = loss(leaf, *cast, **named)
            gradient = torch.autograd.grad(value.sum(), leaf)[0] if value.isfinite().all() else leaf
            found.append((value.detach(), gradient))
        for mine, peer in zip(*found, strict=True):
            torch.testing.assert_close(mine, peer, rtol=rtol, atol=atol, equal_nan=True)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("scale", [1.0, 1e-8, 300.0])
def test_cross_entropy(reduction: str, scale: float, rng: torch.Generator) -> None:
    weight = torch.rand(5, generator=rng).double() + 0.1
    for shape, smoothing, w in itertools.product([(7, 5), (5,), (2, 5, 3, 4), (0, 5)], (0.0, 0.3), (None, weight)):
        x = scale * torch.randn(shape, generator=rng).double()
        places = [size for axis, size in enumerate(shape) if axis != (1 if len(shape) > 1 else 0)]
        y = torch.randint(5, places, generator=rng)
        if len(shape) > 1 and y.numel() > 3:
            y.view(-1)[::3] = 4  # the class that is ignored
        options = {"weight": w, "reduction": reduction, "label_smoothing": smoothing}
        check(losses.cross_entropy, F.cross_entropy, x, y, ignore_index=4 if len(shape) > 1 else -100, **options)
        soft = torch.softmax(torch.randn(shape, generator=rng).double(), 1 if len(shape) > 1 else 0)
        check(losses.cross_entropy, F.cross_entropy, x, soft, **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_of_classes(reduction: str, rng: torch.Generator) -> None:
    x, y = torch.randn(7, 5, generator=rng).double(), torch.randint(5, (7,), generator=rng)
    weight = torch.rand(5, generator=rng).double()
    for w in (None, weight):
        check(losses.nll_loss, F.nll_loss, x, y, weight=w, ignore_index=int(y[0]), reduction=reduction)
        for p, margin in ((1, 1.0), (2, 0.3)):
            check(losses.multi_margin_loss, F.multi_margin_loss, x, y, weight=w, p=p, margin=margin,
                  reduction=reduction)  # fmt: skip
    check(losses.multi_margin_loss, F.multi_margin_loss, x[0], y[0], reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
def test_losses_of_values(reduction: str, scale: float, rng: torch.Generator) -> None:
    x, y = (scale * torch.randn(6, 8, generator=rng).double()[:, ::2] for _ in range(2))
    weight = torch.rand(6, 4, generator=rng).double()
    for ours, theirs in ((losses.mse_loss, F.mse_loss), (losses.l1_loss, F.l1_loss)):
        for w in (None, weight):
            check(ours, theirs, x, y, reduction=reduction, weight=w)
        check(ours, theirs, x[:, :1].expand(6, 4), y, reduction=reduction)
    for width in (0.5, 2.0):
        check(losses.huber_loss, F.huber_loss, x, y, reduction=reduction, delta=width)
        check(losses.smooth_l1_loss, F.smooth_l1_loss, x, y, reduction=reduction, beta=width)
    check(losses.smooth_l1_loss, F.smooth_l1_loss, x, y, reduction=reduction, beta=0.0)
    targets = torch.rand(6, 4, generator=rng).double().round(decimals=1)
    for w, pos in itertools.product((None, weight), (None, weight[0])):
        check(losses.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, x, targets, weight=w,
              pos_weight=pos, reduction=reduction)  # fmt: skip
    logs = torch.log_softmax(x / scale, 1)
    for how in (reduction, "batchmean"):
        check(losses.kl_div, F.kl_div, logs, torch.softmax(y / scale, 1), reduction=how)
        check(losses.kl_div, F.kl_div, logs, (targets > 0.5).double(), reduction=how)
        check(losses.kl_div, F.kl_div, logs, torch.log_softmax(y / scale, 1), reduction=how, log_target=True)


def test_the_hinge_loss_is_that_of_scikit_learn(rng: torch.Generator) -> None:
    f, y = torch.randn(30, generator=rng).double(), torch.randint(2, (30,), generator=rng) * 2 - 1
    expected = sklearn.metrics.hinge_loss(y.numpy(), f.numpy())
    assert np.isclose(float(losses.hinge_loss(f, y)), expected, rtol=1e-12)


CTC = {
    "padded": ([[1, 2, 2, 3], [3, 1, 0, 0], [2, 0, 0, 0]], [9, 7, 4], [4, 2, 1]),
    "joined": ([1, 2, 2, 3, 3, 1], [9, 5, 3], [4, 2, 0]),
    "repeats that just fit": ([[1, 1, 1], [2, 3, 2], [1, 2, 3]], [5, 3, 9], [3, 3, 3]),
    "no way": ([[1, 1, 1], [2, 3, 2], [1, 2, 3]], [4, 2, 9], [3, 3, 3]),
}


@pytest.mark.parametrize("case", CTC)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ctc(case: str, reduction: str, rng: torch.Generator) -> None:
    targets, steps, lengths = CTC[case]
    x, labels = torch.randn(9, 3, 4, generator=rng).double(), torch.tensor(targets)

    def through(loss: Callable) -> Callable:  # torch's gradient is one of the scores
        return lambda x, **options: loss(
            x.log_softmax(-1), labels, torch.tensor(steps), torch.tensor(lengths), **options
        )

    for zero in (False, True):
        check(through(losses.ctc_loss), through(F.ctc_loss), x, reduction=reduction, zero_infinity=zero)
    # Certain and impossible steps, and another blank.
    check(through(losses.ctc_loss), through(F.ctc_loss), 200 * x, reduction=reduction, zero_infinity=True,
          dtypes=(torch.float64,))  # fmt: skip
    if case != "joined":
        swapped = torch.tensor([3, 0, 1, 2])[labels]
        ours = losses.ctc_loss(x.log_softmax(-1), swapped, steps, lengths, blank=3, reduction="sum", zero_infinity=True)
        moved = x[..., [3, 0, 1, 2]].log_softmax(-1)
        theirs = F.ctc_loss(moved, labels, tuple(steps), tuple(lengths), reduction="sum", zero_infinity=True)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_ctc_is_the_sum_over_all_alignments() -> None:
    """Every way of saying a label or a blank in each of four steps, counted out."""
    y = torch.softmax(torch.randn(4, 3, generator=torch.Generator().manual_seed(3)).double(), 1)
    total = 0.0
    for way in itertools.product(range(3), repeat=4):
        said = [label for label, _ in itertools.groupby(way) if label]
        if said == [1, 1]:
            total += float(torch.stack([y[t, k] for t, k in enumerate(way)]).prod())
    ours = losses.ctc_loss(y.log(), torch.tensor([1, 1]), [4], [2], reduction="sum")
    assert float(ours) == pytest.approx(-np.log(total), rel=1e-12)


def test_targets_without_weight_and_bytes_as_targets(rng: torch.Generator) -> None:
    x, y, weight = torch.randn(4, 3, generator=rng).double(), torch.tensor([0, 1, 0, 1]), torch.tensor([0.0, 0.0, 1.0])
    for smoothing, reduction in itertools.product((0.0, 0.1), REDUCTIONS):
        options = {"reduction": reduction, "label_smoothing": smoothing}
        check(losses.cross_entropy, F.cross_entropy, x, y, weight=weight, **options)
        check(losses.cross_entropy, F.cross_entropy, x, torch.full((4,), -100), **options)  # nobody counts
        check(losses.cross_entropy, F.cross_entropy, x, y.byte(), **options)


@pytest.mark.parametrize(
    ("name", "rest", "options"),
    [
        ("cross_entropy", [torch.tensor([0, 1])], {}),  # fewer targets than examples
        ("cross_entropy", [torch.tensor([0, 1, 2], dtype=torch.int32)], {}),
        ("cross_entropy", [torch.tensor([0, 1, 2])], {"label_smoothing": 1.5}),
        ("cross_entropy", [torch.tensor([0, 1, 2])], {"weight": torch.ones(3)}),
        ("nll_loss", [torch.tensor([[0, 1, 2]])], {}),
        ("nll_loss", [torch.tensor([0.0, 1.0, 2.0])], {}),
        ("multi_margin_loss", [torch.tensor([0, 1])], {}),
        ("huber_loss", [torch.zeros(3, 4)], {"delta": 0.0}),
        ("smooth_l1_loss", [torch.zeros(3, 4)], {"beta": -1.0}),
    ],
)
def test_what_torch_refuses_of_targets_and_options_is_refused(name: str, rest: Any, options: dict[str, Any]) -> None:
    for module in (F, losses):
        with pytest.raises((ValueError, RuntimeError)):
            getattr(module, name)(torch.zeros(3, 4), *rest, **options)


def test_what_torch_refuses_is_refused() -> None:
    for call in (
        lambda: losses.mse_loss(torch.zeros(2), torch.zeros(2), "median"),
        lambda: losses.binary_cross_entropy_with_logits(torch.zeros(2), torch.zeros(3)),
        lambda: losses.multi_margin_loss(torch.zeros(2, 3), torch.zeros(2).long(), p=3),
    ):
        with pytest.raises(ValueError, match=r"reduction|Target size|supported"):
            call()
