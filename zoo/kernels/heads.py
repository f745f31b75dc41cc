"""A step of all heads of a Neural Turing Machine and its way back: operators over `heads.c`, for float32 on a CPU.

`zoo::heads_forward` and `zoo::heads_backward` are what `zoo.layers.memory.heads` has as a formula in torch operations,
which is taken where there is no kernel (`available(…)`), and which joins the two for autograd. The memories that they
return lie with their slots side by side, as the kernel wants them in the next step.

Letters: B rows, H = R + Q heads that read and write, N slots of W numbers, S shifts, P numbers that the heads are told.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = ["HeadsSteps", "available", "heads_backward", "heads_forward"]

_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
_INPUTS = "Tensor memory, Tensor weights, Tensor told, int reading, int writing, int shifts"
_ALONE = 1 << 18  # numbers in memories up to which one thread takes them all


class _Move(ctypes.Structure):
    """The struct of heads.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("rows", "slots", "width", "reading", "writing", "shifts", "apart", "threads")
        ),
        *((name, ctypes.c_void_p) for name in ("memory", "weights", "told", "after", "places", "reads")),
        *((name, ctypes.c_void_p) for name in ("d_after", "d_places", "d_reads", "d_memory", "d_weights", "d_told")),
    ]


def available(memory: Tensor) -> bool:
    """Return whether the kernel takes such memories."""
    fits = memory.dtype == torch.float32 and memory.device.type == "cpu"
    return fits and function("heads_step", _Move) is not None


def _forward(
    memory: Tensor, weights: Tensor, told: Tensor, reading: int, writing: int, shifts: int
) -> tuple[Tensor, Tensor, Tensor]:
    _check(memory, weights, told, reading, writing, shifts)
    after, places, reads = _fake_forward(memory, weights, told, reading, writing, shifts)
    inputs = {"memory": memory, "weights": weights, "told": told}
    _call("heads_step", (reading, writing, shifts), inputs, {"after": after, "places": places, "reads": reads})
    return after, places, reads


