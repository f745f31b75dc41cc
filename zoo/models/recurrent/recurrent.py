r"""Recurrent networks: a state that is carried along a sequence, read out at its end or at every step.

```math
h_t = \mathrm{cell}(x_t, h_{t-1}), \qquad
\hat y = h_T W^\top + b \;\; \text{(classes, values, forecasts)}, \qquad
\hat y_t = h_t W^\top + b \;\; \text{(tokens)}
```

Legend: B batch, T steps, F features of a step, E embedding, H hidden units, L layers, V vocabulary, K outputs.

The cells are those of `zoo.layers`: Elman's network `rnn`, `lstm` and `gru` (formulas there and in docs/recurrent.md).
A language model is trained by truncated back-propagation through time: the state goes on from batch to batch, the
gradient stops at the window's start (Williams & Peng 1990). A forecaster sees each window shifted and scaled by its own
mean μ and standard deviation σ, and its answer is put back, ŷ σ + μ, so that a trend does not leave the range that the
network knows (Kim et al. 2022).

Source: Elman 1990; Hochreiter & Schmidhuber 1997; Cho et al. 2014.
"""

from __future__ import annotations

from typing import Any, Literal

from zoo.models.base import GradientModel
from zoo.models.recurrent.recurrent_model import RecurrentModel
from zoo.registry import register_model

__all__ = ["GRU", "LSTM", "RNN"]

_REGISTRATION: dict[str, Any] = {
    "family": "recurrent",
    "accepts": {"sequence": ("class", "value", "bits"), "tokens": ("tokens", "class", "value"), "series": "series"},
    "docs": "recurrent",
}


@register_model("rnn", source="Elman 1990", **_REGISTRATION)
class RNN(RecurrentModel, GradientModel):
    """Elman's recurrent network for sequences, text and time series.

    Args:
        hidden_size: units of each layer, or a list with one number per layer.
        num_layers: layers, each fed with the one before.
        nonlinearity: `tanh` or `relu`.
        dropout: share of units dropped between layers and before the head in training.
        bidirectional: read the sequence in both directions.
        embedding_size: size of a token's vector; null: as the output, or that of `embedding`.
        embedding: a file of word vectors, or the run that learned them, to begin with.
        freeze_embedding: leave the tokens' vectors as they begin.
        layer_norm: normalize the products inside the cell.
        variational_dropout: share of units dropped, the same at all steps.
        zoneout: share of units that keep their old value.
        layers: `zoo` for our layers, `torch` for the built-in ones with the same weights.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="sequence", shape=(5, 3), target="class", num_classes=2)
        >>> zoo.create_model("rnn", spec, hidden_size=8)(torch.zeros(4, 5, 3)).shape
        torch.Size([4, 2])
    """

    layer_name = "RNN"

    def __init__(
        self,
        *,
        hidden_size: int | list[int] = 128,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        dropout: float = 0.0,
        bidirectional: bool = False,
        embedding_size: int | None = None,
        embedding: str | None = None,
        freeze_embedding: bool = False,
        layer_norm: bool = False,
        variational_dropout: float = 0.0,
        zoneout: float = 0.0,
        layers: Literal["zoo", "torch"] = "zoo",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_hyperparameters()


@register_model("lstm", source="Hochreiter & Schmidhuber 1997", **_REGISTRATION)
class LSTM(RecurrentModel, GradientModel):
    """Long short-term memory for sequences, text and time series.

    Args:
        hidden_size: memory cells of each layer, or a list with one number per layer.
        num_layers: layers, each fed with the one before.
        dropout: share of units dropped between layers and before the head in training.
        bidirectional: read the sequence in both directions.
        embedding_size: size of a token's vector; null: as the output, or that of `embedding`.
        embedding: a file of word vectors, or the run that learned them, to begin with.
        freeze_embedding: leave the tokens' vectors as they begin.
        proj_size: size to which the hidden state is projected; 0: not at all.
        layer_norm: normalize the products and the cell inside the cell.
        variational_dropout: share of units dropped, the same at all steps.
        recurrent_dropout: share of candidate units dropped, drawn at each step.
        zoneout: share of units that keep their old value.
        peepholes: the gates see the cell.
        layers: `zoo` for our layers, `torch` for the built-in ones with the same weights.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="tokens", shape=(5,), target="tokens", vocab_size=11)
        >>> zoo.create_model("lstm", spec, hidden_size=8)(torch.zeros(4, 5, dtype=torch.long)).shape
        torch.Size([4, 5, 11])
    """

    layer_name = "LSTM"

    def __init__(
        self,
        *,
        hidden_size: int | list[int] = 128,
        num_layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        embedding_size: int | None = None,
        embedding: str | None = None,
        freeze_embedding: bool = False,
        proj_size: int = 0,
        layer_norm: bool = False,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        peepholes: bool = False,
        layers: Literal["zoo", "torch"] = "zoo",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_hyperparameters()


@register_model("gru", source="Cho et al. 2014", **_REGISTRATION)
class GRU(RecurrentModel, GradientModel):
    """Gated recurrent unit for sequences, text and time series.

    Args:
        hidden_size: units of each layer, or a list with one number per layer.
        num_layers: layers, each fed with the one before.
        dropout: share of units dropped between layers and before the head in training.
        bidirectional: read the sequence in both directions.
        embedding_size: size of a token's vector; null: as the output, or that of `embedding`.
        embedding: a file of word vectors, or the run that learned them, to begin with.
        freeze_embedding: leave the tokens' vectors as they begin.
        reset_after: the reset gate acts after the product (torch, cuDNN) or before it (Cho et al. 2014).
        update_gate: the state that z weighs, `old` (torch, cuDNN) or `new`.
        layer_norm: normalize the products inside the cell.
        variational_dropout: share of units dropped, the same at all steps.
        recurrent_dropout: share of candidate units dropped, drawn at each step.
        zoneout: share of units that keep their old value.
        layers: `zoo` for our layers, `torch` for the built-in ones with the same weights.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="series", shape=(12, 1), target="series", num_targets=3)
        >>> zoo.create_model("gru", spec, hidden_size=8)(torch.zeros(4, 12, 1)).shape
        torch.Size([4, 3])
    """

    layer_name = "GRU"

    def __init__(
        self,
        *,
        hidden_size: int | list[int] = 128,
        num_layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        embedding_size: int | None = None,
        embedding: str | None = None,
        freeze_embedding: bool = False,
        reset_after: bool = True,
        update_gate: Literal["old", "new"] = "old",
        layer_norm: bool = False,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layers: Literal["zoo", "torch"] = "zoo",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_hyperparameters()
