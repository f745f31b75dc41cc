r"""The categorical likelihood: each feature takes one of a few values, numbered from 0.

```math
\log p(x \mid c) = \sum_d \log \theta_{c d x_d},\qquad
\theta_{cdk} = \frac{N_{cdk} + \alpha}{\sum_l N_{cdl} + \alpha},\qquad
N_{cdk} = \sum_{i : y_i = c} w_i [x_{id} = k]
```

- $K_d$: number of categories of a feature, the largest that was seen and 1 more; `num_categories` $(D,)$
- $N$, $\log \theta$: of all features side by side, $(C, \sum_d K_d)$

Categories that first appear in a late batch widen the table; those of two processes merge into the wider one.
Deviation: a category that training never saw says nothing of the class: its feature is left out of the sum
(scikit-learn's `CategoricalNB` raises an IndexError).

Letters: B rows, D features, C classes, K all categories of all features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.naive_bayes.counts import SMALLEST
from zoo.models.naive_bayes.likelihood import Likelihood, Statistics, class_counts
from zoo.numerics.sparse import sparse_rows

__all__ = ["Categorical", "widened"]

LIMIT = 1 << 27  # numbers in the table: 1 GB


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Categories that are numbered from 0.

    Attributes:
        alpha: added to every count.
        min_categories: number of categories at least, one number or one a feature.
    """

    alpha: float = 1.0
    min_categories: int | Sequence[int] = 0
    parameters = ("feature_log_prob", "categories")

    def check(self, num_features: int) -> None:
        if not isinstance(self.min_categories, int) and len(self.min_categories) != num_features:
            raise ZooError(
                f"model.min_categories has {len(self.min_categories)} numbers for {num_features} features: give one, "
                "or one a feature."
            )

    def summarize(self, x: Tensor, y: Tensor, weight: Tensor | None, num_classes: int) -> Statistics:
        if weight is not None:  # a row that weighs nothing brings no category
            there = weight != 0
            x, y, weight = x[there], y[there], weight[there]
        codes, width = category_codes(x), x.shape[1]
        sizes = torch.as_tensor(self.min_categories, device=x.device).expand(width)
        if len(codes):
            sizes = torch.maximum(sizes, codes.amax(0) + 1)
        total = int(sizes.sum())
        if num_classes * total > LIMIT:
            largest = int(sizes.argmax())
            raise ZooError(
                f"Categories are numbered 0, 1, 2, ..., and feature {largest} holds {int(sizes[largest]) - 1:,}: "
                "number its values one after the other, or pass model.likelihood=gaussian."
            )
        cells = y.unsqueeze(1) * total + starts(sizes) + codes  # (B, D)
        weights = None if weight is None else weight.repeat_interleave(width)
        counts = torch.bincount(cells.flatten(), weights, minlength=num_classes * total)
        return {
            "class_count": class_counts(y, weight, num_classes),
            "num_categories": sizes.clone(),
            "category_count": counts.view(num_classes, total).double(),
        }

    def merge(self, one: Statistics, other: Statistics) -> Statistics:
        sizes = torch.maximum(one["num_categories"], other["num_categories"])
        counts = [widened(part["category_count"], part["num_categories"], sizes) for part in (one, other)]
        return {
            "class_count": one["class_count"] + other["class_count"],
            "num_categories": sizes,
            "category_count": counts[0] + counts[1],
        }

    def occurrences(self, statistics: Statistics) -> Tensor:
        return statistics["category_count"]

    def estimate(self, statistics: Statistics) -> Statistics:
        sizes, smoothed = statistics["num_categories"], statistics["category_count"] + self.alpha
        owner = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)  # the feature of each category
        totals = smoothed.new_zeros(len(smoothed), len(sizes)).index_add_(1, owner, smoothed)
        return {"feature_log_prob": smoothed.log() - totals.log()[:, owner], "categories": sizes.clone()}

    def log_likelihood(self, x: Tensor, parameters: Statistics) -> Tensor:
        sizes, logs = parameters["categories"], parameters["feature_log_prob"]
        table = torch.cat([logs.clamp_min(SMALLEST).T, logs.new_zeros(1, len(logs))])  # (K + 1, C)
        codes = category_codes(x)
        cells = torch.where(codes < sizes, starts(sizes) + codes, len(table) - 1)
        if torch.compiler.is_exporting():
            return table[cells].sum(1)
        # One-hot rows, D ones in each, as a sparse matrix: many times faster than gathering rows of the table.
        crow = torch.arange(0, cells.numel() + 1, max(1, x.shape[1]), device=x.device)
        ones = torch.ones_like(cells, dtype=table.dtype)
        return sparse_rows(crow, cells.flatten(), ones.flatten(), (len(x), len(table))) @ table


def category_codes(x: Tensor) -> Tensor:
    """The numbers of categories in rows (B, D) as integers; raises unless they are whole and not negative."""
    codes = x.long()
    if torch.compiler.is_exporting():
        return codes
    if x.is_floating_point() and not torch.equal(codes.to(x.dtype), x):
        odd = x[codes.to(x.dtype) != x][0].item()
        raise ZooError(
            f"Categories are whole numbers from 0, and the features hold {odd:g}: number them (of a data set that is "
            "scaled, data.standardize=false), or pass model.likelihood=gaussian."
        )
    if codes.numel() and codes.min() < 0:
        raise ZooError(
            f"Categories are numbered from 0, and the features hold {int(codes.min())}: number them, or pass "
            "model.likelihood=gaussian."
        )
    return codes


def starts(sizes: Tensor) -> Tensor:
    """The place of each feature's first category, (D,)."""
    return sizes.cumsum(0) - sizes


def widened(counts: Tensor, sizes: Tensor, wider: Tensor) -> Tensor:
    """Spread a table of counts over more categories.

    Args:
        counts: (C, sum of `sizes`).
        sizes: categories of each feature, (D,).
        wider: as many or more of each, (D,).

    Returns:
        (C, sum of `wider`), 0 for what is new.

    Example:
        >>> widened(torch.tensor([[1, 2, 3]]), torch.tensor([1, 2]), torch.tensor([2, 2]))
        tensor([[1, 0, 2, 3]])
    """
    if torch.equal(sizes, wider):
        return counts
    shift = (starts(wider) - starts(sizes)).repeat_interleave(sizes)
    place = torch.arange(counts.shape[1], device=counts.device) + shift
    return counts.new_zeros(len(counts), int(wider.sum())).index_copy_(1, place, counts)
