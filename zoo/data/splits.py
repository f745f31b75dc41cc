"""Splits and scaling of rows held in memory: seeded, disjoint, stratified, fitted on the training rows alone.

Legend: N rows, F features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.data.base import Rows, TensorRows, ZooDataModule, split_rows, values_of
from zoo.data.scaling import Moments, Standardize
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError

__all__ = ["SplitData", "TabularData"]


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
        if self.parts is not None:
            self.drawn = self.parts
            return self.parts
        if num_rows and not (self.val_fraction or self.test_fraction):  # nothing is drawn
            self.drawn = {"train": torch.arange(num_rows)}
            return self.drawn
        parts = split_rows(num_rows, (self.val_fraction, self.test_fraction), self.seed, strata)
        self.drawn = {name: part for name, part in zip(("train", "val", "test"), parts, strict=True) if len(part)}
        return self.drawn

    def split_tensors(self, batch: Batch, spec: DataSpec) -> dict[str, Rows | None]:
        """Return the splits of rows in memory, stratified by class where the targets are classes."""
        if self.parts is None and not (self.val_fraction or self.test_fraction):  # all in their order: none are drawn
            return {"train": TensorRows(batch)}
        parts = self.split(batch.size, batch.y if spec.target == "class" else None)
        return {name: TensorRows(batch.rows(rows)) for name, rows in parts.items()}


class TabularData(SplitData):
    """Tabular data in one piece, standardized by the training rows unless told not to.

    Args:
        standardize: whether each feature is scaled to mean 0 and standard deviation 1 of the training rows; a network
            then learns scaled target values too, and predicts them in their own units.
        **options: those of `SplitData`.
    """

    def __init__(self, *, standardize: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.standardize = self.scales_targets = standardize

    @property
    def target_scaling(self) -> Standardize | None:
        return super().target_scaling if self.scales_targets else None

    def scale(self, splits: dict[str, Rows | None]) -> dict[str, Rows | None]:
        """Apply to every split the scaling measured on the training rows, or learnt before."""
        if not self.standardize:
            return splits
        if self.learnt is None:
            train = splits.get("train")
            if train is None or not len(train):
                return splits  # the base says that there is nothing to train on
            index = torch.arange(len(train)).split(train.block_size or len(train))
            inputs, targets = Moments(), Moments()
            for batch in (train[part] for part in index):
                inputs.add(batch.x)
                if batch.y is not None and batch.y.is_floating_point():
                    targets.add(values_of(batch))
            scaling: Standardize | None = Standardize(*inputs.solve())
            self._target_scaling = Standardize(*targets.solve())
        else:
            scaling = self.learnt.scaling
        self.applied.scaling = scaling
        for rows in splits.values():
            if rows is not None:
                rows.transform = scaling  # type: ignore[attr-defined]
        return splits
