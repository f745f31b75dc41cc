"""RNN, LSTM and GRU over all steps of one direction: operators of `torch.library`, compiled for float32 on a CPU.

`Recurrence("lstm", …)` defines `zoo::lstm`, one node for autograd, `torch.compile`, `torch.export`, the profiler and
checkpointing. Beneath it lie two hand-written passes, in C (recurrent.c) and in torch operations (recurrent_passes.py,
with the derivation). The way back is the operator `zoo::lstm_backward`; *its* gradient, where somebody asks for it,
goes through the readable formula.

Letters: T steps, B rows, N = Σ_t B_t rows of all steps (T*B for a dense batch), D inputs, H hidden units,
P projected units (H without a projection), G gates.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.node import register_autograd
from zoo.kernels.onednn import product
from zoo.kernels.recurrent_passes import PASSES, State, Steps, Weights
from zoo.kernels.vmap import one_by_one

__all__ = ["Recurrence"]

_LIBRARY = torch.library.Library("zoo", "FRAGMENT")

_INPUTS = (
    "Tensor x, Tensor h0, Tensor? c0, Tensor w_ih, Tensor w_hh, Tensor? bias_ih, Tensor? bias_hh, Tensor? w_hr, "
    "Tensor? batch_sizes, bool reverse"
)
_COUNT = 8  # tensors among the inputs that have gradients
_FORWARD = f"({_INPUTS}, bool keep) -> (Tensor h, Tensor h_n, Tensor c_n, Tensor gates, Tensor memory)"
_BACKWARD = (
    f"({_INPUTS}, Tensor h, Tensor gates, Tensor memory, Tensor? d_h, Tensor? d_h_n, Tensor? d_c_n, bool need_x) -> ("
    "Tensor d_x, Tensor d_h0, Tensor d_c0, Tensor d_ih, Tensor d_hh, Tensor d_bias_ih, Tensor d_bias_hh, Tensor d_hr)"
)  # fmt: skip

Formula = Callable[[Tensor, State, Weights, Tensor | None, bool], tuple[Tensor, State]]


class Recurrence:
    """The operators of one kind of cell.

    Args:
        name: "rnn_tanh", "rnn_relu", "lstm" or "gru".
        formula: the same from differentiable operations, `(x, state, w, batch_sizes, reverse) -> (h, final state)`.
    """

    def __init__(self, name: str, formula: Formula) -> None:
        self.name, self.formula = name, formula
        self.states, self.gates = (2 if name == "lstm" else 1), {"lstm": 4, "gru": 3}.get(name, 1)
        self._functions = {way: f"{name.split('_')[0]}_{way}" for way in ("forward", "backward")}  # in C
        self.operator = self._define(name, _FORWARD, self._forward, self._fake_forward)
        self.operator_back = self._define(f"{name}_backward", _BACKWARD, self._backward, self._fake_backward)
        register_autograd(_LIBRARY, self.operator, self._forward, self._keep, self._differentiate)
        register_autograd(_LIBRARY, self.operator_back, self._backward, self._keep_again, self._differentiate_again)

    def __call__(
        self, x: Tensor, state: State, w: Weights, batch_sizes: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, State]:
        """Return h of all steps and the final state.

        Args:
            x: (T, B, D), or (N, D) in the order of a PackedSequence.
            state: initial h (B, P), for the LSTM also c (B, H).
            w: weights; all tensors of one dtype on one device.
            batch_sizes: of a PackedSequence, (T,), on the CPU.
            reverse: start at the last step.

        Raises:
            RuntimeError: a shape, dtype or device does not fit.
        """
        tensors = (x, state[0], state[1] if len(state) > 1 else None, w.ih, w.hh, w.bias_ih, w.bias_hh, w.hr)
        keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
        h, h_n, c_n, _, _ = self.operator(*tensors, batch_sizes, reverse, keep)
        return h, (h_n, c_n)[: self.states]

    @staticmethod
    def _define(name: str, schema: str, run: Callable, fake: Callable) -> Any:
        _LIBRARY.define(name + schema)
        _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"zoo::{name}", fake, lib=_LIBRARY)
        operator = getattr(torch.ops.zoo, name).default
        torch.library.register_vmap(f"zoo::{name}", one_by_one(operator), lib=_LIBRARY)
        return operator

    # -- forward ---------------------------------------------------------------------------------------------------

    def _forward(
        self, x: Tensor, h0: Tensor, c0: Tensor | None, w_ih: Tensor, w_hh: Tensor, bias_ih: Tensor | None,
        bias_hh: Tensor | None, w_hr: Tensor | None, batch_sizes: Tensor | None, reverse: bool, keep: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        w, state = Weights(w_ih, w_hh, bias_ih, bias_hh, w_hr), (h0,) if c0 is None else (h0, c0)
        self._check(x, h0, c0, w, batch_sizes)
        kernel = self._kernel("forward", x, w_hr)
        if kernel is not None:
            return self._compiled_forward(kernel, x, state, w, batch_sizes, reverse, keep)
        steps, flat = _steps(x, batch_sizes, reverse), x.reshape(-1, x.size(-1))  # (N, D)
        h, final, kept = PASSES[self.name].forward(steps, flat, state, w, keep)
        gates, memory = kept if keep and kept else (x.new_empty(0), x.new_empty(0))
        c_n = final[1] if self.states == 2 else x.new_empty(0)
        return h.view(*x.shape[:-1], h.size(-1)), final[0], c_n, gates, memory

    def _compiled_forward(
        self, kernel: Callable, x: Tensor, state: State, w: Weights, sizes: Tensor | None, reverse: bool, keep: bool
    ) -> tuple[Tensor, ...]:
        *head, _ = x.shape
        rows, hidden = math.prod(head), w.hh.size(1)
        h, h_n = x.new_empty(*head, hidden), torch.empty_like(state[0], memory_format=torch.contiguous_format)
        c_n = torch.empty_like(h_n) if self.states == 2 else None
        gates = memory = None
        if keep and self.gates > 1:
            gates, memory = x.new_empty(rows, self.gates * hidden), x.new_empty(rows, hidden)
        outputs = {"h": h, "h_n": h_n, "c_n": c_n, "gates": gates, "u" if self.name == "gru" else "c": memory}
        self._call(kernel, x, state, w, sizes, reverse, outputs)
        return tuple([x.new_empty(0) if t is None else t for t in (h, h_n, c_n, gates, memory)])

    def _fake_forward(
        self, x: Tensor, h0: Tensor, c0: Tensor | None, w_ih: Tensor, w_hh: Tensor, bias_ih: Tensor | None,
        bias_hh: Tensor | None, w_hr: Tensor | None, batch_sizes: Tensor | None, reverse: bool, keep: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        rows, hidden = x.numel() // x.size(-1), w_hh.size(0) // self.gates
        shapes = [(rows, self.gates * hidden), (rows, hidden)] if keep and self.gates > 1 else [(0,), (0,)]
        kept = [x.new_empty(shape) for shape in shapes]
        c_n = x.new_empty(0) if c0 is None else x.new_empty(c0.shape)
        return x.new_empty(*x.shape[:-1], h0.size(-1)), x.new_empty(h0.shape), c_n, *kept

    # -- the way back ----------------------------------------------------------------------------------------------

    def _backward(
        self, x: Tensor, h0: Tensor, c0: Tensor | None, w_ih: Tensor, w_hh: Tensor, bias_ih: Tensor | None,
        bias_hh: Tensor | None, w_hr: Tensor | None, batch_sizes: Tensor | None, reverse: bool,
        h: Tensor, gates: Tensor, memory: Tensor, d_h: Tensor | None, d_h_n: Tensor | None, d_c_n: Tensor | None,
        need_x: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        w, state = Weights(w_ih, w_hh, bias_ih, bias_hh, w_hr), (h0,) if c0 is None else (h0, c0)
        self._check(x, h0, c0, w, batch_sizes)
        carries = [s.new_zeros(s.shape) if d is None else _copy(d) for s, d in zip(state, (d_h_n, d_c_n), strict=False)]
        kernel = self._kernel("backward", x, w_hr)
        if kernel is not None:
            kept = {"h": h, "d_h": d_h, "gates": gates, "u" if self.name == "gru" else "c": memory}
            d_x, d_w = self._compiled_backward(kernel, x, state, w, batch_sizes, reverse, kept, carries, need_x)
        else:
            steps, flat, h = _steps(x, batch_sizes, reverse), x.reshape(-1, x.size(-1)), h.reshape(-1, h.size(-1))
            d_h = torch.zeros_like(h) if d_h is None else d_h.reshape(h.shape)
            back = PASSES[self.name].backward
            d_x, d_state, d_w = back(steps, flat, state, w, h, (gates, memory), d_h, tuple(carries), need_x)
            carries = list(d_state)
        d_c0 = carries[1] if self.states == 2 else None
        found = (None if d_x is None else d_x.view(x.shape), carries[0], d_c0, *d_w)
        return tuple([x.new_empty(0) if t is None else t for t in found])

    def _compiled_backward(
        self, kernel: Callable, x: Tensor, state: State, w: Weights, sizes: Tensor | None, reverse: bool,
        kept: dict[str, Tensor | None], carries: list[Tensor], need_x: bool,
    ) -> tuple[Tensor | None, Weights]:  # fmt: skip
        rows, hidden, width = math.prod(x.shape[:-1]), w.hh.size(1), 4 if self.gates > 1 else 1
        d = x.new_empty(rows, width * hidden)  # of the GRU: u, r, z, n
        d_w = Weights(*[None if t is None else torch.empty_like(t, memory_format=torch.contiguous_format) for t in w])
        outputs: dict[str, Tensor | None] = {"d": d, "carry": carries[0], "d_ih": d_w.ih, "d_hh": d_w.hh}
        outputs |= {"d_c": carries[-1], "d_bias_ih": d_w.bias_ih, "d_bias_hh": d_w.bias_hh}
        self._call(kernel, x, state, w, sizes, reverse, kept | outputs)
        d_gates = d[:, hidden:] if self.name == "gru" else d
        return product(d_gates, w.ih.t()) if need_x else None, d_w

    def _fake_backward(
        self, x: Tensor, h0: Tensor, c0: Tensor | None, w_ih: Tensor, w_hh: Tensor, bias_ih: Tensor | None,
        bias_hh: Tensor | None, w_hr: Tensor | None, *rest: Any,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        inputs = (x if rest[-1] else None, h0, c0, w_ih, w_hh, bias_ih, bias_hh, w_hr)
        return tuple(x.new_empty(0) if t is None else x.new_empty(t.shape) for t in inputs)

    # -- the seam --------------------------------------------------------------------------------------------------

    def _check(self, x: Tensor, h0: Tensor, c0: Tensor | None, w: Weights, batch_sizes: Tensor | None) -> None:
        """Refuse what does not fit together, since a kernel would read whatever lies there."""
        if batch_sizes is None:
            fits = x.dim() == 3 and x.size(0) > 0
            rows = x.size(1) if fits else 0
        else:
            sizes = batch_sizes.tolist()
            fits = batch_sizes.dtype == torch.int64 and batch_sizes.device.type == "cpu" and x.dim() == 2
            fits = fits and bool(sizes) and sum(sizes) == x.size(0)
            fits = fits and all(a >= b for a, b in itertools.pairwise(sizes)) and sizes[-1] > 0
            rows = sizes[0] if fits else 0
        outputs, hidden = w.hh.size(-1), w.hh.size(0) // self.gates
        gates, dtype, device = hidden * self.gates, x.dtype, x.device
        shapes = (
            (h0, (rows, outputs)), (c0, (rows, hidden)), (w.ih, (gates, *x.shape[-1:])), (w.hh, (gates, outputs)),
            (w.bias_ih, (gates,)), (w.bias_hh, (gates,)), (w.hr, (outputs, hidden)),
        )  # fmt: skip
        for t, shape in shapes:
            if t is not None and (t.shape != shape or t.dtype != dtype or t.device != device):
                fits = False
        fits = fits and (c0 is not None) == (self.states == 2) and (w.bias_ih is None) == (w.bias_hh is None)
        if not fits or (w.hr is None and outputs != hidden):
            found = [None if t is None else (*t.shape, t.dtype, t.device) for t in (x, h0, c0, *w, batch_sizes)]
            raise RuntimeError(f"zoo::{self.name}: inputs do not fit together: {found}")

    def _kernel(self, direction: str, x: Tensor, w_hr: Tensor | None) -> Callable | None:
        """The C function, where it goes: float32 on a CPU, at least one row, no projection."""
        if x.dtype != torch.float32 or x.device.type != "cpu" or x.numel() == 0 or w_hr is not None:
            return None
        return function(self._functions[direction], Task)

    def _call(
        self, kernel: Callable, x: Tensor, state: State, w: Weights, sizes: Tensor | None, reverse: bool,
        tensors: dict[str, Tensor | None],
    ) -> None:  # fmt: skip
        """Call the C function with the inputs and with further tensors by their name in its struct."""
        (*_, inputs), (gates, hidden), (rows, _) = x.shape, w.hh.shape, state[0].shape
        total = x.numel() // inputs
        work = total * (inputs + hidden) * gates  # multiplications
        threads = 1 if work < _WORK else min(torch.get_num_threads(), 1 + work // _WORK)
        steps = total // rows if sizes is None else len(sizes)
        tensors |= {"x": x, "h0": state[0], "c0": state[-1], "sizes": sizes}
        tensors |= {"w_ih": w.ih, "w_hh": w.hh, "bias_ih": w.bias_ih, "bias_hh": w.bias_hh}
        whole = {name: t.contiguous() for name, t in tensors.items() if t is not None}  # alive until it has run
        pointers = {name: t.data_ptr() for name, t in whole.items()}
        kernel(Task(steps, rows, inputs, hidden, total, reverse, self.name == "rnn_relu", threads, **pointers))

    # -- autograd --------------------------------------------------------------------------------------------------

    def _keep(self, ctx: Any, inputs: tuple, output: tuple) -> None:
        h, _, _, gates, memory = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(gates, memory)
        ctx.reverse = inputs[_COUNT + 1]
        ctx.save_for_backward(*inputs[: _COUNT + 1], h, gates, memory)

    def _differentiate(self, ctx: Any, d_h: Tensor | None, d_h_n: Tensor | None, d_c_n: Tensor | None, *_: Any) -> Any:
        *inputs, h, gates, memory = ctx.saved_tensors  # read once: checkpointing gives them once
        inputs.append(ctx.reverse)
        if self.gates > 1 and gates.numel() == 0:  # a transform hid that gradients would be asked for
            with torch.no_grad():
                h, _, _, gates, memory = self.operator(*inputs, True)
        d_c_n = d_c_n if self.states == 2 else None
        needs = ctx.needs_input_grad[1 : 1 + _COUNT]  # the first is the node's own argument
        found = self.operator_back(*inputs, h, gates, memory, d_h, d_h_n, d_c_n, needs[0])
        gradients = [d if need else None for d, need in zip(found, needs, strict=True)]
        return *gradients, None, None, None

    def _keep_again(self, ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.set_materialize_grads(False)
        ctx.reverse = inputs[_COUNT + 1]
        ctx.save_for_backward(*inputs[: _COUNT + 1], *inputs[_COUNT + 5 : _COUNT + 8])

    def _differentiate_again(self, ctx: Any, *v: Tensor | None) -> Any:
        """The gradient of the gradient: the formula's, pulled back twice."""
        *inputs, batch_sizes, d_h, d_h_n, d_c_n = ctx.saved_tensors
        reverse, kinds = ctx.reverse, 1 + self.states
        primals, slots = _present(inputs)
        directions, places = _present([d_h, d_h_n, d_c_n][:kinds])

        def results(*tensors: Tensor) -> tuple[Tensor, ...]:
            x, h0, c0, *w = _filled(tensors, slots, _COUNT)
            h, final = self.formula(x, (h0,) if c0 is None else (h0, c0), Weights(*w), batch_sizes, reverse)
            outputs = (h, *final)
            return tuple(outputs[k] for k in places)

        def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
            _, pull = torch.func.vjp(results, *tensors[: len(primals)])
            return pull(tuple(tensors[len(primals) :]))

        found = [t if v[k] is None else v[k] for k, t in zip(slots, map(torch.zeros_like, primals), strict=True)]
        _, pull = torch.func.vjp(gradients, *primals, *directions)
        pulled = pull(tuple(f.view_as(p) for f, p in zip(found, primals, strict=True)))
        by_input = _filled(pulled[: len(primals)], slots, _COUNT)
        by_direction = _filled(pulled[len(primals) :], places, 3)
        return *by_input, None, None, None, None, None, *by_direction, None


