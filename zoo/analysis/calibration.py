r"""Calibration: whether what a model says with probability p is right in a share p of cases.

Answers are put into B bins by the probability that was said, and in each the mean probability $p_b$ is held against the
share $a_b$ that came true, of the weight $w_b$ of all answers:

```math
\mathrm{ECE} = \sum_b w_b\, |a_b - p_b|, \quad \mathrm{MCE} = \max_b |a_b - p_b|, \quad
\text{Brier} = \sum_i w_i \sum_c (p_{ic} - [y_i = c])^2
```

Of two classes the probability is that of the second one, and the Brier score counts one of its two equal terms; of more
it is that of the class that was answered. A bin holds the probabilities above its lower end, up to its upper one.

Sources: Brier 1950; Murphy & Winkler 1977 (the diagram); Naeini, Cooper & Hauskrecht 2015; Guo, Pleiss, Sun &
Weinberger 2017, "On calibration of modern neural networks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import Tensor

from zoo import visual
from zoo.checks import Range
from zoo.data.array_data import check_weight
from zoo.data.arrays import to_tensor
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.training.analyses import Findings, Subject
from zoo.training.terminal import text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Calibration", "analyze", "calibration", "calibration_of"]


@dataclass(frozen=True)
class Calibration:
    """How far probabilities come true.

    Attributes:
        edges: of the bins, (B + 1,).
        said: mean probability of each bin, (B,), NaN of an empty one.
        right: share that came true, (B,).
        counts: answers in each bin, (B,).
        ece: expected calibration error.
        mce: the largest error of a bin.
        brier: Brier score.
        of: what is said with the probabilities.
    """

    edges: Tensor
    said: Tensor
    right: Tensor
    counts: Tensor
    ece: float
    mce: float
    brier: float
    of: str = "right"

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each bin that holds an answer."""
        return [
            {"from": float(self.edges[b]), "to": float(self.edges[b + 1]), "answers": int(self.counts[b]),
             "said": float(self.said[b]), "came true": float(self.right[b])}
            for b in self.counts.nonzero().squeeze(1).tolist()
        ]  # fmt: skip

    def figure(self) -> Figure:
        """Draw the reliability diagram."""
        title = f"calibration error {self.ece:.3f}, Brier score {self.brier:.3f}"
        return visual.reliability(self.said, self.right, self.counts, title, self.of)  # type: ignore[arg-type]

    def __str__(self) -> str:
        said = f"expected calibration error {self.ece:.4g}, largest {self.mce:.4g}, Brier score {self.brier:.4g}"
        return f"{text_table(self.table())}\n{said}"


def calibration_of(
    probability: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    *,
    bins: int = 10,
    strategy: str = "uniform",
    of: str = "",
) -> Calibration:
    """Return how far probabilities come true.

    Args:
        probability: of each class, (N, C).
        y: classes, (N,).
        weight: of each row, (N,).
        bins: B.
        strategy: bins of equal width (`uniform`), or of equally many answers (`quantile`).
        of: the name of the second of two classes.

    Example:
        >>> p = torch.tensor([[0.2, 0.8], [0.2, 0.8], [0.2, 0.8], [0.2, 0.8], [0.2, 0.8]])
        >>> found = calibration_of(p, torch.tensor([1, 1, 1, 1, 0]))
        >>> round(found.ece, 6), round(found.brier, 6)
        (0.0, 0.16)
    """
    if bins < 1:
        raise ZooError(f"bins must be at least 1, not {bins}.")
    p, y = probability.detach().double().cpu(), y.detach().cpu().long()
    if not len(y):
        raise ZooError("There is no row to look at.")
    weight = torch.ones(len(y), dtype=torch.float64) if weight is None else weight.double().cpu()
    weight = weight / weight.sum()
    if p.shape[1] == 2:
        said, true, brier = p[:, 1], y == 1, float(weight @ (p[:, 1] - y.double()).square())
    else:
        said, answer = p.max(1)
        true = answer == y
        targets = torch.nn.functional.one_hot(y, p.shape[1]).double()
        brier = float(weight @ (p - targets).square().sum(1))
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    if strategy == "quantile":
        edges = torch.quantile(said, edges)
    home = torch.searchsorted(edges[1:-1].contiguous(), said.contiguous())  # (N,): above the lower end, up to the upper
    sums = torch.zeros(4, bins, dtype=torch.float64)
    for row, values in enumerate((torch.ones_like(weight), weight, weight * said, weight * true.double())):
        sums[row].index_add_(0, home, values)
    counts, share = sums[0].long(), sums[1]
    away = (sums[3] - sums[2]).abs()
    there = share > 0
    largest = float((away[there] / share[there]).max())
    name = of if p.shape[1] == 2 and of else "right"
    return Calibration(edges, sums[2] / share, sums[3] / share, counts, float(away.sum()), largest, brier, name)


