"""TensorBoard in the run folder, with an HParams tab that compares runs of different families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

__all__ = ["RunLogger"]


class RunLogger(TensorBoardLogger):
    """Lightning's logger, writing straight into the run folder and the hyperparameters once, with the final metrics."""

    def __init__(self, run_dir: str) -> None:
        super().__init__(save_dir=run_dir, name="", version="")

    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Do nothing: Lightning's summary of the experiment would make TensorBoard take one run's columns for all."""

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()

    @rank_zero_only
    def log_run(self, hparams: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write the session's hyperparameters; TensorBoard finds their metrics among the scalars."""
        from torch.utils.tensorboard.summary import hparams as summaries

        plain = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in hparams.items() if v is not None}
        _, start, end = summaries(plain, dict(metrics))
        self.experiment._get_file_writer().add_summary(start)
        self.experiment._get_file_writer().add_summary(end)
        self.experiment.flush()
