r"""What the likelihoods $p(x \mid c)$ of naive Bayes share: statistics of rows that merge, and estimates from them.

Letters: B rows, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.numerics.sparse import is_sparse, sparse_rows, stored_rows

__all__ = ["Likelihood", "Statistics", "class_counts", "class_sums", "row_blocks", "scaled_rows", "taken"]

Statistics = dict[str, Tensor]

# Numbers that are worked on at once: few enough to stay in a processor's cache, enough to fill a GPU.
CHUNK, LARGE_CHUNK = 1 << 17, 1 << 24


class Likelihood:
    """How features are distributed within a class: what is counted of the rows, and what follows from the counts.

    A subclass implements `summarize`, `estimate` and `log_likelihood`, and `merge` where statistics do not just add up.
    """

    parameters: tuple[str, ...]  # what `estimate` returns
    uses_prior = True  # whether the class's prior belongs to its score

    def check(self, num_features: int) -> None:
        """Raise one line if an option does not fit the number of features."""

    def blank(self, num_features: int, num_classes: int) -> tuple[Statistics, Statistics]:
        """Return the statistics of no rows, and zeros in the place of what `estimate` returns."""
        nothing = torch.zeros(0, num_features, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
        statistics = self.summarize(*nothing, None, num_classes)
        return statistics, {name: torch.zeros_like(value) for name, value in self.estimate(statistics).items()}

    def summarize(self, x: Tensor, y: Tensor, weight: Tensor | None, num_classes: int) -> Statistics:
        """Return the statistics of rows x (B, D) of classes y (B,) with weights (B,); among them `class_count` (C,)."""
        raise NotImplementedError

    def statistics(self, x: Tensor, y: Tensor, weight: Tensor | None, num_classes: int) -> Statistics:
        """Return the same of any number of rows, of any type and as many as there are: some at a time in float64."""
        found: Statistics | None = None
        for rows in row_blocks(x, x.shape[1], 4 * num_classes):  # merging costs as much as a row of each class
            part_weight = None if weight is None else weight[rows].double()
            part = self.summarize(taken(x, rows), y[rows], part_weight, num_classes)
            found = part if found is None else self.merge(found, part)
        return self.summarize(x.double(), y, None, num_classes) if found is None else found

    def merge(self, one: Statistics, other: Statistics) -> Statistics:
        """Return the statistics of the rows of both."""
        return {name: one[name] + other[name] for name in one}

    def estimate(self, statistics: Statistics) -> Statistics:
        """Return the parameters that the statistics give."""
        raise NotImplementedError

    def log_likelihood(self, x: Tensor, parameters: Statistics) -> Tensor:
        """Return log p(x | c) for rows (B, D), (B, C)."""
        raise NotImplementedError

    def scores(self, x: Tensor, parameters: Statistics) -> Tensor:
        """Return the same for any number of rows, of any type, some at a time in float64."""
        parts = [self.log_likelihood(taken(x, rows), parameters) for rows in row_blocks(x, x.shape[1])]
        return torch.cat(parts) if parts else self.log_likelihood(x.double(), parameters)

    def occurrences(self, statistics: Statistics) -> Tensor | None:
        """How often what `feature_log_prob` weighs occurs in each class, or None where nothing is counted."""
        return None


def taken(x: Tensor, rows: slice) -> Tensor:
    """Some rows in float64; all of a sparse matrix, which comes as one block."""
    if is_sparse(x):
        return x.double()
    return x[rows].to(torch.float64, memory_format=torch.contiguous_format).contiguous()


def class_counts(y: Tensor, weight: Tensor | None, num_classes: int) -> Tensor:
    """Number, or weight, of the rows of each class, (B,) to (C,) float64.

    >>> class_counts(torch.tensor([1, 1, 2]), None, 4)
    tensor([0., 2., 1., 0.], dtype=torch.float64)
    """
    return torch.bincount(y, weight, minlength=num_classes).double()


def class_sums(x: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Sum of the rows of each class: (B, D) and (B,) to (C, D); rows may be a sparse matrix (CSR).

    >>> class_sums(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([1, 0, 1]), 2)
    tensor([[3., 4.],
            [6., 8.]])
    """
    if is_sparse(x):
        cells = y[stored_rows(x)] * x.shape[1] + x.col_indices()  # of each stored number in the result
        return torch.bincount(cells, x.values(), num_classes * x.shape[1]).to(x.dtype).view(num_classes, -1)
    return x.new_zeros(num_classes, x.shape[1]).index_add_(0, y, x)


def scaled_rows(x: Tensor, weight: Tensor | None) -> Tensor:
    """Rows (B, D), each times its weight (B,); rows may be a sparse matrix (CSR)."""
    if weight is None:
        return x
    if is_sparse(x):
        crow = x.crow_indices()
        return sparse_rows(crow, x.col_indices(), x.values() * weight[stored_rows(x)], x.shape)
    return x * weight.unsqueeze(1)


def row_blocks(x: Tensor, width: int, least: int = 1) -> Iterator[slice]:
    """Ranges of rows of `width` numbers each, of at least `least` rows; a sparse matrix is one block."""
    chunk = CHUNK if x.device.type == "cpu" else LARGE_CHUNK
    if torch.compiler.is_exporting():  # for any number of rows
        yield slice(None)
        return
    size = len(x) if is_sparse(x) else max(1, least, chunk // max(1, width))
    for start in range(0, len(x), max(1, size)):
        yield slice(start, start + size)
