r"""Multilayer perceptron (feedforward network): affine maps with a nonlinearity between them.

```math
h_0 = x, \qquad h_l = \mathrm{dropout}(φ(\mathrm{norm}(h_{l-1} W_l^\top + b_l))), \qquad \hat y = h_L W^\top + b
```

Legend: B batch, F input features (images are flattened), H_l width of layer l, C outputs.

Source: Rumelhart, Hinton & Williams 1986; dropout of Srivastava et al. 2014; batch normalization of Ioffe & Szegedy
2015, before the nonlinearity as they place it. Deviation: where p is often the share of units that is kept, `dropout`
is the share that is dropped, as in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from zoo.checks import check_range
from zoo.data.spec import DataSpec
from zoo.errors import ZooError
from zoo.models.base import GradientModel
from zoo.registry import register_model

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
    accepts={"tabular": ("class", "value"), "image": ("class", "value")},
    source="Rumelhart, Hinton & Williams 1986",
)
class MLP(GradientModel):
    """Multilayer perceptron of any widths, for classes and values.

    Args:
        widths: units of each hidden layer; an empty list leaves a linear model.
        activation: nonlinearity after each hidden layer.
        dropout: share of units dropped after each hidden layer in training, in [0, 1].
        batch_norm: normalize each hidden layer over the batch, before the nonlinearity.
        binary_logit: one output for two classes, the log-odds of the second, instead of one a class.
        loss: of values: `squared_error`, or `poisson` (half the deviance) of counts, whose logarithm is the output.

    Raises:
        ZooError: if a width is below 1, `dropout` is outside [0, 1], or a loss of values is asked for classes.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="tabular", shape=(4,), target="class", num_classes=3)
        >>> zoo.create_model("mlp", spec, widths=[16])(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (128, 128),
        activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu", "leaky_relu", "elu", "identity"] = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        binary_logit: bool = False,
        loss: Literal["squared_error", "poisson"] = "squared_error",
    ) -> None:
        super().__init__()
        widths = list(widths)
        self.save_hyperparameters()
        if any(width < 1 for width in widths):
            raise ZooError(f"model.widths must all be at least 1, not {widths}.")
        check_range("dropout", dropout, 0, 1)
        self.widths, self.activation, self.dropout, self.batch_norm = widths, activation, dropout, batch_norm
        self.binary_logit, self.value_loss = binary_logit, loss

    def initialize(self, spec: DataSpec) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        width = spec.num_features
        for next_width in self.widths:
            layers.append(nn.Linear(width, next_width))
            if self.batch_norm:
                layers.append(nn.BatchNorm1d(next_width))
            layers.append(ACTIVATIONS[self.activation]())
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
            width = next_width
        self.net = nn.Sequential(*layers, nn.Linear(width, self.objective.num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # (B, *shape) → (B, C)
