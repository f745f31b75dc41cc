"""Splits and scaling of rows held in memory: seeded, disjoint, stratified, fitted on the training rows alone.

Legend: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zoo.data.base import Rows, TensorRows, ZooDataModule, split_rows
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError

__all__ = ["SplitData", "Standardize", "TabularData"]


class SplitData(ZooDataModule):
    """Data that come in one piece, of which shares are held out for validation and test.

    Args:
        val_fraction: share of the rows held out for validation; 0 for none.
        test_fraction: share of the rows held out for the test; 0 for none.
        **options: those of `ZooDataModule`.
    """

    def __init__(self, *, val_fraction: float = 0.1, test_fraction: float = 0.2, **options: Any) -> None:
        super().__init__(**options)
        for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 <= value < 1:
                raise ZooError(f"data.{name} must be at least 0 and below 1, not {value}.")
        if val_fraction + test_fraction >= 1:
            held_out = f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction}"
            raise ZooError(f"{held_out} leave no rows to train on: lower them.")
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def split(self, num_rows: int, strata: Tensor | None = None) -> dict[str, Tensor]:
        """Return the row indices of each split; one that was not asked for or would be empty is left out."""
        parts = split_rows(num_rows, (self.val_fraction, self.test_fraction), self.seed, strata)
        return {name: part for name, part in zip(("train", "val", "test"), parts, strict=True) if len(part)}

    def split_tensors(self, batch: Batch, spec: DataSpec) -> dict[str, Rows | None]:
        """Return the splits of rows in memory, stratified by class where the targets are classes."""
        parts = self.split(batch.size, batch.y if spec.target == "class" else None)
        if len(parts) == 1:  # all rows in their order: no copy
            return {"train": TensorRows(batch)}
        return {name: TensorRows(batch.rows(rows)) for name, rows in parts.items()}


class Standardize:
    """Scale features to mean 0 and (population) standard deviation 1; a constant one is centred and no more.

    Args:
        mean: (F,).
        std: (F,), 1 in place of 0.

    Example:
        >>> Standardize.fit([torch.tensor([[1.0, 5.0], [3.0, 5.0]])])(Batch(torch.tensor([[2.0, 6.0]]))).x
        tensor([[0., 1.]])
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std

    @classmethod
    def fit(cls, parts: Iterable[Tensor]) -> Standardize:
        """Measure rows that come part by part, each (N, F), joined as Chan, Golub & LeVeque 1979 join them."""
        count, mean, square = 0, torch.zeros(()), torch.zeros(())
        low, high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        for x in parts:
            if not len(x):
                continue
            part_mean = x.mean(0)
            delta = part_mean - mean
            total = count + len(x)
            square = square + ((x - part_mean) ** 2).sum(0) + delta**2 * (count * len(x) / total)
            mean = mean + delta * (len(x) / total)
            low, high, count = torch.minimum(low, x.amin(0)), torch.maximum(high, x.amax(0)), total
        std = (square / count).sqrt()
        constant = (low == high) | (std == 0)  # exact, where rounding leaves a deviation of 1e-17
        return cls(torch.where(low == high, low, mean), torch.where(constant, 1.0, std).to(std.dtype))

    def __call__(self, batch: Batch) -> Batch:
        return batch._replace(x=(batch.x - self.mean) / self.std)


class TabularData(SplitData):
    """Tabular data in one piece, standardized by the training rows unless told not to.

    Args:
        standardize: whether each feature is scaled to mean 0 and standard deviation 1 of the training rows.
        **options: those of `SplitData`.
    """

    def __init__(self, *, standardize: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.standardize = standardize
        self._scaling: Standardize | None = None

    def scale(self, splits: dict[str, Rows | None]) -> dict[str, Rows | None]:
        """Apply to every split the scaling measured on the training rows."""
        if not self.standardize:
            return splits
        train = splits.get("train")
        if train is None or not len(train):
            return splits  # the base says that there is nothing to train on
        index = torch.arange(len(train)).split(train.block_size or len(train))
        self._scaling = Standardize.fit(train[part].x for part in index)
        for rows in splits.values():
            if rows is not None:
                rows.transform = self._scaling  # type: ignore[attr-defined]
        return splits

    # Lightning keeps this in the checkpoint: a trained model meets new data in the scale that it learnt.

    def state_dict(self) -> dict[str, Any]:
        self._load()
        return {} if self._scaling is None else {"mean": self._scaling.mean, "std": self._scaling.std}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._load()
        if state_dict and self._scaling is not None:
            self._scaling.mean, self._scaling.std = state_dict["mean"], state_dict["std"]
