"""One node of autograd for an operator of `torch.library`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["register_autograd"]


def register_autograd(
    library: torch.library.Library, operator: Any, run: Callable, keep: Callable, differentiate: Callable
) -> None:
    """Make an operator one node of autograd.

    `torch.library.register_autograd` does the same, but its node costs some 40 µs more each way: as much as all else
    that is done for a short sequence.

    Args:
        library: what defines the operator.
        operator: `torch.ops.NAMESPACE.NAME.default`.
        run: what it does on a CPU.
        keep: `(ctx, inputs, outputs)`, before the way back.
        differentiate: `(ctx, *gradients)`, the gradients of the inputs by those of the outputs.
    """
    # The names of the dispatcher are private in Python; in C++ they are its documented ones.
    after, guard, cpu = (
        torch._C._after_ADInplaceOrView_keyset,
        torch._C._AutoDispatchBelowAutograd,
        torch._C.DispatchKey.CPU,
    )

    def below(keys: Any, *inputs: Any) -> tuple[Tensor, ...]:
        keys = keys & after
        with guard():
            if keys.highestPriorityTypeId() == cpu:  # no mode, no transform: what the dispatcher would call next
                return run(*inputs)
            return operator.redispatch(keys, *inputs)

    def forward(ctx: Any, keys: Any, *inputs: Any) -> tuple[Tensor, ...]:
        outputs = below(keys, *inputs)
        keep(ctx, inputs, outputs)
        return outputs

    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        return None, *differentiate(ctx, *gradients)

    name = operator.name().split("::")[1]  # `grad_fn` shows it
    ways = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    node: Any = type(name, (torch.autograd.Function,), ways)

    def call(keys: Any, *inputs: Any) -> tuple[Tensor, ...]:
        return node.apply(keys, *inputs) if torch.is_grad_enabled() else below(keys, *inputs)

    library.impl(operator, call, "Autograd", with_keyset=True)
