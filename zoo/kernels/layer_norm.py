r"""Layer normalization and its way back, each in a pass over the rows: operators of `torch.library`, `layer_norm.c`.

```math
\hat x = (x - μ)\, ρ, \quad ρ = 1 / \sqrt{\mathrm{Var}[x] + ε}, \qquad y = \hat x ⊙ w + b, \qquad
\mathrm{d}x = ρ \bigl(g - \overline{g} - \hat x ⊙ \overline{g \hat x}\bigr) + r, \quad g = \mathrm{d}y ⊙ w
```

with means over a row, and r what comes by a residual path beside it. Single precision on a CPU goes to the kernel, all
else to operations of torch. They are steps of the nodes in `zoo.layers.sublayers`, and have no gradients themselves.

Letters: N rows, D columns.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import again, complete
from zoo.kernels.operators import operator

__all__ = ["KERNELS", "available", "gradients", "layer_norm", "layer_norm_backward", "normalized", "normalized_sum"]

_SHARED = 1 << 17  # numbers from which on threads share the rows


class _LayerNorm(ctypes.Structure):
    """`LayerNorm` of layer_norm.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "columns", "threads")),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("x", "gain", "shift", "more", "level", "total", "y", "norms")),
    ]


class _LayerNormBack(ctypes.Structure):
    """`LayerNormBack` of layer_norm.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "columns", "threads")),
        *((name, ctypes.c_void_p) for name in ("d", "x", "gain", "norms", "beside", "d_x", "d_gain", "d_shift")),
    ]


KERNELS = ("layer_norm", _LayerNorm), ("layer_norm_back", _LayerNormBack)


def available(x: Tensor) -> bool:
    """Return whether the kernels take such numbers."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and complete(*KERNELS)


def _fake_there(x: Tensor, gain: Tensor | None, shift: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(2, len(x))


@operator(_fake_there)
def layer_norm(x: Tensor, gain: Tensor | None, shift: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Return y (N, D), and the mean and ρ of each row (2, N).

    Args:
        x: rows, (N, D), D > 0.
        gain: w, (D,), or None for 1.
        shift: b, (D,), or None for 0.
        eps: ε.

    Raises:
        RuntimeError: for tensors that do not fit together.

    Example:
        >>> layer_norm(torch.tensor([[1.0, 3.0]]), None, None, 0.0)[0]
        tensor([[-1.,  1.]])
    """
    _check("layer_norm", x, (gain, shift), ())
    if available(x):
        return normalized(x.contiguous(), _whole(gain), _whole(shift), eps)
    variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
    rate = torch.rsqrt(variance + eps)
    y = (x - mean) * rate
    y = y if gain is None else y * gain
    return (y if shift is None else y + shift).contiguous(), torch.cat([mean, rate], 1).T.contiguous()


def normalized(x: Tensor, gain: Tensor | None, shift: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The same by the kernel, of what it takes: contiguous tensors that fit together; a step of a longer node."""
    return _run(x, gain, shift, eps)


def normalized_sum(
    x: Tensor, more: Tensor, level: Tensor | None, gain: Tensor | None, shift: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum (N, D) of rows, `more` (N, D) and a `level` (D,), written over `more`, and what that gives."""
    return more, *_run(x, gain, shift, eps, more.data_ptr(), None if level is None else level.data_ptr())


def _run(
    x: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    eps: float,
    more: int | None = None,
    level: int | None = None,
) -> tuple[Tensor, Tensor]:
    rows, columns = x.shape
    y, norms = torch.empty_like(x), x.new_empty(2, rows)
    gains = None if gain is None else gain.data_ptr(), None if shift is None else shift.data_ptr()
    places = x.data_ptr(), *gains, more, level, more, y.data_ptr(), norms.data_ptr()  # the sum is written over `more`
    again("layer_norm", _LayerNorm)(_LayerNorm(rows, columns, _threads(rows * columns), eps, *places))
    return y, norms


def _fake_back(
    d: Tensor, x: Tensor, gain: Tensor | None, norms: Tensor, beside: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    found = torch.empty_like(x, memory_format=torch.contiguous_format)
    return found, x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


@operator(_fake_back)
def layer_norm_backward(
    d: Tensor, x: Tensor, gain: Tensor | None, norms: Tensor, beside: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of the rows (N, D), with what is beside them, and those of gain and shift, (D,) each.

    Args:
        d: gradients of y, (N, D).
        x: rows, (N, D), D > 0.
        gain: w, (D,), or None.
        norms: mean and ρ of each row, (2, N).
        beside: r, (N, D), or None for 0.

    Raises:
        RuntimeError: for tensors that do not fit together.

    Example:
        >>> x = torch.tensor([[1.0, 3.0]])
        >>> _, norms = layer_norm(x, None, None, 0.0)
        >>> layer_norm_backward(x, x, None, norms, x)[0]  # y is -1 and 1 wherever x lies: what is beside it is left
        tensor([[1., 3.]])
    """
    _check("layer_norm_backward", x, (gain,), (d,) if beside is None else (d, beside))
    if norms.shape != (2, len(x)) or norms.dtype != x.dtype or norms.device != x.device:
        raise RuntimeError(f"zoo::layer_norm_backward: norms must be (2, {len(x)}), not {tuple(norms.shape)}")
    if available(x):
        return gradients(d.contiguous(), x.contiguous(), _whole(gain), norms.contiguous(), _whole(beside))
    mean, rate = norms.unsqueeze(2)
    place, g = (x - mean) * rate, d if gain is None else d * gain
    d_x = rate * (g - g.mean(1, keepdim=True) - place * (g * place).mean(1, keepdim=True))
    d_x = d_x if beside is None else d_x + beside
    return d_x.contiguous(), (d * place).sum(0), d.sum(0)


def gradients(
    d: Tensor, x: Tensor, gain: Tensor | None, norms: Tensor, beside: Tensor | None, over: bool = False
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The same by the kernel, of what it takes, `over` d where nobody else has that; a step of a longer node."""
    rows, columns = x.shape
    d_x, d_gain, d_shift = d if over else torch.empty_like(x), x.new_empty(columns), x.new_empty(columns)
    others = None if gain is None else gain.data_ptr(), norms.data_ptr(), None if beside is None else beside.data_ptr()
    places = d.data_ptr(), x.data_ptr(), *others, d_x.data_ptr(), d_gain.data_ptr(), d_shift.data_ptr()
    again("layer_norm_back", _LayerNormBack)(_LayerNormBack(rows, columns, _threads(rows * columns), *places))
    return d_x, d_gain, d_shift


def _check(name: str, x: Tensor, columns: tuple[Tensor | None, ...], rows: tuple[Tensor, ...]) -> None:
    """Refuse what does not fit together, since the kernel would read whatever lies there."""
    fits = x.ndim == 2 and x.shape[1] > 0 and x.is_floating_point()
    for t in (t for t in columns if t is not None):
        fits = fits and t.shape == x.shape[1:] and t.dtype == x.dtype and t.device == x.device
    for t in rows:
        fits = fits and t.shape == x.shape and t.dtype == x.dtype and t.device == x.device
    if not fits:
        found = [(*t.shape, t.dtype, t.device) for t in (x, *columns, *rows) if t is not None]
        raise RuntimeError(f"zoo::{name}: inputs do not fit together: {found}")


def _whole(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _threads(numbers: int) -> int:
    return torch.get_num_threads() if numbers >= _SHARED else 1
