"""Bins and codes of rows most of whose values are 0, from what is stored of them, without a table of all values.

They are those of `bins` for the same rows with their zeros.

Letters: N rows, F features, M stored values, B bins, E codes that are not those of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zoo.models.trees.bins import Bins, quantile_bins, sample_size
from zoo.numerics.hashing import content_hash
from zoo.numerics.sparse import sparse_rows, stored_rows, take_rows

__all__ = ["SparseCodes", "code_sparse_rows"]


@dataclass(frozen=True)
class SparseCodes:
    """The codes of N rows that are not those of 0, row by row and feature by feature.

    Attributes:
        row_starts: where each row begins, (N + 1,).
        row_features: ascending in each row, (E,), int32.
        row_codes: (E,), int32.
        column_starts: where each feature begins, (F + 1,).
        column_rows: ascending in each feature, (E,), int32.
        column_codes: (E,), int32.
        zero_code: the code of all others, (F,), int32.
        missing: the code of missing values, that of all features.
    """

    row_starts: Tensor
    row_features: Tensor
    row_codes: Tensor
    column_starts: Tensor
    column_rows: Tensor
    column_codes: Tensor
    zero_code: Tensor
    missing: int

    @cached_property
    def rows(self) -> Tensor:
        """All codes, row by row, (N, F)."""
        num_rows = len(self.row_starts) - 1
        row = torch.arange(num_rows, device=self.row_starts.device).repeat_interleave(self.row_starts.diff())
        codes = self.zero_code.expand(num_rows, -1).clone()
        codes[row, self.row_features.long()] = self.row_codes
        return codes.to(torch.uint8) if self.missing < 256 else codes


def code_sparse_rows(x: Tensor, num_bins: int | None) -> tuple[Bins, SparseCodes]:
    """Return the bins and the codes of rows in memory.

    Args:
        x: a sparse matrix (CSR) of rows, (N, F), float64, the features of each row ascending.
        num_bins: B; None gives every distinct value a bin.

    Example:
        >>> x = torch.tensor([[0.0, 2.0], [0.0, 0.0], [5.0, 3.0]], dtype=torch.float64).to_sparse_csr()
        >>> bins, codes = code_sparse_rows(x, 255)
        >>> codes.rows.tolist(), bins.number.tolist()
        ([[0, 1], [0, 0], [1, 2]], [2, 3])
    """
    x = _without_zeros(x)
    feature, value, code, number, zero = _distinct(x)
    width = number.masked_fill(number > num_bins, 0) if num_bins is not None else number
    crowded = (number > width).nonzero()[:, 0]
    lower = x.values().new_full((len(number), max(1, int(width.max()) if len(width) else 1)), torch.nan)
    there = (code >= 0) & (number == width)[feature]
    lower[feature[there], code[there]] = value[there]
    upper = lower
    if len(crowded):
        assert num_bins is not None
        lower, upper = _crowded_bins(x, crowded, lower, num_bins)
    bins = Bins(lower, upper, (~upper.isnan()).sum(1))
    stored_code, zero = code[: len(x.values())], zero.clone()
    edges, last, column = bins.edges, (bins.number - 1).clamp_min(0), x.col_indices()
    for f in crowded.tolist():
        ends, mine = edges[f, : last[f]], column == f
        stored_code[mine] = torch.searchsorted(ends, x.values()[mine])
        zero[f] = torch.searchsorted(ends, ends.new_zeros(1))[0]
    stored_code = torch.where(x.values().isnan(), bins.missing, stored_code)
    return bins, _by_both(x, stored_code, zero, bins.missing)


def _without_zeros(x: Tensor) -> Tensor:
    """The same matrix without stored zeros."""
    values = x.values()
    kept = values != 0
    if bool(kept.all()):
        return x
    counts = torch.zeros(len(x), dtype=torch.int64, device=x.device).index_add_(
        0, stored_rows(x)[kept], kept[kept].long()
    )
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return sparse_rows(crow, x.col_indices()[kept], values[kept], tuple(x.shape))


def _distinct(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The place of each value among the distinct ones of its feature, zeros among them, but not missing ones.

    Returns:
        Feature, value and place of each stored value, and after them of a zero of each feature that has one, −1 for a
        missing one (M + F' each); how many values each feature has, (F,); and the place of its zero, −1 without, (F,).
    """
    num_rows, num_features = x.shape
    has_zero = torch.bincount(x.col_indices(), minlength=num_features) < num_rows
    zeros = has_zero.nonzero()[:, 0]
    feature = torch.cat([x.col_indices(), zeros])
    value = torch.cat([x.values(), x.values().new_zeros(len(zeros))])
    order = value.argsort(stable=True)
    order = order[feature[order].argsort(stable=True)]
    f, v = feature[order], value[order]
    new = torch.ones_like(f, dtype=torch.bool)
    new[1:] = (f[1:] != f[:-1]) | (v[1:] != v[:-1])
    new &= ~v.isnan()
    number = torch.zeros(num_features, dtype=torch.int64, device=x.device).index_add_(0, f, new.long())
    before = number.cumsum(0) - number
    place = torch.empty_like(feature)
    place[order] = (new.cumsum(0) - 1 - before[f]).masked_fill_(v.isnan(), -1)
    zero = torch.full_like(number, -1)
    zero[zeros] = place[len(x.values()) :]
    return feature, value, place, number, zero


def _crowded_bins(x: Tensor, crowded: Tensor, few: Tensor, num_bins: int) -> tuple[Tensor, Tensor]:
    """Ends of all bins, given those of the features that are not crowded: of the others, by a sample of the rows."""
    size = sample_size(x.shape[1])
    if len(x) > size:
        x = take_rows(x, content_hash(x).argsort()[:size])
    column, ends = x.col_indices(), {}
    for f in crowded.tolist():
        values = x.values()[column == f]
        ends[f] = quantile_bins(torch.cat([values, values.new_zeros(len(x) - len(values))]), num_bins)
    width = max(few.shape[1], *(len(low) for low, _ in ends.values()))
    lower = few.new_full((len(few), width), torch.nan)
    lower[:, : few.shape[1]] = few
    upper = lower.clone()
    for f, (low, high) in ends.items():
        lower[f, : len(low)], upper[f, : len(high)] = low, high
    return lower, upper


def _by_both(x: Tensor, code: Tensor, zero: Tensor, missing: int) -> SparseCodes:
    """What is stored, with the codes of it (M,), row by row and feature by feature."""
    row, feature = stored_rows(x), x.col_indices()
    kept = code != zero[feature]
    row, feature, code = row[kept], feature[kept], code[kept].int()
    order = feature.argsort(stable=True)

    row_starts, column_starts = (
        torch.cat([of.new_zeros(1), torch.bincount(of, minlength=number).cumsum(0)])
        for of, number in ((row, len(x)), (feature, x.shape[1]))
    )
    by_column = column_starts, row[order].int(), code[order]
    return SparseCodes(row_starts, feature.int(), code, *by_column, zero.int(), missing)
