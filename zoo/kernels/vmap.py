"""The rule of `torch.vmap` for operators that know nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["one_by_one"]


def one_by_one(operator: Any) -> Callable:
    """The rule for `torch.library.register_vmap`: one call for each, since each may have weights of its own."""

    def rule(info: Any, in_dims: tuple, *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        calls = []
        for k in range(info.batch_size):
            own = [a if dim is None else a.select(dim, k) for a, dim in zip(args, in_dims, strict=True)]
            calls.append(operator(*own))
        results = tuple(torch.stack(result) for result in zip(*calls, strict=True))
        return results, (0,) * len(results)

    return rule
