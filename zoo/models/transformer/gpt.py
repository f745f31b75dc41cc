r"""GPT: a causal language model of attention alone, which reads a text and says how probable each next token is.

```math
x = E_w + P, \qquad x \leftarrow x + A_l(N(x)), \quad x \leftarrow x + F_l(N(x)) \quad (l = 1 … L), \qquad
p(w_{t+1} \mid w_{\le t}) = \mathrm{softmax}(E\, N(x_t))
```

No step sees a later one, so that one pass over a text learns from all of its tokens; what attention has made of earlier
tokens is kept when it goes on with a text, so that each token is read once.

Legend: B texts, T tokens w of each, S tokens seen so far, D width, V tokens of the vocabulary, C the context, L layers,
E the one table of V × D numbers for what is read and what is said, P one vector a position, A attention of H heads,
F a feed-forward network with GELU, N `LayerNorm`.

Source: Radford et al. 2018, 2019. GPT-2 (2019) normalizes first, and draws its weights from N(0, 0.02²), those that
write to the residual path from N(0, 0.02² / 2L). Weight decay shrinks matrices alone (Brown et al. 2020). Deviation:
dropout leaves the inside of the feed-forward networks alone, as the published models have it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo import layers
from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.layers import LearnedPositionalEncoding, TokenEmbedding, TransformerCache
from zoo.layers.linear import linear
from zoo.models.base import Generates, GradientModel
from zoo.models.base.evaluation import Pooling, Ratio
from zoo.models.base.pretrains import Pretrains
from zoo.models.transformer.attention_model import AttentionModel
from zoo.models.transformer.encoder_parts import activation_of
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GPT"]

FEW = 8  # rows
SHOWN = 24  # tokens of a text whose attention is drawn


class State(NamedTuple):
    """What the model has read.

    Attributes:
        cache: keys and values of the S steps so far.
        there: which of them are tokens and which padding, (B, S); None where all are tokens.
    """

    cache: TransformerCache
    there: Tensor | None = None


@register_model("gpt", family="transformer", accepts={"tokens": "tokens"}, source="Radford et al. 2019", docs="gpt")
class GPT(Generates, Pretrains, AttentionModel, GradientModel):
    """GPT-2: a language model of causal attention, which goes on with texts.

    Args:
        num_layers: L.
        num_heads: heads of each attention.
        hidden_size: D, the width of the layers, a multiple of `num_heads`.
        feedforward_size: inner width of the feed-forward networks; null: four times D.
        context: C, the most tokens that it sees; null: those of a window of the data.
        dropout: share dropped in training, of the attention's weights, behind each part and behind the embedding.
        bias: have biases, and shifts of the normalizations.
        activation: of the feed-forward networks: `gelu_tanh` (that of GPT-2), `gelu` or `relu`.
        tie_embeddings: one table for the tokens that are read and for the scores of those that are said.
        embedding: a file of word vectors of D numbers, or the run that learned them, to begin with.
        pretrained: the run (or checkpoint) of a model of the same vocabulary to begin with.
        lora_rank: rank of adapters, which learn in the place of what was pre-trained; null: all of it learns.
        lora_alpha: strength of the adapters, which count by its share of their rank; null: the rank.
        layers: `zoo` for our layers, `torch` for the built-in ones with the same weights.

    Raises:
        ZooError: for a hyperparameter out of range, or a pre-trained model that does not fit.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="tokens", shape=(5,), target="tokens", vocab_size=11)
        >>> model = zoo.create_model("gpt", spec, num_layers=2, num_heads=2, hidden_size=8)
        >>> model(torch.zeros(4, 5, dtype=torch.long)).shape
        torch.Size([4, 5, 11])
    """

    length = "context"
    body = ("embedding", "positions", "core", "head")

    def __init__(
        self,
        *,
        num_layers: int = 4,
        num_heads: int = 4,
        hidden_size: int = 128,
        feedforward_size: int | None = None,
        context: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        activation: Literal["gelu_tanh", "gelu", "relu"] = "gelu_tanh",
        tie_embeddings: bool = True,
        embedding: str | None = None,
        pretrained: str | None = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        layers: Literal["zoo", "torch"] = "zoo",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_sizes("num_layers")
        check_range("context", context, 1)
        self.check_adapters()

    def initialize(self, spec: DataSpec) -> None:
        assert spec.vocab_size is not None  # the objective has asked for it
        h, width = self.hparams, self.hparams.hidden_size
        begun = self.pretrained_state(spec)
        context = len(begun["positions.weight"]) if begun is not None else h.context or spec.shape[0]
        if spec.shape and spec.shape[0] > context:
            raise ZooError(f"model.context={context} is shorter than the data's windows of {spec.shape[0]} tokens.")
        ops: Any = layers if h.layers == "zoo" else nn
        self.embedding = TokenEmbedding(spec.vocab_size, width)
        self.positions = LearnedPositionalEncoding(context, width, h.dropout)
        layer = ops.TransformerEncoderLayer(
            width, h.num_heads, h.feedforward_size or 4 * width, h.dropout, activation_of(h.activation, h.layers),
            batch_first=True, norm_first=True, bias=h.bias,
        )  # fmt: skip
        layer.dropout = nn.Identity()  # that within the feed-forward network
        layer.self_attn.fused = True
        norm = ops.LayerNorm(width, bias=h.bias)
        self.core = ops.TransformerEncoder(layer, h.num_layers, norm, enable_nested_tensor=False)
        self.head = None if h.tie_embeddings else nn.Linear(width, spec.vocab_size, bias=False)
        self._draw_weights()
        self.take_vectors(spec)
        self.begin_with(begun)

    def _draw_weights(self) -> None:
        """N(0, 0.02²) for all matrices, N(0, 0.02² / 2L) for those that write to the residual path; biases are 0."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                residual = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.hparams.num_layers) if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    # -- forward -------------------------------------------------------------------------------------------------

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits (B, T, V) of what follows each token of texts (B, T), padded behind their last one.

        Raises:
            ZooError: for a text longer than the context.
        """
        if torch.compiler.is_exporting():  # for any number of steps up to the context
            return self.logits(self.encode(tokens))
        steps = tokens.shape[1]
        beyond = max(0, steps - self.context)
        if beyond and (mask is None or bool(mask[:, self.context :].any())):
            raise ZooError(f"The model sees {self.context} tokens, not {steps}: cut the texts, or raise model.context.")
        logits = self.logits(self.encode(tokens[:, : self.context]))  # no step sees what stands behind it, nor padding
        return nn.functional.pad(logits, (0, 0, 0, beyond)) if beyond else logits

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the scores (…, V) of the tokens that may follow states (…, D)."""
        table = self.embedding if self.head is None else self.head
        if hidden.ndim == 2 and 1 < len(hidden) <= FEW:  # a step of decoding: MKL takes half to two thirds of the time
            return (table.weight @ hidden.T).T
        return linear(hidden, table.weight)

    def encode(self, tokens: Tensor, state: State | None = None) -> Tensor:
        """Return the states (B, T, D) of tokens (B, T), those of `state` standing before; it then has these, too."""
        if state is None:
            steps = tokens.shape[1]
            ahead = None  # torch's layers ask for the mask in full
            if self.hparams.layers == "torch":
                ahead = torch.ones(steps, steps, dtype=torch.bool, device=tokens.device).triu(1)
            return self.core(self.positions(self.embedding(tokens)), mask=ahead, is_causal=True)
        first: int | Tensor = state.cache.length
        padding = None
        if state.there is not None:
            seen = state.there.shape[1] - tokens.shape[1]
            first = state.there[:, :seen].sum(1, keepdim=True) + torch.arange(tokens.shape[1], device=tokens.device)
            padding = ~state.there
        x = self.positions(self.embedding(tokens), first)
        return self.core(x, src_key_padding_mask=padding, is_causal=True, cache=state.cache)

    def output(self, batch: Batch) -> Tensor:
        return self(batch.tokens, batch.mask)

    # -- going on with a text --------------------------------------------------------------------------------------

    @property
    def context(self) -> int:
        return self.positions.max_length

    @property
    def caches(self) -> bool:
        return self.hparams.layers == "zoo"

    def next_logits(
        self, tokens: Tensor, state: State | None = None, mask: Tensor | None = None, every: bool = False
    ) -> tuple[Tensor, State | None]:
        if not self.caches:
            hidden = self.encode(tokens)
        elif state is None:
            state = State(TransformerCache(self.hparams.num_layers))
            hidden = self.encode(tokens, state)  # padding stands behind all that is read: none of it is seen
            state = state._replace(there=mask)
        else:
            if state.there is not None:
                state = state._replace(there=torch.cat([state.there, torch.ones_like(tokens, dtype=torch.bool)], 1))
            hidden = self.encode(tokens, state)
        if not every:
            rows = torch.arange(len(hidden), device=hidden.device)
            hidden = hidden[:, -1] if mask is None else hidden[rows, mask.sum(1) - 1]
        return self.logits(hidden), state

    def select_state(self, state: State | None, rows: Tensor) -> State | None:
        if state is None:
            return None
        state.cache.reorder(rows.to(self.device))
        return state if state.there is None else state._replace(there=state.there[rows.to(self.device)])

    def rewind(self, state: State, count: int) -> State:
        length = state.cache.length - count
        state.cache.truncate(length)
        return state if state.there is None else state._replace(there=state.there[:, :length])

    # -- metrics and pictures --------------------------------------------------------------------------------------

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """Return beside loss and perplexity the bits that a character takes, log₂ of its inverse probability."""
        values = super().evaluate(batch)
        if self._characters is not None:
            assert batch.y is not None
            counts = self.objective.row_weight(batch._replace(weight=None))
            characters = self._characters.to(batch.y.device)[batch.y.clamp_min(0)].where(batch.y >= 0, 0)
            per_token = characters.sum(1) / counts.clamp_min(1)  # type: ignore[union-attr]
            values["bits_per_character"] = torch.stack([values["loss"] / math.log(2), per_token], 1)
        return values

    def pooling(self) -> dict[str, Pooling]:
        return {**super().pooling(), "bits_per_character": Ratio()}

    @functools.cached_property
    def _characters(self) -> Tensor | None:
        """How many characters each token stands for, (V,); None where the data do not say."""
        return self.tokenizer.characters if self.spec is not None and self.spec.tokenizer else None

    @torch.inference_mode()
    def attention(self, tokens: Tensor) -> Tensor:
        """Return how much each token looks at each before it, (L, B, H, T, T), for tokens (B, T)."""
        x, weights = self.positions(self.embedding(tokens)), []
        ahead = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).triu(1)
        for layer in self.core.layers:
            normed = layer.norm1(x)
            looked = layer.self_attn(normed, normed, normed, attn_mask=ahead, average_attn_weights=False)
            weights.append(looked[1])
            x = layer(x, src_mask=ahead)
        return torch.stack(weights)

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)
        tokens = batch.tokens[:1, :SHOWN]
        names = [str(number) for number in tokens[0].tolist()]
        if self.spec is not None and self.spec.tokenizer:
            names = [text for text, _ in self.tokenizer.shown(tokens[0].tolist())]
        yield "attention", visual.attention(self.attention(tokens)[:, 0], names)
