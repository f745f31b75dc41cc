r"""Which rows are trained on and which are asked: folds, stratified by class, whole by group, and samples of rows.

Each row is put into one of K folds, and a fold is asked of the model that the others trained. Groups go one by one, the
largest first, into the fold f where

```math
\sum_k n_{fk}\, c_k / N_k^2
```

is smallest, with $n_{fk}$ the rows of class k that the fold has, $c_k$ those of the group and $N_k$ all of them: there
the sum of squares of the folds' shares grows least. All rows together are one class more, so that sizes are even, too.

Letters: N rows, K folds, S samples, n rows of a sample.

Source: Stone 1974 (cross-validation); Efron 1979 (bootstrap).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.numerics.hashing import epoch_generator

__all__ = ["assign_folds", "balanced_order", "draw_samples"]


def assign_folds(
    num_rows: int, num_folds: int, *, strata: Tensor | None = None, groups: Any = None, seed: int = 0
) -> Tensor:
    """Return the fold of each row, (N,), drawn from the seed.

    The folds' sizes differ by one row at most, and so do their rows of each class where there are strata; of groups, no
    two folds share one.

    Args:
        num_rows: N.
        num_folds: K.
        strata: the class of each row, (N,), of which every fold gets its share.
        groups: what a row belongs to, (N,): numbers or texts. Rows of a group stay together.
        seed: of the draw.

    Raises:
        ZooError: for more folds than rows, or than groups.

    Example:
        >>> assign_folds(6, 3).bincount().tolist()
        [2, 2, 2]
        >>> assign_folds(4, 2, groups=["a", "b", "a", "c"]).tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])
        True
    """
    if num_folds < 2:
        raise ZooError(f"folds must be at least 2, not {num_folds}.")
    if num_folds > num_rows:
        raise ZooError(f"folds={num_folds} are more than the {num_rows} row{'s' * (num_rows != 1)}: lower folds.")
    generator = epoch_generator(seed, 0xF01D)
    if groups is None:
        order = torch.randperm(num_rows, generator=generator)
        if strata is not None:  # class by class, shuffled within each, and dealt out like cards
            order = order[strata[order].sort(stable=True).indices]
        folds = torch.empty(num_rows, dtype=torch.int64)
        folds[order] = torch.arange(num_rows) % num_folds
        return torch.randperm(num_folds, generator=generator)[folds]
    codes, count = _codes(groups, num_rows)
    if num_folds > count:
        raise ZooError(f"folds={num_folds} are more than the {count} group{'s' * (count != 1)}: lower folds.")
    classes = torch.zeros(num_rows, dtype=torch.int64) if strata is None else strata
    width = int(classes.max()) + 1
    counts = torch.bincount(codes * width + classes, minlength=count * width).view(count, width).double()
    counts = torch.cat([counts, counts.sum(1, keepdim=True)], 1)  # (G, classes and all rows)
    weight = counts.sum(0).clamp_min(1).reciprocal().square()
    order = torch.randperm(count, generator=generator)  # equals in any order
    order = order[counts[order, -1].sort(descending=True, stable=True).indices]
    held = torch.zeros(num_folds, width + 1, dtype=torch.float64)
    places = torch.empty(count, dtype=torch.int64)
    for group in order.tolist():
        places[group] = int((held @ (weight * counts[group])).argmin())
        held[places[group]] += counts[group]
    return places[codes]


def _codes(groups: Any, num_rows: int) -> tuple[Tensor, int]:
    """Return the number of each row's group, and how many groups there are."""
    import numpy as np

    found = groups.detach().cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if found.shape != (num_rows,):
        raise ZooError(f"groups have shape {found.shape}: one for each of the {num_rows} rows is needed.")
    found = found.astype(str) if found.dtype == object else found
    names, codes = np.unique(found, return_inverse=True)
    return torch.from_numpy(codes.astype(np.int64)), len(names)


def balanced_order(num_rows: int, *, strata: Tensor | None = None, seed: int = 0) -> Tensor:
    """Return the rows in an order of which each beginning is a sample, with each class's share where there are strata.

    >>> strata = torch.tensor([0] * 8 + [1] * 4)
    >>> strata[balanced_order(12, strata=strata)[:6]].bincount().tolist()
    [4, 2]
    """
    order = torch.randperm(num_rows, generator=epoch_generator(seed, 0x04DE4))
    if strata is None:
        return order
    order = order[strata[order].sort(stable=True).indices]
    counts = torch.bincount(strata)
    starts = counts.cumsum(0) - counts
    sorted_strata = strata[order]
    position = torch.arange(num_rows) - starts[sorted_strata]
    return order[((position + 0.5) / counts[sorted_strata]).sort(stable=True).indices]


def draw_samples(
    num_rows: int, num_samples: int, resample: str = "bootstrap", *, size: int | None = None, seed: int = 0
) -> list[Tensor]:
    """Return S samples of rows: each drawn with replacement (`bootstrap`), or no row in two of them (`disjoint`).

    Args:
        num_rows: N.
        num_samples: S.
        resample: which.
        size: n; None is N of a bootstrap, and N / S of disjoint samples.
        seed: of the draw.

    Raises:
        ZooError: for disjoint samples of more rows than there are.

    Example:
        >>> [len(sample) for sample in draw_samples(10, 3, "disjoint")]
        [3, 3, 3]
    """
    generator = epoch_generator(seed, 0xB007)
    if resample == "bootstrap":
        size = num_rows if size is None else size
        return list(torch.randint(num_rows, (num_samples, size), generator=generator))
    size = num_rows // num_samples if size is None else size
    if size < 1 or size * num_samples > num_rows:
        raise ZooError(
            f"{num_samples} disjoint samples of {max(size, 1)} row{'s' * (size > 1)} need more rows than the "
            f"{num_rows:,} that there are: lower samples, or take resample=bootstrap."
        )
    return list(torch.randperm(num_rows, generator=generator)[: num_samples * size].view(num_samples, size))
