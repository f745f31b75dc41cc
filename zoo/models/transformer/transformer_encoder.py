r"""The encoder of the transformer by itself: sequences, texts, image patches and time series, read as a whole.

```math
x = E(\mathrm{input}) + P, \qquad x \leftarrow x + A_l(N(x)), \quad x \leftarrow x + F_l(N(x)) \quad (l = 1 … L), \qquad
\hat y = W\, r(N(x)) + b
```

Each step sees every other. E is a table for tokens, and a matrix for numbers: the features of a step, or the pixels of
a patch of an image (the vision transformer). r is the mean over the steps, or what became of a vector [CLS] that stands
before them. A forecaster sees each window shifted and scaled by its own mean and deviation (Kim et al. 2022).

Legend: B batch, T steps, F features of a step, C×H×W an image of patches p×p, D width, L layers, K outputs, P a vector
for each position, A attention of H heads, F a feed-forward network with GELU, N `LayerNorm`.

Source: Vaswani et al. 2017; Devlin et al. 2019 ([CLS]); Dosovitskiy et al. 2021 (patches). Deviation: an image whose
sides are no multiples of p is padded with zeros at its right and below.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import layers
from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.layers import Dropout, LearnedPositionalEncoding, SinusoidalPositionalEncoding, TokenEmbedding
from zoo.models.base import GradientModel
from zoo.models.base.forecasts import Forecasts, scaled_windows
from zoo.models.base.pretrains import Pretrains
from zoo.models.base.uses import Needs
from zoo.models.transformer.attention_model import AttentionModel
from zoo.models.transformer.encoder_parts import activation_of, recorded
from zoo.registry import register_model
from zoo.text import Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TransformerEncoderModel", "patches"]

MOST_PATCHES = 64  # that an image is cut into unless told otherwise
SHOWN = 32  # steps whose attention is drawn


def patches(images: Tensor, size: int) -> Tensor:
    """Cut images (B, C, H, W) into patches from left to right and top to bottom, (B, T, C p²).

    Args:
        images: padded with zeros at the right and below to multiples of p.
        size: p.

    Example:
        >>> patches(torch.arange(8.0).view(1, 1, 2, 4), 2).tolist()
        [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % size, 0, -height % size))
    cut = padded.unfold(2, size, size).unfold(3, size, size)  # (B, C, rows, columns, p, p)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


