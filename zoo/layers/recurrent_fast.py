"""The fast way through one direction of a layer: one autograd function around two hand-written passes.

`recurrent_passes` holds the passes in torch operations, with their derivation; `recurrent_kernels` the same compiled.
The backward pass is itself differentiated, where somebody asks for it, through the readable formula.

Letters: T steps, B rows, N = Σ_t B_t rows of all steps (T*B for a dense batch), D inputs, H hidden units,
P projected units (H without a projection), G gates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.layers.recurrent_steps import State, Weights, affine, scan

__all__ = ["Passes", "Steps", "run", "usable"]


@dataclass(frozen=True)
class Steps:
    """Where each step's rows lie among all N, and in which direction time runs."""

    sizes: tuple[int, ...]  # B_t
    reverse: bool

    @property
    def dense(self) -> bool:
        """Whether every step has all rows."""
        return self.sizes[0] == self.sizes[-1]

    def rows(self) -> list[tuple[int, int]]:
        """(start, stop) of each step's rows, in the order in which the steps are taken."""
        bounds, start = [], 0
        for size in self.sizes:
            bounds.append((start, start + size))
            start += size
        return bounds[::-1] if self.reverse else bounds

    @staticmethod
    def align(now: Tensor, initial: Tensor, rows: int) -> Tensor:
        """The state of the first `rows` rows, those that start only now with their initial one."""
        return now[:rows] if len(now) >= rows else torch.cat([now, initial[len(now) : rows]])

    def previous(self, values: Tensor, initial: Tensor) -> Tensor:
        """The state each step starts from, (N, ·), given those that the steps end with and the initial one."""
        if self.dense:
            last = self.sizes[0]
            return torch.cat([values[last:], initial] if self.reverse else [initial, values[:-last]])
        parts, before = [], initial
        for start, stop in self.rows():
            parts.append(self.align(before, initial, stop - start))
            before = values[start:stop]
        return torch.cat(parts[::-1] if self.reverse else parts)

    def final(self, values: Tensor, initial: Tensor) -> Tensor:
        """The state that each row ends with, (B, ·), given those that the steps end with and the initial one."""
        rows = self.rows()
        if self.dense or self.reverse:  # the last step taken has all rows
            start, stop = rows[-1]
            return values[start:stop].clone()
        ends = []
        for (start, stop), (_, next_stop) in zip(rows, [*rows[1:], (0, 0)], strict=True):
            going_on = max(next_stop - stop, 0)
            ends.append(values[start + going_on : stop])
        return torch.cat(ends[::-1])


@dataclass(frozen=True)
class Passes:
    """One layer's two passes on flat tensors, and the step that they belong to.

    forward(steps, x, state, w, save) returns h of all steps (N, P), the final state, and tensors for the way back;
    backward(steps, x, state, w, h, saved, d_h, d_final, need_x) returns ∂x, ∂state and the gradients of w.
    """

    forward: Callable[..., tuple[Tensor, State, tuple[Tensor, ...]]]
    backward: Callable[..., tuple[Tensor | None, State, Weights]]
    step: Callable[[Tensor, State, Weights], State]


def usable(x: Tensor, state: State, w: Weights) -> bool:
    """Whether the fast way goes: plain tensors of one type, and nobody who needs to see every operation."""
    tensors = [x, *state, *(t for t in w if t is not None)]
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and torch.autograd.forward_ad._current_level < 0
        and not torch.is_autocast_enabled(x.device.type)
        and x.numel() > 0
        and all(type(t) in _PLAIN and t.dtype == x.dtype and t.device == x.device for t in tensors)
    )


_PLAIN = (Tensor, torch.nn.Parameter)


def run(passes: Passes, x: Tensor, state: State, w: Weights, steps: Steps) -> tuple[Tensor, State]:
    """h of all steps, shaped as x, and the final state."""
    shape = x.shape[:-1]
    x = x.reshape(-1, x.size(-1))  # (N, D)
    inputs = (x, *state, *w)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        h, *final = _Direction.apply(passes, steps, len(state), *inputs)
    else:
        h, final, _ = passes.forward(steps, x, state, w, False)
    return h.view(*shape, h.size(-1)), tuple(final)


class _Direction(torch.autograd.Function):
    """(x, state, weights) -> (h of all steps, final state)."""

    @staticmethod
    def forward(ctx: Any, passes: Passes, steps: Steps, kinds: int, x: Tensor, *rest: Tensor | None) -> Any:
        state, w = rest[:kinds], Weights(*rest[kinds:])  # type: ignore[arg-type]
        h, final, saved = passes.forward(steps, x, state, w, True)
        ctx.passes, ctx.steps, ctx.kinds = passes, steps, kinds
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *rest, h, *saved)
        return h, *final

    @staticmethod
    def backward(ctx: Any, d_h: Tensor | None, *d_final: Tensor | None) -> Any:
        count = 1 + ctx.kinds + len(Weights._fields)
        inputs, (h, *saved) = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        x, state, w = inputs[0], inputs[1 : 1 + ctx.kinds], Weights(*inputs[1 + ctx.kinds :])
        if torch.is_grad_enabled():  # create_graph
            return None, None, None, *_differentiable(ctx, inputs, (d_h, *d_final))
        d_h = torch.zeros_like(h) if d_h is None else d_h
        d_final = tuple(torch.zeros_like(s) if d is None else d for d, s in zip(d_final, state, strict=True))
        need_x = ctx.needs_input_grad[3]
        d_x, d_state, d_w = ctx.passes.backward(ctx.steps, x, state, w, h, saved, d_h, d_final, need_x)
        return None, None, None, d_x, *d_state, *d_w


def _differentiable(ctx: Any, inputs: tuple, d_outputs: tuple) -> list[Tensor | None]:
    """The same gradients through the readable formula, so that they have gradients themselves."""
    needed = [k for k, needs in enumerate(ctx.needs_input_grad[3:]) if needs]
    x, state, w = inputs[0], inputs[1 : 1 + ctx.kinds], Weights(*inputs[1 + ctx.kinds :])
    h, final = scan(
        lambda a, s: ctx.passes.step(a, s, w),
        affine(x, w.ih, w.bias_ih),
        state,
        ctx.steps.sizes,
        ctx.steps.reverse,
    )
    pairs = [(out, d) for out, d in zip((h, *final), d_outputs, strict=True) if d is not None]
    gradients: list[Tensor | None] = [None] * len(inputs)
    outs, ds = zip(*pairs, strict=True)
    found = torch.autograd.grad(outs, [inputs[k] for k in needed], ds, create_graph=True, allow_unused=True)
    for k, gradient in zip(needed, found, strict=True):
        gradients[k] = gradient
    return gradients
