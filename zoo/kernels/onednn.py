"""The product of float32 matrices by oneDNN, where it is faster at it than what torch takes by itself."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["product", "wins"]


@functools.cache
def wins() -> bool:
    """Whether oneDNN is faster than MKL on this processor.

    MKL keeps its best code for Intel's: of others it takes up to twice oneDNN's time, of those 0.8 to 1.0 of it.
    """
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    intel = "intel" in str(known.get("cpu_name", "")).lower() and torch.backends.mkl.is_available()
    return torch.backends.mkldnn.is_available() and not intel


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x Wᵀ + b` by whichever library is faster at it: oneDNN for float32 on a CPU where it `wins`.

    torch's own name for that product is private, and called here alone: `F.linear` takes MKL. It reads a bias as if it
    were contiguous.

    >>> product(torch.eye(2), torch.tensor([[1.0, 2.0]]))
    tensor([[1.],
            [2.]])
    """
    if x.dtype == torch.float32 and x.device.type == "cpu" and wins() and x.numel():
        bias = None if bias is None else bias.contiguous()
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)
