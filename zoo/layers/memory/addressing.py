r"""Where the heads of a Neural Turing Machine look: by what a slot holds, and by where it lies.

```math
\begin{aligned}
K_i &= \frac{k \cdot M_i}{|k|\,|M_i| + ε}, \qquad w^c_i = \frac{\exp(β K_i)}{\sum_j \exp(β K_j)} && \text{content} \\
w^g &= g\, w^c + (1 - g)\, w_{t-1} && \text{interpolation} \\
\tilde w_i &= \sum_j w^g_{i - j} \, s_j && \text{shift, } i - j \text{ modulo } N \\
w_i &= \frac{\tilde w_i^γ}{\sum_j \tilde w_j^γ} = \operatorname{softmax}(γ \log \tilde w)_i && \text{sharpening} \\
r &= \sum_i w_i M_i, \qquad M_i ← M_i ⊙ \prod_h (1 - w^h_i e^h) + \sum_h w^h_i a^h && \text{reading, writing}
\end{aligned}
```

Letters: B rows, H heads, N slots, W numbers in a slot, S shifts from −⌊S/2⌋ on.

Source: Graves, Wayne & Danihelka 2014, §3. Deviation: ε, so that an empty slot is like nothing, and not NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["content_weights", "interpolate", "read", "sharpen", "shift", "similarity", "write"]

EPSILON = 1e-6  # the least product of norms that a similarity is divided by
_BY_SUM = 9  # shifts up to which a sum over them is faster than a transform


def similarity(memory: Tensor, keys: Tensor) -> Tensor:
    """Return the cosine of each key and each slot, (B, H, N); 0 for a slot or a key of zeros.

    Args:
        memory: M, (B, N, W).
        keys: k, (B, H, W).

    Example:
        >>> similarity(torch.tensor([[[1.0, 0.0], [3.0, 4.0], [0.0, 0.0]]]), torch.tensor([[[2.0, 0.0]]]))
        tensor([[[1.0000, 0.6000, 0.0000]]])
    """
    sizes = torch.linalg.vector_norm(memory, dim=-1).unsqueeze(1)  # (B, 1, N)
    lengths = torch.linalg.vector_norm(keys, dim=-1, keepdim=True)  # (B, H, 1)
    return keys @ memory.mT / (lengths * sizes).add(EPSILON)


def content_weights(memory: Tensor, keys: Tensor, strength: Tensor) -> Tensor:
    """Return the softmax over the slots of β K, (B, H, N).

    Args:
        memory: M, (B, N, W).
        keys: k, (B, H, W).
        strength: β ≥ 0, (B, H).

    Example:
        >>> content_weights(torch.eye(2)[None], torch.eye(2)[None], torch.tensor([[0.0, 1000.0]]))
        tensor([[[0.5000, 0.5000],
                 [0.0000, 1.0000]]])
    """
    return torch.softmax(similarity(memory, keys) * strength.unsqueeze(-1), dim=-1)


def interpolate(content: Tensor, previous: Tensor, gate: Tensor) -> Tensor:
    """Return g w + (1 − g) w′, (B, H, N): what the content says, or what the step before had.

    Args:
        content: w, (B, H, N).
        previous: w′, (B, H, N).
        gate: g in [0, 1], (B, H).

    Example:
        >>> interpolate(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.25]]))
        tensor([[[0.2500, 0.7500]]])
    """
    return torch.lerp(previous, content, gate.unsqueeze(-1))


def shift(weights: Tensor, shifts: Tensor) -> Tensor:
    """Return the weights moved round the ring of slots, (..., N): their circular convolution with the shifts.

    Few shifts are summed up; many are multiplied in the Fourier domain, where rounding may leave a zero at −1e-8.

    Args:
        weights: w, (..., N).
        shifts: how much goes by −⌊S/2⌋, … slots, (..., S), for any S, also beyond N.

    Example:
        >>> shift(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0.25, 0.0, 0.75]))
        tensor([0.0000, 0.7500, 0.0000, 0.2500])
    """
    slots, count = weights.shape[-1], shifts.shape[-1]
    left, right = count // 2, count - 1 - count // 2  # how far it goes to either side
    if count > _BY_SUM or count > slots:
        place = torch.arange(-left, right + 1, device=shifts.device) % slots
        ring = shifts.new_zeros(*shifts.shape[:-1], slots).index_add(-1, place, shifts)
        return torch.fft.irfft(torch.fft.rfft(weights) * torch.fft.rfft(ring), n=slots)
    round_about = torch.cat([weights[..., slots - right :], weights, weights[..., :left]], dim=-1)  # (..., N + S − 1)
    moved = round_about[..., count - 1 : count - 1 + slots] * shifts[..., :1]
    for j in range(1, count):
        moved = torch.addcmul(moved, round_about[..., count - 1 - j : count - 1 - j + slots], shifts[..., j : j + 1])
    return moved


def sharpen(weights: Tensor, sharpness: Tensor) -> Tensor:
    """Return w^γ / Σ w^γ, (B, H, N), in the log domain, where no power underflows to 0 / 0.

    Args:
        weights: w ≥ 0, (B, H, N).
        sharpness: γ ≥ 1, (B, H).

    Example:
        >>> sharpen(torch.tensor([[[0.5, 0.25, 0.25]]]), torch.tensor([[2.0]]))
        tensor([[[0.6667, 0.1667, 0.1667]]])
    """
    logarithm = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
    return torch.softmax(logarithm * sharpness.unsqueeze(-1), dim=-1)


def read(memory: Tensor, weights: Tensor) -> Tensor:
    """Return what the heads read, (B, H, W): the slots, weighted.

    Args:
        memory: M, (B, N, W).
        weights: w, (B, H, N).
    """
    return weights @ memory


def write(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """Return the memory after all heads have erased and then all have added, (B, N, W).

    Args:
        memory: M, (B, N, W).
        weights: w, (B, H, N).
        erase: e in [0, 1], (B, H, W).
        add: a, (B, H, W).

    Example:
        >>> one = torch.ones(1, 1, 2)
        >>> write(torch.tensor([[[5.0, 5.0], [6.0, 6.0]]]), torch.tensor([[[0.5, 0.0]]]), one, 8 * one)
        tensor([[[6.5000, 6.5000],
                 [6.0000, 6.0000]]])
    """
    places = weights.mT  # (B, N, H)
    for head in range(weights.shape[1]):
        lost = places[..., head : head + 1] * erase[:, head : head + 1]  # (B, N, W)
        memory = torch.addcmul(memory, memory, lost, value=-1)
    return torch.baddbmm(memory, places, add)
