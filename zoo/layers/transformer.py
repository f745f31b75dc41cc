r"""The transformer from raw tensors: drop-ins for `torch.nn.Transformer` and what it consists of.

Attention mixes the steps, a feed-forward network works on each, and around both goes a residual path with a
normalization:

```math
x' = N(x + A(x)) \quad (\text{post-norm, 2017}), \qquad x' = x + A(N(x)) \quad (\text{pre-norm})
```

Legend: B rows, T steps of the target, S of the source, D width, A attention or the feed-forward network with dropout
behind it, N `LayerNorm`.

Source: Vaswani et al. 2017, §3.1; Xiong et al. 2020 (pre-norm). Deviations from torch's layers, whose constructors,
`state_dict`, initial parameters under a seed, results and gradients these are: no NaN where a query sees nothing,
`is_causal` needs no mask, and an encoder in evaluation gives what it computed at padded steps, where torch's nested
tensors give zeros.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.attention import MultiheadAttention
from zoo.layers.cache import KeyValueCache, TransformerCache
from zoo.layers.dropout import Dropout
from zoo.layers.feedforward import ACTIVATIONS
from zoo.layers.linear import Linear
from zoo.layers.normalization import LayerNorm
from zoo.layers.sublayers import Part, attention_part, feed_forward_part, run, suits

__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]

Activation = Callable[[Tensor], Tensor]


def residual(
    x: Tensor, norm: nn.Module, sublayer: Activation, norm_first: bool, part: Part | None = None
) -> Tensor:  # fmt: skip
    """Return `x + A(N(x))` where the normalization comes first, else `N(x + A(x))`; by one node where it is a part."""
    if part is not None:
        return run(x, norm_first, part)
    return x + sublayer(norm(x)) if norm_first else norm(x + sublayer(x))


class TransformerEncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, as `torch.nn.TransformerEncoderLayer`.

    Args:
        d_model: D.
        nhead: heads of the attention.
        dim_feedforward: inner width of the feed-forward network.
        dropout: share dropped in training of the weights, of the inner numbers, and behind both parts.
        activation: `relu`, `gelu`, `gelu_tanh`, or a function.
        layer_norm_eps: ε of the normalizations.
        batch_first: tensors are (B, T, D) instead of (T, B, D).
        norm_first: normalize before each part instead of behind it.
        bias: have biases, and shifts of the normalizations.
        device: of the parameters.
        dtype: of the parameters.
        causal: no step sees a later one.
        window: how many steps back a step sees, itself among them; where not causal as many ahead.
        positions: `rotary` or `alibi` positions of the attention.
        num_kv_heads: heads of keys and values; `nhead` if None.

    Raises:
        ValueError: an option is out of its range, or a shape does not fit.

    Source: Vaswani et al. 2017, §3.1.

    Example:
        >>> TransformerEncoderLayer(8, nhead=2, batch_first=True)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        causal: bool = False,
        window: int | None = None,
        positions: Literal["rotary", "alibi"] | None = None,
        num_kv_heads: int | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, causal=causal, window=window, positions=positions,
            num_kv_heads=num_kv_heads, **factory,
        )  # fmt: skip
        self.linear1 = Linear(d_model, dim_feedforward, bias, **factory)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **factory)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _activation(activation)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Encode.

        Args:
            src: (T, B, D), with `batch_first` (B, T, D), or unbatched (T, D).
            src_mask: (T, T) or (B*H, T, T): booleans, true where a step does *not* see another, or numbers to add.
            src_key_padding_mask: (B, T): booleans, true where a step is padding, or numbers to add.
            is_causal: no step sees a later one; a mask that is given counts too.
            cache: keys and values of the steps before.

        Returns:
            The shape of `src`.
        """

        def attend(x: Tensor) -> Tensor:
            mixed = self.self_attn(
                x, x, x, src_key_padding_mask, need_weights=False, attn_mask=src_mask, is_causal=is_causal, cache=cache
            )[0]
            return self.dropout1(mixed)

        def feed_forward(x: Tensor) -> Tensor:
            return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))

        looks = thinks = None
        if cache is None and suits(src):
            masks = src_mask, src_key_padding_mask, is_causal
            looks = attention_part(src, self.norm1, self.self_attn, *masks, self.dropout1)
            layers = self.linear1, self.activation, self.linear2
            thinks = feed_forward_part(src, self.norm2, *layers, self.dropout, self.dropout2)
        if looks is not None and thinks is not None:
            return run(src, self.norm_first, looks, thinks)
        x = residual(src, self.norm1, attend, self.norm_first, looks)
        return residual(x, self.norm2, feed_forward, self.norm_first, thinks)

    def extra_repr(self) -> str:
        return f"norm_first={self.norm_first}"


