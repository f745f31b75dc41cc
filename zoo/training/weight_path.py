"""The way of a model's weights through a training, kept to be drawn on the surface of its loss."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

__all__ = ["WeightPath", "flat_weights"]

FINEST = 128  # points from n steps to 2 n
MOST_NUMBERS = 2**16  # of those: a way of more weights has fewer points


class WeightPath(Callback):
    """Keep the weights of the first steps one by one, and of later ones ever fewer: as many from n steps on to 2 n.

    They travel in the checkpoint, so that a resumed run has the whole way. Of more than 16,384 weights none is kept.

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
        self._end: Tensor | None = None
        self._seen = 0

    @property
    def points(self) -> Tensor:
        """The weights along the way, (N, P), as `flat_weights` has them."""
        end = [] if self._end is None else [self._end]
        return torch.stack([*self._points, *end]) if self._points else torch.zeros(0, 0)

    def on_train_start(self, trainer: pl.Trainer, model: Any) -> None:
        self._end, self._seen = None, trainer.global_step
        if not trainer.global_step:
            first = flat_weights(model)
            self._points = [first] if MOST_NUMBERS // max(1, len(first)) >= 4 else []

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, *args: Any) -> None:
        if trainer.global_step != self._seen and self._points:
            self._seen = trainer.global_step
            if self._is_kept(self._seen):
                self._points.append(flat_weights(model))

    def _is_kept(self, step: int) -> bool:
        fine = min(FINEST, MOST_NUMBERS // len(self._points[0]))
        return step % (1 << max(0, step.bit_length() - fine.bit_length())) == 0

    def on_train_end(self, trainer: pl.Trainer, model: Any) -> None:
        self._end = flat_weights(model) if self._points and not self._is_kept(self._seen) else None

    def state_dict(self) -> dict[str, Any]:
        return {"points": torch.stack(self._points), "end": self._end} if self._points else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._points, self._end = list(state_dict["points"]), state_dict["end"]


def flat_weights(model: nn.Module) -> Tensor:
    """Return all parameters that are trained as one vector (P,), on the CPU.

    >>> flat_weights(nn.Linear(2, 1)).shape
    torch.Size([3])
    """
    return torch.cat([p.detach().flatten().cpu() for p in model.parameters() if p.requires_grad])
