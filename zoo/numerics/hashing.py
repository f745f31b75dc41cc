"""Random numbers as a pure function of (seed, counter), for rows that are made when they are asked for.

The i-th number is SplitMix64's i-th output from a state that the seed sets, so no number depends on the ones
before:

```math
h_i = mix(key + (i + 1) γ),   mix(z) = z₂ ⊕ (z₂ ≫ 31),  z₂ = (z₁ ⊕ (z₁ ≫ 27)) m₂,  z₁ = (z ⊕ (z ≫ 30)) m₁
```

A 64-bit word gives two 32-bit uniforms, and those (Box-Muller) two normals.

Legend: i counter, key the mixed seed, γ m₁ m₂ the constants of the source, ≫ shift without sign; all modulo
2⁶⁴.
Source: Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014, §5; Box & Muller 1958.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from zoo.kernels.hashing import available, hash_rows
from zoo.numerics.sparse import is_sparse, stored, stored_rows

__all__ = ["content_hash", "content_order", "epoch_generator", "normals", "splitmix64", "stream_key", "uniforms"]

_GAMMA, _M1, _M2 = 0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB
_MASK32 = 0xFFFF_FFFF


def _signed(value: int) -> int:
    """The int64 with the bits of `value` modulo 2⁶⁴."""
    return (value + 2**63) % 2**64 - 2**63


def splitmix64(key: int, counter: Tensor) -> Tensor:
    """Return the words h_i of the int64 counters i, as int64 of any sign.

    Example:
        >>> hex(int(splitmix64(0, torch.tensor([1]))))
        '0x6e789e6aa1b965f4'
    """
    z = counter * _signed(_GAMMA)
    z += _signed(key + _GAMMA)
    shifted = torch.empty_like(z)
    for shift, factor in ((30, _M1), (27, _M2), (31, None)):
        torch.bitwise_right_shift(z, shift, out=shifted)
        shifted &= (1 << (64 - shift)) - 1  # the shift of int64 copies the sign
        z ^= shifted
        if factor is not None:
            z *= _signed(factor)
    return z


def stream_key(seed: int, *position: int) -> int:
    """Return a key whose stream is unrelated to those of other seeds and positions."""
    key = seed
    for value in (0, *position):
        key = _splitmix64_of_int(key, value)
    return key


def _splitmix64_of_int(key: int, counter: int) -> int:
    """`splitmix64` of one number, in Python's integers: a tensor of one costs twenty times as much."""
    z = (key + (counter + 1) * _GAMMA) % 2**64
    z = ((z ^ (z >> 30)) * _M1) % 2**64
    z = ((z ^ (z >> 27)) * _M2) % 2**64
    return _signed(z ^ (z >> 31))


def content_hash(*parts: Tensor) -> Tensor:
    """Return an int64 for each row that equal rows share, in float32 and float64 alike, and others do not.

    Zeros add nothing, so that a sparse matrix has the hashes of the dense one.

    Args:
        parts: matrices (B, D), dense or sparse, whose rows are one row together.

    Example:
        >>> content_hash(torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]])).unique().numel()
        2
    """
    sums, start = torch.zeros((), dtype=torch.int64, device=parts[0].device), 0
    for x in parts:
        factors = _factors(start, start + x.shape[1], x.device)
        start += x.shape[1]
        if available(x):
            if len(parts) == 1:
                return hash_rows(x, factors, True)
            sums = sums + hash_rows(x, factors, False)
            continue
        bits = stored(x).double().add(0.0).view(torch.int64)  # + 0.0 turns −0 into 0
        bits ^= bits >> 32  # floats of few digits differ in their upper half only
        if is_sparse(x):
            sums = sums + bits.new_zeros(len(x)).index_add_(0, stored_rows(x), bits * factors[x.col_indices()])
        else:
            sums = sums + bits.mul_(factors).sum(1)
    return splitmix64(0, sums)


def content_order(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Return an order of rows that follows from what stands in them, and not from how they came, (N,).

    Args:
        x: rows (N, F), dense or sparse.
        y: their targets, (N, K).
        weight: their weights, (N,).

    Example:
        >>> x, ones = torch.tensor([[5.0], [1.0], [3.0]]), torch.ones(3)
        >>> moved = torch.tensor([2, 0, 1])
        >>> order, of_moved = (content_order(a, a, ones) for a in (x, x[moved]))
        >>> torch.equal(x[order], x[moved][of_moved])
        True
    """
    hashes = content_hash(x), content_hash(torch.cat([y, weight[:, None]], 1))
    return (hashes[0] ^ (hashes[1] * 0x9E3779B1)).argsort(stable=True)


@functools.lru_cache(16)
def _factors(start: int, stop: int, device: torch.device) -> Tensor:
    """An odd factor for each column from `start` to `stop`, which no one writes to."""
    with torch.inference_mode(False):  # for all that come after
        return splitmix64(0, torch.arange(start, stop, device=device)) | 1


def uniforms(words: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return two numbers in (0, 1] from the upper and the lower half of each word, of the words' shape."""
    high, low = words >> 32, words & _MASK32
    high &= _MASK32
    return tuple(half.to(dtype).add_(0.5).mul_(2.0**-32) for half in (high, low))  # type: ignore[return-value]


def normals(words: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return 2n standard normals from n words in the last axis: r cos φ and then r sin φ."""
    radius, angle = uniforms(words, dtype)
    radius.log_().mul_(-2.0).sqrt_()
    angle.mul_(2.0 * math.pi)
    return torch.cat((angle.cos().mul_(radius), angle.sin_().mul_(radius)), dim=-1)


def epoch_generator(seed: int, *position: int) -> torch.Generator:
    """Return a generator whose stream depends on the seed and a position (epoch, block, ...) alone."""
    state = seed & 0xFFFF_FFFF_FFFF_FFFF
    for value in position:  # SplitMix64's mixing step, so that neighbouring positions give unrelated streams
        state = (state + (value + 1) * 0x9E37_79B9_7F4A_7C15) & 0xFFFF_FFFF_FFFF_FFFF
        state = ((state ^ (state >> 30)) * 0xBF58_476D_1CE4_E5B9) & 0xFFFF_FFFF_FFFF_FFFF
        state = ((state ^ (state >> 27)) * 0x94D0_49BB_1331_11EB) & 0xFFFF_FFFF_FFFF_FFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state & 0x7FFF_FFFF_FFFF_FFFF)
