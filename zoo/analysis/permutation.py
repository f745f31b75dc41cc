r"""What a feature is worth to a trained model: how much worse it answers when the feature's values change places.

```math
I_f = s(X, y) - \frac1R \sum_r s(X^{(f, r)}, y)
```

with the score s (accuracy, or R²) and $X^{(f, r)}$ the rows whose feature f is permuted. It asks nothing of the model
but answers, so that it is there for every supervised model, and, on rows that the model has not seen, tells what it
relies on. Of features that carry the same, each looks worthless: the other one is left in place.

Sources: Breiman, "Random forests", 2001, §10; Fisher, Rudin & Dominici, "All models are wrong, but many are useful",
2019.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.data.arrays import column_names, to_tensor
from zoo.data.preprocessing import as_table
from zoo.errors import ZooError
from zoo.models.base import ZooModel

__all__ = ["Importances", "permutation_importance"]


class Importances(NamedTuple):
    """What F features are worth: `mean` and `std` over the repeats, (F,); each fall of the score, (F, R); the score of
    the rows as they are; and the features' names."""

    mean: Tensor
    std: Tensor
    falls: Tensor
    score: float
    names: tuple[str, ...]


def permutation_importance(
    model: ZooModel, x: Any, y: Any, sample_weight: Any = None, *, num_repeats: int = 5, seed: int = 0
) -> Importances:
    """Return how much the score of a trained model falls when a feature is permuted among the rows.

    Args:
        model: any supervised model that is trained.
        x: rows (N, F) as `predict` takes them, an array or a table, whose columns are the features.
        y: their targets, (N,) or (N, K), in the user's labels.
        sample_weight: weights, (N,).
        num_repeats: R, how often each feature is permuted.
        seed: of the permutations.

    Raises:
        ZooError: for rows that are no table of features, or a model that predicts no targets.

    Example:
        >>> import torch, zoo
        >>> x = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = zoo.fit(zoo.create_model("decision_tree"), x, 3 * x[:, 0])
        >>> found = permutation_importance(model, x, 3 * x[:, 0])
        >>> bool(found.mean[0] > 1.5), bool(found.mean[1].abs() < 0.1)
        (True, True)
    """
    if num_repeats < 1:
        raise ZooError(f"num_repeats must be at least 1, not {num_repeats}.")
    names = column_names(x)
    rows: Any
    if names is not None:
        rows = as_table(x)
    else:
        rows = to_tensor(x, "X", missing=True)
        if rows.ndim != 2:
            raise ZooError(f"Features are columns of rows (N, F), and X has the shape {tuple(rows.shape)}.")
        spec = model.spec
        known = spec.feature_names if spec is not None and len(spec.feature_names or ()) == rows.shape[1] else None
        names = list(known or (f"x[{f}]" for f in range(rows.shape[1])))
    whole = model.score(x, y, sample_weight)
    generator = torch.Generator().manual_seed(seed)
    falls = torch.zeros(len(names), num_repeats, dtype=torch.float64)
    for repeat in range(num_repeats):
        order = torch.randperm(len(rows), generator=generator)
        for feature in range(len(names)):
            falls[feature, repeat] = whole - model.score(_permuted(rows, feature, order), y, sample_weight)
    return Importances(falls.mean(1), falls.std(1, correction=0), falls, whole, tuple(names))


def _permuted(rows: Any, feature: int, order: Tensor) -> Any:
    if isinstance(rows, Tensor):
        changed = rows.clone()
        changed[:, feature] = rows[order, feature]
        return changed
    return rows.set_column(feature, rows.schema.names[feature], rows.column(feature).take(order.numpy()))
