"""Whether an operator of our own may take the place of a formula."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["autocast", "transformed"]


def transformed(*tensors: Tensor, cast: bool = True) -> bool:
    """Whether a transform of torch is at work that an operator has no formula for, or the tensors are not plain ones.

    These are tracing (what is traced is to run without the zoo), forward-mode differentiation, those of `torch.func`,
    and autocast, unless who calls casts by itself (`cast=False`); torch has no public name for some of them
    being active.
    """
    first = tensors[0]
    casting = autocast(first.device.type)
    if (
        torch.jit.is_tracing()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or (casting and cast)
    ):
        return True
    compiling = torch.compiler.is_compiling()
    for x in tensors:
        plain = compiling or type(x) in (Tensor, nn.Parameter)
        if not plain or x.device != first.device or (x.dtype != first.dtype and not casting):
            return True
    return False


def autocast(device: str) -> bool:
    """Whether autocast is on; the meta device knows none."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
