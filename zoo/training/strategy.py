"""Distributed training of models that have statistics instead of trainable parameters."""

from __future__ import annotations

from lightning.pytorch.strategies import DDPStrategy

__all__ = ["StreamingDDPStrategy"]


class StreamingDDPStrategy(DDPStrategy):
    """Processes as in DDP, without its wrapper, which refuses a module that has nothing to train.

    There are no gradients to average: the model itself reduces its accumulators once, at the end of a pass.
    """

    def configure_ddp(self) -> None:
        pass