@register_model(
    "transformer_encoder",
    family="transformer",
    accepts={
        "image": ("class", "value"),
        "sequence": ("class", "value"),
        "tokens": ("class", "value"),
        "series": "series",
    },
    source="Vaswani et al. 2017; Dosovitskiy et al. 2021",
    docs="transformer",
)
class TransformerEncoderModel(Forecasts, Pretrains, AttentionModel, GradientModel):
    """Encoder of attention layers for images in patches, sequences, texts and time series.

    Args:
        num_layers: L.
        num_heads: heads of each attention.
        hidden_size: D, the width of the layers, a multiple of `num_heads`.
        feedforward_size: inner width of the feed-forward networks; null: four times D.
        patch_size: p, the side of an image's patches; null: the least from 2 on that makes no more than 64 of them.
        positions: `sinusoidal` for any length, `learned` up to that of the training data, `rotary` or `alibi`.
        readout: what is read off in the end: the `mean` over the steps, or `cls`, a step of its own before them.
        dropout: share dropped in training, in each layer and behind the embedding.
        activation: of the feed-forward networks: `gelu`, `gelu_tanh` or `relu`.
        norm_first: normalize before each part of a layer instead of behind it.
        label_smoothing: ε, the share of the label that is spread over all classes in training.
        embedding: a file of word vectors of D numbers, or the run that learned them, to begin with.
        pretrained: the run (or checkpoint) of a model to begin with, on data of the same shape and vocabulary.
        lora_rank: rank of adapters, which learn in the place of what was pre-trained; null: all of it learns.
        lora_alpha: strength of the adapters, which count by its share of their rank; null: the rank.
        layers: `zoo` for our layers, `torch` for the built-in ones with the same weights.

    Raises:
        ZooError: for a hyperparameter out of range, a sequence longer than learned positions, or a pre-trained model
            that does not fit.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="image", shape=(1, 8, 8), target="class", num_classes=10)
        >>> zoo.create_model("transformer_encoder", spec, hidden_size=8)(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 10])
    """

    needs: ClassVar[Needs] = {**Pretrains.needs, "embedding": {"kind": ("tokens",)}}
    body = ("embedding", "cls", "positions", "core")

    def __init__(
        self,
        *,
        num_layers: int = 2,
        num_heads: int = 4,
        hidden_size: int = 64,
        feedforward_size: int | None = None,
        patch_size: int | None = None,
        positions: Literal["sinusoidal", "learned", "rotary", "alibi"] = "sinusoidal",
        readout: Literal["mean", "cls"] = "mean",
        dropout: float = 0.1,
        activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu",
        norm_first: bool = True,
        label_smoothing: float = 0.0,
        embedding: str | None = None,
        pretrained: str | None = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        layers: Literal["zoo", "torch"] = "zoo",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_sizes("num_layers")
        check_range("patch_size", patch_size, 1)
        self.check_adapters()
        if layers == "torch" and positions in ("rotary", "alibi"):
            raise ZooError(f"torch's layers have no {positions} positions: use model.layers=zoo.")
        if positions == "rotary" and hidden_size // num_heads % 2:
            raise ZooError(f"Rotary positions need heads of even width, not {hidden_size // num_heads}.")

    def initialize(self, spec: DataSpec) -> None:
        h, width = self.hparams, self.hparams.hidden_size
        if spec.kind == "tokens":
            if not spec.vocab_size:
                raise ZooError(f"{self.entry.name} needs the size of the vocabulary; the data do not say it.")
            self.embedding: nn.Module = TokenEmbedding(spec.vocab_size, width, scaled=True)
            self.take_vectors(spec)
        else:
            self.embedding = nn.Linear(self._step_size(spec), width)
        steps = (spec.shape[0] if spec.kind != "image" else self._num_patches(spec)) + (h.readout == "cls")
        self.cls = nn.Parameter(torch.randn(width)) if h.readout == "cls" else None
        if h.positions == "learned":
            self.positions: nn.Module = LearnedPositionalEncoding(steps, width, h.dropout)
        else:
            added = h.positions == "sinusoidal"
            self.positions = SinusoidalPositionalEncoding(width, h.dropout) if added else Dropout(h.dropout)
        ops: Any = layers if h.layers == "zoo" else nn
        turned = {"positions": h.positions} if h.positions in ("rotary", "alibi") else {}
        layer = ops.TransformerEncoderLayer(
            width, h.num_heads, h.feedforward_size or 4 * width, h.dropout, activation_of(h.activation, h.layers),
            batch_first=True, norm_first=h.norm_first, **turned,
        )  # fmt: skip
        norm = ops.LayerNorm(width) if h.norm_first else None
        self.core = ops.TransformerEncoder(layer, h.num_layers, norm, enable_nested_tensor=False)
        for parameter in self.core.parameters():  # the layers are copies of one
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self.head = nn.Linear(width, self.objective.num_outputs)
        self.begin_with(self.pretrained_state(spec))

    def _patch_size(self, spec: DataSpec) -> int:
        if self.hparams.patch_size:
            return self.hparams.patch_size
        height, width = spec.shape[-2:]
        return next(p for p in itertools.count(2) if -(-height // p) * -(-width // p) <= MOST_PATCHES)

    def _num_patches(self, spec: DataSpec) -> int:
        size = self._patch_size(spec)
        return -(-spec.shape[-2] // size) * -(-spec.shape[-1] // size)

    def _step_size(self, spec: DataSpec) -> int:
        """How many numbers a step has."""
        return spec.shape[0] * self._patch_size(spec) ** 2 if spec.kind == "image" else spec.shape[-1]

    # -- forward -------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one answer an example, (B, K).

        Args:
            x: images (B, C, H, W), numbers (B, T, F) or tokens (B, T).
            mask: which steps are there, (B, T), where examples are padded.
        """
        assert self.spec is not None
        if self.spec.kind == "series":
            scaled, mean, std = scaled_windows(x)
            return self._answer(scaled, None) * std[:, :, 0] + mean[:, :, 0]
        return self._answer(patches(x, self._patch_size(self.spec)) if self.spec.kind == "image" else x, mask)

    def _answer(self, steps: Tensor, mask: Tensor | None) -> Tensor:
        hidden = self.encode(steps, mask)  # (B, T, D)
        if self.cls is not None:
            return self.head(hidden[:, 0])
        if mask is None:
            return self.head(hidden.mean(1))
        total = hidden.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1)
        return self.head(total / mask.sum(1, keepdim=True).clamp_min(1))

    def encode(self, steps: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what the layers make of steps (B, T, ·) or tokens (B, T): (B, T, D), with [CLS] before them if any."""
        if mask is not None and steps.is_floating_point():
            steps = steps.masked_fill(~mask.unsqueeze(-1), 0.0)  # whatever stands there, 0 · NaN is not 0
        embedded = self.embedding(steps)
        if self.cls is not None:
            embedded = torch.cat([self.cls.expand(embedded.shape[0], 1, -1), embedded], 1)
            mask = None if mask is None else F.pad(mask, (1, 0), value=True)
        if isinstance(self.positions, LearnedPositionalEncoding) and embedded.shape[1] > self.positions.max_length:
            before = int(self.cls is not None)
            raise ZooError(
                f"A sequence has {embedded.shape[1] - before} steps, and the learned positions end at "
                f"{self.positions.max_length - before}: cut it, or train with model.positions=sinusoidal."
            )
        return self.core(self.positions(embedded), src_key_padding_mask=None if mask is None else ~mask)

    def output(self, batch: Batch) -> Tensor:
        return self(batch.inputs, batch.mask)

    # -- pictures ------------------------------------------------------------------------------------------------

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)
        assert self.spec is not None
        if self.spec.kind == "series" and batch.y is not None:
            yield "forecast", visual.forecast(batch.y, columns["prediction"], self.spec)
        first = batch.inputs[:1] if batch.mask is None else batch.inputs[:1, : int(batch.mask[0].sum())]
        if self.spec.kind in ("tokens", "sequence"):
            first = first[:, :SHOWN]
        with recorded(layer.self_attn for layer in self.core.layers) as weights:
            self(first)
        shown = torch.stack([each[0, :, : SHOWN + 1, : SHOWN + 1] for each in weights])  # (L, H, T, T)
        yield "attention", visual.attention(shown, self._names(first, shown.shape[-1]))

    def _names(self, inputs: Tensor, count: int) -> list[str]:
        """What stands at each step: [CLS], tokens, or the number of a patch or step."""
        assert self.spec is not None
        before = ["[CLS]"] if self.cls is not None else []
        if self.spec.kind == "tokens" and self.spec.tokenizer:
            shown = Tokenizer.from_json(self.spec.tokenizer).shown(inputs[0].tolist())
            return [*before, *(text for text, _ in shown)]
        return [*before, *map(str, range(1, count + 1 - len(before)))]
