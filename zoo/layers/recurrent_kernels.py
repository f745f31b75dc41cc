"""The passes of `recurrent_passes` compiled from `recurrent_kernels.c`, for float32 on a CPU.

They are a matter of speed alone: nothing needs them, nobody waits for them, and a missing compiler is no error.
`build_kernels()` compiles them, in about a second, into the user's cache folder; from then on every process finds
them there. A process that has not called it never changes its arithmetic on the way. `ZOO_KERNELS=0` in the
environment leaves them out.

Letters: N rows of all steps, B rows of a batch, H hidden units, G gates.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from zoo.layers.recurrent_fast import Passes, Steps
from zoo.layers.recurrent_passes import product
from zoo.layers.recurrent_steps import State, Weights, gru_step, lstm_step, rnn_step

__all__ = ["build_kernels", "compiled_passes"]

SOURCE = Path(__file__).with_suffix(".c")


def build_kernels() -> bool:
    """Compile the kernels for this machine unless that is done, and say whether they can be used.

    Takes about a second the first time. Needs a C compiler named cc, gcc or clang; without one the layers
    work as before, in torch operations.

    Example:
        >>> isinstance(build_kernels(), bool)
        True
    """
    if _library() is not None:
        return True
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or not SOURCE.is_file() or os.environ.get("ZOO_KERNELS") == "0":
        return False
    try:
        _compile(compiler, _path())
    except (OSError, subprocess.SubprocessError):
        return False
    _library.cache_clear()
    return _library() is not None


def _compile(compiler: str, target: Path) -> None:
    """Compile into a temporary folder and move the result into place, so that nobody loads half a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        flags = ["-O3", "-march=native", "-fopenmp", "-fPIC", "-std=gnu11"]
        run = functools.partial(subprocess.run, check=True, capture_output=True, cwd=folder, timeout=120)
        run([compiler, *flags, "-c", str(SOURCE), "-o", "kernels.o"])
        # linked without OpenMP: the calls find the threads that torch has already started
        run([compiler, "-shared", "kernels.o", "-o", "kernels.so"])
        os.replace(Path(folder, "kernels.so"), target)


def _path() -> Path:
    """Where this machine's kernels lie: the name changes with the source, the processor and torch."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        processor = platform.processor()
    sources = (path.read_bytes() for path in (SOURCE, *sorted(SOURCE.parent.glob("recurrent_*.h"))))
    parts = (*sources, platform.machine().encode(), processor.encode(), torch.__version__.encode())
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "zoo" / f"recurrent-{name}.so"


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels, or None."""
    try:
        if os.environ.get("ZOO_KERNELS") == "0" or not _path().is_file():
            return None
        return ctypes.CDLL(str(_path()))
    except (OSError, RuntimeError):
        return None


class _Walk(ctypes.Structure):
    _fields_ = [
        ("steps", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("sizes", ctypes.c_void_p),
        ("reverse", ctypes.c_int),
        ("threads", ctypes.c_int),
    ]


class _Pass(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "gates", "h", "c", "u", "h0", "c0", "bias", "packed_x")),
        *((name, ctypes.c_void_p) for name in ("d_h", "carry", "d_c", "d", "packed")),
        ("inputs", ctypes.c_int64),
        ("keep", ctypes.c_int),
        ("relu", ctypes.c_int),
    ]


def _call(
    name: str, steps: Steps, hidden: int, keep: bool = False, relu: bool = False, **tensors: Tensor | None
) -> None:
    """Run a pass on contiguous tensors, written in place."""
    sizes = None if steps.dense else (ctypes.c_int64 * len(steps.sizes))(*steps.sizes)
    walk = _Walk(len(steps.sizes), max(steps.sizes), hidden, ctypes.cast(sizes, ctypes.c_void_p) if sizes else None)
    walk.reverse, walk.threads = steps.reverse, max(1, min(torch.get_num_threads(), walk.rows))
    pointers = {field: tensor.data_ptr() for field, tensor in tensors.items() if tensor is not None}
    task = _Pass(**pointers, keep=keep, relu=relu, inputs=tensors["x"].size(1) if "x" in tensors else 0)
    getattr(_library(), name)(ctypes.byref(walk), ctypes.byref(task))


