r"""Attention block by block on a GPU: the kernels of `zoo::attention`, in Triton.

The formulas are those of `zoo.kernels.attention`. A program of `_forward` has a block of queries and goes over the
blocks of keys that these see, with the running maximum m, sum l and mean a:

```math
m' = \max(m, \max_j s_j), \qquad l' = l\, 2^{m - m'} + \sum_j 2^{s_j - m'}, \qquad
a' = a\, 2^{m - m'} + \sum_j 2^{s_j - m'} v_j, \qquad o = a / l
```

Scores s count in powers of 2, since a GPU has an instruction for 2^x; beside a mask, whose numbers may be as large as
floats get, in those of e, which become powers of 2 less m. On the way back p_ij = 2^(s_ij − m_i − log₂ l_i) is made
again, and twice, so that no two programs add to the same numbers and results are the same bits each time:
`_backward_queries` has a block of queries and sums over keys, `_backward_keys` has a block of keys and sums over
queries, and over the heads that share these keys:

```math
δ_i = o_i^\top \mathrm{d}o_i, \qquad \mathrm{d}s_{ij} = p_{ij} (v_j^\top \mathrm{d}o_i - δ_i), \qquad
\mathrm{d}q_i = c \sum_j \mathrm{d}s_{ij} k_j, \qquad
\mathrm{d}k_j = c \sum_i \mathrm{d}s_{ij} q_i, \qquad \mathrm{d}v_j = \sum_i p_{ij} \mathrm{d}o_i
```

Causal order and windows are one rule: a query sees a key that lies `near` to `far` steps behind it. It says which
blocks there is anything to see in, and in which nothing is hidden, so that nothing has to be compared there.

Products are of the inputs' type and summed in single precision, in which all else is computed.

Letters: B rows, H heads, G heads of keys and values, T queries, S keys, d and e widths of a head of queries and of
values, D and E the next powers of 2, M and N queries and keys of a block, c the scale.

This module imports Triton, which compiles the kernels at their first call and keeps them in a folder of its own: import
it where a GPU is at work alone.

Source: Dao 2023 (FlashAttention-2); Tillet et al. 2019 (Triton); Salmon et al. 2011 (Philox, for dropout).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from zoo.kernels.attention import Inputs

__all__ = ["backward", "forward"]

FAR = 1 << 30  # beyond every key
LOG2E = tl.constexpr(1.4426950408889634)


class Sizes(NamedTuple):
    """Queries and keys of a block, and how many warps and stages of loading work on it."""

    queries: int
    keys: int
    warps: int
    stages: int


# By the widest head: up to 64 numbers, 128, 256. Chosen so that all fits in the 99 KB that the smallest GPUs have.
FORWARD = {
    2: (Sizes(128, 64, 4, 3), Sizes(128, 32, 8, 3), Sizes(64, 32, 8, 1)),  # by bytes of a number
    4: (Sizes(64, 32, 4, 2), Sizes(32, 32, 4, 2), Sizes(16, 16, 4, 2)),
}
BACKWARD = {
    2: (Sizes(64, 64, 4, 2), Sizes(64, 32, 4, 2), Sizes(32, 32, 8, 1)),
    4: (Sizes(32, 32, 4, 2), Sizes(32, 32, 8, 1), Sizes(16, 16, 4, 1)),
}


class View(NamedTuple):
    """A tensor of four axes as a kernel takes it: where it begins, and how far apart its numbers lie."""

    start: Tensor
    strides: tuple[int, ...]


class Call(NamedTuple):
    """The numbers of a call."""

    heads: int
    shared: int  # how many heads of queries share a head of keys
    queries: int
    keys: int
    near: int  # the least that a key lies behind a query that sees it
    far: int  # and the most
    offset: int
    seed: int
    scale: float  # c
    dropped: float  # π
    boost: float  # 1 / (1 − π)


# -- what the kernels share --------------------------------------------------------------------------------------------


@triton.jit
def _place(blocks, heads):
    """Row, head and block of this program; the last block first, which has the most to do where causal."""
    matrix, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    return matrix // heads, matrix % heads, blocks - 1 - block


@triton.jit
def _corner(x, row, head, first):
    """Where step `first` of a head lies; counted in 64 bits, since tensors may have more than 2³¹ numbers."""
    at = tl.cast(row, tl.int64) * x.strides[0] + tl.cast(head, tl.int64) * x.strides[1]
    return x.start + at + tl.cast(first, tl.int64) * x.strides[2]


@triton.jit
def _load(x, row, head, first, steps, width: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """Some steps of a head, with zeros beyond the last one and beyond its width: (BLOCK, WIDTH)."""
    n, i = tl.arange(0, BLOCK)[:, None], tl.arange(0, WIDTH)[None, :]
    at = _corner(x, row, head, first) + n * x.strides[2] + i * x.strides[3]
    return tl.load(at, mask=(first + n < steps) & (i < width), other=0.0)


@triton.jit
def _store(x, found, row, head, first, steps, width: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """Write what a block has found (BLOCK, WIDTH)."""
    n, i = tl.arange(0, BLOCK)[:, None], tl.arange(0, WIDTH)[None, :]
    at = _corner(x, row, head, first) + n * x.strides[2] + i * x.strides[3]
    tl.store(at, found.to(x.start.dtype.element_ty), mask=(first + n < steps) & (i < width))


@triton.jit
def _edges(first, low, high, count, BLOCK: tl.constexpr, STEP: tl.constexpr):
    """Which of `count` others the steps first … first + BLOCK − 1 see, where each sees those `low` to `high` beyond it.

    In blocks of STEP these are begin … end, of which inner … outer are seen whole. Returned is where the loop over
    whole blocks and that over the others start and stop, and behind which block, and how far, the second one leaps.
    """
    last = first + BLOCK - 1
    begin = tl.maximum(first + low, 0) // STEP * STEP
    end = tl.maximum(tl.minimum(last + high + 1, count), begin)
    inner = tl.minimum(tl.cdiv(tl.maximum(last + low, 0), STEP), tl.cdiv(end, STEP)) * STEP
    outer = tl.maximum(tl.minimum(first + high + 1, count), 0) // STEP * STEP
    outer = tl.maximum(outer, inner)
    return (inner, begin), (outer, end - (outer - inner)), inner, outer - inner


@triton.jit
def _scores(products, t, s, row, head, mask, slopes, call, CHECK: tl.constexpr):
    """Scores of queries t and keys s, one of them by rows and one by columns; −∞ what is hidden."""
    unit: tl.constexpr = LOG2E if mask is None else 1.0
    scores = products * (call.scale * unit)
    back = call.offset + t - s  # how far the key lies behind the query
    if mask is not None:
        at = _corner(mask, row, head, 0) + t.to(tl.int64) * mask.strides[2] + s * mask.strides[3]
        added = tl.load(at, mask=(t < call.queries) & (s < call.keys), other=0.0)
        scores += added.to(tl.float32)
    if slopes is not None:
        scores -= tl.load(slopes + head).to(tl.float32) * unit * tl.abs(back).to(tl.float32)
    if CHECK:
        scores = tl.where((back >= call.near) & (back <= call.far) & (s < call.keys), scores, -float("inf"))
    return scores


@triton.jit
def _exponents(differences, mask):
    """What scores differ by, in powers of 2."""
    if mask is not None:
        differences *= LOG2E
    return differences


@triton.jit
def _kept(t, s, row, head, call):
    """The mask of dropout, 0 or 1 / (1 − π): a function of the seed and the place, so that both ways draw the same."""
    none = t * 0 + s * 0
    bits, _, _, _ = tl.philox(call.seed, none + t, none + s, none + row, none + head)
    uniform = (bits >> 8).to(tl.float32) * (1 / (1 << 24))
    return tl.where(uniform >= call.dropped, call.boost, 0.0)


# -- forward -----------------------------------------------------------------------------------------------------------


@triton.jit
def _forward(
    q, k, v, mask, slopes, out, tops, logs, call, d: tl.constexpr, e: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A block of queries: their means of the values, and m and log₂ l, 0 and +∞ where a query sees nothing."""
    row, head, block = _place(tl.cdiv(call.queries, M), call.heads)
    group, first = head // call.shared, block * M
    t = first + tl.arange(0, M)
    x = _load(q, row, head, first, call.queries, d, M, D)  # (M, D)
    top = tl.full((M,), -float("inf"), tl.float32)  # m
    total = tl.zeros((M,), tl.float32)  # l
    mixed = tl.zeros((M, E), tl.float32)  # a
    starts, stops, inner, gap = _edges(first, call.offset - call.far, call.offset - call.near, call.keys, M, N)
    for check in tl.static_range(2):  # whole blocks first
        for at in range(starts[check], stops[check], N):
            start = at + tl.where((check == 1) & (at >= inner), gap, 0)
            s = start + tl.arange(0, N)
            y = _load(k, row, group, start, call.keys, d, N, D)  # (N, D)
            z = _load(v, row, group, start, call.keys, e, N, E)  # (N, E)
            products = tl.dot(x, tl.trans(y), input_precision=PRECISION)  # (M, N)
            scores = _scores(products, t[:, None], s[None, :], row, head, mask, slopes, call, check)
            new = tl.maximum(top, tl.max(scores, 1))
            finite = tl.where(new == -float("inf"), 0.0, new)  # −∞ − (−∞) would be NaN
            p = tl.exp2(_exponents(scores - finite[:, None], mask))
            fade = tl.exp2(_exponents(top - finite, mask))
            total = total * fade + tl.sum(p, 1)
            if DROPOUT:
                p *= _kept(t[:, None], s[None, :], row, head, call)
            mixed = tl.dot(p.to(z.dtype), z, mixed * fade[:, None], input_precision=PRECISION)
            top = new
    dead = total == 0
    total = tl.where(dead, 1.0, total)
    _store(out, mixed / total[:, None], row, head, first, call.queries, e, M, E)
    at = (tl.cast(row, tl.int64) * call.heads + head) * call.queries + t
    tl.store(tops + at, tl.where(dead, 0.0, top), mask=t < call.queries)
    tl.store(logs + at, tl.where(dead, float("inf"), tl.log2(total)), mask=t < call.queries)


