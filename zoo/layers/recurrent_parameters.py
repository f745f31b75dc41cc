"""The options and parameters that RNN, LSTM and GRU share, named, ordered and drawn as in torch.nn.

Letters: D inputs, H hidden units, P projected units (H without a projection), G gates.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Sequence

import torch
from torch import nn

from zoo.layers.recurrent_steps import Weights

__all__ = ["RecurrentParameters"]


class RecurrentParameters(nn.Module):
    """Holds and checks the options, and registers the parameters."""

    gates: int  # G
    states: int = 1  # 1 for h, 2 for (h, c)
    mode: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        layer_norm: bool = False,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        peepholes: bool = False,
    ) -> None:
        super().__init__()
        self.hidden_sizes = _hidden_sizes(hidden_size, num_layers)
        self.hidden_size = hidden_size if isinstance(hidden_size, int) else tuple(hidden_size)
        self.input_size, self.num_layers, self.bias = input_size, len(self.hidden_sizes), bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self.proj_size, self.layer_norm, self.peepholes = proj_size, layer_norm, peepholes
        self.variational_dropout, self.recurrent_dropout = variational_dropout, recurrent_dropout
        self.zoneout = tuple(zoneout) if isinstance(zoneout, Sequence) else (zoneout,) * self.states
        self._check_arguments()
        self._parameter_names: list[dict[str, str]] = []
        for layer in range(self.num_layers):
            for direction in range(self.num_directions):
                self._add_direction(layer, direction, {"device": device, "dtype": dtype})
        self._add_extras({"device": device, "dtype": dtype})
        self.reset_parameters()

    @property
    def num_directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The parameters that torch.nn's layer has, one list per layer and direction."""
        fields = ("ih", "hh", "bias_ih", "bias_hh", "hr")
        return [[getattr(self, names[f]) for f in fields if f in names] for names in self._parameter_names]

    def flatten_parameters(self) -> None:
        """Do nothing; there for code that calls it on torch.nn's layers."""

    def reset_parameters(self) -> None:
        """Draw every weight and bias from U(-1/√H, 1/√H), in torch's order; gains are 1 and their shifts 0."""
        for name, parameter in self.named_parameters():
            if name.startswith("norm_"):
                nn.init.constant_(parameter, 0.0 if "shift" in name else 1.0)
            else:
                layer = int(name.removesuffix("_reverse").rpartition("_l")[2])
                bound = 1 / math.sqrt(self.hidden_sizes[layer])
                nn.init.uniform_(parameter, -bound, bound)

    def _check_arguments(self) -> None:
        for name in ("dropout", "variational_dropout", "recurrent_dropout"):
            _check_probability(name, getattr(self, name))
        self.dropout = float(self.dropout)
        if len(self.zoneout) != self.states:
            raise ValueError(f"zoneout takes one probability or {self.states}, got {len(self.zoneout)}")
        for p in self.zoneout:
            _check_probability("zoneout", p)
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={self.dropout} and num_layers={self.num_layers}",
                stacklevel=4,
            )
        for name, kind in (("bias", bool), ("batch_first", bool), ("input_size", int)):
            if not isinstance(getattr(self, name), kind):
                got = type(getattr(self, name)).__name__
                raise TypeError(f"{name} should be of type {kind.__name__}, got: {got}")
        if self.input_size <= 0:
            raise ValueError("input_size must be greater than zero")
        if self.proj_size < 0:
            raise ValueError("proj_size should be a positive integer or zero to disable projections")
        if self.proj_size >= min(self.hidden_sizes):
            raise ValueError("proj_size has to be smaller than hidden_size")

    def _add_direction(self, layer: int, direction: int, factory: dict) -> None:
        """Register torch's parameters of one direction, in torch's order and under torch's names."""
        hidden, outputs = self.hidden_sizes[layer], self.output_size(layer)
        inputs = self.input_size if layer == 0 else self.output_size(layer - 1) * self.num_directions
        shapes: dict[str, tuple[int, ...]] = {"ih": (self.gates * hidden, inputs), "hh": (self.gates * hidden, outputs)}
        if self.bias:
            shapes |= {"bias_ih": (self.gates * hidden,), "bias_hh": (self.gates * hidden,)}
        if self.proj_size:
            shapes["hr"] = (self.proj_size, hidden)
        names = {}
        for field, shape in shapes.items():
            prefix = field if field.startswith("bias") else f"weight_{field}"
            names[field] = f"{prefix}_l{layer}" + ("_reverse" if direction else "")
            self.register_parameter(names[field], nn.Parameter(torch.empty(shape, **factory)))
        self._parameter_names.append(names)

    def _add_extras(self, factory: dict) -> None:
        """Register what torch's layers do not have, after all of theirs, so that a seed draws the same weights."""
        for k, names in enumerate(self._parameter_names):
            layer, direction = divmod(k, self.num_directions)
            hidden = self.hidden_sizes[layer]
            shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
            if self.peepholes:
                shapes["peephole"] = ("weight_peephole", (3 * hidden,))
            if self.layer_norm:
                shapes |= {f: (f"norm_{f}", (self.gates, hidden)) for f in ("gain_ih", "gain_hh")}
                if self.states == 2:
                    shapes["gain_c"] = ("norm_gain_c", (hidden,))
                    if self.bias:
                        shapes["shift_c"] = ("norm_shift_c", (hidden,))
            for field, (prefix, shape) in shapes.items():
                names[field] = f"{prefix}_l{layer}" + ("_reverse" if direction else "")
                self.register_parameter(names[field], nn.Parameter(torch.empty(shape, **factory)))

    def output_size(self, layer: int) -> int:
        """P, the units that one direction of a layer passes on."""
        return self.proj_size or self.hidden_sizes[layer]

    def weights(self, k: int) -> Weights:
        """The parameters of direction `k % num_directions` of layer `k // num_directions`."""
        return Weights(**{field: getattr(self, name) for field, name in self._parameter_names[k].items()})

    def extra_repr(self) -> str:
        """The sizes, and every option that is not at its default."""
        defaults: dict[str, object] = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
        }
        defaults |= {"bidirectional": False, "layer_norm": False, "variational_dropout": 0.0}
        defaults |= {"recurrent_dropout": 0.0, "zoneout": (0.0,) * self.states, "peepholes": False}
        shown = [f"{k}={getattr(self, k)}" for k, v in defaults.items() if getattr(self, k) != v]
        return ", ".join([str(self.input_size), str(self.hidden_size), *shown])


def _hidden_sizes(hidden_size: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """One hidden size per layer."""
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    sizes = tuple(hidden_size) if isinstance(hidden_size, Sequence) else (hidden_size,) * num_layers
    if num_layers not in (1, len(sizes)):
        raise ValueError(f"num_layers={num_layers} but hidden_size names {len(sizes)} layers; leave num_layers out")
    for size in sizes:
        if not isinstance(size, int):
            raise TypeError(f"hidden_size should be of type int, got: {type(size).__name__}")
        if size <= 0:
            raise ValueError("hidden_size must be greater than zero")
    if not sizes:
        raise ValueError("hidden_size must name at least one layer")
    return sizes


def _check_probability(name: str, p: float) -> None:
    if not isinstance(p, numbers.Number) or isinstance(p, bool) or not 0 <= p <= 1:
        raise ValueError(
            f"{name} should be a number in range [0, 1] representing the probability of an element being zeroed"
        )
