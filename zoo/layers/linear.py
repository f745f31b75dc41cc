r"""The affine map `y = x Wᵀ + b` with whichever product is faster: a drop-in for `torch.nn.Linear`.

```math
\mathrm{d}x = \mathrm{d}y\, W, \qquad \mathrm{d}W = \mathrm{d}y^\top x, \qquad \mathrm{d}b = \sum \mathrm{d}y
```

Large products in single precision on a CPU go to oneDNN, both ways, where it beats MKL (`zoo.kernels.onednn`); those
with one row, where no gradient is asked for, to a kernel of the zoo's (`zoo.kernels.row_product`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.onednn import product, wins
from zoo.kernels.row_product import available, row_product
from zoo.layers.usable import transformed

__all__ = ["Linear", "linear"]

_LARGE = 1 << 24  # multiplications from which on the node in Python does not count


class _Product(torch.autograd.Function):
    """`x Wᵀ + b`; its way back consists of products that have gradients themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        d_rows, rows = d.reshape(-1, d.shape[-1]), x.reshape(-1, x.shape[-1])
        d_x = linear(d, weight.t()) if need_x else None
        d_weight = d_rows.t() @ rows if need_weight else None
        return d_x, d_weight, d_rows.sum(0) if need_bias and ctx.biased else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x Wᵀ + b`, as `torch.nn.functional.linear`.

    Args:
        x: (…, D).
        weight: W, (E, D).
        bias: b, (E,).

    Returns:
        (…, E).

    Example:
        >>> linear(torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 4.0]]))
        tensor([11.])
    """
    single = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()
    large = single and x.numel() * weight.shape[0] >= _LARGE and wins()
    row = single and not large and x.numel() == weight.shape[-1] and not torch.is_grad_enabled()
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if not (large or row) or transformed(*tensors):
        return F.linear(x, weight, bias)
    if large:
        return _Product.apply(x, weight, bias)
    return row_product(x, weight, bias) if available(x, weight) else F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`y = x Wᵀ + b`, as `torch.nn.Linear`.

    Args:
        in_features: D.
        out_features: E.
        bias: have b.
        device: of the parameters.
        dtype: of the parameters.

    Example:
        >>> Linear(3, 5)(torch.zeros(2, 3)).shape
        torch.Size([2, 5])
    """

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)

    def __prepare_scriptable__(self) -> nn.Linear:
        """What `torch.jit.script` takes in its place: torch's layer with these very parameters."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        layer.weight, layer.bias = self.weight, self.bias
        return layer.train(self.training)