class TransformerDecoderLayer(nn.Module):
    """Self-attention, attention to a memory and a feed-forward network, as `torch.nn.TransformerDecoderLayer`.

    Args:
        d_model: D.
        nhead: heads of the attention.
        dim_feedforward: inner width of the feed-forward network.
        dropout: share dropped in training of the weights, of the inner numbers, and behind each part.
        activation: `relu`, `gelu`, `gelu_tanh`, or a function.
        layer_norm_eps: ε of the normalizations.
        batch_first: tensors are (B, T, D) instead of (T, B, D).
        norm_first: normalize before each part instead of behind it.
        bias: have biases, and shifts of the normalizations.
        device: of the parameters.
        dtype: of the parameters.
        causal: no step sees a later one.
        window: how many steps back a step sees, itself among them; where not causal as many ahead.
        positions: `rotary` or `alibi` positions of the self-attention.
        num_kv_heads: heads of keys and values; `nhead` if None.

    Raises:
        ValueError: an option is out of its range, or a shape does not fit.

    Source: Vaswani et al. 2017, §3.1.

    Example:
        >>> layer = TransformerDecoderLayer(8, nhead=2, batch_first=True, causal=True)
        >>> layer(torch.zeros(2, 5, 8), memory=torch.zeros(2, 7, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        causal: bool = False,
        window: int | None = None,
        positions: Literal["rotary", "alibi"] | None = None,
        num_kv_heads: int | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        shared: dict[str, Any] = {"batch_first": batch_first, "num_kv_heads": num_kv_heads, **factory}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, causal=causal, window=window, positions=positions, **shared
        )
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, bias, **shared)
        self.linear1 = Linear(d_model, dim_feedforward, bias, **factory)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **factory)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _activation(activation)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        cache: KeyValueCache | None = None,
        memory_cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Decode.

        Args:
            tgt: (T, B, D), with `batch_first` (B, T, D), or unbatched (T, D).
            memory: (S, B, D), and so on.
            tgt_mask: (T, T) or (B*H, T, T): booleans, true where a step does *not* see another, or numbers to add.
            memory_mask: (T, S) or (B*H, T, S), the same for the memory.
            tgt_key_padding_mask: (B, T): booleans, true where a step is padding, or numbers to add.
            memory_key_padding_mask: (B, S), the same for the memory.
            tgt_is_causal: no step sees a later one; a mask that is given counts too.
            memory_is_causal: the same for the memory.
            cache: keys and values of the steps before.
            memory_cache: a fixed cache, which keeps keys and values of the memory from the first call on.

        Returns:
            The shape of `tgt`.
        """

        def attend(x: Tensor) -> Tensor:
            mixed = self.self_attn(
                x, x, x, tgt_key_padding_mask, need_weights=False, attn_mask=tgt_mask, is_causal=tgt_is_causal,
                cache=cache,
            )[0]  # fmt: skip
            return self.dropout1(mixed)

        def look_up(x: Tensor) -> Tensor:
            mixed = self.multihead_attn(
                x, memory, memory, memory_key_padding_mask, need_weights=False, attn_mask=memory_mask,
                is_causal=memory_is_causal, cache=memory_cache,
            )[0]  # fmt: skip
            return self.dropout2(mixed)

        def feed_forward(x: Tensor) -> Tensor:
            return self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))

        looks = thinks = None
        if cache is None and memory_cache is None and suits(tgt):
            masks = tgt_mask, tgt_key_padding_mask, tgt_is_causal
            looks = attention_part(tgt, self.norm1, self.self_attn, *masks, self.dropout1)
            layers = self.linear1, self.activation, self.linear2
            thinks = feed_forward_part(tgt, self.norm3, *layers, self.dropout, self.dropout3)
        x = residual(tgt, self.norm1, attend, self.norm_first, looks)
        x = residual(x, self.norm2, look_up, self.norm_first)
        return residual(x, self.norm3, feed_forward, self.norm_first, thinks)

    def extra_repr(self) -> str:
        return f"norm_first={self.norm_first}"