def _present(values: Sequence[Tensor | None]) -> tuple[list[Tensor], list[int]]:
    """The tensors among them, and their places."""
    places = [k for k, value in enumerate(values) if value is not None]
    return [values[k] for k in places], places  # type: ignore[misc]


def _filled(tensors: Sequence[Tensor], places: list[int], count: int) -> list[Any]:
    """The tensors at their places, None elsewhere."""
    row: list[Any] = [None] * count
    for place, tensor in zip(places, tensors, strict=True):
        row[place] = tensor
    return row


def _steps(x: Tensor, batch_sizes: Tensor | None, reverse: bool) -> Steps:
    return Steps((x.size(1),) * x.size(0) if batch_sizes is None else tuple(batch_sizes.tolist()), reverse)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


_WORK = 2_000_000  # multiplications that are worth another thread


class Task(ctypes.Structure):
    """The struct of recurrent.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "rows", "inputs", "hidden", "total", "reverse", "relu")),
        ("threads", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("sizes", "x", "h0", "c0", "w_ih", "w_hh", "bias_ih", "bias_hh", "h")),
        *((name, ctypes.c_void_p) for name in ("h_n", "c_n", "gates", "c", "u", "d_h", "carry", "d_c", "d")),
        *((name, ctypes.c_void_p) for name in ("d_ih", "d_hh", "d_bias_ih", "d_bias_hh")),
    ]