# -- the way back ------------------------------------------------------------------------------------------------------


@triton.jit
def _backward_queries(
    q, k, v, mask, slopes, out, d_out, tops, logs, delta, d_q, call, d: tl.constexpr, e: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A block of queries: their gradients, and their δ for `_backward_keys`."""
    row, head, block = _place(tl.cdiv(call.queries, M), call.heads)
    group, first = head // call.shared, block * M
    t = first + tl.arange(0, M)
    x = _load(q, row, head, first, call.queries, d, M, D)  # (M, D)
    up = _load(d_out, row, head, first, call.queries, e, M, E)  # (M, E)
    result = _load(out, row, head, first, call.queries, e, M, E)
    δ = tl.sum(up.to(tl.float32) * result.to(tl.float32), 1)
    line = (tl.cast(row, tl.int64) * call.heads + head) * call.queries
    tl.store(delta + line + t, δ, mask=t < call.queries)
    top = tl.load(tops + line + t, mask=t < call.queries, other=0.0)
    log = tl.load(logs + line + t, mask=t < call.queries, other=float("inf"))
    found = tl.zeros((M, D), tl.float32)
    starts, stops, inner, gap = _edges(first, call.offset - call.far, call.offset - call.near, call.keys, M, N)
    for check in tl.static_range(2):  # whole blocks first
        for at in range(starts[check], stops[check], N):
            start = at + tl.where((check == 1) & (at >= inner), gap, 0)
            s = start + tl.arange(0, N)
            y = _load(k, row, group, start, call.keys, d, N, D)  # (N, D)
            z = _load(v, row, group, start, call.keys, e, N, E)  # (N, E)
            products = tl.dot(x, tl.trans(y), input_precision=PRECISION)  # (M, N)
            scores = _scores(products, t[:, None], s[None, :], row, head, mask, slopes, call, check)
            p = tl.exp2(_exponents(scores - top[:, None], mask) - log[:, None])  # 0 where log l = ∞: it sees nothing
            d_p = tl.dot(up, tl.trans(z), input_precision=PRECISION)
            if DROPOUT:
                d_p *= _kept(t[:, None], s[None, :], row, head, call)
            d_s = p * (d_p - δ[:, None])
            found = tl.dot(d_s.to(y.dtype), y, found, input_precision=PRECISION)
    _store(d_q, found * call.scale, row, head, first, call.queries, d, M, D)


@triton.jit
def _backward_keys(
    q, k, v, mask, slopes, d_out, tops, logs, delta, d_k, d_v, call, d: tl.constexpr, e: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A block of keys: its gradients and those of its values, from all heads that share it. All is transposed."""
    row, group, block = _place(tl.cdiv(call.keys, N), call.heads // call.shared)
    first = block * N
    s = first + tl.arange(0, N)
    y = _load(k, row, group, first, call.keys, d, N, D)  # (N, D)
    z = _load(v, row, group, first, call.keys, e, N, E)  # (N, E)
    found_k, found_v = tl.zeros((N, D), tl.float32), tl.zeros((N, E), tl.float32)
    starts, stops, inner, gap = _edges(first, call.near - call.offset, call.far - call.offset, call.queries, N, M)
    for head in range(group * call.shared, (group + 1) * call.shared):
        line = (tl.cast(row, tl.int64) * call.heads + head) * call.queries
        for check in tl.static_range(2):  # whole blocks first
            for at in range(starts[check], stops[check], M):
                start = at + tl.where((check == 1) & (at >= inner), gap, 0)
                t = start + tl.arange(0, M)
                x = _load(q, row, head, start, call.queries, d, M, D)  # (M, D)
                up = _load(d_out, row, head, start, call.queries, e, M, E)  # (M, E)
                top = tl.load(tops + line + t, mask=t < call.queries, other=0.0)
                log = tl.load(logs + line + t, mask=t < call.queries, other=float("inf"))
                δ = tl.load(delta + line + t, mask=t < call.queries, other=0.0)
                products = tl.dot(y, tl.trans(x), input_precision=PRECISION)  # (N, M)
                scores = _scores(products, t[None, :], s[:, None], row, head, mask, slopes, call, check)
                p = tl.exp2(_exponents(scores - top[None, :], mask) - log[None, :])
                d_p = tl.dot(z, tl.trans(up), input_precision=PRECISION)
                kept = p
                if DROPOUT:
                    z_ij = _kept(t[None, :], s[:, None], row, head, call)
                    d_p, kept = d_p * z_ij, p * z_ij
                found_v = tl.dot(kept.to(up.dtype), up, found_v, input_precision=PRECISION)
                d_s = p * (d_p - δ[None, :])
                found_k = tl.dot(d_s.to(x.dtype), x, found_k, input_precision=PRECISION)
    _store(d_k, found_k * call.scale, row, group, first, call.keys, d, N, D)
    _store(d_v, found_v, row, group, first, call.keys, e, N, E)


# -- calls -------------------------------------------------------------------------------------------------------------


def forward(x: Inputs, out: Tensor, norm: Tensor) -> None:
    """Fill the results (B, H, T, e), and the norms (2, B, H, T, 1)."""
    if not out.numel():
        return
    sizes = _sizes(FORWARD, x)
    blocks = x.q.shape[0] * x.q.shape[1] * triton.cdiv(x.q.shape[2], sizes.queries)
    with torch.cuda.device_of(x.q):
        _forward[(blocks,)](*_inputs(x), _view(out), *norm, _call(x), **_options(x, sizes))


def backward(x: Inputs, out: Tensor, norm: Tensor, d_out: Tensor, results: tuple[Tensor, Tensor, Tensor]) -> None:
    """Fill the gradients of queries, keys and values."""
    sizes, call, norm, delta = _sizes(BACKWARD, x), _call(x), norm.contiguous(), torch.empty_like(norm[0])
    d_q, d_k, d_v = results
    blocks = [n * triton.cdiv(m, size) for n, m, size in (
        (x.q.shape[0] * x.q.shape[1], x.q.shape[2], sizes.queries),
        (x.k.shape[0] * x.k.shape[1], x.k.shape[2], sizes.keys),
    )]  # fmt: skip
    given, options = _inputs(x), _options(x, sizes)
    with torch.cuda.device_of(x.q):
        if blocks[0]:
            _backward_queries[(blocks[0],)](*given, _view(out), _view(d_out), *norm, delta, _view(d_q), call, **options)
        if blocks[1]:
            _backward_keys[(blocks[1],)](*given, _view(d_out), *norm, delta, _view(d_k), _view(d_v), call, **options)


def _view(x: Tensor) -> View:
    return View(x, x.stride())


def _inputs(x: Inputs) -> tuple[Any, ...]:
    """Queries, keys, values, the mask by rows, heads, queries and keys, and the slopes."""
    mask = None if x.mask is None else _view(x.mask.expand(*x.q.shape[:3], x.k.shape[2]))
    slopes = None if x.slopes is None else x.slopes.contiguous()
    return _view(x.q), _view(x.k), _view(x.v), mask, slopes


def _call(x: Inputs) -> Call:
    far = min(x.window - 1, FAR) if x.window else FAR
    # Triton compiles anew for a multiple of 16
    seed, dropped = (0, 0.0) if x.seed is None else (int(x.seed) | 1, x.dropout)
    return Call(
        heads=x.q.shape[1], shared=x.q.shape[1] // max(1, x.k.shape[1]), queries=x.q.shape[2], keys=x.k.shape[2],
        near=0 if x.causal else -far, far=far, offset=x.offset, seed=seed,
        scale=x.scale, dropped=dropped, boost=1 / (1 - dropped) if dropped < 1 else 0.0,
    )  # fmt: skip


def _sizes(table: dict[int, tuple[Sizes, ...]], x: Inputs) -> Sizes:
    width = max(x.q.shape[3], x.v.shape[3])
    return table[x.q.dtype.itemsize][0 if width <= 64 else 1 if width <= 128 else 2]


def _options(x: Inputs, sizes: Sizes) -> dict[str, Any]:
    """What the kernels are compiled for."""
    d, e = x.q.shape[3], x.v.shape[3]
    return {
        "d": d, "e": e, "D": max(16, triton.next_power_of_2(d)), "E": max(16, triton.next_power_of_2(e)),
        "M": sizes.queries, "N": sizes.keys, "DROPOUT": x.seed is not None,
        "PRECISION": "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee",
        "num_warps": sizes.warps, "num_stages": sizes.stages, "enable_fp_fusion": True,
    }  # fmt: skip
