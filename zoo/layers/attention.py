r"""Attention from raw tensors: every query takes the mean of the values, weighed by how well their keys fit it.

```math
\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\Bigl(\frac{Q K^\top}{\sqrt d} + M\Bigr) V, \qquad
\mathrm{MultiHead}(x) = \bigl[\mathrm{Attention}(x W_h^Q, x W_h^K, x W_h^V)\bigr]_{h = 1 … H} W^O
```

Legend: B rows, T queries, S keys, D width, H heads of d = D / H numbers, G heads of keys and values (H, or a divisor of
it), M the mask: 0 where a query sees a key, −∞ where it does not, or any numbers to add.

Source: Vaswani et al. 2017, §3.2; Ainslie et al. 2023 (grouped-query heads); Beltagy et al. 2020 (windows); Su et al.
2021 (rotary) and Press et al. 2022 (ALiBi positions). Deviations from torch's layer, whose constructor, `state_dict`,
initial parameters under a seed, results and gradients these are: a query that sees no key gives zeros, where torch
gives NaN, and `is_causal` needs no mask.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.attention import BlockwiseAttention, Inputs, fits_gpu, wide
from zoo.kernels.attention_cpu import compiled
from zoo.layers.cache import KeyValueCache
from zoo.layers.dropout import dropout
from zoo.layers.linear import Linear, linear
from zoo.layers.positions import BASE, alibi_slopes, rotate
from zoo.layers.usable import autocast, transformed

__all__ = ["MultiheadAttention", "attend", "attention_bias", "scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    window: int | None = None,
    alibi: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """Return `softmax(Q Kᵀ / √d + M) V`, as `torch.nn.functional.scaled_dot_product_attention`.

    Args:
        query: (…, H, T, d).
        key: (…, G, S, d), with G = H unless `enable_gqa`.
        value: (…, G, S, e).
        attn_mask: what broadcasts to (…, H, T, S): booleans, true where a query sees a key, or numbers to add.
        dropout_p: share of the weights dropped; also outside of training, as in torch.
        is_causal: query t sees the keys up to `offset + t` alone; no mask is needed, and one that is given counts too.
        scale: in the place of 1 / √d.
        enable_gqa: G may be a divisor of H, and G heads of keys serve H / G heads of queries each.
        window: how many keys back a query sees, itself among them; where not causal as many ahead.
        alibi: slopes (H,): m_h |t − s| is taken from the scores.
        offset: the place of the first query among the keys.

    Returns:
        (…, H, T, e); zeros where a query sees no key.

    Raises:
        ValueError: shapes do not fit, a mask is of whole numbers, or dropout or window is out of its range.

    Source: Vaswani et al. 2017, §3.2.1.

    Example:
        >>> q, k, v = torch.randn(3, 2, 4, 5, 8)
        >>> scaled_dot_product_attention(q, k, v, is_causal=True).shape
        torch.Size([2, 4, 5, 8])
    """
    _check_shapes(query, key, value, enable_gqa)
    _check_window(window)
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p must be in [0, 1], not {dropout_p}")
    if alibi is not None and tuple(alibi.shape) != (query.shape[-3] if query.dim() > 2 else 1,):
        raise ValueError(f"alibi must be one slope for each head of {tuple(query.shape)}, not {tuple(alibi.shape)}")
    if attn_mask is not None:
        _check_mask(attn_mask, query, key, value)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = additive(~attn_mask, query.dtype)
    learned = alibi is not None and alibi.requires_grad
    if query.dim() == 4 and not learned and blockwise_wins(query, key, value, attn_mask):
        return blockwise(query, key, value, attn_mask, alibi, scale, dropout_p, is_causal, window, offset)
    bias, dead = attention_bias(
        query, key.shape[-2], attn_mask, is_causal=is_causal, window=window, alibi=alibi, offset=offset
    )
    return attend(query, key, value, bias, dead, scale, dropout_p)[0]


def _check_shapes(query: Tensor, key: Tensor, value: Tensor, grouped: bool) -> None:
    shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise ValueError(f"queries, keys and values must have at least two axes, not {shapes}")
    heads, groups, others = (x.shape[-3] if x.dim() > 2 else 1 for x in (query, key, value))
    if not grouped and heads != groups and min(heads, groups) > 1:
        raise ValueError(f"{groups} heads of keys do not fit {heads} of queries: pass enable_gqa=True")
    if groups != others and min(groups, others) > 1:
        raise ValueError(f"keys and values must have as many heads, not {groups} and {others}")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError(f"keys must be as wide as queries and as many as values, not {shapes}")


def _check_mask(mask: Tensor, query: Tensor, key: Tensor, value: Tensor) -> None:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"attn_mask must be of booleans or floating-point numbers, not {mask.dtype}")
    wanted = (*query.shape[:-1], key.shape[-2])
    if not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:  # rows broadcast, and heads may be shared
        rows = torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])
        heads = max(x.shape[-3] if x.dim() > 2 else 1 for x in (query, key, value))
        wanted = (*rows, heads, *wanted[-2:])
    pairs = zip(reversed(mask.shape), reversed(wanted), strict=False)
    if mask.dim() > len(wanted) or not all(size in (1, whole) for size, whole in pairs):
        raise ValueError(f"attn_mask must be of a shape that broadcasts to {tuple(wanted)}, not {tuple(mask.shape)}")


def _check_window(window: int | None) -> None:
    if window is not None and (window < 1 or window != int(window)):
        raise ValueError(f"window must be at least 1, and whole, not {window}")


def _scale(query: Tensor) -> float:
    """1 / √d."""
    return 1 / math.sqrt(max(1, query.shape[-1]))


def additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """Return −∞ where a key is hidden and 0 elsewhere."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, -torch.inf)