class TransformerEncoder(nn.Module):
    """Encoder layers one behind the other, as `torch.nn.TransformerEncoder`.

    Args:
        encoder_layer: what is copied, with its parameters.
        num_layers: how many.
        norm: behind the last layer.
        enable_nested_tensor: there for code that passes it; padding is computed along here.
        mask_check: there for code that passes it.

    Raises:
        ValueError: `num_layers` is below 0, or a shape does not fit.

    Example:
        >>> encoder = TransformerEncoder(TransformerEncoderLayer(8, nhead=2), num_layers=12)
        >>> encoder(torch.zeros(5, 2, 8)).shape
        torch.Size([5, 2, 8])
    """

    def __init__(
        self,
        encoder_layer: nn.Module,
        num_layers: int,
        norm: nn.Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers, self.num_layers, self.norm = _copies(encoder_layer, num_layers), num_layers, norm
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
        *,
        cache: TransformerCache | None = None,
    ) -> Tensor:
        """Encode; arguments and result are those of a layer, and the cache has one part for each."""
        x = src
        for number, layer in enumerate(self.layers):
            extra = {} if cache is None else {"cache": cache.steps[number]}
            x = layer(x, src_mask=mask, is_causal=bool(is_causal), src_key_padding_mask=src_key_padding_mask, **extra)
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(nn.Module):
    """Decoder layers one behind the other, as `torch.nn.TransformerDecoder`.

    Args:
        decoder_layer: what is copied, with its parameters.
        num_layers: how many.
        norm: behind the last layer.

    Raises:
        ValueError: `num_layers` is below 0, or a shape does not fit.

    Example:
        >>> decoder = TransformerDecoder(TransformerDecoderLayer(8, nhead=2), num_layers=2)
        >>> decoder(torch.zeros(5, 2, 8), memory=torch.zeros(7, 2, 8), tgt_is_causal=True).shape
        torch.Size([5, 2, 8])
    """

    def __init__(self, decoder_layer: nn.Module, num_layers: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers, self.num_layers, self.norm = _copies(decoder_layer, num_layers), num_layers, norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        *,
        cache: TransformerCache | None = None,
    ) -> Tensor:
        """Decode; arguments and result are those of a layer, and the cache has two parts for each."""
        x = tgt
        for number, layer in enumerate(self.layers):
            parts = {} if cache is None else {"cache": cache.steps[number], "memory_cache": cache.memory[number]}
            x = layer(
                x, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=bool(tgt_is_causal),
                memory_is_causal=memory_is_causal, **parts,
            )  # fmt: skip
        return x if self.norm is None else self.norm(x)


class Transformer(nn.Module):
    """Encoder and decoder, as `torch.nn.Transformer`.

    Args:
        d_model: D.
        nhead: heads of the attention.
        num_encoder_layers: layers of the encoder.
        num_decoder_layers: layers of the decoder.
        dim_feedforward: inner width of the feed-forward networks.
        dropout: share dropped in training.
        activation: `relu`, `gelu`, `gelu_tanh`, or a function.
        custom_encoder: in the place of the encoder.
        custom_decoder: in the place of the decoder.
        layer_norm_eps: ε of the normalizations.
        batch_first: tensors are (B, T, D) instead of (T, B, D).
        norm_first: normalize before each part instead of behind it.
        bias: have biases, and shifts of the normalizations.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: an option is out of its range, or a shape does not fit.
        RuntimeError: source and target have not the same number of rows, or are not D wide.

    Source: Vaswani et al. 2017.

    Example:
        >>> model = Transformer(8, 2, num_encoder_layers=1, num_decoder_layers=1, batch_first=True)
        >>> model(torch.zeros(2, 7, 8), torch.zeros(2, 5, 8), tgt_is_causal=True).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = F.relu,
        custom_encoder: nn.Module | None = None,
        custom_decoder: nn.Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        options = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)
        self.encoder, self.decoder = custom_encoder, custom_decoder
        if custom_encoder is None:
            layer: nn.Module = TransformerEncoderLayer(*options, **factory)
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
            self.encoder = TransformerEncoder(layer, num_encoder_layers, norm)
        if custom_decoder is None:
            layer = TransformerDecoderLayer(*options, **factory)
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
            self.decoder = TransformerDecoder(layer, num_decoder_layers, norm)
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every matrix uniformly after Glorot & Bengio."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Encode the source and decode the target: (S, B, D) and (T, B, D) to (T, B, D), with `batch_first` (B, T, D).

        For decoding step by step call `encoder` once and `decoder` with a `TransformerCache`.
        """
        axis = 0 if self.batch_first else 1
        if src.dim() == 3 and src.shape[axis] != tgt.shape[axis]:
            raise RuntimeError("the batch number of src and tgt must be equal")
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise RuntimeError("the feature number of src and tgt must be equal to d_model")
        assert self.encoder is not None
        assert self.decoder is not None
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )  # fmt: skip

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return −∞ above the diagonal and 0 elsewhere, (sz, sz); `tgt_is_causal=True` needs none.

        Example:
            >>> Transformer.generate_square_subsequent_mask(2)
            tensor([[0., -inf],
                    [0., 0.]])
        """
        return torch.full((sz, sz), -torch.inf, device=device, dtype=dtype).triu(1)


def _copies(layer: nn.Module, number: int) -> nn.ModuleList:
    if number < 0:
        raise ValueError(f"num_layers must be at least 0, not {number}")
    return nn.ModuleList([copy.deepcopy(layer) for _ in range(number)])


def _activation(activation: str | Activation) -> Activation:
    """A function, or that of a name."""
    if not isinstance(activation, str):
        return activation
    names = [name for name in ACTIVATIONS if name != "swiglu"]
    if activation not in names:
        raise ValueError(f"activation must be {', '.join(names)} or a function, not {activation!r}")
    return ACTIVATIONS[activation]
