r"""The parts of a transformer's layer, with the residual paths around them, as one node of autograd.

```math
y = x + F(N(x)) \quad (\text{norm first}), \qquad y = N(x + F(x)), \qquad F(h) = G(h W^\top + b)\, V^\top + c
```

G is an activation, or attention. Of a part torch would make some ten nodes, each of which reads all numbers and writes
as many. Here the slopes of an activation are kept from the way there, in the place of what it was asked of; queries,
keys and values are read where one product left them; and sums on the residual path, with their gradients, are made
where the normalization reads them (`zoo.kernels.layer_norm`). For single precision on a CPU, where nothing is dropped
and nobody looks in between. Second derivatives go by the formula.

Legend: N `LayerNorm`, D width, x (…, D), W (M, D), V (D, M'), where M' = M for an activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils import parametrize

from zoo.kernels import attention_cpu, complete, gelu, layer_norm
from zoo.kernels.attention_cpu import Packed
from zoo.layers.attention import MultiheadAttention, attend, attention_bias
from zoo.layers.dropout import Dropout
from zoo.layers.feedforward import ACTIVATIONS
from zoo.layers.linear import Linear
from zoo.layers.normalization import LayerNorm
from zoo.layers.positions import alibi_slopes
from zoo.layers.usable import autocast, transformed

__all__ = ["Part", "attention_part", "feed_forward_part", "run", "suits"]

_KERNELS = *layer_norm.KERNELS, *gelu.KERNELS, *attention_cpu.KERNELS
_FEW = 4  # steps, below which attention's kernel takes longer over the keys than over them


class Middle(Protocol):
    """What stands between the two products, G."""

    def there(self, product: Tensor, learns: bool) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Return G of a product (N, M), which it may overwrite, and what the way back needs beside it."""

    def back(self, d: Tensor, inner: Tensor, kept: tuple[Any, ...]) -> Tensor:
        """Return the gradients of the product (N, M) by those of G, which it may overwrite."""

    def formula(self, product: Tensor) -> Tensor:
        """Return G of a product (…, M) by differentiable operations."""


