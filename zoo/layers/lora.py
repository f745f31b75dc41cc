r"""Low-rank adapters: a matrix that is left as it is, and beside it a product of two narrow ones, which learns.

```math
W' = W + \frac{α}{r} B A, \qquad A \sim U(-\sqrt{3 / n}, \sqrt{3 / n}), \quad B = 0
```

An adapted layer begins as the layer that it adapts. It is a parametrization of torch's, so that whatever takes the
matrix takes W', and a merged layer answers with the same bits.

Legend: W (m, n) a matrix of a layer, r the rank, A (r, n), B (m, r), α the strength.

Source: Hu et al. 2022. Deviation: A and B are multiplied, instead of being applied one after the other, which costs
m·n·r operations a step, whatever the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["LowRank", "add_lora", "lora_parameters", "merge_lora", "plain_state"]


class LowRank(nn.Module):
    """`W + (α / r) B A`, as a parametrization of a matrix.

    Args:
        weight: W, for its shape, type and device.
        rank: r.
        alpha: α; r if None.

    Raises:
        ValueError: W is no matrix, or the rank is below 1.

    Example:
        >>> low = LowRank(torch.ones(4, 3), rank=2)
        >>> torch.equal(low(torch.ones(4, 3)), torch.ones(4, 3))
        True
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float | None = None) -> None:
        super().__init__()
        if weight.dim() != 2 or rank < 1:
            raise ValueError(f"an adapter of rank {rank} needs a matrix and a rank of at least 1, not {weight.shape}")
        rows, columns = weight.shape
        self.rank, self.alpha = rank, float(rank if alpha is None else alpha)
        bound = math.sqrt(3 / columns)
        self.a = nn.Parameter(torch.empty(rank, columns, dtype=weight.dtype, device=weight.device))
        self.b = nn.Parameter(torch.zeros(rows, rank, dtype=weight.dtype, device=weight.device))
        nn.init.uniform_(self.a, -bound, bound)

    def forward(self, weight: Tensor) -> Tensor:
        """Return W' (m, n) of W (m, n)."""
        return torch.addmm(weight, self.b, self.a, alpha=self.alpha / self.rank)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}"


def add_lora(module: nn.Module, rank: int, alpha: float | None = None) -> None:
    """Freeze all parameters of a module and give each matrix of its layers an adapter, which learns.

    Args:
        module: whose matrices: those of attention and of linear layers.
        rank: r of all adapters.
        alpha: α; r if None.

    Raises:
        ValueError: the rank is below 1, or there are adapters already.

    Example:
        >>> layer = nn.Linear(3, 4)
        >>> add_lora(layer, rank=2)
        >>> [name for name, parameter in layer.named_parameters() if parameter.requires_grad]
        ['parametrizations.weight.0.a', 'parametrizations.weight.0.b']
    """
    if any(True for _ in lora_parameters(module)):
        raise ValueError("there are adapters already: merge them first, with merge_lora")
    found = [
        (layer, name)
        for layer in module.modules()
        for name, _ in layer.named_parameters(recurse=False)
        if name.endswith("proj_weight") or (name == "weight" and isinstance(layer, nn.Linear))
    ]
    module.requires_grad_(False)
    for layer, name in found:
        parametrize.register_parametrization(layer, name, LowRank(getattr(layer, name), rank, alpha))


def lora_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield what the adapters of a module learn."""
    for part in module.modules():
        if isinstance(part, LowRank):
            yield from part.parameters()


def merge_lora(module: nn.Module) -> None:
    """Put W' in the place of each W and its adapter; all parameters learn again.

    Example:
        >>> layer = nn.Linear(3, 4)
        >>> add_lora(layer, rank=2)
        >>> merge_lora(layer)
        >>> [name for name, _ in layer.named_parameters()]
        ['bias', 'weight']
    """
    for layer, name in list(_adapted(module)):
        cls = type(layer)  # which a copy of the layer shares, and which torch changes
        layer.__class__ = type(cls.__name__, cls.__bases__, dict(cls.__dict__))
        parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    module.requires_grad_(True)


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the `state_dict` that the module would have were its adapters merged; the module stays as it is.

    Example:
        >>> layer = nn.Linear(3, 4)
        >>> add_lora(layer, rank=2)
        >>> sorted(plain_state(layer))
        ['bias', 'weight']
    """
    state = module.state_dict()
    for path, part in module.named_modules():
        for layer, name in _adapted(part, recurse=False):
            prefix = f"{path}." if path else ""
            for key in [key for key in state if key.startswith(f"{prefix}parametrizations.{name}.")]:
                del state[key]
            state[f"{prefix}{name}"] = getattr(layer, name).detach()
    return state


def _adapted(module: nn.Module, recurse: bool = True) -> Iterator[tuple[nn.Module, str]]:
    """Yield the layers with adapters, and the name of each adapted matrix."""
    for part in module.modules() if recurse else (module,):
        for name, chain in getattr(part, "parametrizations", {}).items():
            if any(isinstance(each, LowRank) for each in chain):
                yield part, name
