r"""Multilayer perceptron (feedforward network): affine maps with a nonlinearity between them.

```math
h_0 = x, \qquad h_l = \mathrm{dropout}(φ(\mathrm{norm}(h_{l-1} W_l^\top + b_l))), \qquad \hat y = h_L W^\top + b
```

Of a text x is the mean of its tokens' vectors, $x = \frac1T \sum_t E_{w_t}$, whatever their order.

Legend: B batch, F input features (images are flattened), H_l width of layer l, C outputs; T tokens w_t of a text,
E their vectors (V, F).

Source: Rumelhart, Hinton & Williams 1986; Iyyer, Manjunatha, Boyd-Graber & Daumé 2015 (texts), with the first vectors
of Joulin, Grave, Bojanowski & Mikolov 2017; dropout of Srivastava et al. 2014; batch normalization of Ioffe & Szegedy
2015, before the nonlinearity as they place it. Deviation: where p is often the share of units that is kept, `dropout`
is the share that is dropped, as in torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.layers.initialization import Initialization, initialize
from zoo.models.base import EmbedsTokens, GradientModel
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ACTIVATIONS", "MLP"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "identity": nn.Identity,
}


@register_model(
    "mlp",
    family="feedforward",
    accepts={"tabular": ("class", "value"), "image": ("class", "value"), "tokens": ("class", "value")},
    source="Rumelhart, Hinton & Williams 1986",
)
class MLP(EmbedsTokens, GradientModel):
    """Multilayer perceptron of any widths, for classes and values.

    Args:
        widths: units of each hidden layer; an empty list leaves a linear model.
        activation: nonlinearity after each hidden layer.
        dropout: share of units dropped after each hidden layer in training, in [0, 1].
        batch_norm: normalize each hidden layer over the batch, before the nonlinearity.
        initialization: how the weights begin: `xavier_uniform`, `xavier_normal`, `kaiming_uniform`, `kaiming_normal`,
            `orthogonal` (with the gain of the activation), or `truncated_normal` of deviation 0.02, with biases of
            0; None: as torch's layers begin.
        binary_logit: one output for two classes, the log-odds of the second, instead of one a class.
        loss: of values: `squared_error`, or `poisson` (half the deviance) of counts, whose logarithm is the output.
        embedding_size: size of a token's vector, for texts; None: 128, or that of `embedding`.
        embedding: a file of word vectors, or the run that learned them, to begin with.
        freeze_embedding: leave the tokens' vectors as they begin.

    Raises:
        ZooError: if a width or `embedding_size` is below 1, `dropout` is outside [0, 1], or a loss of values is asked
            for classes.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="tabular", shape=(4,), target="class", num_classes=3)
        >>> zoo.create_model("mlp", spec, widths=[16])(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    compiles = True
    needs = {
        "binary_logit": {"target": ("class",)},
        "embedding_size": {"kind": ("tokens",)},
    }

    def __init__(
        self,
        *,
        widths: Sequence[int] = (128, 128),
        activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu", "leaky_relu", "elu", "identity"] = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        initialization: Initialization | None = None,
        binary_logit: bool = False,
        loss: Literal["squared_error", "poisson"] = "squared_error",
        embedding_size: int | None = None,
        embedding: str | None = None,
        freeze_embedding: bool = False,
    ) -> None:
        super().__init__()
        widths = list(widths)
        self.save_hyperparameters()
        if any(width < 1 for width in widths):
            raise ZooError(f"model.widths must all be at least 1, not {widths}.")
        check_range("dropout", dropout, 0, 1)
        check_range("embedding_size", embedding_size, 1)
        self.widths, self.activation, self.dropout, self.batch_norm = widths, activation, dropout, batch_norm
        self.binary_logit, self.value_loss = binary_logit, loss

    def initialize(self, spec: DataSpec) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        width = spec.num_features
        self.embedding = self.token_table(spec, 128)
        if self.embedding is not None:
            width = self.embedding.embedding_dim
            if self.hparams.embedding is None:
                # Near zero: of a rare token, whose vector hardly moves, little is left to mislead the mean.
                nn.init.uniform_(self.embedding.weight, -1 / width, 1 / width)
        for next_width in self.widths:
            layers.append(nn.Linear(width, next_width))
            if self.batch_norm:
                layers.append(nn.BatchNorm1d(next_width))
            layers.append(ACTIVATIONS[self.activation]())
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
            width = next_width
        self.net = nn.Sequential(*layers, nn.Linear(width, self.objective.num_outputs))
        if self.hparams.initialization is not None:
            initialize(self.net, self.hparams.initialization, self.activation)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs (B, C).

        Args:
            x: numbers (B, *shape), or tokens (B, T).
            mask: which tokens are there, (B, T), where texts are padded.
        """
        return self.net(x if self.embedding is None else self.pooled(x, mask))

    def pooled(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the mean of the vectors of the tokens (B, T) that are there, (B, F)."""
        assert self.embedding is not None
        vectors = self.embedding(tokens)  # (B, T, F)
        if mask is None:
            return vectors.mean(1)
        there = mask.unsqueeze(-1).to(vectors.dtype)  # (B, T, 1)
        return (vectors * there).sum(1) / there.sum(1)

    def output(self, batch: Batch) -> Tensor:
        return self(batch.inputs, batch.mask) if batch.tokens is not None else self(batch.inputs)

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        yield from super().pictures(batch, columns)
        if self.embedding is None or self.widths or self.spec is None or self.spec.tokenizer is None:
            return
        from zoo import visual
        from zoo.text import Tokenizer

        # Of the mean of the tokens' vectors the outputs are the mean of this, token by token.
        weight = F.linear(self.net[-1].weight, self.embedding.weight)  # type: ignore[arg-type]  # (C, V)
        weight = weight - weight.mean(0) if len(weight) > 2 else weight[-1:] - (weight[:1] if len(weight) == 2 else 0)
        words = replace(self.spec, feature_names=tuple(Tokenizer.from_json(self.spec.tokenizer).vocabulary))
        yield "coefficients", visual.coefficients(weight, words, visual.output_names(words, len(weight)))
