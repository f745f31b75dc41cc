r"""GELU and its way back in one pass each over the numbers: operators of `torch.library` over `gelu.c`.

```math
y = x\, Φ(x), \quad \mathrm{d}x = \mathrm{d}y\, (Φ(x) + x\, φ(x)), \qquad
y = x\, σ(2u), \quad \mathrm{d}x = \mathrm{d}y\, (σ(2u) + 2 u' x\, σ(2u)\, σ(-2u)), \quad
u = \sqrt{2/π}\, (x + 0.044715\, x^3)
```

with Φ the normal distribution, φ its density, and the second line its approximation by tanh. Contiguous numbers in
single precision on a CPU go to the kernel, within 3 · 10⁻⁷ |x| of the formula; all others take torch's own operators.
`zoo::gelu` is one node for autograd, whose way back is `zoo::gelu_backward`; the gradient of that is torch's.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels import again, function
from zoo.kernels.node import register_autograd

__all__ = ["KERNELS", "activate", "available", "gelu"]

_SHARED = 1 << 17  # numbers from which on threads share them
_LIBRARY = torch.library.Library("zoo", "FRAGMENT")


class _Gelu(ctypes.Structure):
    """The struct of gelu.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "tanh", "threads")),
        *((name, ctypes.c_void_p) for name in ("x", "d", "y", "slopes")),
    ]


KERNELS = (("gelu", _Gelu),)


def available(x: Tensor) -> bool:
    """Return whether the kernel takes such numbers."""
    fits = x.dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous()
    return fits and function("gelu", _Gelu) is not None


def gelu(x: Tensor, tanh: bool = False) -> Tensor:
    """Return x Φ(x), or its approximation by tanh.

    Args:
        x: numbers of any shape.
        tanh: whether it is the approximation.

    Example:
        >>> gelu(torch.tensor([0.0, 30.0]))
        tensor([ 0., 30.])
    """
    return torch.ops.zoo.gelu.default(x, tanh)


def _approximate(tanh: bool) -> str:
    return "tanh" if tanh else "none"


def activate(x: Tensor, tanh: bool, learns: bool) -> Tensor:
    """Return the results in the place of x, or where the way back follows leave their slopes there.

    A step of the nodes in `zoo.layers.sublayers`, by the kernel, of numbers that it takes, and without gradients: what
    is kept makes their way back a product.
    """
    y = torch.empty_like(x) if learns else x
    again("gelu", _Gelu)(
        _Gelu(x.numel(), tanh, _threads(x), x.data_ptr(), None, y.data_ptr(), x.data_ptr() if learns else None)
    )
    return y


def _threads(x: Tensor) -> int:
    return torch.get_num_threads() if x.numel() >= _SHARED else 1


def _call(x: Tensor, d: Tensor | None, tanh: bool) -> Tensor:
    y = _fake(x, tanh)
    kernel = function("gelu", _Gelu)
    assert kernel is not None
    kernel(_Gelu(x.numel(), tanh, _threads(x), x.data_ptr(), None if d is None else d.data_ptr(), y.data_ptr(), None))
    return y


def _forward(x: Tensor, tanh: bool) -> Tensor:
    return _call(x, None, tanh) if available(x) else F.gelu(x, approximate=_approximate(tanh)).contiguous()


def _slope(d: Tensor, x: Tensor, tanh: bool) -> Tensor:
    return torch.ops.aten.gelu_backward(d, x, approximate=_approximate(tanh))


def _backward(d: Tensor, x: Tensor, tanh: bool) -> Tensor:
    if d.shape != x.shape or d.dtype != x.dtype or d.device != x.device:
        raise RuntimeError(f"zoo::gelu_backward: d must be as x, {tuple(x.shape)} {x.dtype}, not {tuple(d.shape)}")
    return _call(x, d.contiguous(), tanh) if available(x) else _slope(d, x, tanh).contiguous()


def _fake(x: Tensor, tanh: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_backward(d: Tensor, x: Tensor, tanh: bool) -> Tensor:
    return _fake(x, tanh)


def _define(name: str, schema: str, run: Any, fake: Any) -> Any:
    _LIBRARY.define(f"{name}({schema}) -> Tensor")
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"zoo::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.zoo, name).default


_operator = _define("gelu", "Tensor x, bool tanh", _forward, _fake)
_operator_back = _define("gelu_backward", "Tensor d, Tensor x, bool tanh", _backward, _fake_backward)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.tanh = inputs[1]


def _differentiate(ctx: Any, d: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    return _operator_back(d, x, ctx.tanh), None


def _keep_again(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.tanh = inputs[2]


def _differentiate_again(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, None]:
    """The gradient of the gradient: that of torch's operator."""
    _, pull = torch.func.vjp(lambda d, x: _slope(d, x, ctx.tanh), *ctx.saved_tensors)
    return *pull(v), None


register_autograd(_LIBRARY, _operator, _forward, _keep, _differentiate)
register_autograd(_LIBRARY, _operator_back, _backward, _keep_again, _differentiate_again)
