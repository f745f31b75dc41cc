"""A model is built from a checkpoint only as large as the checkpoint's own tensors.

A hyperparameter of a few bytes can ask for terabytes. So while a model is built, each tensor's size is computed before
its memory is taken, and the sum is held to what the checkpoint's tensors can explain.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from zoo.errors import ZooError

__all__ = ["BoundedBuild"]

SLACK = 2**28  # bytes: what small models take beside their state, such as masks and tables that are not saved


class BoundedBuild(TorchDispatchMode):
    """A context in which no more memory, and no more tensors, are taken than a state of that size needs.

    Args:
        state: the tensors that the model will hold.

    Example:
        >>> with BoundedBuild({"weight": torch.ones(3, 2)}):
        ...     weight = torch.zeros(3, 2)
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.held = sum(tensor.nbytes for tensor in state.values())
        self.most_bytes, self.most_tensors = SLACK + 8 * self.held, 1000 + 200 * len(state)
        self.bytes = self.tensors = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not func._schema.is_mutable and not func.is_view:
            self._count(func, args, kwargs)
        return func(*args, **kwargs)

    def _count(self, func: Any, args: Any, kwargs: Any) -> None:
        """Add up what the operation is going to return."""
        meta = {**kwargs}
        if any(argument.name == "device" for argument in func._schema.arguments):
            meta["device"] = torch.device("meta")
        try:
            made = func(*tree_map(_as_meta, args), **tree_map(_as_meta, meta))
        except (NotImplementedError, RuntimeError):  # the size follows from values: those tensors are counted already
            return
        made = [tensor for tensor in tree_iter(made) if isinstance(tensor, Tensor)]
        self.tensors += len(made)
        self.bytes += sum(tensor.nbytes for tensor in made)
        if self.bytes > self.most_bytes or self.tensors > self.most_tensors:
            raise ZooError(
                f"its hyperparameters ask for a model of {self.bytes:,} bytes in {self.tensors:,} tensors or more, and "
                f"it holds {self.held:,} bytes: it was not built"
            )


def _as_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return value