def attention_bias(
    query: Tensor,
    keys: int,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    window: int | None = None,
    alibi: Tensor | None = None,
    offset: int = 0,
    always: int = 0,
) -> tuple[Tensor | None, Tensor | None]:
    """Merge all that is added to the scores, so that no row of it is −∞ throughout.

    Args:
        query: (…, T, d), for its length, type and device.
        keys: S.
        mask: numbers to add, which broadcast to (…, T, S).
        is_causal: query t sees the keys up to `offset + t`.
        window: how many keys back (and ahead, where not causal) a query sees.
        alibi: slopes (H,).
        offset: the place of the first query among the keys.
        always: keys behind the S that every query sees.

    Returns:
        M as (…, T, S + always), or None where all is 0, with rows of −∞ replaced by zeros; and which rows those are,
        (…, T, 1), or None where there can be none. Their result is to be replaced by zeros: a softmax of nothing but
        −∞ is NaN, and so is its gradient, even where nobody takes it.
    """
    _check_window(window)
    queries = query.shape[-2]
    bias = None if mask is None else mask.to(query.dtype)
    any_length = torch.compiler.is_exporting()  # a graph for any length asks for none
    # one query at the end of its keys, as in decoding, sees them all
    ahead = is_causal and (any_length or offset < keys - 1)
    far = any_length or window is None or offset + queries > window or (not is_causal and keys - offset > window)
    behind = window is not None and far
    if ahead or behind or alibi is not None:
        places = torch.arange(queries, device=query.device).unsqueeze(1) + offset
        back = places - torch.arange(keys, device=query.device)  # (T, S), how far a key lies behind a query
        if alibi is not None:
            slope = alibi.to(query).view(-1, 1, 1) * -back.abs()  # (H, T, S)
            bias = slope if bias is None else bias + slope
        if ahead or behind:
            hidden = back < 0 if is_causal else torch.zeros_like(back, dtype=torch.bool)
            if window is not None:
                hidden = hidden | (back >= window) | (back <= -window)
            bias = additive(hidden, query.dtype) if bias is None else bias.masked_fill(hidden, -torch.inf)
    dead = None
    # queries before all keys, or behind them
    beyond = offset < 0 or (behind and (any_length or offset + queries > keys))
    if bias is not None and not always and (mask is not None or beyond):
        dead = (bias == -torch.inf).all(dim=-1, keepdim=True)
        bias = bias.masked_fill(dead, 0.0)
    if bias is not None and always:
        bias = F.pad(bias, (0, always))
    return bias, dead


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    dead: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return the results (…, H, T, e) and the weights (…, H, T, S) of queries, keys and values by heads.

    `bias` and `dead` are those of `attention_bias`; the weights of dead rows are left to who asks for them.
    """
    scale = _scale(query) if scale is None else scale
    heads, groups = (x.shape[-3] if x.dim() > 2 else 1 for x in (query, key))
    grouped = groups > 1 and heads not in (1, groups)
    scores = _by_group(query * scale, key.transpose(-1, -2), groups) if grouped else (query * scale) @ key.mT
    weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)  # (…, H, T, S)
    weights = dropout(weights, dropout_p)
    result = _by_group(weights, value, groups) if grouped else weights @ value
    return result if dead is None else result.masked_fill(dead, 0.0), weights


def _formula(x: Inputs) -> Tensor:
    """What the operator stands for, without dropout."""
    bias, dead = attention_bias(
        x.q, x.k.shape[-2], x.mask, is_causal=x.causal, window=x.window or None, alibi=x.slopes, offset=x.offset
    )
    return attend(x.q, x.k, x.v, bias, dead, x.scale)[0]


_BLOCKWISE = BlockwiseAttention(_formula)
_WORTH = 1 << 14  # scores of a head up to which products of all heads at once are as fast as the operator
_SMALL = 1 << 13  # scores in all from which its kernel in C is faster than them
_SMALLER = 1 << 12  # and so without gradients
_FUSED = 1 << 16  # and faster than torch's own operator
_WIDE = 1 << 16  # numbers of a product whose gradient takes longer to join than a node in Python to say where it lies
_FEW = 4  # queries, below which the kernel takes longer over the keys than over them
_ON_GPU = 1 << 15  # scores of a row of the batch, below which the operator costs more than it saves


def blockwise(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    alibi: Tensor | None,
    scale: float | None,
    dropout_p: float,
    is_causal: bool,
    window: int | None,
    offset: int,
    packed: bool = False,
) -> Tensor:
    """The results by the operator `zoo::attention`, which never has all weights at once."""
    _check_window(window)
    kind = _kind(query)
    query, key, value = query.to(kind), key.to(kind), value.to(kind)
    mask = None if mask is None else mask.to(query.dtype)[(None,) * (4 - mask.dim())]
    seed = torch.randint(1 << 62, ()) if dropout_p > 0 else None
    scale = _scale(query) if scale is None else scale
    slopes = None if alibi is None else alibi.to(query.device, wide(query.dtype))
    options = (scale, dropout_p, is_causal, window or 0, offset, packed)
    return _BLOCKWISE(Inputs(query, key, value, mask, slopes, seed, *options))


def blockwise_wins(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, least: int = _SMALL) -> bool:
    """Whether the operator goes, and is faster, on a CPU from `least` scores on, and in Triton on a GPU."""
    (rows, heads, queries, width), groups, keys = query.shape, key.shape[1], key.shape[2]
    if torch.compiler.is_exporting():  # for any length, and to run without the zoo
        return False
    if mask is not None and (mask.requires_grad or mask.dim() < 2 or mask.shape[-1] != keys):
        return False
    shared = key.shape[-1] == width and heads % max(1, groups) == 0
    fits = shared and key.shape[:3] == value.shape[:3] == (rows, groups, keys)
    if not fits or queries == 1:
        return False
    if query.device.type == "cpu":
        many = queries >= _FEW and rows * heads * queries * keys >= least
        many = many and not torch.compiler.is_compiling() and compiled(query, keys * max(width, value.shape[-1]))
        if not (many or queries * keys > _WORTH) or query.dtype not in (torch.float32, torch.float64):
            return False
    elif heads * queries * keys < _ON_GPU or not fits_gpu(query.device, _kind(query), width, value.shape[-1]):
        return False
    return not transformed(query, key, value, *(() if mask is None else (mask,)), cast=query.device.type == "cpu")


def _least() -> int:
    return _SMALL if torch.is_grad_enabled() else _SMALLER


def _kind(x: Tensor) -> torch.dtype:
    """The type of products with x: on a GPU that of autocast, where it is on."""
    cast = x.is_cuda and x.dtype != torch.float64 and autocast("cuda")
    return torch.get_autocast_dtype("cuda") if cast else x.dtype


def fused_wins(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    alibi: Tensor | None,
    window: int | None,
) -> bool:
    """Whether torch's operator for small products goes, and is faster: a training step without masks, on a CPU."""
    if query.device.type != "cpu" or not query.requires_grad or torch.compiler.is_compiling():
        return False
    if mask is not None or alibi is not None or window is not None:
        return False
    return query.shape == key.shape == value.shape and query.numel() > 0 and not transformed(query, key, value)


