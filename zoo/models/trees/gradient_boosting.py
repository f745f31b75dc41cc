r"""Gradient boosting: a sum of small trees, each a Newton step down the loss that the ones before it leave.

```math
F_m(x) = F_{m-1}(x) + \eta\, v_{m, \text{leaf}(x)}, \qquad
v = \frac{\sum_i g_i}{\sum_i h_i + \lambda}, \qquad
g_i = -w_i \frac{\partial \ell(y_i, F)}{\partial F}, \quad h_i = w_i \frac{\partial^2 \ell}{\partial F^2}
```

| loss | $\ell(y, F)$ | $g / w$ | $h / w$ |
|---|---|---|---|
| `log_loss`, two classes | $\log(1 + e^F) - y F$ | $y - p$ | $p (1 - p)$ |
| `log_loss`, C classes | $-\log p_y$, $p$ the softmax of C sums of trees | $[y = c] - p_c$ | $p_c (1 - p_c)$ |
| `squared_error` | $(y - F)^2 / 2$ | $y - F$ | 1 |
| `absolute_error`, `quantile` $q$ | $q (y - F)^+ + (1 - q) (F - y)^+$ | $q - [y < F]$ | 1 |

A tree is grown where the gain is greatest, to `num_leaves` leaves. Where the second derivative says nothing (the last
row) a leaf takes the quantile of its residuals instead.

The first pass sketches the features, the second collects the rows as codes, one byte a value, on which all trees are
grown at its end. Sums are integers, draws of rows and the choice of the validation rows are hashes of their content:
the model is the same for any batches, order of rows and number of processes.

Legend: η = `learning_rate`, λ = `l2`, p probabilities, w weights.
Sources: Friedman, "Greedy function approximation: a gradient boosting machine", 2001; Ke et al., "LightGBM", 2017.
Deviation: features are drawn for each node, not for each tree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import GradientModel, StreamingModel
from zoo.models.trees.bins import Bins, Codes, Sketch, bins_of, code_rows, encode, merge_sketches, sketch_rows
from zoo.models.trees.criteria import Criterion, power_of_two, units_for
from zoo.models.trees.growth import Limits, Nodes, RowSums, grow_trees, route
from zoo.models.trees.splits import Rules
from zoo.models.trees.trees import Trees, find_leaves, importances, joined, trees_of
from zoo.numerics.hashing import content_hash, splitmix64, stream_key, uniforms
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GradientBoosting"]

SKETCH, COLLECT, DONE = range(3)  # what a pass is for
_VALIDATION, _ROWS, _TREES = 0x7A11, 0x5A3B, 0x71EE  # streams of draws


@register_model(
    "gradient_boosting",
    family="trees",
    accepts={"tabular": ("class", "value"), "image": "class"},
    source="Friedman 2001",
    docs="gradient_boosting",
)
class GradientBoosting(StreamingModel, GradientModel):
    """Gradient boosting of trees grown best first, on rows that two passes turn into bytes.

    Args:
        loss: `log_loss` of classes; `squared_error`, `absolute_error` or `quantile` of values; null takes the first
            that
            fits.
        quantile: q of the quantile loss.
        num_trees: rounds; of more than two classes each round grows a tree for each class.
        learning_rate: η.
        num_leaves: leaves of a tree, at most.
        max_depth: of a tree's deepest leaf.
        min_samples_leaf: rows of a leaf, at least.
        min_hessian: Σ h of a leaf, at least, of weights that are at most 1.
        l2: λ, beside weights that are at most 1.
        max_samples: share of the rows that each round sees.
        max_features: share of the features that each node looks at.
        monotone: for each feature 1 where predictions must not fall with it, −1 where they must not rise, else 0.
        patience: rounds without a better validation loss after which training stops; null takes all rounds and all
        rows. validation_fraction: share of the rows that are held out for that.
        num_bins: bins of a feature; null gives each distinct value its own.
        seed: of the draws; null takes the run's.

    Raises:
        ZooError: for a hyperparameter out of range, a loss that does not fit the targets, or a single class.

    Example:
        >>> import torch, zoo
        >>> x = torch.linspace(0, 6, 200)[:, None]
        >>> model = zoo.fit(zoo.create_model("gradient_boosting"), x, x[:, 0].sin())
        >>> bool((model.predict(x) - x[:, 0].sin()).abs().mean() < 0.05)
        True
    """

    has_weights = False
    binary_logit = True

    def __init__(
        self,
        *,
        loss: Literal["log_loss", "squared_error", "absolute_error", "quantile"] | None = None,
        quantile: float = 0.5,
        num_trees: int = 100,
        learning_rate: float = 0.1,
        num_leaves: int = 31,
        max_depth: int | None = None,
        min_samples_leaf: int = 20,
        min_hessian: float = 1e-3,
        l2: float = 0.0,
        max_samples: float = 1.0,
        max_features: float = 1.0,
        monotone: list[int] | None = None,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        num_bins: int | None = 255,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name, low, high, open_low in (
            ("quantile", 0, 1, True),
            ("num_trees", 1, float("inf"), False),
            ("learning_rate", 0, float("inf"), True),
            ("num_leaves", 2, float("inf"), False),
            ("max_depth", 1, float("inf"), False),
            ("min_samples_leaf", 1, float("inf"), False),
            ("min_hessian", 0, float("inf"), False),
            ("l2", 0, float("inf"), False),
            ("max_samples", 0, 1, True),
            ("max_features", 0, 1, True),
            ("patience", 1, float("inf"), False),
            ("validation_fraction", 0, 0.9, True),
            ("num_bins", 2, 1 << 24, False),
        ):
            check_range(name, self.hparams[name], low, high, open_low=open_low)
        if any(sign not in (-1, 0, 1) for sign in monotone or ()):
            raise ZooError(f"model.monotone must hold 1, 0 or -1 for each feature, not {monotone}.")

    # -- building ------------------------------------------------------------------------------------------------------

    def initialize(self, spec: DataSpec) -> None:
        hp = self.hparams
        fitting = ("log_loss",) if spec.target == "class" else ("squared_error", "absolute_error", "quantile")
        if hp.loss is not None and hp.loss not in fitting:
            raise ZooError(f"model.loss={hp.loss} does not fit {spec.target} targets: choose {' or '.join(fitting)}.")
        if spec.num_targets > 1:
            raise ZooError(f"gradient_boosting takes one target, and there are {spec.num_targets}.")
        if hp.monotone and len(hp.monotone) != spec.num_features:
            given = len(hp.monotone)
            raise ZooError(f"model.monotone needs a number for each of the {spec.num_features} features, not {given}.")
        if hp.monotone and any(hp.monotone) and (spec.num_classes or 2) > 2:
            raise ZooError("model.monotone needs values or two classes to rise and fall: leave it at null.")
        self.loss_name = hp.loss or fitting[0]
        self.num_outputs: int = 1 if spec.num_classes in (None, 2) else spec.num_classes  # type: ignore[assignment]
        seed = torch.initial_seed() if hp.seed is None else hp.seed
        self.register_buffer("seed", torch.tensor(seed % 2**63))
        self.register_buffer("phase", torch.tensor(SKETCH))
        for name, value in Sketch.empty(spec.num_features)._asdict().items():
            self.register_accumulator(f"sketch_{name}", value)
        self.register_accumulator("codes", torch.zeros(0, spec.num_features, dtype=torch.uint8))
        self.register_accumulator("targets", torch.zeros(0, dtype=torch.float64))
        self.register_accumulator("weights", torch.zeros(0, dtype=torch.float64))
        self.register_accumulator("contents", torch.zeros(0, dtype=torch.int64))
        self._keep("bin", Bins(*(torch.zeros(0) for _ in Bins._fields)))
        self._keep("tree", joined([]))
        self.register_buffer("start", torch.zeros(self.num_outputs, dtype=torch.float64))
        self.register_buffer("train_losses", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("val_losses", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("importances", torch.zeros(spec.num_features, dtype=torch.float64))

    def _keep(self, prefix: str, columns: Any) -> None:
        for name, value in columns._asdict().items():
            self.register_buffer(f"{prefix}_{name}", value)

    def _kept(self, prefix: str, kind: Any) -> Any:
        return kind(*(getattr(self, f"{prefix}_{name}") for name in kind._fields))

    @property
    def trees(self) -> Trees:
        """The trees of all rounds, in a round one for each output."""
        return self._kept("tree", Trees)

    @property
    def done(self) -> bool:
        return int(self.phase) == DONE

    @property
    def passes_needed(self) -> int:
        return 2  # to find the bins, and to collect the rows

    # -- the passes ----------------------------------------------------------------------------------------------------

    def _rows(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (B, F), targets and weights (B,) of a batch, checked, without those of no weight."""
        if batch.y is None:
            raise ZooError("gradient_boosting learns from targets, and the data have none: pass y.")
        x, y = batch.x.flatten(1).double() + 0.0, batch.y.double().view(-1)
        weight = torch.ones_like(y) if batch.weight is None else batch.weight.double()
        if bool((weight < 0).any()):
            raise ZooError("gradient_boosting was given negative sample weights: weights must be 0 or more.")
        if not bool(y.isfinite().all()):
            raise ZooError("gradient_boosting was given targets that are NaN or infinite: drop those rows first.")
        there = weight > 0
        return (x, y, weight) if bool(there.all()) else (x[there], y[there], weight[there])

    def accumulate(self, batch: Batch) -> None:
        x, y, weight = self._rows(batch)
        if int(self.phase) == SKETCH:
            parts = [self._kept("sketch", Sketch), sketch_rows(x, self.hparams.num_bins)]
            for name, value in merge_sketches(parts, self.hparams.num_bins)._asdict().items():
                setattr(self, f"sketch_{name}", value)
            return
        codes = encode(x, self._kept("bin", Bins)).rows
        self.codes = torch.cat([self.codes.to(codes.dtype), codes])
        self.targets = torch.cat([self.targets, y])
        self.weights = torch.cat([self.weights, weight])
        self.contents = torch.cat([self.contents, self._content(x, y)])

    @staticmethod
    def _content(x: Tensor, y: Tensor) -> Tensor:
        return content_hash(torch.cat([x, y.unsqueeze(1)], dim=1))

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        sketches = [Sketch(*(state[f"sketch_{name}"] for name in Sketch._fields)) for state in states]
        sketch = merge_sketches(sketches, self.hparams.num_bins)._asdict()
        collected = ("codes", "targets", "weights", "contents")
        merged = {
            name: torch.cat([state[name] for state in states if len(state[name])] or [states[0][name]])
            for name in collected
        }
        return merged | {f"sketch_{name}": value for name, value in sketch.items()}

    def _check_sums(self) -> None:
        pass  # NaN stands for a missing value in a sketch, and targets are checked batch by batch

    def solve(self) -> dict[str, float | Tensor]:
        if int(self.phase) == SKETCH:
            self._keep("bin", bins_of(self._kept("sketch", Sketch), self.hparams.num_bins))
            self.phase.fill_(COLLECT)
            return {}
        codes = self.codes
        columns = codes.T.contiguous()
        values = self._boost(Codes(columns, codes), self._kept("bin", Bins), self.targets, self.weights, self.contents)
        for name in ("codes", "targets", "weights", "contents"):
            setattr(self, name, getattr(self, name)[:0])
        return values

    @torch.no_grad()
    def run_passes(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        first = list(itertools.islice(batches(), 2))
        if max_passes is not None or len(first) != 1 or int(self.phase) != SKETCH:
            return super().run_passes(batches, max_passes)
        x, y, weight = self._rows(self.as_batch(first[0]))
        bins, codes = code_rows(x, self.hparams.num_bins)
        return self._boost(codes, bins, y, weight, self._content(x, y))

    # -- boosting ------------------------------------------------------------------------------------------------------

    def _boost(self, codes: Codes, bins: Bins, y: Tensor, weight: Tensor, content: Tensor) -> dict[str, float | Tensor]:
        """Grow all trees on coded rows."""
        if not len(y):
            raise ZooError("gradient_boosting was given no rows with a weight above 0: there is nothing to learn from.")
        assert self.spec is not None
        if self.spec.target == "class" and bool((y == y[0]).all()):
            raise ZooError("gradient_boosting was given a single class: at least two are needed to tell them apart.")
        weight = weight / power_of_two(float(weight.max()))
        middle, scale = torch.zeros_like(y[0]), 1.0
        if self.spec.target == "value":
            middle = y.min() / 2 + y.max() / 2
            scale = power_of_two(float((y - middle).abs().max()))
        y = (y - middle) / scale
        held_out = self._draw(_VALIDATION, content) <= self.hparams.validation_fraction
        held_out &= self.hparams.patience is not None
        rows = torch.where(held_out, 0.0, weight)
        if not bool((rows > 0).any()) or (self.hparams.patience is not None and not bool(held_out.any())):
            raise ZooError("Too few rows to hold some out: pass model.patience=null, or another validation_fraction.")
        output = self._start(y, rows).expand(len(y), -1).clone()  # (N, K)
        start, losses, grown, best = output[0].clone(), [], [], 0
        for number in range(self.hparams.num_trees):
            output, trees = self._round(number, codes, bins, y, rows, content, output)
            grown.append(trees)
            each = self._losses(output, y)
            per_unit = scale if self.loss_name in ("absolute_error", "quantile") else scale**2 if scale != 1.0 else 1.0
            train = (each * rows).sum() / rows.sum() * per_unit
            valid = (each * weight)[held_out].sum() / weight[held_out].sum() * per_unit
            losses.append((float(train), float(valid)))
            if self.hparams.patience is not None:
                best = min(range(len(losses)), key=lambda i: losses[i][1])
                if number - best >= self.hparams.patience:
                    break
        kept = grown if self.hparams.patience is None else grown[: best + 1]
        trees = joined(kept)
        trees = trees._replace(value=trees.value * scale)
        self._keep("tree", trees)
        self.start = start * scale + (middle if self.spec.target == "value" else 0.0)
        self.train_losses = torch.tensor([a for a, _ in losses], dtype=torch.float64, device=y.device)
        self.val_losses = torch.tensor([b for _, b in losses], dtype=torch.float64, device=y.device)
        self.register_buffer("importances", _shares(trees, len(bins.number)))
        self.phase.fill_(DONE)
        values: dict[str, float | Tensor] = {"loss": losses[len(kept) - 1][0], "rounds": float(len(kept))}
        return values | ({"val_loss": losses[len(kept) - 1][1]} if self.hparams.patience is not None else {})

    def _draw(self, stream: int, content: Tensor, *position: int) -> Tensor:
        """A number in (0, 1] for each row, by its content, (N,)."""
        return uniforms(splitmix64(stream_key(int(self.seed), stream, *position), content), torch.float64)[0]

    def _round(
        self, number: int, codes: Codes, bins: Bins, y: Tensor, weight: Tensor, content: Tensor, output: Tensor
    ) -> tuple[Tensor, Trees]:
        """A tree for each output: the outputs after them, and the trees."""
        hp = self.hparams
        if hp.max_samples < 1:
            weight = torch.where(self._draw(_ROWS, content, number) <= hp.max_samples, weight, 0.0)
        gradient, hessian = self._derivatives(output, y)
        grown, after = [], output.clone()
        limits = Limits(
            max_depth=hp.max_depth,
            max_leaf_nodes=hp.num_leaves,
            max_features=max(1, round(hp.max_features * len(bins.number))),
        )
        for k in range(output.shape[1]):
            g = gradient[:, k] * weight
            units = units_for(len(y), 1.0, power_of_two(float(g.abs().max())))
            fixed = units.fixed_weight(hessian[:, k] * weight).clamp_min(1) * (weight > 0)  # a row counts, however sure
            rules = Rules(
                Criterion("newton", units, l2=hp.l2),
                min_samples_leaf=hp.min_samples_leaf,
                min_weight_leaf=hp.min_hessian,
                monotone=tuple(hp.monotone) if hp.monotone and any(hp.monotone) else None,
            )
            sums = RowSums(fixed, None, units.fixed_gradient(g).unsqueeze(1))
            seed = stream_key(int(self.seed), _TREES, number, k) % 2**63
            nodes, leaf = grow_trees(codes, sums, bins, rules, limits, num_trees=1, num_sums=2, seed=seed)
            if not bool((leaf >= 0).all()):  # rows that the tree did not see
                leaf = route(nodes, torch.zeros_like(leaf), codes.rows, bins, rules)
            value = None
            if self.loss_name in ("absolute_error", "quantile"):
                value = self._residual_quantiles(nodes, leaf[0], y - output[:, 0], weight, units.fixed_weight(weight))
            trees = trees_of(nodes, 1, rules, bins, value)
            predicted = _clipped_values(nodes, trees, rules) if value is None else value
            after[:, k] += hp.learning_rate * predicted[leaf[0], 0]
            grown.append(trees._replace(value=trees.value * hp.learning_rate))
        return after, joined(grown)

    # -- losses --------------------------------------------------------------------------------------------------------

    @property
    def _quantile(self) -> float:
        return self.hparams.quantile if self.loss_name == "quantile" else 0.5

    def _start(self, y: Tensor, weight: Tensor) -> Tensor:
        """The best constant, (K,), from sums of integers."""
        fixed = units_for(len(y), 1.0).fixed_weight(weight)
        if self.loss_name == "log_loss":
            total = torch.zeros(max(2, self.num_outputs), dtype=torch.int64, device=y.device)
            share = total.index_add_(0, y.long(), fixed).double() / fixed.sum()
            share = share.clamp_min(1e-12)
            return (share[1:] / share[:1]).log() if self.num_outputs == 1 else share.log()
        if self.loss_name == "squared_error":
            units = units_for(len(y), 1.0, 1.0)
            return (units.fixed_gradient(y * weight).sum().double() / units.gradient / (weight.sum())).view(1)
        return _quantiles(torch.zeros_like(y).long(), y, fixed, self._quantile, 1)

    def _derivatives(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The negative gradient and the second derivative of each row's loss, (N, K)."""
        if self.loss_name == "log_loss":
            if self.num_outputs == 1:
                p = output.sigmoid()
                return y.unsqueeze(1) - p, p * (1 - p)
            p = output.softmax(1)
            return F.one_hot(y.long(), self.num_outputs).double() - p, p * (1 - p)
        residual = y.unsqueeze(1) - output
        if self.loss_name == "squared_error":
            return residual, torch.ones_like(residual)
        return self._quantile - (residual < 0).double(), torch.ones_like(residual)

    def _losses(self, output: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, (N,)."""
        if self.loss_name == "log_loss":
            if self.num_outputs == 1:
                return F.binary_cross_entropy_with_logits(output[:, 0], y, reduction="none")
            return F.cross_entropy(output, y.long(), reduction="none")
        residual = y - output[:, 0]
        if self.loss_name == "squared_error":
            return residual.square()
        factor = 2.0 if self.loss_name == "absolute_error" else 1.0
        return factor * torch.maximum(self._quantile * residual, (self._quantile - 1) * residual)

    def _residual_quantiles(
        self, nodes: Nodes, leaf: Tensor, residual: Tensor, weight: Tensor, fixed: Tensor
    ) -> Tensor:
        """The quantile of the residuals of each leaf, (M, 1)."""
        there = weight > 0
        found = _quantiles(leaf[there], residual[there], fixed[there], self._quantile, len(nodes.child))
        return found.unsqueeze(1)

    # -- prediction ----------------------------------------------------------------------------------------------------

    def staged(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the outputs of inputs (B, *shape) after each round, (B, K)."""
        trees = self.trees
        output = self.start.expand(len(x), -1).clone()
        leaves = find_leaves(trees, x.flatten(1).double())
        for first in range(0, len(trees.root), self.num_outputs):
            output = output + trees.value[leaves[first : first + self.num_outputs], 0].T
            yield output

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 1) of two classes or (B, C), or values (B, 1), of inputs (B, *shape)."""
        trees = self.trees
        output = self.start.expand(len(x), -1)
        if not len(trees.root):
            return output.clone()
        leaves = find_leaves(trees, x.flatten(1).double())  # (T, B)
        return output + trees.value[leaves, 0].view(-1, self.num_outputs, len(x)).sum(0).T

    # -- what is shown -------------------------------------------------------------------------------------------------

    def tables(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        assert self.spec is not None
        names = self.spec.feature_names or [f"feature {f}" for f in range(self.spec.num_features)]
        shares = self.importances.tolist()
        order = sorted(range(len(shares)), key=lambda f: -shares[f])
        yield "importances", [{"feature": names[f], "importance": shares[f]} for f in order]
        pairs = zip(self.train_losses.tolist(), self.val_losses.tolist(), strict=True)
        yield "rounds", [{"trees": i + 1, "loss": a, "val_loss": b} for i, (a, b) in enumerate(pairs)]

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo.visual.trees import importance_bars, staged_curve

        assert self.spec is not None
        yield from super().pictures(batch, columns)
        if not self.done:
            return
        curves = {"training rows": self.train_losses.tolist()}
        best = None
        if self.hparams.patience is not None:
            curves["rows held out"] = self.val_losses.tolist()
            best = len(self.trees.root) // self.num_outputs
        yield "rounds", staged_curve(curves, self.loss_name.replace("_", " "), best)
        yield "importances", importance_bars(self.importances, self.spec.feature_names)


def _clipped_values(nodes: Nodes, trees: Trees, rules: Rules) -> Tensor:
    """What the nodes predict, (M, 1), in their own order; within the bounds of monotonicity as the trees are."""
    value = rules.criterion.value(nodes.sums)
    if rules.monotone is None:
        return value
    order = _level_order(nodes)
    clipped = value.clone()
    clipped[order] = trees.value
    return clipped


def _level_order(nodes: Nodes) -> Tensor:
    """The nodes of one tree level by level, as `trees_of` orders them."""
    level, found = torch.zeros(1, dtype=torch.int64, device=nodes.child.device), []
    while len(level):
        found.append(level)
        child = nodes.child[level]
        level = (child[child >= 0].unsqueeze(1) + torch.arange(2, device=level.device)).view(-1)
    return torch.cat(found)


def _quantiles(group: Tensor, value: Tensor, weight: Tensor, q: float, num_groups: int) -> Tensor:
    """The weighted quantile of the values of each group, (G,): the middle of the two where the weight is met."""
    order = value.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    group, value, weight = group[order], value[order], weight[order]
    total = weight.new_zeros(num_groups).index_add_(0, group, weight)
    before = total.cumsum(0) - total
    running = weight.cumsum(0) - before[group]
    wanted = total.double() * q
    below = torch.zeros_like(total).index_add_(0, group, (running.double() < wanted[group]).long())
    upto = torch.zeros_like(total).index_add_(0, group, (running.double() <= wanted[group]).long())
    number = torch.zeros_like(total).index_add_(0, group, torch.ones_like(group))
    first = number.cumsum(0) - number
    last = (first + number - 1).clamp_min(0)
    low, high = torch.minimum(first + below, last), torch.minimum(first + upto, last)
    found = value[low.clamp_max(len(value) - 1)] / 2 + value[high.clamp_max(len(value) - 1)] / 2
    return torch.where(number > 0, found, 0.0)


def _shares(trees: Trees, num_features: int) -> Tensor:
    """Shares of the features in the gains of all trees together, (F,)."""
    whole = trees._replace(root=trees.root[:1])
    return importances(whole, num_features) if len(trees.root) else torch.zeros(num_features, dtype=torch.float64)
