r"""From rows, targets and weights in memory to grown trees: measures, units, and what rows add to the sums of nodes.

Targets are taken in $(y - m) / s$ and weights in $w / v$, with m the middle of the targets and s, v powers of two above
what is left of them, so that sums of squares neither overflow nor vanish; the trees come back in the user's units.

Letters: N rows, F features, T trees, S sums, C classes, K targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.trees.bins import Bins, Codes, bins_of, code_rows, encode, sketch_rows
from zoo.models.trees.bootstrap import Bootstrap, bootstrap_keys, poisson_thresholds
from zoo.models.trees.criteria import Criterion, Units, power_of_two, units_for
from zoo.models.trees.in_memory import grow_trees
from zoo.models.trees.nodes import Limits, RowSums, root_paths
from zoo.models.trees.sparse_codes import SparseCodes, code_sparse_rows
from zoo.models.trees.splits import Rules
from zoo.models.trees.trees import Trees, pruned
from zoo.numerics.hashing import content_hash
from zoo.numerics.sparse import is_sparse, take_rows

__all__ = [
    "Growth",
    "Learned",
    "Measures",
    "Scale",
    "check_targets",
    "counted",
    "criterion_for",
    "measure",
    "part_target",
    "sketched",
]

_LARGEST_DRAW = 15.0  # how often a bootstrap takes a row, at most


def criterion_for(chosen: str | None, target: str | None, num_targets: int) -> str:
    """Return the criterion that is chosen, or the usual one of such targets.

    Raises:
        ZooError: for one that does not fit the targets.
    """
    fitting = ("gini", "entropy") if target == "class" else ("squared_error", "absolute_error", "poisson")
    if chosen is not None and chosen not in fitting:
        raise ZooError(f"model.criterion={chosen} does not fit {target} targets: choose {' or '.join(fitting)}.")
    if num_targets > 1 and (chosen or fitting[0]) != "squared_error":
        raise ZooError(f"model.criterion={chosen} takes one target, and there are {num_targets}: use squared_error.")
    return chosen or fitting[0]


class Measures(NamedTuple):
    """What is known of N rows before trees grow on them.

    Attributes:
        num_rows: N, of weights above 0.
        total_weight: the sum of their weights.
        most_weight: the largest of these.
        low: the smallest target, where targets are values.
        high: the largest.
        class_weight: weight of each class, (C,); None where targets are values.
    """

    num_rows: int
    total_weight: float
    most_weight: float
    low: float = math.inf
    high: float = -math.inf
    class_weight: Tensor | None = None

    def tensors(self, device: torch.device | None = None) -> dict[str, Tensor]:
        """Return what is known as tensors, by name."""
        numbers = torch.tensor(self[1:5], dtype=torch.float64, device=device).unbind()
        found = {"num_rows": torch.tensor(self.num_rows, device=device)}
        found |= zip(self._fields[1:5], numbers, strict=True)
        return found if self.class_weight is None else {**found, "class_weight": self.class_weight}


def measure(y: Tensor, weight: Tensor | None, num_classes: int | None) -> Measures:
    """Return the measures of some rows.

    Args:
        y: their targets, (N,) or (N, K).
        weight: their weights, above 0, (N,), float64; None where all are 1.
        num_classes: C; None where targets are values.
    """
    number = y.shape[0]
    total, most = (float(number), 1.0 if number else 0.0) if weight is None else _total_and_most(weight)
    if num_classes is not None:
        return Measures(number, total, most, class_weight=torch.bincount(y, weight, num_classes).double())
    if not number:
        return Measures(0, total, most)
    low, high = y.aminmax()
    return Measures(number, total, most, float(low), float(high))


def counted(x: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the rows (N, F), targets and weights of those whose weight is above 0; None for weights that are all 1."""
    if weight is None or bool((there := weight > 0).all()):
        return x, y, weight
    return take_rows(x, there), y[there], weight[there]


def _total_and_most(weight: Tensor) -> tuple[float, float]:
    return float(weight.sum()), float(weight.amax()) if len(weight) else 0.0


def check_targets(y: Tensor, weight: Tensor | None, criterion: str, name: str) -> None:
    """Raise one line for targets or weights that no tree is grown on; `name` is the model's."""
    if weight is not None and bool((weight < 0).any()):
        raise ZooError(f"{name} was given negative sample weights: weights must be 0 or more.")
    if y.is_floating_point() and not bool(y.isfinite().all()):
        raise ZooError(f"{name} was given targets that are NaN or infinite: drop those rows first.")
    if criterion == "poisson" and bool((y < 0).any()):
        raise ZooError("model.criterion=poisson needs targets of 0 or more: use squared_error.")


class Scale(NamedTuple):
    """The units of the sums (`zoo.models.trees.criteria.Units`), and those of targets and weights: what is taken from
    targets, what they and weights are divided by."""

    count_bits: float
    weight_unit: float
    gradient_unit: float
    middle: float
    target: float
    weight: float

    @property
    def units(self) -> Units:
        """Of the sums."""
        return Units(int(self.count_bits), self.weight_unit, self.gradient_unit)


