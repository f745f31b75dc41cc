"""Setting attributes of a module quickly: torch asks so much of each value that it is most of a small fit's time."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from zoo.checks import PLAIN

__all__ = ["QuickAttributes"]

_OF_MODULES = (Tensor, nn.Module)  # what torch keeps apart
_buffer_hooks = nn.modules.module._global_buffer_registration_hooks


class QuickAttributes(nn.Module):
    """A module in which plain values, and buffers that are there already, are set the short way."""

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        buffers = own.get("_buffers", ())  # none in the constructor of a module, before it has a place for them
        if type(value) is Tensor and name in buffers and not _buffer_hooks:
            buffers[name] = value
        elif (type(value) not in PLAIN and isinstance(value, _OF_MODULES)) or (
            name not in own
            and (name in buffers or name in own.get("_parameters", ()) or name in own.get("_modules", ()))
        ):
            super().__setattr__(name, value)
        else:
            object.__setattr__(self, name, value)
