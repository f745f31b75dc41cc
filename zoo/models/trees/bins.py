r"""Bins: each feature's values as small integers, so that a pass over the data can count instead of sort.

A feature with no more than `num_bins` distinct values has a bin for each of them, and a tree loses nothing. Of a
feature with more, the bins hold about equally many rows of a sample; a value that would fill more than one bin counts
as one bin's worth, so that the others share what it leaves. Missing values (NaN) have the code after the last bin.

Both parts of the sketch are merged from batch to batch and from process to process, and neither depends on their order:
the distinct values of each feature until there are too many, and the rows whose content has the smallest hash, which
are a uniform sample.

Letters: N rows, F features, B bins, M sampled rows.
Source: Ben-Haim & Tom-Tov, "A streaming parallel decision tree algorithm", 2010 (the idea); Cohen & Kaplan,
"Summarizing data using bottom-k sketches", 2007.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.kernels import codes as kernel
from zoo.numerics.hashing import content_hash

__all__ = [
    "Bins", "Codes", "Sketch", "bins_of", "code_rows", "codes_of_rows", "encode", "merge_sketches", "midpoint",
    "quantile_bins", "sample_size", "sketch_rows",
]  # fmt: skip

_SAMPLE_ROWS, _SAMPLE_VALUES = 1 << 16, 1 << 24  # of the sample, at most
_FIRST_ROWS = 4096  # tell of most features that they have too many distinct values


class Sketch(NamedTuple):
    """What is kept of the rows seen: `values` (F, D) distinct and sorted, NaN behind the last; whether there were too
    many of them, (F,); the sampled rows (M, F) and their hashes (M,)."""

    values: Tensor
    crowded: Tensor
    rows: Tensor
    hashes: Tensor

    @classmethod
    def empty(cls, num_features: int, device: torch.device | None = None) -> Sketch:
        """The sketch of no rows."""
        return cls(
            torch.zeros(num_features, 0, dtype=torch.float64, device=device),
            torch.zeros(num_features, dtype=torch.bool, device=device),
            torch.zeros(0, num_features, dtype=torch.float64, device=device),
            torch.zeros(0, dtype=torch.int64, device=device),
        )


class Bins(NamedTuple):
    """The bins of F features: smallest and largest value of each, both (F, B) and NaN behind the last; number, (F,)."""

    lower: Tensor
    upper: Tensor
    number: Tensor

    @property
    def missing(self) -> int:
        """The code of missing values, that of all features."""
        return self.upper.shape[1]

    @property
    def edges(self) -> Tensor:
        """Upper ends of all bins but the last, (F, B − 1), +∞ behind the last."""
        above = self.lower[:, 1:]
        return torch.where(above.isnan(), torch.inf, midpoint(self.upper[:, :-1], above))


def midpoint(low: Tensor, high: Tensor) -> Tensor:
    """Return thresholds t with low ≤ t < high, in the middle where floating point allows.

    >>> midpoint(torch.tensor([1.0, -torch.inf]), torch.tensor([2.0, torch.inf])).tolist()
    [1.5, -inf]
    """
    middle = low / 2 + high / 2
    return torch.where((middle >= low) & (middle < high), middle, low)


def sketch_rows(x: Tensor, num_bins: int | None) -> Sketch:
    """Return the sketch of rows x (N, F), float64, in which NaN stands for a missing value.

    Args:
        x: the rows.
        num_bins: B; None keeps every distinct value.
    """
    values, crowded, rows, hashes = Sketch.empty(x.shape[1], x.device)
    for part in (x[:_FIRST_ROWS], x[_FIRST_ROWS:]):
        sparse = (~crowded).nonzero()[:, 0]
        if len(part) and len(sparse):
            found = values.new_full((len(values), len(part)), torch.nan)
            found[sparse] = part.T[sparse]
            values, crowded = _distinct(torch.cat([values, found], dim=1), crowded, num_bins)
    if num_bins is not None:
        rows, hashes = _smallest(x, content_hash(x))
    return Sketch(values, crowded, rows, hashes)


def merge_sketches(sketches: list[Sketch], num_bins: int | None) -> Sketch:
    """Return the sketch of all rows that several sketches are of."""
    columns = [
        torch.cat(column, dim=dim) for column, dim in zip(zip(*sketches, strict=True), (1, 0, 0, 0), strict=True)
    ]
    crowded = columns[1].view(len(sketches), -1).any(0)
    values, crowded = _distinct(columns[0], crowded, num_bins)
    return Sketch(values, crowded, *_smallest(columns[2], columns[3]))


def _distinct(values: Tensor, crowded: Tensor, num_bins: int | None) -> tuple[Tensor, Tensor]:
    """Sort values (F, D) and drop repeats; a feature with more than `num_bins` of them is crowded and keeps none."""
    values = values.sort(dim=1).values
    repeated = torch.zeros_like(values, dtype=torch.bool)
    repeated[:, 1:] = values[:, 1:] == values[:, :-1]
    some = repeated.any(1).nonzero()[:, 0]
    found, kept = values[some], ~repeated[some]
    values[some] = torch.nan
    row, column = kept.nonzero(as_tuple=True)
    values[some[row], (kept.cumsum(1) - 1)[row, column]] = found[row, column]
    number = (~values.isnan()).sum(1)
    if num_bins is not None:
        crowded = crowded | (number > num_bins)
        values[crowded] = torch.nan
        number = number.masked_fill(crowded, 0)
    return values[:, : int(number.max()) if len(number) else 0].clone(), crowded


def sample_size(num_features: int) -> int:
    """How many rows of F features are sampled, at most."""
    return min(_SAMPLE_ROWS, max(1, _SAMPLE_VALUES // max(1, num_features)))


def _smallest(rows: Tensor, hashes: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of the smallest hashes, as many as a sample has."""
    size = sample_size(rows.shape[1])
    if len(rows) <= size:
        return rows, hashes
    chosen = hashes.argsort()[:size]
    return rows[chosen], hashes[chosen]


