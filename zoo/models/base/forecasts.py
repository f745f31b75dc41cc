"""What forecasters share: windows in units of their own, and forecasts that are fed back.

Legend: B windows, W steps of each, F features, N steps of history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import ZooError

__all__ = ["Forecasts", "scaled_windows"]


def scaled_windows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return windows (B, W, F) shifted and scaled by their own mean and deviation, and these, (B, 1, F) each.

    >>> scaled_windows(torch.tensor([[[1.0], [3.0]]]))[0].flatten().tolist()
    [-1.0, 1.0]
    """
    mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True, correction=0).clamp_min(1e-6)
    return (x - mean) / std, mean, std


class Forecasts:
    """A mixin for models of time series that see a window of the past and say the next steps."""

    if TYPE_CHECKING:
        spec: Any
        device: Any
        input_dtype: torch.dtype

        def check_fitted(self) -> None: ...
        def eval(self) -> Any: ...
        def __call__(self, *args: Any, **options: Any) -> Any: ...

    @torch.inference_mode()
    def forecast(self, history: Any, steps: int) -> Tensor:
        """Return the next `steps` values (steps,) after a history (N,), each fed back to predict the next.

        Raises:
            ZooError: for a history shorter than the window that the model was trained on.
        """
        self.check_fitted()
        values = torch.as_tensor(history).to(self.device, self.input_dtype)
        window, known = self.spec.shape[0], len(values)
        if values.ndim != 1:
            raise ZooError(f"A history has shape (N,), one value a step, not {tuple(values.shape)}.")
        if known < window:
            raise ZooError(f"A forecast needs {window} steps of history; there are {known}.")
        self.eval()
        while len(values) < known + steps:
            ahead = self(values[-window:].view(1, window, 1))  # (1, h)
            values = torch.cat([values, ahead.flatten()])
        return values[known : known + steps].cpu()
