r"""BERT: an encoder that learns a language by guessing hidden tokens, and then to tell texts apart from few examples.

```math
x = N(E_w + P + S), \qquad x \leftarrow N(x + A_l(x)), \quad x \leftarrow N(x + F_l(x)) \quad (l = 1 … L)
```

```math
p(w_t) = \mathrm{softmax}\bigl(E\, N(φ(W_m x_t + b_m)) + b\bigr) \;\; \text{(hidden tokens)}, \qquad
\hat y = W \tanh(W_p x_{[CLS]} + b_p) + c \;\; \text{(classes, values)}
```

A text is read as [CLS] w₁ … w_T [SEP]. Of the tokens 15 % are guessed; of these 80 % read [MASK], 10 % another token,
and 10 % stay as they are. Data of tokens to be gone on with pre-train it, those with a class or value fine-tune it,
with `model.pretrained=RUN`.

Legend: B texts, T tokens w, D width, V tokens, L layers, E a table of V × D numbers, P a vector for each position, S
one for each of two texts, A attention of H heads, F a feed-forward network with φ = GELU, N `LayerNorm`, K outputs.

Source: Devlin et al. 2019. Deviations: no guess whether a text follows another (Liu et al. 2019); which tokens are
hidden is drawn anew at every step; special tokens that the vocabulary lacks get vectors of their own behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import layers
from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.layers import Dropout, LayerNorm, LearnedPositionalEncoding, TokenEmbedding
from zoo.models.base import GradientModel
from zoo.models.base.objectives import TokenPrediction
from zoo.models.base.pretrains import Pretrains
from zoo.models.transformer.attention_model import AttentionModel
from zoo.models.transformer.encoder_parts import activation_of, recorded
from zoo.models.transformer.masking import IGNORED, hide_tokens
from zoo.registry import register_model
from zoo.text import Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BERT", "HiddenTokens"]

EPS = 1e-12  # of BERT's normalizations
SHOWN = 32  # tokens of a text whose attention is drawn


class HiddenTokens(TokenPrediction):
    """Guessing the tokens of a text that are hidden; the targets of a batch are drawn from its own tokens."""

    def __init__(self, spec: DataSpec, mask_token: int, kept: tuple[int, ...], share: float) -> None:
        super().__init__(spec)
        self.mask_token, self.kept, self.share, self.step = mask_token, kept, share, 0

    def hide(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what the model reads and what it is to guess, (B, T) each: the same outside of training, always."""
        return hide_tokens(
            batch.tokens, batch.mask, vocab_size=self.num_outputs, mask_token=self.mask_token, kept=self.kept,
            share=self.share, draw=self.step + 1 if self.training else 0,
        )  # fmt: skip

    def _cross_entropy(self, output: Tensor, batch: Batch, smoothing: float) -> Tensor:
        return super()._cross_entropy(output, batch._replace(y=self.hide(batch)[1]), smoothing)

    def _counts(self, batch: Batch) -> Tensor:
        return (self.hide(batch)[1] != IGNORED).sum(-1)