def bins_of(sketch: Sketch, num_bins: int | None, categorical: tuple[int, ...] = ()) -> Bins:
    """Return the bins of a sketch.

    Args:
        sketch: of all rows.
        num_bins: B; None gives every distinct value a bin.
        categorical: features that must have a bin for each of their values.

    Raises:
        ZooError: for a categorical feature with more values than bins.
    """
    _check_categories(sketch.crowded, num_bins, categorical)
    ends = [
        quantile_bins(sketch.rows[:, feature], num_bins or 0) if crowded else (values[~values.isnan()],) * 2
        for feature, (values, crowded) in enumerate(zip(sketch.values, sketch.crowded.tolist(), strict=True))
    ]
    width = max([1, *(len(low) for low, _ in ends)])
    lower, upper = (sketch.values.new_full((len(ends), width), torch.nan) for _ in range(2))
    for feature, (low, high) in enumerate(ends):
        lower[feature, : len(low)], upper[feature, : len(high)] = low, high
    return Bins(lower, upper, (~upper.isnan()).sum(1))


def _check_categories(crowded: Tensor, num_bins: int | None, categorical: tuple[int, ...]) -> None:
    for feature in categorical:
        if bool(crowded[feature]):
            raise ZooError(
                f"Categorical feature {feature} has more than {num_bins} categories: raise model.num_bins, or leave "
                "the feature out of model.categorical_features."
            )