def calibration(
    model: ZooModel,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    bins: int = 10,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> Calibration:
    """Return how far the probabilities of a trained model come true on rows that it has not seen.

    Args:
        model: a trained classifier that says probabilities.
        x: rows, as `predict` takes them.
        y: their classes, (N,), in the user's labels.
        sample_weight: weights, (N,).
        bins: B.
        strategy: bins of equal width (`uniform`), or of equally many answers (`quantile`).

    Raises:
        ZooError: for a model that says no probabilities.

    Example:
        >>> import torch, zoo
        >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.2]])
        >>> model = zoo.fit(zoo.create_model("naive_bayes"), x, [0, 0, 1, 1])
        >>> round(calibration(model, x, [0, 0, 1, 1]).ece, 6)
        0.0
    """
    model.check_fitted()
    _check(model)
    columns = model.predict_columns(x)
    targets = model.encode_targets(y, len(columns["prediction"]))
    weight = None if sample_weight is None else check_weight(to_tensor(sample_weight, "weight"), len(targets))
    probability = _probability(model, columns)
    return calibration_of(probability, targets, weight, bins=bins, strategy=strategy, of=_second(model))


def _check(model: ZooModel) -> None:
    if model.entry.unsupervised or model.spec is None or model.spec.target != "class":
        raise ZooError(f"{model.entry.name} answers no classes: calibration is that of their probabilities.")


def _probability(model: ZooModel, columns: dict[str, Tensor]) -> Tensor:
    if "probability" not in columns:
        more = " (model.probability=true gives it some)" if "probability" in model.hparams else ""
        raise ZooError(f"{model.entry.name} says no probabilities, which calibration looks at{more}.")
    return columns["probability"]


def _second(model: ZooModel) -> str:
    assert model.spec is not None
    names = model.spec.class_names
    return str(names[1]) if names is not None and len(names) == 2 else "of class 1"


@torch.inference_mode()
def check(subject: Subject) -> None:
    """Raise for a model whose answers have no probabilities."""
    _check(subject.model)
    _probability(subject.model, subject.model.predict_batch(subject.rows(1)))


def analyze(
    subject: Subject,
    *,
    bins: Annotated[int, Range(1)] = 10,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> Findings:
    """Look how far the probabilities of a finished run come true on its held-out rows."""
    model = subject.model
    parts = [(_probability(model, model.predict_batch(b)), b.y, b.weight) for b in subject.batches()]
    p, y, weights = zip(*parts, strict=True)
    weight = None if weights[0] is None else torch.cat(weights)
    found = calibration_of(torch.cat(p), torch.cat(y), weight, bins=bins, strategy=strategy, of=_second(model))
    summary = [{"ece": found.ece, "mce": found.mce, "brier": found.brier, "rows": int(found.counts.sum())}]
    tables = {"calibration": found.table(), "calibration_summary": summary}
    return Findings({"calibration": found.figure()}, tables, str(found))
