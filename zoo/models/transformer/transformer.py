r"""The transformer of 2017: an encoder reads a sentence, a decoder says its translation, both by attention alone.

```math
m = \mathrm{enc}\bigl(\sqrt D\, E_{s} + P\bigr), \qquad h = \mathrm{dec}\bigl(\sqrt D\, E_{t} + P,\; m\bigr), \qquad
p(t_{j+1} \mid t_{\le j}, s) = \mathrm{softmax}(E\, h_j)
```

Training lowers the cross-entropy of each next token of the right translation (teacher forcing), with labels smoothed
by ε: (1 − ε) [k = y] + ε / V. Decoding feeds back what was said; keys and values of earlier steps, and those of the
memory, are kept, so that each step costs one row.

Legend: B pairs, S tokens of the source s, T of the target t, D width, V tokens, E the one table of V × D numbers for
both languages and for the output, P sines and cosines of the position, m the memory (B, S, D), h the states (B, T, D).

Source: Vaswani et al. 2017. Deviation: layers normalize first (Xiong et al. 2020), which trains without a long warm-up;
`norm_first=false` gives the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo import layers
from zoo.data.spec import Batch, DataSpec
from zoo.layers import SinusoidalPositionalEncoding, TokenEmbedding, TransformerCache
from zoo.models.base import GradientModel
from zoo.models.base.translates import Translates
from zoo.models.transformer.attention_model import AttentionModel
from zoo.models.transformer.encoder_parts import activation_of, recorded
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TransformerModel"]

MOST = 16  # tokens of a text whose attention is drawn


class State(NamedTuple):
    """What decoding goes on from.

    Attributes:
        memory: what the encoder made of the sources, (B, S, D).
        mask: which of their tokens are there, (B, S), or None for all.
        cache: keys and values of the steps so far; None before the first.
    """

    memory: Tensor
    mask: Tensor | None
    cache: TransformerCache | None = None


@register_model(
    "transformer",
    family="transformer",
    accepts={"pairs": "tokens"},
    source="Vaswani et al. 2017",
    docs="transformer",
)
class TransformerModel(Translates, AttentionModel, GradientModel):
    """Encoder and decoder by attention alone, for sentence pairs such as translations.

    Args:
        hidden_size: D, the width of the layers, a multiple of `num_heads`.
        num_heads: heads of each attention.
        num_encoder_layers: layers that read the source.
        num_decoder_layers: layers that say the target.
        feedforward_size: inner width of the feed-forward networks; null: four times D.
        dropout: share dropped in training, in each layer and behind the embedding.
        activation: of the feed-forward networks: `relu`, `gelu` or `gelu_tanh`.
        norm_first: normalize before each part of a layer instead of behind it.
        tie_embeddings: one table for the tokens that are read and for the scores of those that are said.
        label_smoothing: ε, the share of the label that is spread over all tokens in training.
        layers: `zoo` for our layers, `torch` for the built-in ones with the same weights.

    Raises:
        ZooError: for a hyperparameter out of range.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="pairs", shape=(7, 5), target="tokens", vocab_size=11)
        >>> model = zoo.create_model("transformer", spec, hidden_size=8, num_heads=2)
        >>> model(torch.zeros(4, 7, dtype=torch.long), torch.zeros(4, 5, dtype=torch.long)).shape
        torch.Size([4, 5, 11])
    """

    def __init__(
        self,
        *,
        hidden_size: int = 128,
        num_heads: int = 4,
        num_encoder_layers: int = 2,
        num_decoder_layers: int = 2,
        feedforward_size: int | None = None,
        dropout: float = 0.1,
        activation: Literal["relu", "gelu", "gelu_tanh"] = "relu",
        norm_first: bool = True,
        tie_embeddings: bool = True,
        label_smoothing: float = 0.1,
        layers: Literal["zoo", "torch"] = "zoo",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_sizes("num_encoder_layers", "num_decoder_layers")

    def initialize(self, spec: DataSpec) -> None:
        assert spec.vocab_size is not None  # the objective has asked for it
        width, h = self.hparams.hidden_size, self.hparams
        self.embedding = TokenEmbedding(spec.vocab_size, width, scaled=True)
        self.positions = SinusoidalPositionalEncoding(width, h.dropout)
        ops: Any = layers if h.layers == "zoo" else nn
        sizes = (width, h.num_heads, h.feedforward_size or 4 * width, h.dropout, activation_of(h.activation, h.layers))
        options = {"batch_first": True, "norm_first": h.norm_first}
        encoder = ops.TransformerEncoder(
            ops.TransformerEncoderLayer(*sizes, **options), h.num_encoder_layers, ops.LayerNorm(width),
            enable_nested_tensor=False,
        )  # fmt: skip
        decoder = ops.TransformerDecoder(
            ops.TransformerDecoderLayer(*sizes, **options), h.num_decoder_layers, ops.LayerNorm(width)
        )
        self.core = ops.Transformer(width, h.num_heads, custom_encoder=encoder, custom_decoder=decoder)
        self.head = None if h.tie_embeddings else nn.Linear(width, spec.vocab_size, bias=False)

    # -- forward -------------------------------------------------------------------------------------------------

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Return the logits (B, T, V) of what follows each token of the targets.

        Args:
            source: tokens (B, S).
            target: tokens (B, T), from the one that begins a text on.
            source_mask: which tokens of the sources are there, (B, S); None for all.
        """
        return self.decode(target, self.encode(source, source_mask), source_mask)

    def encode(self, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the memory (B, S, D) of sources (B, S)."""
        hidden = self.positions(self.embedding(source))
        return self.core.encoder(hidden, src_key_padding_mask=None if mask is None else ~mask)

    def decode(
        self, target: Tensor, memory: Tensor, mask: Tensor | None = None, cache: TransformerCache | None = None
    ) -> Tensor:
        """Return the logits (B, T, V) after each token of the targets (B, T), the steps of a cache standing before."""
        hidden = self.positions(self.embedding(target), 0 if cache is None else cache.length)
        extra: dict[str, Any] = {} if cache is None else {"cache": cache}
        if self.hparams.layers == "torch":  # asks for the mask in full
            steps = target.shape[1]
            extra["tgt_mask"] = torch.ones(steps, steps, dtype=torch.bool, device=target.device).triu(1)
        padding = None if mask is None else ~mask
        hidden = self.core.decoder(hidden, memory, memory_key_padding_mask=padding, tgt_is_causal=True, **extra)
        return self.embedding.logits(hidden) if self.head is None else self.head(hidden)

    # -- translating ---------------------------------------------------------------------------------------------

    @property
    def caches(self) -> bool:
        return self.hparams.layers == "zoo" and not torch.compiler.is_exporting()  # a graph holds no growing cache

    def read(self, batch: Batch) -> State:
        return State(self.encode(batch.source, batch.source_mask), batch.source_mask)

    def next_logits(
        self, tokens: Tensor, state: State | None = None, mask: Tensor | None = None, every: bool = False
    ) -> tuple[Tensor, State]:
        assert state is not None  # a translation begins with a source
        if self.caches:
            state = state._replace(cache=state.cache or TransformerCache(self.hparams.num_decoder_layers))
        logits = self.decode(tokens, state.memory, state.mask, state.cache)
        return (logits if every else logits[:, -1]), state

    def select_state(self, state: State, rows: Tensor) -> State:
        rows, cache = rows.to(self.device), state.cache
        if cache is not None:
            cache.reorder(rows)
        return State(state.memory[rows], None if state.mask is None else state.mask[rows], cache)

    def rewind(self, state: State, count: int) -> State:
        assert state.cache is not None
        state.cache.truncate(state.cache.length - count)
        return state

    # -- pictures ------------------------------------------------------------------------------------------------

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)
        sides = ((batch.source, batch.source_mask), (batch.target, batch.target_mask))
        lengths = [torch.full_like(t[:, 0], t.shape[1]) if mask is None else mask.sum(1) for t, mask in sides]
        row = int(torch.where(torch.maximum(*lengths) <= MOST, lengths[0] + lengths[1], 0).argmax())  # much to see
        source, target = (
            tokens[row : row + 1, : int(length[row].clamp_max(MOST))]
            for (tokens, _), length in zip(sides, lengths, strict=True)
        )
        names = [self._names(tokens[0]) for tokens in (source, target)]
        for name, layers_of, tokens, keys in (
            ("attention_source", [layer.self_attn for layer in self.core.encoder.layers], names[0], names[0]),
            ("attention_target", [layer.self_attn for layer in self.core.decoder.layers], names[1], names[1]),
            ("attention_memory", [layer.multihead_attn for layer in self.core.decoder.layers], names[1], names[0]),
        ):
            with recorded(layers_of) as weights:
                self(source, target)
            yield name, visual.attention(torch.stack([each[0] for each in weights]), tokens, keys)