class _Split(torch.autograd.Function):
    """Queries (B, H, T, d), keys and values (B, G, T, d) of a product (B, T, (H + 2 G) d); no copy either way."""

    @staticmethod
    def forward(ctx: Any, product: Tensor, width: int, heads: int, groups: int) -> tuple[Tensor, ...]:
        ctx.shape = product.shape
        by_head = product.view(*product.shape[:2], heads + 2 * groups, width).transpose(1, 2)
        return by_head.split([heads, groups, groups], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _, steps, width = ctx.shape
        first, strides = gradients[0], (steps * width, width, 1)
        if not torch.is_grad_enabled() and _side_by_side(gradients, width):
            return first.as_strided(ctx.shape, strides), None, None, None
        return torch.cat([x.transpose(1, 2) for x in gradients], 2).flatten(2), None, None, None


def _side_by_side(parts: tuple[Tensor, ...], width: int) -> bool:
    """Whether tensors by heads are all there is of one tensor (B, T, width), one part of it after the other."""
    place = 0
    for x in parts:
        rows, heads, steps, d = x.shape
        if x.stride() != (steps * width, d, width, 1) or x.storage_offset() != place:
            return False
        place += heads * d
    room = parts[0].untyped_storage()
    whole = place == width and room.nbytes() == parts[0].element_size() * width * rows * steps
    return whole and all(x.untyped_storage().data_ptr() == room.data_ptr() for x in parts)


def _by_group(x: Tensor, y: Tensor, groups: int) -> Tensor:
    """The product of H heads (…, H, T, m) with G heads (…, G, m, n), each of which serves H / G: (…, H, T, n)."""
    heads = x.shape[-3]
    if heads % groups:
        raise ValueError(f"{groups} heads of keys and values do not divide {heads} heads of queries")
    if torch.compiler.is_exporting():  # for any length, which the views below are not known to fit
        return x @ y.repeat_interleave(heads // groups, -3)
    steps = x.shape[-2]
    folded = x.unflatten(-3, (groups, heads // groups)).flatten(-3, -2)  # the queries of a group in one matrix
    return (folded @ y).unflatten(-2, (heads // groups, steps)).flatten(-4, -3)


class MultiheadAttention(nn.Module):
    r"""Attention of H heads at once, as `torch.nn.MultiheadAttention`, and with what that has not.

    Args:
        embed_dim: D.
        num_heads: H.
        dropout: share of the weights dropped in training.
        bias: have biases of the products.
        add_bias_kv: have a learned key and value that every query sees.
        add_zero_attn: have a key and value of zeros that every query sees.
        kdim: width of the keys; D if None.
        vdim: width of the values; D if None.
        batch_first: tensors are (B, T, D) instead of (T, B, D).
        device: of the parameters.
        dtype: of the parameters.
        num_kv_heads: G heads of keys and values, which divide H; H if None.
        causal: no query sees a later key.
        window: how many keys back a query sees, itself among them; where not causal as many ahead.
        positions: `rotary` turns queries and keys by their positions, `alibi` takes their distance from the scores.
        rotary_base: θ of the rotations.

    Raises:
        ValueError: an option is out of its range, or a shape does not fit.

    Source: Vaswani et al. 2017, §3.2.2.

    Example:
        >>> x = torch.randn(2, 5, 8)
        >>> output, weights = MultiheadAttention(8, num_heads=2, batch_first=True, causal=True)(x, x, x)
        >>> output.shape, weights.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 5, 5]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        num_kv_heads: int | None = None,
        causal: bool = False,
        window: int | None = None,
        positions: Literal["rotary", "alibi"] | None = None,
        rotary_base: float = BASE,
    ) -> None:
        super().__init__()
        self.fused = False  # small training steps by torch's operator, which has no second derivatives
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.causal, self.window, self.positions, self.rotary_base = causal, window, positions, rotary_base
        self.add_zero_attn = add_zero_attn
        self._check_arguments()
        self.head_dim = embed_dim // num_heads
        inner = self.num_kv_heads * self.head_dim
        factory = {"device": device, "dtype": dtype}

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, **factory))  # type: ignore[arg-type]

        same = self._qkv_same_embed_dim
        self.in_proj_weight = parameter(embed_dim + 2 * inner, embed_dim) if same else None
        self.q_proj_weight = None if same else parameter(embed_dim, embed_dim)
        self.k_proj_weight = None if same else parameter(inner, self.kdim)
        self.v_proj_weight = None if same else parameter(inner, self.vdim)
        self.in_proj_bias = parameter(embed_dim + 2 * inner) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, **factory)  # type: ignore[arg-type]
        self.bias_k = parameter(1, 1, inner) if add_bias_kv else None
        self.bias_v = parameter(1, 1, inner) if add_bias_kv else None
        self.reset_parameters()

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """Whether one matrix makes queries, keys and values, as torch names it."""
        return self.kdim == self.vdim == self.embed_dim

    def _check_arguments(self) -> None:
        if self.embed_dim <= 0 or self.num_heads <= 0:
            raise ValueError(
                f"embed_dim and num_heads must be greater than 0, got embed_dim={self.embed_dim} and "
                f"num_heads={self.num_heads} instead"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must divide embed_dim ({self.embed_dim})")
        if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads ({self.num_kv_heads}) must divide num_heads ({self.num_heads})")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be in [0, 1], not {self.dropout}")
        _check_window(self.window)
        if self.positions not in (None, "rotary", "alibi"):
            raise ValueError(f"positions must be 'rotary', 'alibi' or None, not {self.positions!r}")
        if self.positions == "rotary" and self.embed_dim // self.num_heads % 2:
            width = self.embed_dim // self.num_heads
            raise ValueError(f"rotary positions turn pairs of numbers: the width of a head must be even, not {width}")
        if self.positions == "rotary" and not self.rotary_base > 0:
            raise ValueError(f"rotary_base must be above 0, not {self.rotary_base}")

    def reset_parameters(self) -> None:
        """Draw the weights as torch does: uniform after Glorot & Bengio, biases 0."""
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                nn.init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                nn.init.zeros_(bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                nn.init.xavier_normal_(extra)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query: (T, B, D), with `batch_first` (B, T, D), or unbatched (T, D).
            key: (S, B, kdim), and so on.
            value: (S, B, vdim), and so on.
            key_padding_mask: (B, S), or (S,): booleans, true where a key is padding, or numbers to add.
            need_weights: return the weights as well.
            attn_mask: (T, S) or (B*H, T, S): booleans, true where a query does *not* see a key, or numbers to add.
            average_attn_weights: the mean weights over the heads instead of those of each.
            is_causal: no query sees a later key; a mask that is given counts too.
            cache: keys and values of the steps before; those of this call are added to it, and both are seen. Masks
                then speak of all keys. One that is `fixed` keeps the keys of its first call in the place of all later.

        Returns:
            (T, B, D) as the query, and None or the weights: (B, T, S), for each head (B, H, T, S), without B where
            the query is unbatched. A query that sees no key gets zeros for its mean, and weights of 0.

        Raises:
            ValueError: a shape or the type of a mask does not fit.
        """
        batched = query.dim() == 3
        if not batched:
            same, shared = query is key, key is value
            query, key, value = self._as_batch(query, key, value, same, shared)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        offset = 0 if cache is None or cache.fixed else cache.length
        q, k, v = self._heads(query, key, value, offset, cache)
        mask = self.merged_mask((q.shape[0], q.shape[2], k.shape[2]), q.dtype, attn_mask, key_padding_mask)
        slopes = alibi_slopes(self.num_heads, q) if self.positions == "alibi" else None
        dropout_p, causal = self.dropout if self.training else 0.0, self.causal or is_causal
        always = (self.bias_k is not None) + self.add_zero_attn
        plain = not (need_weights or always)
        fused = self.fused and plain and not (dropout_p or offset) and fused_wins(q, k, v, mask, slopes, self.window)
        if plain and blockwise_wins(q, k, v, mask, _FUSED if fused else _least()):
            packed = self._packs(query, key, value, cache)
            mixed = blockwise(q, k, v, mask, slopes, None, dropout_p, causal, self.window, offset, packed)
        elif fused:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        else:
            bias, dead = attention_bias(
                q, k.shape[-2], mask, is_causal=causal, window=self.window, alibi=slopes, offset=offset, always=always
            )
            if always:
                k, v = self._with_extra(k, self.bias_k), self._with_extra(v, self.bias_v)
            mixed, weights = attend(q, k, v, bias, dead, dropout_p=dropout_p)
        joined = mixed.permute(0, 2, 1, 3) if self.batch_first else mixed.permute(2, 0, 1, 3)  # (B, T, H, d)
        output = self.out_proj(joined.flatten(-2))
        if not batched:
            output = output.squeeze(0 if self.batch_first else 1)
        if not need_weights:
            return output, None
        weights = weights if dead is None else weights.masked_fill(dead, 0.0)
        weights = weights.mean(dim=1) if average_attn_weights else weights
        return output, weights if batched else weights.squeeze(0)

    def _as_batch(self, query: Tensor, key: Tensor, value: Tensor, same: bool, shared: bool) -> tuple[Tensor, ...]:
        """Give three sequences an axis of one row, and keep what was one tensor one."""
        if not query.dim() == key.dim() == value.dim() == 2:
            ranks = ", ".join(f"{x.dim()}D" for x in (query, key, value))
            raise ValueError(f"query, key and value must all be (T, B, D), or all (T, D), not {ranks}")
        axis = 0 if self.batch_first else 1
        query = query.unsqueeze(axis)
        key = query if same else key.unsqueeze(axis)
        return query, key, key if shared else value.unsqueeze(axis)

    def _heads(
        self, query: Tensor, key: Tensor, value: Tensor, offset: int, cache: KeyValueCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, d), keys and values (B, G, S, d) by heads, with those that the cache holds."""
        stored = cache is not None and cache.fixed and cache.length > 0
        self._check_shapes(query, key, value, stored)
        d = self.head_dim
        sizes = [self.embed_dim, self.num_kv_heads * d, self.num_kv_heads * d]
        if self.in_proj_weight is not None and query is key and key is value and not stored:
            product = linear(query, self.in_proj_weight, self.in_proj_bias)
            packs = self._packs(query, key, value, cache)  # not in a graph, where no size is asked for
            if packs and product.numel() >= _WIDE and not transformed(product):
                return _Split.apply(product, d, self.num_heads, self.num_kv_heads)
            products = product.split(sizes, dim=-1)
        else:
            weights = (
                (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
                if self.in_proj_weight is None
                else self.in_proj_weight.split(sizes)
            )
            biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.split(sizes)
            inputs = (query,) if stored else (query, key, value)
            triples = zip(inputs, weights, biases, strict=False)
            products = tuple(linear(x, w, b) for x, w, b in triples if w is not None)
        order = (0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3)
        q, *rest = (x.view(*x.shape[:2], x.shape[2] // d, d).permute(order) for x in products)
        if self.positions == "rotary":
            q = rotate(q, torch.arange(offset, offset + q.shape[2], device=q.device), self.rotary_base)
        if stored:
            assert cache is not None
            return q, *cache.stored()
        k, v = rest
        if self.positions == "rotary":
            k = rotate(k, torch.arange(offset, offset + k.shape[2], device=k.device), self.rotary_base)
        return (q, k, v) if cache is None else (q, *cache.append(k, v))

    def _packs(self, query: Tensor, key: Tensor, value: Tensor, cache: KeyValueCache | None) -> bool:
        """Whether the gradients of queries, keys and values are best made as the parts of one product's."""
        same = query is key and key is value and self.in_proj_weight is not None
        eager = query.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return same and eager and self.batch_first and cache is None and self.positions != "rotary"

    def _check_shapes(self, query: Tensor, key: Tensor, value: Tensor, stored: bool) -> None:
        if query.shape[-1] != self.embed_dim:
            raise ValueError(f"the query must be {self.embed_dim} wide, as embed_dim says, not {query.shape[-1]}")
        if stored:
            return
        if key.dim() != 3 or value.dim() != 3:
            raise ValueError(f"a batched query needs a batched key and value, not {key.dim()}D and {value.dim()}D")
        axis = 0 if self.batch_first else 1
        if query.shape[axis] != key.shape[axis] or key.shape[:2] != value.shape[:2]:
            shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
            raise ValueError(f"query, key and value must agree in rows, and key and value in steps, not {shapes}")
        if key.shape[-1] != self.kdim or value.shape[-1] != self.vdim:
            raise ValueError(
                f"key and value must be {self.kdim} and {self.vdim} wide, not {key.shape[-1]} and {value.shape[-1]}"
            )

    def merged_mask(
        self, sizes: tuple[int, int, int], dtype: torch.dtype, mask: Tensor | None, padding: Tensor | None
    ) -> Tensor | None:
        """Both masks as numbers to add, (T, S), (B, 1, 1, S) or (B, H, T, S), for sizes B, T and S."""
        (rows, queries, keys), heads = sizes, self.num_heads
        if mask is not None:
            shapes = [(queries, keys), (rows * heads, queries, keys)]
            if tuple(mask.shape) not in shapes:
                raise ValueError(f"attn_mask must be of shape {shapes[0]} or {shapes[1]}, not {tuple(mask.shape)}")
            mask = _numbers("attn_mask", mask, dtype)
            mask = mask.view(rows, heads, queries, keys) if mask.dim() == 3 else mask
        if padding is not None:
            if tuple(padding.shape) != (rows, keys):
                raise ValueError(f"key_padding_mask must be of shape {(rows, keys)}, not {tuple(padding.shape)}")
            padding = _numbers("key_padding_mask", padding, dtype).view(rows, 1, 1, keys)
        if mask is None or padding is None:
            return padding if mask is None else mask
        return mask + padding

    def _with_extra(self, x: Tensor, learned: Tensor | None) -> Tensor:
        """Keys or values (B, G, S, d) and behind them the learned one and that of zeros."""
        shape = (x.shape[0], x.shape[1], 1, x.shape[3])
        extra = [x]
        if learned is not None:
            extra.append(learned.view(1, x.shape[1], 1, x.shape[3]).to(x.dtype).expand(shape))
        if self.add_zero_attn:
            extra.append(x.new_zeros(shape))
        return torch.cat(extra, dim=2)

    def __prepare_scriptable__(self) -> nn.MultiheadAttention:
        """What `torch.jit.script` takes in its place: torch's layer with these very parameters.

        Raises:
            ValueError: torch's layer has not all options of this one.
        """
        if self.num_kv_heads != self.num_heads or self.causal or self.window or self.positions:
            raise ValueError(f"torch.nn has no such layer, so that it cannot be scripted: {self}")
        layer = nn.MultiheadAttention(
            self.embed_dim, self.num_heads, self.dropout, self.in_proj_bias is not None, self.bias_k is not None,
            self.add_zero_attn, self.kdim, self.vdim, self.batch_first, device="meta",
        )  # fmt: skip
        for name, parameter in self.named_parameters():
            home, _, field = name.rpartition(".")
            setattr(layer.get_submodule(home), field, parameter)
        return layer.train(self.training)

    def extra_repr(self) -> str:
        """The sizes, and every option that is not at its default."""
        defaults: dict[str, object] = {"dropout": 0.0, "kdim": self.embed_dim, "vdim": self.embed_dim}
        defaults |= {"add_zero_attn": False, "batch_first": False, "num_kv_heads": self.num_heads, "causal": False}
        defaults |= {"window": None, "positions": None, "rotary_base": BASE}
        shown = [f"{name}={getattr(self, name)}" for name, value in defaults.items() if getattr(self, name) != value]
        shown += [] if self.in_proj_bias is not None else ["bias=False"]
        shown += [] if self.bias_k is None else ["add_bias_kv=True"]
        return ", ".join([f"{self.embed_dim}, {self.num_heads}", *shown])


def _numbers(name: str, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers to add: of booleans −∞ where true."""
    if mask.dtype == torch.bool:
        return additive(mask, dtype)
    if not mask.is_floating_point():
        raise ValueError(f"{name} must be of booleans or floating-point numbers, not {mask.dtype}")
    return mask.to(dtype)
