r"""Attention block by block, exact, in memory that grows with the length and not with its square.

A matrix of all weights is never there. For a block of keys the scores s are made, and what the blocks before have
summed is brought to the new maximum:

```math
m' = \max(m, \max_j s_j), \qquad l' = l\, e^{m - m'} + \sum_j e^{s_j - m'}, \qquad
a' = a\, e^{m - m'} + \sum_j e^{s_j - m'} v_j, \qquad o = a / l
```

On the way back the weights p are made again from m and log l, the norms of a query. Their sum would not do: beside an m
of −10⁹, or the lowest number there is, which masks are made of, log l is nothing, and p would not sum to 1:

```math
p_{ij} = e^{s_{ij} - m_i} / l_i, \qquad δ_i = o_i^\top \mathrm{d}o_i, \qquad
\mathrm{d}v_j = \sum_i p_{ij}\, \mathrm{d}o_i, \qquad
\mathrm{d}s_{ij} = p_{ij} (v_j^\top \mathrm{d}o_i - δ_i), \qquad
\mathrm{d}q_i = c \sum_j \mathrm{d}s_{ij}\, k_j, \qquad \mathrm{d}k_j = c \sum_i \mathrm{d}s_{ij}\, q_i
```

Dropout has a mask z_ij of 0 or 1 / (1 − π), drawn again from the same seed: p z takes the place of p in o and dv, and
z v·do that of v·do in ds.

`BlockwiseAttention` defines `zoo::attention`, one node for autograd, `torch.compile` and `torch.export`. The way back
is the operator `zoo::attention_backward`; *its* gradient, where somebody asks for it, goes through the formula. Here
both are torch operations; for what `fits_gpu` takes they are kernels in Triton (`attention_triton.py`), and for
sequences of up to some thousand steps in single precision on a CPU they are in C (`attention_cpu.py`).

Letters: B rows, H heads, G heads of keys and values that divide them, T queries, S keys, d and e widths of a head of
queries and of values, c the scale.

Source: Milakov & Gimelshein 2018 (running sums); Rabe & Staats 2021; Dao et al. 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.kernels import attention_cpu, on_gpu
from zoo.kernels.masks import dropout_mask
from zoo.kernels.node import register_autograd
from zoo.kernels.vmap import one_by_one

__all__ = ["BlockwiseAttention", "Inputs", "fits_gpu", "wide"]

BLOCK = 512  # queries, and keys, of a block: 1 MB of scores in single precision
ROOM = 1 << 17  # scores of several heads at once
WIDEST = 256  # numbers of a head that the kernels for a GPU take
LOG2E = math.log2(math.e)  # 2^x takes a third of the time of e^x here

_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
_INPUTS = (
    "Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor? slopes, Tensor? seed, "
    "float scale, float dropout, bool causal, SymInt window, SymInt offset, bool packed"
)


class Inputs(NamedTuple):
    """What the operator takes."""

    q: Tensor  # (B, H, T, d)
    k: Tensor  # (B, G, S, d)
    v: Tensor  # (B, G, S, e)
    mask: Tensor | None = None  # numbers to add, (B or 1, H or 1, T or 1, S)
    slopes: Tensor | None = None  # (H,), times the distance they are taken from the scores
    seed: Tensor | None = None  # of dropout, one whole number
    scale: float = 1.0
    dropout: float = 0.0
    causal: bool = False  # query t sees no key beyond offset + t
    window: int = 0  # how many keys back a query sees (and ahead, where not causal); 0 for all
    offset: int = 0
    packed: bool = False  # the gradients are to be parts of one tensor (B, T, (H + 2 G) d), where S = T and e = d


def fits_gpu(device: torch.device, dtype: torch.dtype, *widths: int) -> bool:
    """Return whether the kernels in Triton take heads of such widths; all else about them they take.

    Double precision, wider heads, and GPUs without Triton are left to torch operations.
    """
    fits = device.type == "cuda" and dtype in (torch.float32, torch.float16, torch.bfloat16) and max(widths) <= WIDEST
    return fits and on_gpu(torch.cuda.current_device() if device.index is None else device.index)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which products are summed, and the norms are kept."""
    return torch.float32 if dtype.itemsize == 2 else dtype