def _pack_units(weight: Tensor, gates: int) -> Tensor:
    """W (G*H, inner) in the order of the forward pass."""
    hidden, inner, lanes = weight.size(0) // gates, weight.size(1), _library().lane_count()
    packed = weight.new_empty(-(-hidden // lanes) * lanes * gates * inner)
    return _pack("pack_units", weight, packed, gates, hidden, inner)


def _pack_columns(weight: Tensor, transposed: bool = False) -> Tensor:
    """A matrix (depth, columns) in the order of a product from the left."""
    depth, columns = weight.shape[::-1] if transposed else weight.shape
    lanes = _library().lane_count()
    packed = weight.new_empty(-(-columns // lanes) * lanes * depth)
    strides = (1, weight.size(1)) if transposed else (weight.size(1), 1)
    return _pack("pack_columns", weight, packed, depth, columns, *strides)


def _pack(name: str, weight: Tensor, packed: Tensor, *numbers: int) -> Tensor:
    weight = weight.contiguous()
    arguments = [ctypes.c_void_p(weight.data_ptr()), ctypes.c_void_p(packed.data_ptr())]
    arguments += [ctypes.c_int64(n) for n in numbers]
    getattr(_library(), name)(*arguments, ctypes.c_int(torch.get_num_threads()))
    return packed


def _outer(d: Tensor, factors: list[Tensor], sums: Tensor | None) -> list[Tensor]:
    """`dᵀ x` for each of one or two x (N, K) and d (N, G), whose rows may lie apart; d's column sums go into `sums`."""
    p, n = ctypes.c_void_p, ctypes.c_int64
    outs = [d.new_empty(d.size(1), x.size(1)) for x in factors]
    arguments = [p(d.data_ptr()), n(d.stride(0)), n(d.size(1)), n(len(d))]
    for x, out in zip(factors, outs, strict=True):
        arguments += [p(x.data_ptr()), n(x.size(1)), p(out.data_ptr())]
    arguments += [p(None), n(0), p(None)] * (2 - len(factors))
    _library().outer(*arguments, p(None if sums is None else sums.data_ptr()), ctypes.c_int(torch.get_num_threads()))
    return outs


def _gradients(x: Tensor, before: Tensor, d_ih: Tensor, d_hh: Tensor, w: Weights) -> tuple[Tensor | None, ...]:
    """Gradients of W_ih, W_hh and the biases from those of the gates (N, G*H); `before` is h_{t-1}, (N, H)."""
    sums = [None if w.bias_ih is None else d_ih.new_empty(d_ih.size(1)) for _ in range(2)]
    if d_ih is not d_hh:
        return *_outer(d_ih, [x], sums[0]), *_outer(d_hh, [before], sums[1]), *sums
    ih, hh = _outer(d_ih, [x, before], sums[0])
    return ih, hh, sums[0], None if sums[0] is None else sums[0].clone()


def _bias(w: Weights, size: int) -> Tensor:
    """Both biases, or zeros."""
    return w.hh.new_zeros(size) if w.bias_ih is None else w.bias_ih + w.bias_hh


def _rnn_forward(steps: Steps, x: Tensor, state: State, w: Weights, save: bool, relu: bool) -> tuple:
    size, h0 = w.hh.size(1), state[0].contiguous()
    h = x.new_empty(len(x), size)
    packed_x, packed = (_pack_columns(v, transposed=True) for v in (w.ih, w.hh))
    _call("rnn_forward", steps, size, relu=relu, x=x, h=h, h0=h0, bias=_bias(w, size), packed_x=packed_x, packed=packed)
    return h, (steps.final(h, h0),), ()


def _rnn_backward(
    steps: Steps, x: Tensor, state: State, w: Weights, h: Tensor, saved: tuple, d_h: Tensor, d_final: State,
    need_x: bool, relu: bool,
) -> tuple:  # fmt: skip
    carry, d, d_h = _copy(d_final[0]), torch.empty_like(h), d_h.contiguous()
    _call("rnn_backward", steps, h.size(1), relu=relu, h=h, d_h=d_h, carry=carry, d=d, packed=_pack_columns(w.hh))
    ih = _gradients(x, steps.previous(h, state[0]), d, d, w)
    return product(d, w.ih.t()) if need_x else None, (carry,), Weights(*ih)


def _lstm_forward(steps: Steps, x: Tensor, state: State, w: Weights, save: bool) -> tuple:
    (h0, c0), size = (s.contiguous() for s in state), w.hh.size(1)
    h, gates = x.new_empty(len(x), size), x.new_empty(len(x), 4 * size) if save else None
    c = x.new_empty(len(x), size) if save else c0.clone()
    packed_x, packed, bias = _pack_units(w.ih, 4), _pack_units(w.hh, 4), _bias(w, 4 * size)
    tensors = {"x": x, "gates": gates, "h": h, "c": c, "h0": h0, "c0": c0}
    _call("lstm_forward", steps, size, keep=save, bias=bias, packed_x=packed_x, packed=packed, **tensors)
    return h, (steps.final(h, h0), steps.final(c, c0) if save else c), (gates, c)


def _lstm_backward(
    steps: Steps, x: Tensor, state: State, w: Weights, h: Tensor, saved: tuple, d_h: Tensor, d_final: State,
    need_x: bool,
) -> tuple:  # fmt: skip
    (gates, c), (h0, c0) = saved, state
    carry, d_c, d, c0 = _copy(d_final[0]), _copy(d_final[1]), torch.empty_like(gates), c0.contiguous()
    tensors = {"gates": gates, "c": c, "c0": c0, "d_h": d_h.contiguous(), "carry": carry, "d_c": d_c, "d": d}
    _call("lstm_backward", steps, c.size(1), packed=_pack_columns(w.hh), **tensors)
    d_w = Weights(*_gradients(x, steps.previous(h, h0), d, d, w))
    return product(d, w.ih.t()) if need_x else None, (carry, d_c), d_w


def _gru_forward(steps: Steps, x: Tensor, state: State, w: Weights, save: bool) -> tuple:
    size, h0 = w.hh.size(1), state[0].contiguous()
    bias = w.hh.new_zeros(4 * size)  # of r, z, n and u
    if w.bias_ih is not None:
        bias[: 3 * size] += w.bias_ih
        bias[: 2 * size] += w.bias_hh[: 2 * size]
        bias[3 * size :] += w.bias_hh[2 * size :]
    h = x.new_empty(len(x), size)
    gates, u = (x.new_empty(len(x), 3 * size), torch.empty_like(h)) if save else (None, None)
    packed_x, packed = _pack_units(w.ih, 3), _pack_units(w.hh, 3)
    tensors = {"x": x, "gates": gates, "h": h, "u": u, "h0": h0, "bias": bias}
    _call("gru_forward", steps, size, keep=save, packed_x=packed_x, packed=packed, **tensors)
    return h, (steps.final(h, h0),), (gates, u)


def _gru_backward(
    steps: Steps, x: Tensor, state: State, w: Weights, h: Tensor, saved: tuple, d_h: Tensor, d_final: State,
    need_x: bool,
) -> tuple:  # fmt: skip
    (gates, u), h0 = saved, state[0].contiguous()
    size, carry = u.size(1), _copy(d_final[0])
    d = gates.new_empty(len(gates), 4 * size)  # u, r, z, n
    tensors = {"gates": gates, "u": u, "h": h, "h0": h0, "d_h": d_h.contiguous(), "carry": carry, "d": d}
    _call("gru_backward", steps, size, packed=_pack_columns(w.hh.roll(size, 0)), **tensors)
    d_ih, d_hh = d[:, size:], d[:, : 3 * size]
    ih, hh, bias_ih, bias_hh = _gradients(x, steps.previous(h, h0), d_ih, d_hh, w)
    bias_hh = None if bias_hh is None else bias_hh.roll(-size, 0)
    d_x = product(d_ih, w.ih.t()) if need_x else None
    return d_x, (carry,), Weights(ih, hh.roll(-size, 0), bias_ih, bias_hh)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


_COMPILED = {
    "RNN_TANH": Passes(
        functools.partial(_rnn_forward, relu=False), functools.partial(_rnn_backward, relu=False), rnn_step
    ),
    "RNN_RELU": Passes(
        functools.partial(_rnn_forward, relu=True),
        functools.partial(_rnn_backward, relu=True),
        functools.partial(rnn_step, nonlinearity="relu"),
    ),
    "LSTM": Passes(_lstm_forward, _lstm_backward, lstm_step),
    "GRU": Passes(_gru_forward, _gru_backward, gru_step),
}


def compiled_passes(mode: str, x: Tensor, w: Weights) -> Passes | None:
    """The compiled passes of a layer, where they are built and go: float32 on a CPU, without a projection."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or w.hr is not None or _library() is None:
        return None
    return _COMPILED[mode]