@register_model(
    "bert",
    family="transformer",
    accepts={"tokens": ("tokens", "class", "value")},
    source="Devlin et al. 2019",
    docs="transformer",
)
class BERT(Pretrains, AttentionModel, GradientModel):
    """BERT: pre-trained by guessing hidden tokens of texts, then fine-tuned to classify them.

    Args:
        num_layers: L.
        num_heads: heads of each attention.
        hidden_size: D, the width of the layers, a multiple of `num_heads`.
        feedforward_size: inner width of the feed-forward networks; null: four times D.
        max_length: the most tokens of a text, [CLS] and [SEP] among them; null: those of the data.
        mask_share: share of the tokens that are guessed in pre-training.
        dropout: share dropped in training, of the attention's weights, behind each part and behind the embedding.
        activation: φ: `gelu`, `gelu_tanh` or `relu`.
        pretrained: the run (or checkpoint) of a pre-trained model to begin with, of the same vocabulary.
        lora_rank: rank of adapters, which learn in the place of what was pre-trained; null: all of it learns.
        lora_alpha: strength of the adapters, which count by its share of their rank; null: the rank.
        layers: `zoo` for our layers, `torch` for the built-in ones with the same weights.

    Raises:
        ZooError: for a hyperparameter out of range, a text longer than `max_length`, or a pre-trained model that does
            not fit.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="tokens", shape=(5,), target="class", num_classes=3, vocab_size=11)
        >>> zoo.create_model("bert", spec, hidden_size=8)(torch.zeros(4, 5, dtype=torch.long)).shape
        torch.Size([4, 3])
    """

    length = "max_length"
    body = ("embedding", "positions", "segments", "norm", "core")

    def __init__(
        self,
        *,
        num_layers: int = 2,
        num_heads: int = 4,
        hidden_size: int = 128,
        feedforward_size: int | None = None,
        max_length: int | None = None,
        mask_share: float = 0.15,
        dropout: float = 0.1,
        activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu",
        pretrained: str | None = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        layers: Literal["zoo", "torch"] = "zoo",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_sizes("num_layers")
        check_range("max_length", max_length, 3)
        check_range("mask_share", mask_share, 0, 1, open_low=True)
        self.check_adapters()

    def initialize(self, spec: DataSpec) -> None:
        if not spec.vocab_size:
            raise ZooError("bert needs the size of the vocabulary; the data do not say it.")
        h, width = self.hparams, self.hparams.hidden_size
        size = self._place_specials(spec)
        begun = self.pretrained_state(spec)
        longest = len(begun["positions.weight"]) if begun is not None else h.max_length or spec.shape[0] + 2
        ops: Any = layers if h.layers == "zoo" else nn
        self.embedding = TokenEmbedding(size, width)
        self.positions = LearnedPositionalEncoding(longest, width)
        self.segments = nn.Embedding(2, width)
        self.norm, self.drop = LayerNorm(width, EPS), Dropout(h.dropout)
        layer = ops.TransformerEncoderLayer(
            width, h.num_heads, h.feedforward_size or 4 * width, h.dropout, activation_of(h.activation, h.layers), EPS,
            batch_first=True,
        )  # fmt: skip
        layer.dropout = nn.Identity()  # that within the feed-forward network
        self.core = ops.TransformerEncoder(layer, h.num_layers, enable_nested_tensor=False)
        if spec.target == "tokens":
            self.objective = HiddenTokens(spec, self.mask_token, (self.cls, self.sep, *self._specials), h.mask_share)
            self.transform, self.transform_norm = nn.Linear(width, width), LayerNorm(width, EPS)
            self.bias = nn.Parameter(torch.zeros(spec.vocab_size))
        else:
            self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, self.objective.num_outputs)
        self._draw_weights()
        self.begin_with(begun)

    def _place_specials(self, spec: DataSpec) -> int:
        """Find [CLS], [SEP] and [MASK], or place them behind the vocabulary; return the number of vectors."""
        assert spec.vocab_size is not None
        tokenizer = Tokenizer.from_json(spec.tokenizer) if spec.tokenizer else None
        size, found = spec.vocab_size, []
        for role in ("cls", "sep", "mask"):
            number = None if tokenizer is None else tokenizer.special(role)
            found.append(size if number is None else number)
            size += number is None
        self.cls, self.sep, self.mask_token = found
        roles = ("pad", "unknown", "begin", "end", "mask")
        numbers = [] if tokenizer is None else [tokenizer.special(role) for role in roles]
        self._specials = tuple(number for number in numbers if number is not None)
        return size

    def _draw_weights(self) -> None:
        """N(0, 0.02²) for all matrices; biases are 0."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def context(self) -> int:
        """The most tokens of a text, [CLS] and [SEP] among them."""
        return self.positions.max_length

    # -- forward -------------------------------------------------------------------------------------------------

    def forward(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Return the logits (B, T, V) of the token at each place, or one answer a text, (B, K).

        Args:
            tokens: (B, T), without [CLS] and [SEP].
            mask: which of them are there, (B, T), where texts are padded.
            segments: to which of two texts each belongs, (B, T); None: to the first.
        """
        assert self.spec is not None
        hidden = self.encode(tokens, mask, segments)  # (B, T' + 2, D)
        if self.spec.target != "tokens":
            return self.head(self.drop(torch.tanh(self.pooler(hidden[:, 0]))))
        guess = self.transform_norm(activation(self.hparams.activation, self.transform(hidden[:, 1:-1])))
        logits = F.linear(guess, self.embedding.weight[: self.spec.vocab_size], self.bias)
        return F.pad(logits, (0, 0, 0, tokens.shape[1] - logits.shape[1]))  # zeros where no text is that long

    def encode(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Return the states (B, T' + 2, D) of [CLS] w₁ … w_n [SEP], up to the longest of the texts, T'."""
        longest = tokens.shape[1] if mask is None else max(1, int(mask.sum(1).max()))
        tokens = F.pad(F.pad(tokens[:, :longest], (1, 0), value=self.cls), (0, 1), value=self.sep)
        there = None
        if mask is not None:
            lengths = mask.sum(1, keepdim=True)  # (B, 1)
            steps = torch.arange(longest + 2, device=tokens.device)
            tokens, there = tokens.masked_fill(steps > lengths, self.sep), steps <= lengths + 1
        if tokens.shape[1] > self.positions.max_length:
            raise ZooError(
                f"A text has {longest} tokens, and model.max_length={self.positions.max_length} holds "
                f"{self.positions.max_length - 2} beside [CLS] and [SEP]: cut it with data.max_length, or raise it."
            )
        of = torch.zeros_like(tokens)
        if segments is not None:
            inner = segments[:, :longest]
            of = torch.cat([torch.zeros_like(inner[:, :1]), inner, inner[:, -1:]], 1)
        x = self.drop(self.norm(self.positions(self.embedding(tokens)) + self.segments(of)))
        return self.core(x, src_key_padding_mask=None if there is None else ~there)

    def output(self, batch: Batch) -> Tensor:
        tokens = self.objective.hide(batch)[0] if isinstance(self.objective, HiddenTokens) else batch.tokens
        return self(tokens, batch.mask, batch.segments)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        if isinstance(self.objective, HiddenTokens):
            self.objective.step = self.global_step
        return super().training_step(batch, batch_idx)

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Return the class or value of each text; of a pre-trained model the likeliest token at each place, (B, T)."""
        if not isinstance(self.objective, HiddenTokens):
            return super().predict_batch(batch)
        predicted = self(batch.tokens, batch.mask, batch.segments).argmax(-1)
        return {"prediction": predicted if batch.mask is None else predicted.masked_fill(~batch.mask, IGNORED)}

    # -- pictures ------------------------------------------------------------------------------------------------

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)
        assert self.spec is not None
        end = SHOWN if batch.mask is None else min(SHOWN, int(batch.mask[0].sum()))
        tokens = batch.tokens[:1, :end]
        with recorded(layer.self_attn for layer in self.core.layers) as weights:
            self(tokens)
        names = [str(number) for number in tokens[0].tolist()]
        if self.spec.tokenizer:
            names = [text for text, _ in Tokenizer.from_json(self.spec.tokenizer).shown(tokens[0].tolist())]
        maps = torch.stack([each[0] for each in weights])  # (L, H, T + 2, T + 2)
        yield "attention", visual.attention(maps, ["[CLS]", *names, "[SEP]"])

    def samples(self, batch: Batch) -> Iterator[tuple[str, str]]:
        """Yield texts with hidden tokens, and what the model guesses for these."""
        assert self.spec is not None
        if not isinstance(self.objective, HiddenTokens) or not self.spec.tokenizer:
            return
        few = batch.rows(slice(6))
        (read, guessed), tokenizer = self.objective.hide(few), Tokenizer.from_json(self.spec.tokenizer)
        best = self(read, few.mask, few.segments).argmax(-1)
        lines = ["|hidden|guessed|right|", "|---|---|---|"]
        for row, targets in enumerate(guessed):
            places = (targets != IGNORED).nonzero().squeeze(1)[:8]
            pairs = zip(
                tokenizer.shown(targets[places].tolist()), tokenizer.shown(best[row, places].tolist()), strict=True
            )
            for place, ((right, _), (guess, _)) in zip(places.tolist(), pairs, strict=True):
                before = tokenizer.decode(few.tokens[row, max(0, place - 8) : place])
                after = tokenizer.decode(few.tokens[row, place + 1 : place + 9])
                cells = [f"{before} ___ {after}", guess, right]
                lines.append("|" + "|".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + "|")
        yield "guesses", "\n".join(lines)


def activation(name: str, x: Tensor) -> Tensor:
    """Return φ(x)."""
    return torch.relu(x) if name == "relu" else F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")
