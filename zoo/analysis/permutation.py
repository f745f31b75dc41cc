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

from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from zoo import visual
from zoo.checks import Range
from zoo.data.arrays import column_names, scored, to_tensor
from zoo.data.preprocessing import as_table
from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.training.analyses import Findings, Subject
from zoo.training.terminal import text_table

__all__ = ["Importances", "analyze", "permutation_importance"]


class Importances(NamedTuple):
    """What F features are worth: `mean` and `std` over the repeats, (F,); each fall of the score, (F, R); the score of
    the rows as they are; and the features' names."""

    mean: Tensor
    std: Tensor
    falls: Tensor
    score: float
    names: tuple[str, ...]

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each feature, the one that is worth most first."""
        order = self.mean.sort(descending=True, stable=True).indices.tolist()
        return [{"feature": self.names[f], "fall": float(self.mean[f]), "std": float(self.std[f])} for f in order]


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


@torch.inference_mode()
def check(subject: Subject) -> None:
    """Raise for a model without targets to compare with, and for rows that are no table."""
    model, spec = subject.model, subject.model.spec
    assert spec is not None
    if model.entry.unsupervised or spec.target not in ("class", "value"):
        raise ZooError(f"{model.entry.name} predicts no targets to compare with: there is no score that could fall.")
    if spec.kind != "tabular" or spec.sparse:
        raise ZooError(f"Features are columns of a table, and {subject.data.name} is {spec.describe()}.")


def analyze(subject: Subject, *, repeats: Annotated[int, Range(1)] = 5, seed: Annotated[int, Range(0)] = 0) -> Findings:
    """Find what the columns of a finished run's table are worth to its model, on held-out rows.

    The features that a column was coded as, such as one for each category, are permuted together.
    """
    model, spec = subject.model, subject.model.spec
    assert spec is not None
    columns = coded_columns(model)
    batch = join(list(subject.batches()))
    metric = "accuracy" if spec.target == "class" else "r2"

    def score(x: Tensor) -> float:
        parts = batch._replace(x=x).split(4096)
        found = torch.cat([model.predict_batch(part)["prediction"] for part in parts])
        return scored(found, batch.y, batch.weight, classes=spec.target == "class")

    whole = score(batch.x)
    generator = torch.Generator().manual_seed(seed)
    falls = torch.zeros(len(columns), repeats, dtype=torch.float64)
    for repeat in range(repeats):
        order = torch.randperm(batch.size, generator=generator).to(batch.x.device)
        for number, places in enumerate(columns.values()):
            changed = batch.x.clone()
            changed[:, places] = batch.x[order][:, places]
            falls[number, repeat] = whole - score(changed)
    found = Importances(falls.mean(1), falls.std(1, correction=0), falls, whole, tuple(columns))
    rows = found.table()
    figure = visual.importance_ranges(found.mean, found.std, found.names, metric)
    said = (
        f"{metric} {whole:.4g} of {batch.size:,} rows, and how much it falls without a feature\n{text_table(rows[:20])}"
    )
    return Findings({"permutation_importance": figure}, {"permutation_importance": rows}, said)


def coded_columns(model: ZooModel) -> dict[str, list[int]]:
    """Return the user's columns with the features that each was coded as."""
    assert model.spec is not None
    encoder = None if model.preprocessing is None else model.preprocessing.encoder
    if encoder is None:
        names = model.spec.feature_names or [f"x[{f}]" for f in range(model.spec.num_features)]
        return {str(name): [place] for place, name in enumerate(names)}
    found, start = {}, 0
    for column in encoder.features:
        found[column.name] = list(range(start, start + len(column.feature_names)))
        start += len(column.feature_names)
    return found


def join(batches: list[Batch]) -> Batch:
    """Return batches of rows as one."""
    columns = [None if parts[0] is None else torch.cat(parts) for parts in zip(*batches, strict=True)]
    return Batch(*columns)  # type: ignore[arg-type]


def _permuted(rows: Any, feature: int, order: Tensor) -> Any:
    if isinstance(rows, Tensor):
        changed = rows.clone()
        changed[:, feature] = rows[order, feature]
        return changed
    return rows.set_column(feature, rows.schema.names[feature], rows.column(feature).take(order.numpy()))
