"""A loop over time that a trace keeps as a loop, so that it takes any number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["traced_loop"]


def traced_loop(step: Callable[[Any, Tensor], tuple[Any, Any]], state: Any, inputs: Tensor) -> tuple[Any, Any]:
    """Apply `state, output = step(state, input)` along the first dimension, within `torch.export`.

    A loop in Python is unrolled there: the trace would take as many steps as its example, without a word.

    Args:
        step: one step, of torch's own operations alone.
        state: before the first step; tensors in tuples, of the shapes and types that each step returns.
        inputs: (T, …).

    Returns:
        The last state, and the outputs of all steps, each (T, …).
    """
    from torch._higher_order_ops import scan  # imports torch's compiler, which is there while a trace is made

    def pure(state: Any, now: Tensor) -> tuple[Any, Any]:
        state, output = step(state, now)
        return tree_map(torch.clone, state), tree_map(torch.clone, output)  # what comes out may share no memory

    return scan(pure, tree_map(torch.clone, state), inputs)
