"""The way of a model's weights through a training, kept to be drawn on the surface of its loss."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

__all__ = ["WeightPath", "flat_weights"]

MOST_POINTS = 512
MOST_NUMBERS = 2**20  # of all points: what a checkpoint carries along


class WeightPath(Callback):
    """Keep the weights of every k-th step, from the first ones to the last; k doubles whenever there are too many.

    It travels in the checkpoint, so that a resumed run has the whole way.

    Example:
        >>> import torch, zoo
        >>> x, way = torch.randn(30, 1), WeightPath()
        >>> model = zoo.create_model("linear_regression", solver="gradient")
        >>> model = zoo.fit(model, x, x[:, 0], batch_size=10, max_epochs=4, callbacks=[way])
        >>> way.points.shape  # 12 steps and the start; a weight and an intercept
        torch.Size([13, 2])
    """

    def __init__(self) -> None:
        self._points: list[Tensor] = []
        self._every, self._seen = 1, 0
        self._end: Tensor | None = None

    @property
    def points(self) -> Tensor:
        """The weights along the way, (N, P), as `flat_weights` has them."""
        end = [] if self._end is None else [self._end]
        return torch.stack([*self._points, *end]) if self._points else torch.zeros(0, 0)

    def on_train_start(self, trainer: pl.Trainer, model: Any) -> None:
        self._end, self._seen = None, trainer.global_step
        if not trainer.global_step:
            self._points, self._every = [flat_weights(model)], 1

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, *args: Any) -> None:
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        if self._points and self._seen % self._every == 0:
            self._points.append(flat_weights(model))
            if len(self._points) > max(2, min(MOST_POINTS, MOST_NUMBERS // len(self._points[0]))):
                self._points, self._every = self._points[::2], 2 * self._every

    def on_train_end(self, trainer: pl.Trainer, model: Any) -> None:
        self._end = flat_weights(model) if self._points and self._seen % self._every else None

    def state_dict(self) -> dict[str, Any]:
        if not self._points:
            return {}
        return {"every": self._every, "points": torch.stack(self._points), "end": self._end}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._every, self._end = state_dict["every"], state_dict["end"]
            self._points = list(state_dict["points"])


def flat_weights(model: nn.Module) -> Tensor:
    """Return all parameters that are trained as one vector (P,), on the CPU.

    >>> flat_weights(nn.Linear(2, 1)).shape
    torch.Size([3])
    """
    return torch.cat([p.detach().flatten().cpu() for p in model.parameters() if p.requires_grad])
