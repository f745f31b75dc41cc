"""A function as an operator of `torch.library`, without torch's compiler.

`torch.library.custom_op` does the same, but its wrappers import the compiler at the first call, which takes over a
second of a process that has no other use for it, and each call some 20 µs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import torch

__all__ = ["operator"]

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")

_LIBRARY = torch.library.Library("zoo", "FRAGMENT")


def operator(
    fake: Callable[..., object], mutates_args: Sequence[str] = ()
) -> Callable[[Callable[Inputs, Output]], Callable[Inputs, Output]]:
    """Make a function of tensors the operator `zoo::NAME`, and have calls of it go through torch's dispatcher.

    Args:
        fake: the same without numbers: it returns tensors of the shapes and types that come out.
        mutates_args: names of the tensors that the function writes to.
    """

    def define(form: Callable[Inputs, Output]) -> Callable[Inputs, Output]:
        name = form.__name__
        _LIBRARY.define(name + torch.library.infer_schema(form, mutates_args=mutates_args))
        _LIBRARY.impl(name, form, "CompositeExplicitAutograd")
        torch.library.register_fake(f"zoo::{name}", fake, lib=_LIBRARY)
        call = getattr(torch.ops.zoo, name).default

        @functools.wraps(form)
        def called(*args: Inputs.args, **options: Inputs.kwargs) -> Output:
            return call(*args, **options)

        return called

    return define
