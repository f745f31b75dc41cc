"""Time series for forecasters: windows of the past, and the steps that follow as targets; splits in order of time."""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.base import Rows, ZooDataModule
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError, nearest
from zoo.numerics.hashing import normals, splitmix64, stream_key

__all__ = ["SeriesData", "SeriesRows", "Temperatures"]


class SeriesRows(Rows):
    """Windows (W, 1) of a series and the h steps after each.

    Args:
        values: the series, (N,).
        window: W, steps of the past.
        horizon: h, steps ahead.
    """

    def __init__(self, values: Tensor, window: int, horizon: int) -> None:
        self.values, self.window, self.horizon = values, window, horizon

    def __len__(self) -> int:
        return max(0, len(self.values) - self.window - self.horizon + 1)

    def __getitem__(self, index: Tensor) -> Batch:
        position = index.unsqueeze(1) + torch.arange(self.window + self.horizon)
        values = self.values[position]  # (B, W + h)
        future = values[:, self.window :]
        return Batch(values[:, : self.window].unsqueeze(2), future.squeeze(1) if self.horizon == 1 else future)


@register_data("series", kind="series", target="series")
class SeriesData(ZooDataModule):
    """A column of a CSV file as a time series, cut into windows.

    Args:
        path: the CSV file.
        column: the column of values; by default the only numeric one.
        window: steps of the past that a forecast sees.
        horizon: steps ahead that it predicts.
        val_fraction: share of the series, at its end before the test part, held out for validation.
        test_fraction: share of the series, at its end, held out for the test.
        **options: those of `ZooDataModule`.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        column: str | None = None,
        window: int = 24,
        horizon: int = 1,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for name, value in (("window", window), ("horizon", horizon)):
            if value < 1:
                raise ZooError(f"data.{name} must be at least 1, not {value}.")
        if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise ZooError("data.val_fraction and data.test_fraction must be 0 or more and leave a part to train on.")
        self.path, self.column, self.window, self.horizon = path, column, window, horizon
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def values(self) -> tuple[str, Tensor]:
        """Return the series' name and its values, (N,)."""
        if self.path is None:
            raise ZooError("data.path is missing: pass data.path=FILE.csv and data.column=NAME.")
        return read_column(Path(self.path), self.column)

    def files(self) -> list[str]:
        return [] if self.path is None else [self.path]

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        name, values = self.values()
        test = round(len(values) * (1 - self.test_fraction))
        val = round(len(values) * (1 - self.test_fraction - self.val_fraction))
        # A held-out part predicts its first step from the window before it.
        parts = {
            "train": values[:val],
            "val": values[max(0, val - self.window) : test],
            "test": values[max(0, test - self.window) :],
        }
        splits: dict[str, Rows | None] = {}
        for split, part in parts.items():
            rows = SeriesRows(part, self.window, self.horizon)
            splits[split] = rows if len(rows) else None
        if splits["train"] is None:
            raise ZooError(
                f"{len(values)} steps are too few for windows of {self.window} + {self.horizon}: lower data.window."
            )
        names = tuple(f"{name} +{step + 1}" for step in range(self.horizon))
        spec = DataSpec(
            "series", (self.window, 1), "series", num_targets=self.horizon, feature_names=(name,), target_names=names
        )
        return spec, splits


def read_column(path: Path, column: str | None) -> tuple[str, Tensor]:
    """Return the name and the values of a numeric column of a CSV file."""
    import pyarrow as pa
    import pyarrow.csv as pcsv

    if not path.is_file():
        raise ZooError(f"There is no file {path}.")
    check_gaps(path)
    try:
        table = pcsv.read_csv(path)
    except pa.ArrowInvalid as error:
        raise ZooError(f"{path} is not a CSV table: {str(error).splitlines()[0]}") from error
    numeric = [f.name for f in table.schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)]
    if column is None:
        if len(numeric) != 1:
            raise ZooError(f"{path} has {len(numeric)} numeric columns: pass data.column, one of {', '.join(numeric)}.")
        column = numeric[0]
    if column not in table.column_names:
        raise ZooError(f"{path} has no column '{column}'.{nearest(column, table.column_names)}")
    if column not in numeric:
        raise ZooError(f"Column '{column}' of {path} is not numeric.")
    values = torch.tensor(table[column].to_numpy(), dtype=torch.float32)
    missing = (~values.isfinite()).nonzero()
    if len(missing):
        raise ZooError(
            f"Column '{column}' of {path} has {len(missing)} missing or infinite values, the first in row "
            f"{int(missing[0]) + 1}: fill them first."
        )
    return column, values


def check_gaps(path: Path) -> None:
    """Raise one line for a blank line among the rows, which the reader would leave out: the gap in time would close."""
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        gap = re.search(rb"\r?\n[ \t]*\r?\n(?=\s*\S)", content)
        if gap:
            row = content[: gap.start()].count(b"\n") + 1
            raise ZooError(f"{path} has a blank line where row {row} should be: fill it in, or take the line out.")


@register_data("temperatures", kind="series", target="series")
class Temperatures(SeriesData):
    """Ten years of daily minimum temperatures: synthetic (season and weather), or a CSV file of real ones.

    The synthetic series is 11 + 4.5 cos(2π (t − 15) / 365.25) + w_t degrees, weather w_t = 0.7 w_{t−1} + 2 ε_t.

    Args:
        num_days: length of the synthetic series.
        window: steps of the past that a forecast sees.
        **options: those of `SeriesData`; with `path` the file is read instead.
    """

    def __init__(self, *, num_days: int = 3650, window: int = 30, **options: Any) -> None:
        super().__init__(window=window, **options)
        if num_days < 1:
            raise ZooError(f"data.num_days must be at least 1, not {num_days}.")
        self.num_days = num_days

    def values(self) -> tuple[str, Tensor]:
        if self.path is not None:
            return super().values()
        day = torch.arange(self.num_days, dtype=torch.float64)
        noise = 2 * normals(splitmix64(stream_key(self.seed, 3), torch.arange(-(-self.num_days // 2))), torch.float64)
        weather, state = [], 0.0
        for epsilon in noise[: self.num_days].tolist():
            state = 0.7 * state + epsilon
            weather.append(state)
        season = 11 + 4.5 * torch.cos(2 * torch.pi * (day - 15) / 365.25)
        return "temperature", (season + torch.tensor(weather, dtype=torch.float64)).float()