class Learned(NamedTuple):
    """What was learned from rows: their measures, the scale of their sums, and the trees."""

    measures: Measures
    scale: Scale
    trees: Trees


@dataclass(frozen=True)
class Growth:
    """All that trees of some options need to know of the data to grow.

    Attributes:
        name: of the model, for what it says.
        options: the hyperparameters that all trees share.
        criterion: of splits, as `model.criterion` names it.
        num_features: F.
        num_classes: C; None for values.
        num_targets: K.
        categorical: features whose values are categories.
        random_thresholds: whether thresholds are drawn.
        seed: of the draws.
        trees: numbers of the first tree and of the one behind the last, by which rows and features are drawn.
        draw_rate: how often a tree sees a row on average; None where each sees every row once.
        least_classes: there must be among the rows.
    """

    name: str
    options: Mapping[str, Any]
    criterion: str
    num_features: int
    num_classes: int | None
    num_targets: int = 1
    categorical: tuple[int, ...] = ()
    random_thresholds: bool = False
    seed: int = 0
    trees: tuple[int, int] = (0, 1)
    draw_rate: float | None = None
    least_classes: int = 2

    # -- how the trees grow --------------------------------------------------------------------------------------------

    @property
    def num_trees(self) -> int:
        """T."""
        return self.trees[1] - self.trees[0]

    def num_sums(self, values: Tensor) -> int:
        """S, where `values` are those of the targets that absolute errors are taken from."""
        if self.criterion == "absolute_error":
            return len(values)
        return self.num_classes or 1 + self.num_targets

    def rules(self, scale: Scale, total_weight: float, values: Tensor) -> Rules:
        """Which splits are allowed; arguments are `Measures.total_weight` and those of `num_sums`."""
        options, median = self.options, self.criterion == "absolute_error"
        name: Any = "newton" if self.criterion == "squared_error" else self.criterion
        monotone = options["monotone"]
        return Rules(
            Criterion(name, scale.units, values=values if median else None),
            min_samples_leaf=options["min_samples_leaf"],
            min_weight_leaf=options["min_weight_fraction_leaf"] * total_weight / scale.weight,
            categorical=self.categorical,
            monotone=tuple(monotone) if monotone and any(monotone) else None,
            random_thresholds=self.random_thresholds,
        )

    def limits(self, scale: Scale) -> Limits:
        """When the trees stop."""
        options = self.options
        return Limits(
            max_depth=options["max_depth"],
            min_samples_split=options["min_samples_split"],
            min_gain=options["min_gain"] / self._gain_scale(scale),
            max_leaf_nodes=options["max_leaf_nodes"],
            max_features=self.max_features,
            histogram_size=options["histogram_mb"] * (1 << 17),  # of eight bytes
        )

    @property
    def max_features(self) -> int | None:
        """How many features a node looks at; None for all."""
        wanted, number = self.options["max_features"], self.num_features
        if wanted == "auto":
            wanted = "sqrt" if self.num_classes else None
        if wanted == "sqrt":
            return max(1, math.isqrt(number))
        if wanted == "log2":
            return max(1, int(math.log2(number)))
        if isinstance(wanted, float):
            return max(1, int(wanted * number))
        return None if wanted is None else min(wanted, number)

    @property
    def root_paths(self) -> Tensor:
        """Of the roots, by which features and thresholds are drawn, (T,)."""
        first, end = self.trees
        return root_paths(self.seed, end)[first:]

    # -- units ---------------------------------------------------------------------------------------------------------

    def scale(self, measures: Measures) -> Scale:
        """Return what follows from the measures, in which no sum overflows.

        Raises:
            ZooError: where there are no rows, or too few classes.
        """
        if not measures.num_rows:
            raise ZooError(f"{self.name} was given no rows with a weight above 0: there is nothing to learn from.")
        if measures.class_weight is not None and int(measures.class_weight.count_nonzero()) < self.least_classes:
            raise ZooError(f"{self.name} was given a single class: at least two are needed to tell them apart.")
        most = 1.0 if self.draw_rate is None else _LARGEST_DRAW
        low, high, middle = measures.low, measures.high, 0.0
        if self.num_classes is not None:
            spread = 1.0
        elif self.criterion == "squared_error":
            middle = low / 2 + high / 2
            spread = max(middle - low, high - middle)
        else:
            spread = max(abs(low), abs(high))
        units = units_for(measures.num_rows, most, most)
        of_weights = power_of_two(measures.most_weight)
        return Scale(units.count_bits, units.weight, units.gradient, middle, power_of_two(spread), of_weights)

    def _gain_scale(self, scale: Scale) -> float:
        """What a gain of targets of unit size is multiplied by."""
        if self.criterion == "squared_error":
            return max(scale.target * scale.target, 2.0**-1022)
        return scale.target if self.criterion == "poisson" else 1.0

    def in_units(self, trees: Trees, scale: Scale) -> Trees:
        """Return grown trees in the units of targets and weights."""
        gain_scale = self._gain_scale(scale)
        if gain_scale != 1.0 or scale.weight != 1.0:
            gain = trees.gain * gain_scale * scale.weight
            trees = trees._replace(weight=trees.weight * scale.weight, gain=gain)
        of_gradients = self.criterion in ("squared_error", "poisson")
        return trees._replace(value=trees.value * scale.target + scale.middle) if of_gradients else trees

    # -- rows ----------------------------------------------------------------------------------------------------------

    def row_sums(self, x: Tensor, y: Tensor, weight: Tensor | None, scale: Scale, values: Tensor) -> RowSums:
        """What rows (N, F) with targets and weights (None where all are 1) add to the sums of their nodes."""
        bootstrap = None if self.draw_rate is None else self.bootstrap(content_hash(x, y.view(len(y), -1)))
        if weight is None:
            part: Any = 1.0 / scale.weight
            fixed = torch.full((len(y),), round(part * scale.weight_unit), dtype=torch.int64, device=y.device)
        else:
            part = weight / scale.weight
            fixed = scale.units.fixed_weight(part)
            part = part.unsqueeze(1)
        if self.criterion == "absolute_error":  # by the bins of the targets
            edges = (values[1:] + values[:-1]) / 2
            return RowSums(fixed, torch.searchsorted(edges, y.contiguous()), None, bootstrap)
        if self.num_classes is not None:
            return RowSums(fixed, y.long(), None, bootstrap)
        gradient = (y.view(len(y), -1).double() - scale.middle) / scale.target * part
        return RowSums(fixed, None, scale.units.fixed_gradient(gradient), bootstrap)

    def bootstrap(self, content: Tensor) -> Bootstrap:
        """How often each tree draws rows, by their content (N,)."""
        assert self.draw_rate is not None
        first, end = self.trees
        keys = bootstrap_keys(self.seed, end)[first:].to(content.device)
        return Bootstrap(content, keys, poisson_thresholds(self.draw_rate).to(content.device))

    # -- all at once ---------------------------------------------------------------------------------------------------

    def learn(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Learned:
        """Grow all trees on rows in memory.

        Args:
            x: rows (N, F), float64, dense or sparse; NaN is a missing value.
            y: targets, (N,) or (N, K).
            weight: weights above 0, (N,), float64; None where all are 1.

        Raises:
            ZooError: as `scale` does, or for bins that do not fit into memory.
        """
        measures, num_bins = measure(y, weight, self.num_classes), self.options["num_bins"]
        scale, values = self.scale(measures), y.new_zeros(0, dtype=torch.float64)
        codes: Codes | SparseCodes
        if self.criterion == "absolute_error":
            bins, values = part_target(bins_of(sketch_rows(sketched(x, y), num_bins), num_bins, self.categorical))
            codes = encode(x, bins, self.categorical)
        elif is_sparse(x):
            bins, codes = code_sparse_rows(x, num_bins)
        else:
            bins, codes = code_rows(x, num_bins, self.categorical)
        rows = self.row_sums(x, y, weight, scale, values)
        return Learned(measures, scale, self.grow(codes, bins, rows, scale, measures.total_weight, values))

    def grow(
        self, codes: Codes | SparseCodes, bins: Bins, rows: RowSums, scale: Scale, total_weight: float, values: Tensor
    ) -> Trees:
        """Grow all trees on coded rows, prune them, and return them in the user's units."""
        trees, _ = grow_trees(
            codes, rows, bins, self.rules(scale, total_weight, values), self.limits(scale), num_trees=self.num_trees,
            num_sums=self.num_sums(values), paths=self.root_paths, leaves=False,
        )  # fmt: skip
        return self.cut(self.in_units(trees, scale))

    def cut(self, trees: Trees) -> Trees:
        """Return trees without the branches that are not worth their leaves."""
        alpha = self.options["ccp_alpha"]
        return pruned(trees, alpha) if alpha > 0 else trees


def sketched(x: Tensor, y: Tensor) -> Tensor:
    """Rows with their target as one more feature, of which bins are made for absolute errors."""
    return torch.cat([x, y.double().view(-1, 1)], dim=1)


def part_target(bins: Bins) -> tuple[Bins, Tensor]:
    """Part the sketched target from the features: its values, by the middle of their bins."""
    last = int(bins.number[-1])
    target = bins.lower[-1, :last] / 2 + bins.upper[-1, :last] / 2
    width = max(1, int(bins.number[:-1].max()) if len(bins.number) > 1 else 1)
    return Bins(bins.lower[:-1, :width], bins.upper[:-1, :width], bins.number[:-1]), target
