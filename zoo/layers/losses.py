r"""Losses from raw tensors: drop-ins for those of `torch.nn.functional`, each from its formula.

Arguments have torch's names. Legend: N examples, C classes, ℓ the loss of one; `reduction` returns all of them
(`none`), their `sum`, or their `mean`.

Sources: Szegedy et al. 2016 (label smoothing); Crammer & Singer 2001 (hinge of classes); Huber 1964; Girshick 2015
(smooth L1); Kullback & Leibler 1951; Graves, Fernández, Gomez & Schmidhuber 2006 (CTC).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from zoo.layers.activations import log_softmax

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "ctc_loss",
    "hinge_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "multi_margin_loss",
    "nll_loss",
    "smooth_l1_loss",
]

Reduction = Literal["none", "mean", "sum"]


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return losses.mean() if reduction == "mean" else losses.sum()


def _differences(input: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor | float]:
    if input.shape != target.shape:
        input, target = torch.broadcast_tensors(input, target)
    return input - target, 1.0 if weight is None else weight


def mse_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean", weight: Tensor | None = None) -> Tensor:
    """Return (x − y)²; the mean of weighted ones is that of the weights, too.

    >>> mse_loss(torch.tensor([1.0, 3.0]), torch.zeros(2))
    tensor(5.)
    """
    difference, scale = _differences(input, target, weight)
    return _weighed(difference.square(), scale, reduction)


def l1_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean", weight: Tensor | None = None) -> Tensor:
    """Return |x − y|.

    >>> l1_loss(torch.tensor([1.0, -3.0]), torch.zeros(2))
    tensor(2.)
    """
    difference, scale = _differences(input, target, weight)
    return _weighed(difference.abs(), scale, reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: Reduction = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Return ½ d² where d = |x − y| is at most δ, and δ (d − ½ δ) beyond.

    >>> huber_loss(torch.tensor([0.5, 3.0]), torch.zeros(2), "none")
    tensor([0.1250, 2.5000])
    """
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    difference, scale = _differences(input, target, weight)
    size = difference.abs()
    losses = torch.where(size <= delta, 0.5 * difference.square(), delta * (size - 0.5 * delta))
    return _weighed(losses, scale, reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean", beta: float = 1.0) -> Tensor:
    """Return ½ d² / β where d = |x − y| is below β, and d − ½ β beyond: the Huber loss divided by β.

    >>> smooth_l1_loss(torch.tensor([0.5, 3.0]), torch.zeros(2), "none", beta=2.0)
    tensor([0.0625, 2.0000])
    """
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    if not beta:
        return l1_loss(input, target, reduction)
    difference, _ = _differences(input, target)
    size = difference.abs()
    return _reduced(torch.where(size < beta, 0.5 * difference.square() / beta, size - 0.5 * beta), reduction)


def _weighed(losses: Tensor, scale: Tensor | float, reduction: str) -> Tensor:
    if isinstance(scale, float):
        return _reduced(losses, reduction)
    losses = losses * scale
    return losses.sum() / scale.expand_as(losses).sum() if reduction == "mean" else _reduced(losses, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    r"""Return −p y log σ(z) − (1 − y) log(1 − σ(z)), as $(1-y) z + (1 + (p-1) y) \log(1 + e^{-z})$.

    Args:
        input: logits z, of any shape.
        target: y in [0, 1], of the same shape.
        weight: of each loss.
        reduction: `none`, `mean` or `sum`.
        pos_weight: p, what a positive counts.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> binary_cross_entropy_with_logits(torch.tensor([0.0, 1000.0]), torch.tensor([1.0, 1.0]), reduction="none")
        tensor([0.6931, 0.0000])
    """
    if input.shape != target.shape:
        raise ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")
    falls = torch.logaddexp(torch.zeros_like(input), -input)  # log(1 + e^{−z})
    if pos_weight is not None:
        falls = (1 + (pos_weight - 1) * target) * falls
    losses = (1 - target) * input + falls
    return _reduced(losses if weight is None else losses * weight, reduction)


def kl_div(input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Return y (log y − x), x being logarithms of probabilities; 0 log 0 is 0.

    Args:
        input: x, of any shape.
        target: y, or log y with `log_target`.
        reduction: `none`, `mean` (over all entries), `sum`, or `batchmean`: the divergence, its mean over examples.
        log_target: whether the target is a logarithm.

    Example:
        >>> half = torch.tensor([[0.5, 0.5]])
        >>> kl_div(half.log(), torch.tensor([[1.0, 0.0]]), "batchmean")
        tensor(0.6931)
    """
    losses = target.exp() * (target - input) if log_target else torch.xlogy(target, target) - target * input
    if reduction == "batchmean":
        return losses.sum() / input.shape[0] if input.ndim else losses.sum()
    return _reduced(losses, reduction)


def hinge_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return max(0, 1 − y f), of decisions f and classes y = −1 or 1.

    >>> hinge_loss(torch.tensor([0.5, 2.0]), torch.tensor([-1, 1]), "none")
    tensor([1.5000, 0.0000])
    """
    return _reduced((1 - target * input).clamp(min=0), reduction)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return $\frac1C \sum_{k \ne y} w_y \max(0, m - f_y + f_k)^p$, the hinge loss of C classes.

    Args:
        input: scores f (N, C) or (C,).
        target: classes y (N,) or ().
        p: 1 or 2.
        margin: m.
        weight: w of each class (C,).
        reduction: `none`, `mean` or `sum`.

    Raises:
        ValueError: for another p.

    Example:
        >>> multi_margin_loss(torch.tensor([[1.0, 0.5]]), torch.tensor([0]))
        tensor(0.2500)
    """
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    if target.shape != input.shape[:-1]:
        raise RuntimeError(f"expected a target for each example of {list(input.shape)}, got {list(target.shape)}")
    single = input.ndim == 1
    scores, classes = (input[None], target.view(1)) if single else (input, target)
    losses = (margin - scores.gather(1, classes[:, None]) + scores).clamp(min=0)  # (N, C)
    losses = losses if p == 1 else losses.square()
    if weight is not None:
        losses = losses * weight[classes][:, None]
    others = torch.ones_like(losses).scatter(1, classes[:, None], 0.0)
    losses = (losses * others).sum(1) / scores.shape[1]
    return _reduced(losses[0] if single and reduction == "none" else losses, reduction)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return −w_y x_y of logarithms of probabilities x; the mean is Σ ℓ / Σ w_y over what is not ignored.

    Args:
        input: x (N, C), (C,) or (N, C, …).
        target: classes y (N,), () or (N, …).
        weight: w of each class (C,).
        ignore_index: the target that does not count.
        reduction: `none`, `mean` or `sum`.

    Example:
        >>> nll_loss(torch.tensor([[-0.5, -2.0], [-1.0, -3.0]]), torch.tensor([1, -100]))
        tensor(2.)
    """
    losses, counts = _picked(input, target, weight, ignore_index)
    return losses.sum() / counts.sum() if reduction == "mean" else _reduced(losses, reduction)


def _picked(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The loss of each target and what each counts, of the targets' shape."""
    axis = 1 if input.ndim > 1 else 0
    if target.shape != input.shape[:axis] + input.shape[axis + 1 :]:  # gather would take fewer without a word
        raise ValueError(f"Expected a target for each example of {list(input.shape)}, got {list(target.shape)}")
    if target.dtype not in (torch.int64, torch.uint8):
        raise RuntimeError(f"expected target dtype to be Long or Byte, but got {target.dtype}")
    if weight is not None and weight.shape != (input.shape[axis],):
        raise RuntimeError(f"weight should be of {input.shape[axis]} classes, got {list(weight.shape)}")
    there = target != ignore_index
    classes = torch.where(there, target, torch.zeros_like(target)).long()
    picked = input.gather(axis, classes.unsqueeze(axis)).squeeze(axis)
    counts = torch.ones_like(picked) if weight is None else weight[classes]
    counts = torch.where(there, counts, torch.zeros_like(counts))
    return torch.where(there, -counts * picked, torch.zeros_like(picked)), counts


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Return $-\sum_k w_k q_k \log \mathrm{softmax}(x)_k$, with $q_k = (1-ε) [k = y] + ε / C$.

    Args:
        input: scores x (N, C), (C,) or (N, C, …).
        target: classes y (N,), () or (N, …), or probabilities of the shape of the scores, in the place of [k = y].
        weight: w of each class (C,).
        ignore_index: the class that does not count.
        reduction: `none`, `sum` or `mean`: of classes Σ ℓ / Σ w_y, of probabilities the mean over examples.
        label_smoothing: ε.

    Raises:
        ValueError: the shapes do not fit.
        RuntimeError: ε is not in [0, 1], `weight` is not of C classes, or classes are no whole numbers.

    Example:
        >>> cross_entropy(torch.tensor([[0.0, 0.0], [0.0, 1000.0]]), torch.tensor([0, 0]), reduction="none")
        tensor([6.9315e-01, 1.0000e+03])
    """
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    axis = 1 if input.ndim > 1 else 0
    x, classes = log_softmax(input, axis), input.shape[axis]
    by_class = None if weight is None else weight.view(-1, *[1] * (x.ndim - axis - 1))  # along the classes' axis
    if target.shape == input.shape and target.is_floating_point():
        aims = target * (1 - label_smoothing) + label_smoothing / classes
        losses = -(aims * x if by_class is None else aims * x * by_class).sum(axis)
        return _reduced(losses, reduction)
    losses, counts = _picked(x, target, weight, ignore_index)
    if label_smoothing:
        spread = -(x if by_class is None else x * by_class).sum(axis)
        spread = torch.where(target != ignore_index, spread, torch.zeros_like(spread)) * (label_smoothing / classes)
        losses = (1 - label_smoothing) * losses
        if reduction == "mean":  # apart, so that 0 / 0 is NaN where no target has a weight
            return losses.sum() / counts.sum() + spread.sum() / counts.sum()
        losses = losses + spread
    return losses.sum() / counts.sum() if reduction == "mean" else _reduced(losses, reduction)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    r"""Return −log of the probability of all alignments of steps to labels (connectionist temporal classification).

    With l′ the labels with a blank before, between and behind them, and α_t(s) the probability of all ways to have come
    to l′_s after step t,

    ```math
    α_t(s) = y_t(l'_s)\, \bigl(α_{t-1}(s) + α_{t-1}(s-1)
    + [l'_s \ne \text{blank},\, l'_s \ne l'_{s-2}]\, α_{t-1}(s-2)\bigr),
    \qquad ℓ = -\log\bigl(α_T(|l'|) + α_T(|l'| - 1)\bigr)
    ```

    in logarithms; its gradient is that of the recursion. (torch's is one of the scores before `log_softmax`: through
    that both are the same.)

    Args:
        log_probs: logarithms of probabilities log y (T, N, C) or (T, C).
        targets: labels (N, S), padded, or all of them one after the other.
        input_lengths: steps of each example (N,).
        target_lengths: labels of each example (N,).
        blank: which class is the blank.
        reduction: `none`, `sum` or `mean`: of the losses divided by the number of labels.
        zero_infinity: whether examples without an alignment lose nothing, in the place of ∞.

    Example:
        >>> steps = torch.full((2, 1, 2), 0.5).log()  # blank and one label, over two steps
        >>> ctc_loss(steps, torch.tensor([[1]]), [2], [1], reduction="none").exp()  # 3 of 4 alignments
        tensor([1.3333])
    """
    single = log_probs.ndim == 2
    steps = log_probs.unsqueeze(1) if single else log_probs  # (T, N, C)
    device, (most, count, _) = steps.device, steps.shape
    input_lengths = torch.as_tensor(input_lengths, device=device).view(-1)
    target_lengths = torch.as_tensor(target_lengths, device=device).view(-1)
    labels = _padded(targets.to(device), target_lengths, count)  # (N, S)
    stretched = labels.new_full((count, 2 * labels.shape[1] + 1), blank)
    stretched[:, 1::2] = labels  # l′
    skips = torch.zeros_like(stretched, dtype=torch.bool)
    skips[:, 2:] = (stretched[:, 2:] != blank) & (stretched[:, 2:] != stretched[:, :-2])

    never = -1e30  # of a logarithm: finite, so that no gradient is NaN
    place = torch.arange(stretched.shape[1], device=device)
    alpha = steps.new_full((count, len(place)), never).masked_fill(place == 0, 0.0)  # before the first step
    for t in range(most):
        said = steps[t].gather(1, stretched).clamp(min=never)  # (N, S′)
        ways = [alpha, _later(alpha, 1, never)]
        if t:
            ways.append(_later(alpha, 2, never).masked_fill(~skips, never))
        moved = said + torch.logsumexp(torch.stack(ways), 0)
        alpha = torch.where((t < input_lengths)[:, None], moved.clamp(min=never), alpha)
    last = 2 * target_lengths[:, None]
    ends = torch.cat([alpha.gather(1, last), alpha.gather(1, (last - 1).clamp(min=0))], 1)
    ends = ends.masked_fill((target_lengths == 0)[:, None] & torch.tensor([False, True], device=device), never)
    losses = -torch.logsumexp(ends, 1)
    impossible = losses > -never / 10
    losses = losses.masked_fill(impossible, 0.0 if zero_infinity else float("inf"))
    if reduction == "mean":
        return (losses / target_lengths.clamp(min=1)).mean()
    return _reduced(losses[0] if single and reduction == "none" else losses, reduction)


def _padded(targets: Tensor, lengths: Tensor, count: int) -> Tensor:
    """Targets as (N, S), whether they come so or one after the other."""
    if targets.ndim == 2:
        return targets[:, : max(int(lengths.max()) if count else 0, 0)]
    parts = targets.split(lengths.tolist()) if count else []
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True) if parts else targets.view(0, 0)


def _later(alpha: Tensor, places: int, never: float) -> Tensor:
    """Each row moved on by some places."""
    return torch.nn.functional.pad(alpha, (places, 0), value=never)[:, : alpha.shape[1]]