def _backward(
    memory: Tensor, weights: Tensor, told: Tensor, reading: int, writing: int, shifts: int, d_after: Tensor,
    d_places: Tensor, d_reads: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    _check(memory, weights, told, reading, writing, shifts)
    like = {"d_after": (d_after, memory.shape), "d_places": (d_places, weights.shape),
            "d_reads": (d_reads, (len(memory), reading * memory.shape[2]))}  # fmt: skip
    for name, (gradient, shape) in like.items():
        if gradient.shape != shape or gradient.dtype != torch.float32 or gradient.device.type != "cpu":
            raise RuntimeError(f"zoo::heads: {name} must be {tuple(shape)}, float32, not {tuple(gradient.shape)}")
    inputs = {"memory": memory, "weights": weights, "told": told, **{name: given for name, (given, _) in like.items()}}
    found = _fake_backward(memory, weights, told)
    outputs = dict(zip(("d_memory", "d_weights", "d_told"), found, strict=True))
    _call("heads_step_back", (reading, writing, shifts), inputs, outputs)
    return found


def _check(memory: Tensor, weights: Tensor, told: Tensor, reading: int, writing: int, shifts: int) -> None:
    """Refuse what does not fit together, since the kernel would read whatever lies there."""
    floats = all(x.dtype == torch.float32 and x.device.type == "cpu" for x in (memory, weights, told))
    fits = floats and memory.ndim == 3 and reading > 0 and writing > 0 and shifts > 0 and 0 not in memory.shape[1:]
    if fits:
        rows, slots, width = memory.shape
        heads = reading + writing
        numbers = heads * (width + 3 + shifts) + 2 * writing * width
        fits = weights.shape == (rows, heads, slots) and told.shape == (rows, numbers)
    if not fits:
        found = [(*x.shape, x.dtype, x.device) for x in (memory, weights, told)]
        given = f"{reading} + {writing} heads, {shifts} shifts"
        raise RuntimeError(f"zoo::heads: inputs do not fit together: {found}, {given}")


def _call(name: str, numbers: tuple[int, int, int], inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
    dense = {key: (x.mT if key in ("memory", "d_after") else x).contiguous() for key, x in inputs.items()}
    pointers = {key: x.data_ptr() for key, x in (dense | outputs).items()}
    _kernel(name)(_task(dense["memory"], numbers, numbers[0] * dense["memory"].shape[1], **pointers))


def _kernel(name: str) -> Callable[[_Move], None]:
    kernel = function(name, _Move)
    if kernel is None:
        raise RuntimeError("zoo::heads has no kernel here: take zoo.layers.memory.heads.move")
    return kernel


def _task(dense: Tensor, numbers: tuple[int, int, int], apart: int, **pointers: int) -> _Move:
    """The struct for memories (B, W, N), with `apart` numbers from what a row reads to the next."""
    rows, width, slots = dense.shape
    threads = min(torch.get_num_threads(), rows) if dense.numel() > _ALONE else 1
    return _Move(rows, slots, width, *numbers, apart, threads, **pointers)


class HeadsSteps:
    """The steps of a sequence, or the way back through them: a call of the kernel each, and nothing else.

    Args:
        back: whether it is the way back.
        numbers: R, Q and S.
        tensors: of each field of the struct, a tensor (T, …) and which of its parts step t is to take: t + that,
            modulo T. All are dense within a part, but for a row of reads, which may be part of a longer one.
    """

    def __init__(self, back: bool, numbers: tuple[int, int, int], **tensors: tuple[Tensor, int]) -> None:
        memory, weights, told = (tensors[name][0][0] for name in ("memory", "weights", "told"))
        _check(memory.mT, weights, told, *numbers)
        reads = tensors["d_reads" if back else "reads"][0]
        for name, (x, _) in tensors.items():
            dense = x[0].is_contiguous() if x is not reads else x.stride(2) == 1
            if not dense or x.dtype != torch.float32 or x.device.type != "cpu":
                raise RuntimeError(f"zoo::heads: {name} must be dense, float32 and on the CPU")
        self.kernel, self.task = (
            _kernel("heads_step_back" if back else "heads_step"),
            _task(memory, numbers, reads.stride(1)),
        )
        self.tensors = tensors  # whose numbers the kernel writes to
        self.fields = [
            (name, x.data_ptr(), 4 * x.stride(0), ahead, len(x)) for name, (x, ahead) in tensors.items()
        ]  # fmt: skip

    def __call__(self, t: int) -> None:
        """Take step t."""
        for name, first, apart, ahead, count in self.fields:
            setattr(self.task, name, first + (t + ahead) % count * apart)
        self.kernel(self.task)


def _fake_forward(
    memory: Tensor, weights: Tensor, told: Tensor, reading: int, writing: int, shifts: int
) -> tuple[Tensor, Tensor, Tensor]:
    reads = memory.new_empty(memory.shape[0], reading * memory.shape[2])
    return memory.new_empty(memory.mT.shape).mT, memory.new_empty(weights.shape), reads


def _fake_backward(memory: Tensor, weights: Tensor, told: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return memory.new_empty(memory.mT.shape).mT, memory.new_empty(weights.shape), memory.new_empty(told.shape)


def _define(name: str, schema: str, run: Any, fake: Any) -> Any:
    _LIBRARY.define(f"{name}({schema})")
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"zoo::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.zoo, name).default


heads_forward = _define(
    "heads_forward", f"{_INPUTS}) -> (Tensor after, Tensor places, Tensor reads", _forward, _fake_forward
)
heads_backward = _define(
    "heads_backward",
    f"{_INPUTS}, Tensor d_after, Tensor d_places, Tensor d_reads) -> (Tensor d_memory, Tensor d_weights, Tensor d_told",
    _backward,
    _fake_backward,
)