class Activation:
    """`relu`, `gelu` or `gelu_tanh`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def there(self, product: Tensor, learns: bool) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        if self.name == "relu":
            return product.relu_(), ()
        return gelu.activate(product, self.name == "gelu_tanh", learns), (product,)

    def back(self, d: Tensor, inner: Tensor, kept: tuple[Any, ...]) -> Tensor:
        if self.name == "relu":
            return torch.ops.aten.threshold_backward.grad_input(d, inner, 0, grad_input=d)
        return d.mul_(kept[0])

    def formula(self, product: Tensor) -> Tensor:
        return ACTIVATIONS[self.name](product)


class Attention:
    """Attention among the steps of each row, of queries, keys and values side by side."""

    def __init__(self, packed: Packed) -> None:
        self.packed = packed

    def there(self, product: Tensor, learns: bool) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        out, norm = self.packed.forward(product)
        return out, (product, norm, self.packed.mask)  # the last so that a change of it is noticed

    def back(self, d: Tensor, inner: Tensor, kept: tuple[Any, ...]) -> Tensor:
        product, norm, _ = kept
        return self.packed.backward(product, inner, norm, d)

    def formula(self, product: Tensor) -> Tensor:
        x = self.packed
        by_head = product.view(x.rows, x.steps, x.heads + 2 * x.groups, x.width).transpose(1, 2)
        q, k, v = by_head.split([x.heads, x.groups, x.groups], 1)
        window = x.window or None
        bias, dead = attention_bias(q, x.steps, x.mask, is_causal=x.causal, window=window, alibi=x.slopes)
        return attend(q, k, v, bias, dead, x.scale)[0].transpose(1, 2).flatten(2)


class Part(NamedTuple):
    """What F consists of, and N."""

    middle: Middle
    eps: float
    weights: tuple[Tensor | None, ...]  # gain and shift of N, W, b, V, c


def run(x: Tensor, norm_first: bool, *parts: Part) -> Tensor:
    """Return what parts, one behind the other, make of x (…, D)."""
    weights = [weight for part in parts for weight in part.weights]
    return _Parts.apply([part[:2] for part in parts], norm_first, torch.is_grad_enabled(), x, *weights)


def _by_part(weights: Sequence[Any]) -> list[Sequence[Any]]:
    return [weights[start : start + 6] for start in range(0, len(weights), 6)]


class _Parts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, parts: list[tuple[Middle, float]], first: bool, learns: bool, x: Tensor, *weights: Tensor | None
    ) -> Tensor:
        y, by_part = x.reshape(-1, x.shape[-1]).contiguous(), _by_part(weights)
        saved: list[tuple[Tensor | None, ...]] = []
        norms: Tensor | None
        h, norms = y, None
        if first:
            h, norms = layer_norm.normalized(y, by_part[0][0], by_part[0][1], parts[0][1])
        for number, ((middle, eps), (gain, shift, w, b, v, c)) in enumerate(zip(parts, by_part, strict=True)):
            product = F.linear(h, w, b)
            inner, kept = middle.there(product, learns)
            if not first:  # the sum is normalized for this part, else for the next one, if there is one
                y, after, norms = layer_norm.normalized_sum(y, F.linear(inner, v), c, gain, shift, eps)
                if learns:
                    saved.append((y, norms, h, inner, *kept))
                y = h = after
                continue
            if learns:
                saved.append((y, norms, h, inner, *kept))
            if number + 1 == len(parts):
                y = F.linear(inner, v, c).add_(y)
            else:
                gain, shift = by_part[number + 1][:2]
                more, eps = F.linear(inner, v), parts[number + 1][1]
                y, h, norms = layer_norm.normalized_sum(y, more, c, gain, shift, eps)
        if learns:
            ctx.parts, ctx.first, ctx.counts = parts, first, [len(some) for some in saved]
            ctx.save_for_backward(x, *weights, *(tensor for some in saved for tensor in some))
        return y.resize_(x.shape)  # a view of it could not be written to

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        if autocast("cpu"):  # which was off on the way there
            with torch.autocast("cpu", enabled=False):
                return _Parts.backward(ctx, d_y)
        needed, count, tensors = ctx.needs_input_grad[3:], 1 + 6 * len(ctx.parts), ctx.saved_tensors
        inputs, saved = tensors[:count], list(tensors[count:])
        batched = torch._C._are_functorch_transforms_active() or torch._C._functorch.is_legacy_batchedtensor(d_y)
        if torch.is_grad_enabled() or batched or _modes():
            return None, None, None, *_by_formula(ctx.parts, ctx.first, inputs, needed, d_y)
        d: Any = d_y.reshape(-1, d_y.shape[-1]).contiguous()
        found: list[Tensor | None] = []
        for number in reversed(range(len(ctx.parts))):
            *_, wants_w, wants_b, wants_v, wants_c = needed[1 + 6 * number : 7 + 6 * number]
            gain, _, w, _, v, _ = inputs[1 + 6 * number : 7 + 6 * number]
            start, norms, h, inner, *kept = saved[-ctx.counts[number] :]
            del saved[-ctx.counts[number] :]
            d_gain = d_shift = d_w = d_b = None
            if not ctx.first:
                d, d_gain, d_shift = layer_norm.gradients(d, start, gain, norms, None, over=bool(found))
            d_v, d_c = torch.mm(d.t(), inner) if wants_v else None, d.sum(0) if wants_c else None
            before = any(needed[: 3 + 6 * number]) if ctx.first else any(needed[: 1 + 6 * number])
            if before or wants_w or wants_b:
                d_product = ctx.parts[number][0].back(torch.mm(d, v), inner, tuple(kept))
                d_w = torch.mm(d_product.t(), h) if wants_w else None
                d_b = d_product.sum(0) if wants_b else None
            if before and ctx.first:
                d_h = torch.mm(d_product, w)
                d, d_gain, d_shift = layer_norm.gradients(d_h, start, gain, norms, d, over=True)
            elif before:
                d = torch.mm(d_product, w).add_(d)
            found = [d_gain, d_shift, d_w, d_b, d_v, d_c, *found]
            if not before:
                d, found = None, [*(None,) * (6 * number), *found]
                break
        found = [None if d is None else d.view(d_y.shape), *found]
        return None, None, None, *(part if need else None for part, need in zip(found, needed, strict=True))


def _formula(parts: list[tuple[Middle, float]], first: bool, x: Tensor, weights: Sequence[Any]) -> Tensor:
    for (middle, eps), (gain, shift, w, b, v, c) in zip(parts, _by_part(weights), strict=True):
        normalize = lambda x, norm=(gain, shift, eps): F.layer_norm(x, x.shape[-1:], *norm)  # noqa: E731
        total = x + F.linear(middle.formula(F.linear(normalize(x) if first else x, w, b)), v, c)
        x = total if first else normalize(total)
    return x


def _by_formula(
    parts: list[tuple[Middle, float]], first: bool, inputs: Sequence[Any], needed: Sequence[bool], d: Tensor
) -> Sequence[Tensor | None]:
    """The gradients by the formula, whose operations have gradients, are transformed and counted."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Each input is by itself, though it may be, or come from, another one.
        alone = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        y = _formula(parts, first, alone[0], alone[1:])  # type: ignore[arg-type]
    wanted = [tensor for tensor, need in zip(alone, needed, strict=True) if need and tensor is not None]
    found = iter(torch.autograd.grad(y, wanted, d, create_graph=again))
    return [next(found) if need else None for need in needed]


# -- which layers these are --------------------------------------------------------------------------------------------


