r"""A distribution over glimpses, and the one that goes on: their mean, or one of them.

```math
p_n = \Pr(g_n \mid a) = \frac{e^{a_n / \tau}}{\sum_m e^{a_m / \tau}}, \qquad
g = \sum_n p_n\, g_n \;\text{(soft)}, \qquad g = g_n,\; n \sim p \;\text{(hard)}
```

The soft glimpse is trained by backpropagation. The hard one has no gradient of its own. REINFORCE estimates that of
the expected loss, and a baseline b, which does not look at the glimpse, lowers its variance and leaves its mean:

```math
\nabla\, \mathbb E[L] = \mathbb E\bigl[\nabla L + (L - b)\, \nabla \log p_n\bigr]
```

The straight-through estimator takes the glimpse of the largest $a_n + u_n$ with Gumbel noise u, which is a draw from p,
and on the way back takes the softmax of the noisy $(a + u) / \tau$ for the choice: biased, but with less variance.

Letters: B rows, N glimpses, D numbers of each, τ temperature.

Sources: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", 1992;
Jang, Gu & Poole, "Categorical reparameterization with Gumbel-softmax", 2017; Bengio, Léonard & Courville, "Estimating
or propagating gradients through stochastic neurons", 2013 (straight-through).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "HardGlimpse", "chosen_glimpse", "expected_glimpse", "glimpse_probabilities", "reinforce_loss", "sampled_glimpse",
    "straight_through_glimpse",
]  # fmt: skip


class HardGlimpse(NamedTuple):
    """One glimpse of each row: its numbers (B, D), which one it is (B,), and the logarithm of its probability (B,)."""

    value: Tensor
    chosen: Tensor
    log_prob: Tensor


def glimpse_probabilities(logits: Tensor, mask: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Return Pr(g | a), (…, N); of a row where nothing is there zeros, with gradients of zero.

    Args:
        logits: a, (…, N).
        mask: which glimpses are there, (…, N), bool, broadcast; None for all.
        temperature: τ above 0; towards 0 the most likely glimpse takes all.

    Raises:
        ValueError: the temperature is not above 0.

    Example:
        >>> glimpse_probabilities(torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]))
        tensor([[1., 0.],
                [0., 0.]])
    """
    return _masked(_log_probabilities(logits, mask, temperature).exp(), mask)


def expected_glimpse(
    glimpses: Tensor, logits: Tensor, mask: Tensor | None = None, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the soft glimpse Σ p_n g_n, (B, D) or (B, T, D), and the probabilities, as `logits`.

    Args:
        glimpses: g, (B, N, D).
        logits: a, (B, N), or of T looks at the same glimpses (B, T, N).
        mask: which glimpses are there, (B, N), bool; None for all.
        temperature: τ.

    Example:
        >>> g, p = expected_glimpse(torch.tensor([[[1.0], [3.0]]]), torch.zeros(1, 2))
        >>> g, p
        (tensor([[2.]]), tensor([[0.5000, 0.5000]]))
    """
    many = logits.dim() == 3
    there = mask.unsqueeze(1) if many and mask is not None else mask
    weights = glimpse_probabilities(logits, there, temperature)
    if mask is not None:  # whatever stands there, 0 · NaN is not 0
        glimpses = glimpses.masked_fill(~mask.unsqueeze(-1), 0.0)
    return (weights @ glimpses if many else (weights.unsqueeze(1) @ glimpses).squeeze(1)), weights


def chosen_glimpse(glimpses: Tensor, logits: Tensor, index: Tensor, mask: Tensor | None = None) -> HardGlimpse:
    """Return the glimpses of some indices, with the logarithms of their probabilities, which have gradients.

    Args:
        glimpses: g, (B, N, D).
        logits: a, (B, N).
        index: n of each row, (B,).
        mask: which glimpses are there, (B, N), bool; None for all.

    Example:
        >>> chosen_glimpse(torch.tensor([[[1.0], [3.0]]]), torch.zeros(1, 2), torch.tensor([1])).value
        tensor([[3.]])
    """
    log_prob = _log_probabilities(logits, mask, 1.0).gather(1, index.unsqueeze(1)).squeeze(1)
    return HardGlimpse(glimpses[torch.arange(len(glimpses), device=glimpses.device), index], index, log_prob)


def sampled_glimpse(
    glimpses: Tensor, logits: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None
) -> HardGlimpse:
    """Return a glimpse of each row drawn from Pr(g | a); arguments as of `chosen_glimpse`.

    Raises:
        RuntimeError: a row has no glimpse that is there.

    Example:
        >>> sampled_glimpse(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[-99.0, 0.0]])).value
        tensor([[3.]])
    """
    with torch.no_grad():
        index = glimpse_probabilities(logits, mask).multinomial(1, generator=generator).squeeze(1)
    return chosen_glimpse(glimpses, logits, index, mask)


def straight_through_glimpse(
    glimpses: Tensor,
    logits: Tensor,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> HardGlimpse:
    """Return a drawn glimpse, whose gradient is that of the softmax from which it was drawn; as `sampled_glimpse`.

    Example:
        >>> logits = torch.zeros(1, 2, requires_grad=True)
        >>> drawn = straight_through_glimpse(torch.tensor([[[1.0], [3.0]]]), logits)
        >>> drawn.value.sum().backward()
        >>> bool(logits.grad.abs().sum() > 0)
        True
    """
    uniform = torch.rand(logits.shape, dtype=logits.dtype, device=logits.device, generator=generator)
    noise = -(-uniform.clamp_min(torch.finfo(logits.dtype).tiny).log()).log()
    soft = glimpse_probabilities(logits + noise, mask, temperature)
    index = soft.argmax(1)
    hard = torch.zeros_like(soft).scatter_(1, index.unsqueeze(1), 1.0)
    weights = hard + soft - soft.detach()
    if mask is not None:
        glimpses = glimpses.masked_fill(~mask.unsqueeze(-1), 0.0)
    value = (weights.unsqueeze(1) @ glimpses).squeeze(1)
    return HardGlimpse(value, index, chosen_glimpse(glimpses, logits, index, mask).log_prob)


def reinforce_loss(log_prob: Tensor, loss: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """Return a value whose gradient by the choices is REINFORCE's, of the shape of `loss`.

    It is (L − b) log p with L and b held fixed; add it to L itself, which has the gradient of all that is no choice.

    Args:
        log_prob: log p of what was chosen, summed over the choices that the loss depends on, (B,) or (B, …).
        loss: L of each row, or of each choice.
        baseline: b, what is expected of L before the choice.

    Example:
        >>> log_prob = torch.tensor([-0.7], requires_grad=True)
        >>> reinforce_loss(log_prob, torch.tensor([3.0]), torch.tensor([1.0])).sum().backward()
        >>> log_prob.grad
        tensor([2.])
    """
    advantage = loss - baseline
    return advantage.detach() * log_prob


def _log_probabilities(logits: Tensor, mask: Tensor | None, temperature: float) -> Tensor:
    """log Pr(g | a); what is not there has a very low one, finite, so that no gradient is NaN."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    if mask is not None:
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    centred = logits - logits.detach().amax(-1, keepdim=True)  # that a small temperature does not make inf - inf
    return (centred / temperature).log_softmax(-1)


def _masked(probabilities: Tensor, mask: Tensor | None) -> Tensor:
    return probabilities if mask is None else probabilities.masked_fill(~mask, 0.0)