def quantile_bins(column: Tensor, num_bins: int) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest values of at most `num_bins` bins of about equally many rows of a column (M,)."""
    values, counts = column[~column.isnan()].unique(return_counts=True)
    counts = counts.double()
    for _ in range(8):  # until a value that fills a bin fills just that one
        counts = counts.clamp_max(_total(counts) / num_bins)
    before = counts.cumsum(0) - counts
    number = (before * (num_bins / _total(counts))).long().clamp_max(num_bins - 1)  # of each value's bin
    last = (number[1:] != number[:-1]).nonzero()[:, 0]
    cuts = midpoint(values[last], values[last + 1])
    return torch.cat([values[:1], cuts]), torch.cat([cuts, values[-1:]])


def _total(counts: Tensor) -> Tensor:
    """Their sum, one after the other on every processor: a bin may end at its last bit."""
    return counts.cumsum(0)[-1] if len(counts) else counts.sum()


class Codes(NamedTuple):
    """The codes of N rows, column by column (F, N) and row by row (N, F): uint8, or int32 where that is too narrow."""

    columns: Tensor
    rows: Tensor


def codes_of_rows(rows: Tensor) -> Codes:
    """Return the codes of rows that were coded batch by batch, (N, F)."""
    columns = rows.T.contiguous()
    return Codes(columns, rows if rows.dtype == torch.uint8 else columns.T)


def encode(x: Tensor, bins: Bins, categorical: tuple[int, ...] = ()) -> Codes:
    """Return the codes of rows x (N, F), float64.

    >>> bins = bins_of(sketch_rows(torch.tensor([[3.0], [1.0], [torch.nan]], dtype=torch.float64), 255), 255)
    >>> encode(torch.tensor([[1.0], [3.0], [9.0], [torch.nan]], dtype=torch.float64), bins).rows[:, 0].tolist()
    [0, 1, 1, 2]
    """
    columns, rows = kernel.encode_rows(x, bins.edges, (bins.number - 1).clamp_min(0), bins.missing)
    if not categorical:
        return Codes(columns, rows if rows.numel() else columns.T)
    for feature in categorical:  # a category that was never seen is a missing value
        known = bins.upper[feature][columns[feature].long().clamp_max(bins.missing - 1)] == x[:, feature]
        columns[feature, ~known] = bins.missing
    return Codes(columns, columns.T.contiguous() if columns.dtype == torch.uint8 else columns.T)


def code_rows(x: Tensor, num_bins: int | None, categorical: tuple[int, ...] = ()) -> tuple[Bins, Codes]:
    """Return the bins and the codes of rows in memory (N, F), float64: `encode` with `bins_of` their sketch.

    Args:
        x: the rows.
        num_bins: B; None gives every distinct value a bin, whose code is its rank.
        categorical: features that must have a bin for each of their values.
    """
    if kernel.available(x):
        size = sample_size(x.shape[1])
        sampled = None
        if num_bins is not None and len(x) > size:
            sampled = torch.zeros(len(x), dtype=torch.bool).index_fill_(0, content_hash(x).argsort()[:size], True)
        lower, upper, number, crowded, columns, rows = kernel.code_rows(x, num_bins or 0, sampled)
        _check_categories(crowded, num_bins, categorical)
        return Bins(lower, upper if num_bins else lower, number), Codes(columns, rows if rows.numel() else columns.T)
    if num_bins is not None or not len(x):
        bins = bins_of(sketch_rows(x, num_bins), num_bins, categorical)
        return bins, encode(x, bins, categorical)
    values, order = x.T.contiguous().sort(dim=1)  # (F, N), NaN last
    rank = torch.zeros_like(order)
    rank[:, 1:] = ((values[:, 1:] != values[:, :-1]) & ~values[:, 1:].isnan()).cumsum(1)
    present = ~values.isnan()
    count = torch.where(present.any(1), rank[:, -1] + 1, 0)
    width = max(1, int(count.max()) if len(count) else 1)
    distinct = torch.full((len(values), width), torch.nan, dtype=x.dtype, device=x.device)
    feature = torch.arange(len(values), device=x.device).unsqueeze(1).expand_as(rank)
    distinct[feature[present], rank[present]] = values[present]
    code = rank.masked_fill_(~present, width).to(torch.uint8 if width < 256 else torch.int32)
    columns = torch.empty_like(code).scatter_(1, order, code)
    return Bins(distinct, distinct, count), Codes(columns, columns.T.contiguous() if width < 256 else columns.T)
