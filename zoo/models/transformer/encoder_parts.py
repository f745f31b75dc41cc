"""What the models made of transformer layers share: activations by name, and what each head looks at."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["activation_of", "recorded"]


def activation_of(name: str, layers: str = "zoo") -> Any:
    """Return an activation as our layers take it, or torch's, which have no name for `gelu_tanh`.

    >>> activation_of("relu")
    'relu'
    """
    return functools.partial(F.gelu, approximate="tanh") if (name, layers) == ("gelu_tanh", "torch") else name


@contextlib.contextmanager
def recorded(layers: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Give a list to which each call of a layer of multi-head attention adds its weights, (B, H, T, S).

    Args:
        layers: `MultiheadAttention` of ours or of torch.

    Example:
        >>> layer, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.zeros(1, 5, 8)
        >>> with recorded([layer]) as weights:
        ...     _ = layer(x, x, x, need_weights=False)
        >>> weights[0].shape
        torch.Size([1, 2, 5, 5])
    """
    weights: list[Tensor] = []

    def ask(module: nn.Module, inputs: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, {**options, "need_weights": True, "average_attn_weights": False}

    def keep(module: nn.Module, inputs: Any, outputs: Any) -> None:
        weights.append(outputs[1])

    handles = []
    for layer in layers:
        handles += [layer.register_forward_pre_hook(ask, with_kwargs=True), layer.register_forward_hook(keep)]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # on which torch's own encoder layers skip their parts
    try:
        yield weights
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
