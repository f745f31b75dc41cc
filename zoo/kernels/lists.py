"""Lists of tensors for kernels that take all of a list in one call: what may be in one, and where each tensor lies."""

from __future__ import annotations

from array import array
from operator import attrgetter

import torch
from torch import Tensor, nn

__all__ = ["addresses", "along_memory", "are_like", "are_plain", "copy_back", "in_order", "numbers_of"]

_PLAIN = {Tensor, nn.Parameter, nn.Buffer}  # a subclass, such as a share of a tensor, need not have its numbers here
_TYPES = ({torch.float32}, {torch.float64})
_type_of = attrgetter("dtype")


def are_plain(tensors: list[Tensor]) -> bool:
    """Return whether all tensors are of numbers on a CPU, all float32 or all float64.

    Example:
        >>> are_plain([torch.ones(2), torch.ones(3)]), are_plain([torch.ones(2), torch.ones(3).double()])
        (True, False)
    """
    on_cpu = set(map(Tensor.get_device, tensors)) == {-1}
    return on_cpu and set(map(_type_of, tensors)) in _TYPES and set(map(type, tensors)) <= _PLAIN


def are_like(first: Tensor, params: list[Tensor], grads: list[Tensor]) -> bool:
    """Return whether gradients are of the type of a plain parameter, and none of a subclass, nor any parameter."""
    return set(map(type, params + grads)) <= _PLAIN and set(map(_type_of, grads)) == {first.dtype}


def numbers_of(tensors: list[Tensor]) -> list[int]:
    """Return how many numbers each tensor has."""
    return list(map(Tensor.numel, tensors))


def along_memory(tensors: list[Tensor], params: list[Tensor]) -> list[Tensor]:
    """Return tensors, as many for each parameter, with their axes ordered as the parameter's lie in memory."""
    if all(map(Tensor.is_contiguous, params)):
        return tensors
    orders = [sorted(range(parameter.ndim), key=parameter.stride, reverse=True) for parameter in params]
    return [t.permute(order) for t, order in zip(tensors, orders * (len(tensors) // len(params)), strict=True)]


def in_order(tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors with their numbers one behind the other in memory, copies of those whose are not."""
    return tensors if all(map(Tensor.is_contiguous, tensors)) else [tensor.contiguous() for tensor in tensors]


def copy_back(tensors: list[Tensor], ordered: list[Tensor]) -> None:
    """Write to the tensors what became of the copies that `in_order` made of them and of others behind them."""
    for tensor, copy in zip(tensors, ordered, strict=False):
        if copy is not tensor:
            tensor.copy_(copy)


def addresses(tensors: list[Tensor]) -> array[int]:
    """Return where each tensor lies."""
    return array("q", map(Tensor.data_ptr, tensors))