class Block(NamedTuple):
    """Some queries and some keys of some heads of a row, and its number among all blocks."""

    row: int
    heads: slice
    queries: slice
    keys: slice
    number: int


class Call:
    """The blocks of one call and their scores.

    They count in powers of 2 (see `LOG2E`); beside a mask in those of e, since its numbers may be as large as floats
    get: the lowest one would become −∞, and hide what it only makes unlikely.
    """

    def __init__(self, x: Inputs) -> None:
        self.x = x
        self.unit = LOG2E if x.mask is None else 1.0  # what a score of 1 counts
        self._distances: dict[tuple[int, int, int], Tensor] = {}
        self._hidden: dict[tuple[int, int, int], Tensor] = {}

    def parts(self) -> Iterator[tuple[int, slice, list[list[Block]]]]:
        """Rows and as many of their heads as there is room for, and their blocks: some queries, and then some keys."""
        x = self.x
        queries, keys = _slices(x.q.shape[2], BLOCK), _slices(x.k.shape[2], BLOCK)
        size = max(1, ROOM // max(1, min(x.q.shape[2], BLOCK) * min(x.k.shape[2], BLOCK)))
        number = 0
        for row in range(x.q.shape[0]):
            for heads in _slices(x.q.shape[1], size):
                table = []
                for some in queries:
                    blocks = [Block(row, heads, some, part, number + k) for k, part in enumerate(keys)]
                    table.append([block for block in blocks if not self._dark(block)])
                    number += len(keys)
                yield row, heads, table

    def scores(self, block: Block, q: Tensor, k: Tensor, top: Tensor | None = None) -> Tensor:
        """Scores (h, t, s) of a block's queries (h, t, d), scaled already, and keys (h, s, d), less `top` if given."""
        x = self.x
        at_once = top is not None and x.mask is None
        s = torch.baddbmm(top, q, k.mT, beta=-1) if at_once else torch.bmm(q, k.mT)
        if x.mask is not None:
            part = x.mask[0 if x.mask.shape[0] == 1 else block.row]
            part = part if part.shape[0] == 1 else part[block.heads]
            s.add_((part if part.shape[1] == 1 else part[:, block.queries])[..., block.keys])
        near, far = self._reach(block)
        if x.slopes is not None:
            s.addcmul_(x.slopes[block.heads].view(-1, 1, 1).to(s.dtype), self._distance(block).abs(), value=-self.unit)
        if (x.causal and near < 0) or (x.window > 0 and (far >= x.window or near <= -x.window)):
            s += self._shadow(block)
        return s if top is None or at_once else s.sub_(top)

    def powers(self, s: Tensor) -> Tensor:
        """e to the power of scores, or of what they differ by, in their place."""
        return (s if self.unit == LOG2E else s.mul_(LOG2E)).exp2_()

    def kept(self, block: Block, p: Tensor) -> Tensor | None:
        """The mask of dropout, the same at each call."""
        if self.x.seed is None:
            return None
        generator = torch.Generator(p.device).manual_seed(int(self.x.seed) + block.number)
        return dropout_mask(p.shape, self.x.dropout, p.dtype, p.device, generator)

    def _reach(self, block: Block) -> tuple[int, int]:
        """The least and the most that a key of the block lies behind a query."""
        first, last = block.queries.start + self.x.offset, block.queries.stop - 1 + self.x.offset
        return first - (block.keys.stop - 1), last - block.keys.start

    def _dark(self, block: Block) -> bool:
        """Whether no query of the block sees any of its keys."""
        x, (near, far) = self.x, self._reach(block)
        return (x.window > 0 and (near >= x.window or far <= -x.window)) or (x.causal and far < 0)

    def _distance(self, block: Block) -> Tensor:
        """How far each key lies behind each query, (t, s); the same for all blocks at that distance."""
        key = (*self._reach(block), block.keys.stop - block.keys.start)
        if key not in self._distances:
            options: dict = {"device": self.x.q.device, "dtype": wide(self.x.q.dtype)}
            places = torch.arange(block.queries.start, block.queries.stop, **options).add_(self.x.offset)
            self._distances[key] = places.unsqueeze(1) - torch.arange(block.keys.start, block.keys.stop, **options)
        return self._distances[key]

    def _shadow(self, block: Block) -> Tensor:
        """−∞ where a query does not see a key, else 0, (t, s): adding is much faster than filling."""
        key = (*self._reach(block), block.keys.stop - block.keys.start)
        if key not in self._hidden:
            back, x = self._distance(block), self.x
            hidden = back < 0 if x.causal else torch.zeros_like(back, dtype=torch.bool)
            hidden = hidden | (back.abs() >= x.window) if x.window else hidden
            self._hidden[key] = torch.zeros_like(back).masked_fill_(hidden, -torch.inf)
        return self._hidden[key]


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _by_head(x: Inputs) -> Inputs:
    """The keys and values that each head of queries sees."""
    shared = x.q.shape[1] // max(1, x.k.shape[1])
    return x if shared == 1 else x._replace(**{n: getattr(x, n).repeat_interleave(shared, dim=1) for n in ("k", "v")})


def _check(x: Inputs, *rest: Tensor) -> None:
    """Refuse what does not fit together, since a kernel would read whatever lies there; `rest`: out, norms, d_out."""
    fits = [t.dim() == 4 and t.dtype == x.q.dtype and t.device == x.q.device for t in x[:3]]
    if all(fits):
        (rows, heads, queries, width), (groups, keys), other = x.q.shape, x.k.shape[1:3], x.v.shape[3]
        fits += [x.k.shape == (rows, groups, keys, width), x.v.shape[:3] == x.k.shape[:3], heads % max(1, groups) == 0]
        if x.mask is not None:
            sizes = zip(x.mask.shape, (rows, heads, queries), strict=False)
            fits += [x.mask.dim() == 4, all(m in (1, n) for m, n in sizes), x.mask.shape[-1] == keys]
        if x.slopes is not None:
            fits += [x.slopes.shape == (heads,)]
        wanted = ((rows, heads, queries, other), (2, rows, heads, queries, 1), (rows, heads, queries, other))
        fits += [t.shape == shape for t, shape in zip(rest, wanted, strict=False)]
        fits += [t.device == x.q.device for t in (*x[3:5], *rest) if t is not None]
    if not all(fits):
        named = zip(x._fields, x[:5], strict=False)
        given = ", ".join(f"{name} {tuple(t.shape)} {t.dtype} {t.device}" for name, t in named if t is not None)
        raise RuntimeError(f"zoo::attention: the inputs do not fit together: {given}")


# -- forward -----------------------------------------------------------------------------------------------------------


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    """The results (B, H, T, e), and m and log l (2, B, H, T, 1): 0 and +∞ where a query sees nothing."""
    x = Inputs(*inputs)
    _check(x)
    out, norm = _fake(*x)
    if fits_gpu(x.q.device, x.q.dtype, x.q.shape[3], x.v.shape[3]):
        from zoo.kernels import attention_triton

        attention_triton.forward(x, out, norm)
        return out, norm
    if attention_cpu.fits(x):
        attention_cpu.forward(x, out, norm)
        return out, norm
    x, kind = _by_head(x), wide(x.q.dtype)
    call = Call(x)
    for row, heads, table in call.parts():
        q, k, v = x.q[row, heads].to(kind) * (x.scale * call.unit), x.k[row, heads].to(kind), x.v[row, heads].to(kind)
        for some, blocks in zip(_slices(x.q.shape[2], BLOCK), table, strict=True):
            out[row, heads, some], *norms = _mix(call, blocks, q[:, some], k, v)
            for whole, found in zip(norm, norms, strict=True):
                whole[row, heads, some] = found
    return out, norm


def _mix(call: Call, blocks: list[Block], q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The means of the values for some queries, block after block of keys, and their norms."""
    top = q.new_full((*q.shape[:2], 1), -torch.inf)  # m
    total, mixed = torch.zeros_like(top), q.new_zeros(*q.shape[:2], v.shape[2])  # l, a
    for block in blocks:
        s = call.scores(block, q, k[:, block.keys])
        new = torch.maximum(top, s.amax(-1, keepdim=True))
        finite = new.masked_fill(new == -torch.inf, 0.0)  # −∞ − (−∞) would be NaN; 2^(−∞ − 0) is the 0 that is meant
        p, fade = call.powers(s.sub_(finite)), call.powers(top - finite)
        total.mul_(fade).add_(p.sum(-1, keepdim=True))
        kept = call.kept(block, p)
        mixed.mul_(fade).baddbmm_(p if kept is None else p.mul_(kept), v[:, block.keys])
        top = new
    dead = total == 0
    norms = top.masked_fill(dead, 0.0), total.log2().masked_fill_(dead, torch.inf)
    return mixed.div_(total.masked_fill(dead, 1.0)), *norms


# -- the way back ------------------------------------------------------------------------------------------------------


def _backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values."""
    x, (out, norm, d_out) = Inputs(*arguments[:-3]), arguments[-3:]
    _check(x, out, norm, d_out)
    results = _fake_backward(*arguments)
    if fits_gpu(x.q.device, x.q.dtype, x.q.shape[3], x.v.shape[3]):
        from zoo.kernels import attention_triton

        attention_triton.backward(x, out, norm, d_out, results)
        return results
    if attention_cpu.fits(x):
        attention_cpu.backward(x, out, norm, d_out, results)
        return results
    if x.k.shape[1] == x.q.shape[1]:
        _fill(x, out, norm, d_out, results)
        return results
    alone = _by_head(x)
    found = tuple(_room(t, t.shape[3]) for t in alone[:3])
    _fill(alone, out, norm, d_out, found)
    for result, each in zip(results, found, strict=True):  # the heads that share keys
        result.copy_(each.unflatten(1, (result.shape[1], -1)).sum(2))
    return results


def _fill(x: Inputs, out: Tensor, norm: Tensor, d_out: Tensor, results: tuple[Tensor, ...]) -> None:
    """Write the gradients where each head has keys of its own."""
    call, kind = Call(x), wide(x.q.dtype)
    for row, heads, table in call.parts():
        q, k, v = x.q[row, heads].to(kind) * (x.scale * call.unit), x.k[row, heads].to(kind), x.v[row, heads].to(kind)
        top, log = norm[:, row, heads]
        up = d_out[row, heads].to(kind) * log.neg().exp2()  # / l, by which p is to be divided; 0 where nothing is seen
        δ = (up * out[row, heads]).sum(-1, keepdim=True)
        d_q, d_k, d_v = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
        for block in (block for blocks in table for block in blocks):
            some, part = block.queries, block.keys
            p = call.powers(call.scores(block, q[:, some], k[:, part], top[:, some]))  # times l
            kept = call.kept(block, p)
            if kept is None:
                d_s = torch.baddbmm(δ[:, some], up[:, some], v[:, part].mT, beta=-1).mul_(p)
            else:
                d_s = torch.bmm(up[:, some], v[:, part].mT).mul_(kept).sub_(δ[:, some]).mul_(p)
                p.mul_(kept)
            d_q[:, some].baddbmm_(d_s, k[:, part])
            d_k[:, part].baddbmm_(d_s.mT, q[:, some])
            d_v[:, part].baddbmm_(p.mT, up[:, some])
        for result, found in zip(results, (d_q.mul_(x.scale), d_k.div_(call.unit), d_v), strict=True):
            result[row, heads] = found


def _room(like: Tensor, width: int) -> Tensor:
    """Room for (B, H, T, width) with the heads of a step side by side, as the products around attention have them."""
    rows, heads, steps, _ = like.shape
    return like.new_empty(rows, steps, heads, width).transpose(1, 2)


# -- the operators -----------------------------------------------------------------------------------------------------

Formula = Callable[[Inputs], Tensor]


class BlockwiseAttention:
    """The operators.

    Args:
        formula: the same from differentiable operations, without dropout.
    """

    def __init__(self, formula: Formula) -> None:
        self.formula = formula
        self.operator = self._define("attention", f"({_INPUTS}) -> (Tensor out, Tensor norm)", _forward, _fake)
        self.operator_back = self._define(
            "attention_backward",
            f"({_INPUTS}, Tensor out, Tensor norm, Tensor d_out) -> (Tensor d_q, Tensor d_k, Tensor d_v)",
            _backward,
            _fake_backward,
        )
        register_autograd(_LIBRARY, self.operator, _forward, self._keep, self._differentiate)
        register_autograd(_LIBRARY, self.operator_back, _backward, self._keep_again, self._differentiate_again)

    def __call__(self, inputs: Inputs) -> Tensor:
        """Return (B, H, T, e), zeros where a query sees nothing.

        Raises:
            RuntimeError: a shape, dtype or device does not fit.
        """
        return self.operator(*inputs)[0]

    @staticmethod
    def _define(name: str, schema: str, run: Callable, fake: Callable) -> Any:
        _LIBRARY.define(name + schema)
        _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"zoo::{name}", fake, lib=_LIBRARY)
        operator = getattr(torch.ops.zoo, name).default
        torch.library.register_vmap(f"zoo::{name}", one_by_one(operator), lib=_LIBRARY)
        return operator

    def _keep(self, ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.set_materialize_grads(False)
        ctx.options = inputs[6:]
        ctx.save_for_backward(*inputs[:6], *output)

    def _differentiate(self, ctx: Any, d_out: Tensor | None, _: Any) -> Any:
        if d_out is None:
            return (None,) * 12
        *tensors, out, norm = ctx.saved_tensors
        return *self.operator_back(*tensors, *ctx.options, out, norm, d_out), *(None,) * 9

    def _keep_again(self, ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.set_materialize_grads(False)
        ctx.options = inputs[6:12]
        ctx.save_for_backward(*inputs[:6], inputs[14])

    def _differentiate_again(self, ctx: Any, *v: Tensor | None) -> Any:
        """The gradient of the gradient: the formula's, pulled back twice."""
        *tensors, d_out = ctx.saved_tensors
        if tensors[5] is not None:
            raise RuntimeError("attention with dropout has no second derivative: set the dropout to 0")

        def gradients(q: Tensor, k: Tensor, v: Tensor, d_out: Tensor) -> tuple[Tensor, ...]:
            _, pull = torch.func.vjp(lambda *x: self.formula(Inputs(*x, *tensors[3:], *ctx.options)), q, k, v)
            return pull(d_out)

        _, pull = torch.func.vjp(gradients, *tensors[:3], d_out)
        given = tuple(torch.zeros_like(t) if g is None else g for g, t in zip(v, tensors[:3], strict=True))
        *by_input, by_direction = pull(given)
        return *by_input, *(None,) * 11, by_direction


def _fake(*inputs: Any) -> tuple[Tensor, Tensor]:
    x = Inputs(*inputs)
    return _room(x.q, x.v.shape[3]), x.q.new_empty(2, *x.q.shape[:3], 1, dtype=wide(x.q.dtype))


def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    x = Inputs(*arguments[:-3])
    if x.packed:
        rows, _, steps, width = x.q.shape
        heads = [t.shape[1] for t in x[:3]]
        parts = x.q.new_empty(rows, steps, sum(heads), width).transpose(1, 2).split(heads, 1)
        return parts[0], parts[1], parts[2]
    q, k, v = (_room(t, t.shape[3]) for t in x[:3])
    return q, k, v
