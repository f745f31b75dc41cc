"""Networks with a memory: `ntm` and `dnc`."""

from zoo.models.memory.memory import DNC, NTM

__all__ = ["DNC", "NTM"]
