"""What RNN, LSTM and GRU share: options and parameters, and the walk over layers and directions.

Parameters are named, ordered and drawn as in torch.nn. Letters: T steps, B rows, D inputs, H hidden units, P projected
units (H without a projection), G gates, L layers, S directions (2 if bidirectional, else 1), N = Σ_t B_t rows of a
packed batch.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from zoo.kernels.recurrent import Recurrence
from zoo.layers.recurrent.scan import State, Weights, affine, scan
from zoo.layers.usable import autocast, transformed

__all__ = ["Recurrent", "refuse_projection"]

Step = Callable[[Tensor, State], State]


class Recurrent(nn.Module):
    """Runs one step over time, directions and layers; a subclass gives the step."""

    gates: int  # G
    states: int = 1  # 1 for h, 2 for (h, c)
    mode: str
    by_steps: bool = False  # whether `torch.export` is to have torch's own operations, and no operator of the zoo's

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

    @property
    def _flat_weights(self) -> list[nn.Parameter]:
        """The same in one list, as torch.nn's layer keeps them and code around it reads them."""
        return [parameter for parameters in self.all_weights for parameter in parameters]

    @property
    def _flat_weights_names(self) -> list[str]:
        """Their names."""
        return [name for names in self._all_weights for name in names]

    @property
    def _all_weights(self) -> list[list[str]]:
        """Their names, one list per layer and direction."""
        fields = ("ih", "hh", "bias_ih", "bias_hh", "hr")
        return [[names[f] for f in fields if f in names] for names in self._parameter_names]

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

    def to_torch(self) -> nn.RNNBase:
        """Return torch.nn's layer with these very parameters, for tools that know that one by its type.

        `torch.jit.script` takes it by itself; `torch.ao.quantization.quantize_dynamic` is to be given it.

        Raises:
            ValueError: torch.nn's layer has not all options of this one.
        """
        beyond = self.layer_norm or self._noisy() or self.variational_dropout or self.recurrent_dropout
        if beyond or self.passes() is None or len(set(self.hidden_sizes)) > 1:
            raise ValueError(f"torch.nn has no such layer, so that it can be neither scripted nor quantized: {self}")
        options: dict[str, Any] = {"proj_size": self.proj_size} if self.mode == "LSTM" else {}
        if self.mode.startswith("RNN"):
            options["nonlinearity"] = self.mode.removeprefix("RNN_").lower()
        layer = getattr(nn, self.mode.partition("_")[0])(
            self.input_size, self.hidden_sizes[0], self.num_layers, bias=self.bias, batch_first=self.batch_first,
            dropout=self.dropout if self.num_layers > 1 else 0.0, bidirectional=self.bidirectional, device="meta",
            **options,
        )  # fmt: skip
        for name, parameter in self.named_parameters():
            setattr(layer, name, parameter)
        return layer.train(self.training)

    __prepare_scriptable__ = to_torch

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "qconfig" and value is not None:  # how quantize_dynamic marks what it is to quantize
            kind = type(self).__name__
            raise RuntimeError(f"{kind} of zoo.layers has no quantized form: put its to_torch() in its place first")
        super().__setattr__(name, value)

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

    # -- forward ---------------------------------------------------------------------------------------------------

    def make_step(self, w: Weights) -> Step:
        """The step `(a_t, state) -> state` with these weights."""
        raise NotImplementedError

    def passes(self) -> Recurrence | None:
        """The operator that takes all these steps at once, or None where there is none."""
        raise NotImplementedError

    def drop(self, candidate: Tensor) -> Tensor:
        """Dropout of what a step would add to the state (Semeniuta et al. 2016)."""
        return F.dropout(candidate, self.recurrent_dropout, self.training) if self.recurrent_dropout else candidate

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """Run over a sequence.

        Args:
            input: (T, B, D), with `batch_first` (B, T, D), unbatched (T, D), or a PackedSequence.
            hx: initial h of shape (L*S, B, P), unbatched (L*S, P), for the LSTM (h, c) with c of shape
                (L*S, B, H); zeros if None. With one hidden size per layer a sequence of L tensors (S, B, H_l)
                in the place of each.

        Returns:
            h of all steps, shaped as the input with S*P in place of D, and the final states shaped as `hx`.
        """
        if torch.jit.is_tracing():
            warnings.warn(
                f"torch.jit.trace unrolls {type(self).__name__} over the steps of its example: the traced module takes "
                "sequences of that length alone. torch.export, torch.jit.script and model.layers=torch take any.",
                stacklevel=2,
            )
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        if input.dim() not in (2, 3):
            tensor = " tensor" if type(self).__name__ == "RNN" else ""
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.dim()}D{tensor} instead"
            )
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(1)
        x = x.transpose(0, 1) if batched and self.batch_first else x  # (T, B, D)
        self._check_input(x)
        states = self._initial_states(x, x.size(1), hx, batched)
        if x.size(0) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        output, states = self._run(x, states, None)
        if not batched:
            return output.squeeze(1), self._join(states, lambda s: s.squeeze(1))
        return (output.transpose(0, 1) if self.batch_first else output), self._join(states)

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        data, batch_sizes, order, back = packed
        if data.dim() != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {data.dim()}")
        self._check_input(data)
        states = self._initial_states(data, int(batch_sizes[0]), hx, True)
        if hx is not None and order is not None:
            states = [tuple(s.index_select(0, order) for s in state) for state in states]
        output, states = self._run(data, states, batch_sizes)
        final = self._join(states, lambda s: s if back is None else s.index_select(1, back))
        return PackedSequence(output, batch_sizes, order, back), final

    def _check_input(self, x: Tensor) -> None:
        dtype = getattr(self, self._parameter_names[0]["ih"]).dtype
        if x.dtype != dtype and not autocast(x.device.type):
            raise ValueError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert model: model.to({x.dtype})"
            )
        if x.size(-1) != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.size(-1)}"
            )

    def _initial_states(self, x: Tensor, rows: int, hx: Any, batched: bool) -> list[State]:
        """One state of shapes (B, P) and (B, H) per layer and direction."""
        sizes = [(self.proj_size or hidden, hidden) for hidden in self.hidden_sizes]
        if hx is None:
            zeros = [tuple([x.new_zeros(rows, n) for n in pair[: self.states]]) for pair in sizes]
            return [z for z in zeros for _ in range(self.num_directions)]
        kinds = hx if self.states == 2 else (hx,)
        self._check_ranks(kinds, batched)
        columns = []
        for j, kind in enumerate(kinds):
            name = f"hidden[{j}]" if self.states == 2 else "hidden"
            columns.append(self._split_state(kind, [pair[j] for pair in sizes], rows, name, batched))
        return list(zip(*columns, strict=True))

    def _check_ranks(self, kinds: Sequence[Any], batched: bool) -> None:
        ranks = [part.dim() for kind in kinds for part in ([kind] if isinstance(kind, Tensor) else kind)]
        want, words = (3, "batched 3-D") if batched else (2, "unbatched 2-D")
        if any(rank != want for rank in ranks):
            if self.states == 2:
                got = ", ".join(f"{rank}-D" for rank in ranks)
                raise RuntimeError(f"For {words} input, hx and cx should also be {want}-D but got ({got}) tensors")
            raise RuntimeError(f"For {words} input, hx should also be {want}-D but got {ranks[0]}-D tensor")

    def _split_state(self, kind: Any, sizes: list[int], rows: int, name: str, batched: bool) -> list[Tensor]:
        """The L*S initial tensors (B, ·) of one kind, h or c."""
        whole = isinstance(kind, Tensor)
        parts = [kind] if whole else list(kind)
        if (whole and len(set(sizes)) > 1) or len(parts) != (1 if whole else self.num_layers):
            raise RuntimeError(f"{name} must be a sequence of {self.num_layers} tensors, one per layer")
        parts = parts if batched else [part.unsqueeze(1) for part in parts]
        layers = self.num_layers if whole else 1
        for part, size in zip(parts, sizes, strict=False):
            expected = (layers * self.num_directions, rows, size)
            if part.shape != expected:
                raise RuntimeError(f"Expected {name} size {expected}, got {list(part.shape)}")
        return [row for part in parts for row in part.unbind(0)]

    def _join(self, states: list[State], finish: Callable[[Tensor], Tensor] = lambda s: s) -> Any:
        """Final states as `hx` is given: stacked, or one tensor per layer where sizes differ."""
        joined: list[Any] = []
        for kind in zip(*states, strict=True):
            if len(kind) == 1:
                joined.append(finish(kind[0].unsqueeze(0)))
            elif len(set(self.hidden_sizes)) > 1 and kind[0].size(-1) != self.proj_size:
                layers = [kind[k : k + self.num_directions] for k in range(0, len(kind), self.num_directions)]
                joined.append(tuple(finish(torch.stack(layer)) for layer in layers))
            else:
                joined.append(finish(torch.stack(kind)))
        return tuple(joined) if self.states == 2 else joined[0]

    def _run(self, x: Tensor, states: list[State], sizes: Tensor | None) -> tuple[Tensor, list[State]]:
        """All layers over (T, B, D) or packed (N, D), under autocast in its type, as torch does."""
        device = x.device.type
        if not autocast(device) or (device == "cpu" and self.mode == "GRU"):
            return self._layers(x, states, sizes)
        dtype, own = torch.get_autocast_dtype(device), x.dtype
        with torch.autocast(device, enabled=False):
            output, finals = self._layers(x.to(dtype), [tuple(s.to(dtype) for s in state) for state in states], sizes)
        if device == "cpu" and self.proj_size:  # there torch takes another way, which leaves c in the input's type
            finals = [(state[0], *(c.to(own) for c in state[1:])) for state in finals]
        return output, finals

    def _layers(self, x: Tensor, states: list[State], sizes: Tensor | None) -> tuple[Tensor, list[State]]:
        finals: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self.num_directions):
                k = len(finals)
                w = self.weights(k)
                if x.dtype != w.ih.dtype and not autocast(x.device.type):
                    w = Weights(*(t if t is None else t.to(x.dtype) for t in w))
                output, final = self._direction(x, states[k], w, sizes, direction == 1)
                outputs.append(output)
                finals.append(final)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        # The way back needs what the operator returned; what the caller gets may be changed in place.
        return (x.clone() if self.num_directions == 1 and x.requires_grad else x), finals

    def _direction(
        self, x: Tensor, state: State, w: Weights, sizes: Tensor | None, reverse: bool
    ) -> tuple[Tensor, State]:
        """One direction of one layer: by the operator where there is one, else step by step."""
        without = self.layer_norm or self._noisy() or (self.by_steps and torch.compiler.is_exporting())
        passes = None if without else self.passes()
        if passes is not None and _usable(x, state, w):
            return passes(x, state, w, sizes, reverse)
        locked = self.variational_dropout if self.training else 0.0
        running = None if sizes is None else sizes.tolist()
        if locked:
            mask = F.dropout(x.new_ones(state[0].size(0), x.size(-1)), locked)  # (B, D), one for all steps
            x = x * (mask if running is None else torch.cat([mask[:n] for n in running]))
        step = self._with_noise(self.make_step(w), state, locked)
        return scan(step, affine(x, w.ih, w.bias_ih, w.gain_ih), state, running, reverse)

    def _noisy(self) -> bool:
        return any(self.zoneout) or (self.training and bool(self.variational_dropout or self.recurrent_dropout))

    def _with_noise(self, step: Step, state: State, locked: float) -> Step:
        """Put the locked mask on h (Gal & Ghahramani 2016) and zoneout (Krueger et al. 2017) around a step."""
        if not locked and not any(self.zoneout):
            return step
        mask = F.dropout(torch.ones_like(state[0]), locked) if locked else None  # (B, P)

        def noisy(a: Tensor, old: State) -> State:
            seen = old if mask is None else (old[0] * mask[: a.size(0)], *old[1:])
            new = step(a, seen)
            # zoneout is given as torch orders states: h, then c
            return tuple(_zone(o, n, p, self.training) for o, n, p in zip(old, new, self.zoneout, strict=True))

        return noisy


def _usable(x: Tensor, state: State, w: Weights) -> bool:
    """Whether the operator goes: plain tensors of one type, and no transform that an operator has no formula for."""
    return not transformed(x, *state, *(t for t in w if t is not None))


def _zone(old: Tensor, new: Tensor, p: float, training: bool) -> Tensor:
    """Keep each unit's old value with probability p; outside of training take the expectation."""
    if p == 0:
        return new
    if not training:
        return new + p * (old - new)
    return torch.where(torch.rand_like(new) < p, old, new)


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


def refuse_projection(proj_size: Any) -> None:
    """Say what torch says of the projection that only the LSTM has."""
    if proj_size is not None:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