def suits(x: Tensor) -> bool:
    """Return whether parts may be one node where these are the numbers: plain ones, single precision, on a CPU."""
    if torch.compiler.is_compiling() or x.dtype != torch.float32 or not x.is_cpu or not x.numel() or x.dim() < 2:
        return False
    return not (_modes() or _has_any_global_hook() or transformed(x)) and complete(*_KERNELS)


def _modes() -> int:
    """How many modes see each operation, as those that count them; torch has no public name for that."""
    return torch._C._len_torch_dispatch_stack()


def _plain(*modules: tuple[nn.Module, type[nn.Module]]) -> bool:
    """Whether modules are these of ours, whatever makes their parameters, drop nothing and have no hooks.

    A subclass may do anything.
    """
    for m, wanted in modules:
        kind = type(m)
        if kind is not wanted and not (wanted is Dropout and kind is nn.Identity):
            kind = parametrize.type_before_parametrizations(m)
            if kind is not wanted:
                return False
        if m.training and ((kind is Dropout and m.p) or (kind is MultiheadAttention and m.dropout)):
            return False
        hooks = m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        if hooks or "forward" in m.__dict__:
            return False
    return True


def _part(middle: Middle, norm: Any, sizes: tuple[int, int, int], *products: Tensor | None) -> Part | None:
    """The part, unless its weights do not fit to the sizes D, M and M', or are not what `suits` asks of numbers."""
    (width, wide, inner), weights = sizes, (_whole(norm.weight), _whole(norm.bias), *products)
    shapes = (width,), (width,), (wide, width), (wide,), (width, inner), (width,)
    for w, shape in zip(weights, shapes, strict=True):
        if w is None:
            continue
        plain = w.dtype == torch.float32 and w.is_cpu and type(w) in (nn.Parameter, Tensor)
        if not plain or w.shape != shape:
            return None
    return Part(middle, norm.eps, weights)


def _whole(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def feed_forward_part(
    x: Tensor, norm: Any, linear1: Any, activation: Callable[[Tensor], Tensor], linear2: Any, *dropouts: nn.Module
) -> Part | None:
    """Return a feed-forward network as a part, or None where it is none.

    Args:
        x: (…, D).
        norm: N.
        linear1: W and b.
        activation: G.
        linear2: V and c.
        dropouts: what may drop some of it.
    """
    name = next((name for name in ("relu", "gelu", "gelu_tanh") if ACTIVATIONS[name] is activation), None)
    known = (norm, LayerNorm), (linear1, Linear), (linear2, Linear), *((m, Dropout) for m in dropouts)
    if name is None or not _plain(*known) or norm.normalized_shape != x.shape[-1:]:
        return None
    weights = linear1.weight, linear1.bias, linear2.weight, linear2.bias
    return _part(Activation(name), norm, (x.shape[-1], linear1.out_features, linear1.out_features), *weights)


def attention_part(
    x: Tensor,
    norm: Any,
    attention: Any,
    mask: Tensor | None,
    padding: Tensor | None,
    is_causal: bool,
    *dropouts: nn.Module,
) -> Part | None:
    """Return attention among the steps of x as a part, or None where it is none.

    Args:
        x: (B, T, D).
        norm: N.
        attention: G and the products around it.
        mask: as `MultiheadAttention` takes it, like the next two.
        padding: (B, T).
        is_causal: no step sees a later one.
        dropouts: what may drop some of it.

    Raises:
        ValueError: a shape or the type of a mask does not fit.
    """
    a = attention
    known = (norm, LayerNorm), (a, MultiheadAttention), *((m, Dropout) for m in dropouts)
    if x.dim() != 3 or not _plain(*known) or not _plain((a.out_proj, Linear)):
        return None
    usual = a.batch_first and a.kdim == a.vdim == a.embed_dim and a.bias_k is None and not a.add_zero_attn
    if not usual or a.positions == "rotary" or norm.normalized_shape != (a.embed_dim,) or x.shape[2] != a.embed_dim:
        return None
    rows, steps, _ = x.shape
    mask = a.merged_mask((rows, steps, steps), x.dtype, mask, padding)
    if mask is not None:
        if mask.requires_grad or not mask.is_cpu or type(mask) is not Tensor:
            return None
        mask = mask[(None,) * (4 - mask.dim())]
    slopes = alibi_slopes(a.num_heads, x) if a.positions == "alibi" else None
    sizes = rows, steps, a.num_heads, a.num_kv_heads, a.head_dim
    packed = Packed(*sizes, mask, slopes, 1 / math.sqrt(a.head_dim), a.causal or is_causal, a.window or 0)
    if steps < _FEW or not packed.fits():
        return None
    weights = a.in_proj_weight, a.in_proj_bias, a.out_proj.weight, a.out_proj.bias
    wide = a.embed_dim + 2 * a.num_kv_heads * a.head_dim
    return _part(Attention(packed), norm, (a.embed_dim, wide, a.embed_dim), *weights)
