"""How a network's layers are carried out in training: compiled, or with what they computed computed again."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["Compiled", "Recomputed"]


class Compiled(Callback):
    """Have `torch.compile` turn the model's forward and backward into code of their own; parameters stay as they are.

    Args:
        backend: torch's name of what makes that code.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend

    def on_fit_start(self, trainer: pl.Trainer, model: Any) -> None:
        model.compile(backend=self.backend)

    def on_fit_end(self, trainer: pl.Trainer, model: Any) -> None:
        model._compiled_call_impl = None  # the test and the pictures have other shapes, each to be compiled for


class Recomputed(Callback):
    """Keep of each transformer layer its input alone, and compute the rest again on the way back (Chen et al. 2016).

    Memory for activations is then one layer's and one input a layer, for a third more operations.
    """

    def on_fit_start(self, trainer: pl.Trainer, model: Any) -> None:
        for layer in self._layers(model):
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)

    def on_fit_end(self, trainer: pl.Trainer, model: Any) -> None:
        for layer in self._layers(model):
            del layer.forward

    def _layers(self, model: nn.Module) -> list[Any]:
        from zoo import layers  # all of them: where nothing is recomputed, nobody waits for that

        kinds = layers.TransformerEncoderLayer, layers.TransformerDecoderLayer
        built_in = nn.TransformerEncoderLayer, nn.TransformerDecoderLayer
        return [module for module in model.modules() if isinstance(module, kinds + built_in)]
