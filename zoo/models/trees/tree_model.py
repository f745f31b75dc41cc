"""What a decision tree and a forest share: the passes that grow them.

The first pass sketches the features and measures the targets. The second one codes the rows and keeps them, and the
trees are grown in memory. Where the codes would take more than `KEPT_BYTES`, each pass counts the open nodes and splits
them instead (`passes`), to the same bits. Rows that come as one batch are sketched, coded and grown at once, and so are
sparse ones, which a single pass collects.

Letters: B rows of a batch, F features, T trees, S sums, C classes, K targets.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import CollectsRows, StreamingModel
from zoo.models.trees.bins import Bins, Sketch, bins_of, codes_of_rows, encode, merge_sketches, sketch_rows
from zoo.models.trees.growth import (
    Growth,
    Learned,
    Measures,
    Scale,
    check_targets,
    counted,
    criterion_for,
    measure,
    part_target,
    sketched,
)
from zoo.models.trees.holds_trees import HoldsTrees
from zoo.models.trees.nodes import Limits, Nodes, RowSums, close, is_open, roots, route
from zoo.models.trees.passes import Plan, add_rows, end_pass, plan_pass, subtract, total_of
from zoo.models.trees.splits import Rules, cells_of_histogram
from zoo.models.trees.trees import Trees, find_leaves, importances, trees_of
from zoo.numerics.sparse import as_rows, is_sparse

__all__ = ["TreeModel", "categorical_features", "check_directions", "check_features", "check_tree_hparams"]

SKETCH, COLLECT, GROW, SCORE, DONE = range(5)  # what a pass is for
KEPT_BYTES = 1 << 28  # of all coded rows: beyond them each pass codes the rows anew

_CODED = ("rows", "weight", "place", "gradient", "content")  # what is kept of rows: codes, and what they add to sums

_MEASURES = {  # of the targets: how batches and processes are joined
    "num_rows": "sum",
    "total_weight": "sum",
    "most_weight": "amax",
    "low": "amin",
    "high": "amax",
    "class_weight": "sum",
}


def check_tree_hparams(hparams: dict[str, Any]) -> None:
    """Raise one line unless the hyperparameters that all trees share are in range."""
    for name, low, high in (
        ("max_depth", 1, math.inf), ("min_samples_split", 2, math.inf), ("min_samples_leaf", 1, math.inf),
        ("min_weight_fraction_leaf", 0, 0.5), ("min_gain", 0, math.inf), ("max_leaf_nodes", 2, math.inf),
        ("ccp_alpha", 0, math.inf), ("num_bins", 2, 1 << 24), ("histogram_mb", 1, math.inf),
    ):  # fmt: skip
        check_range(name, hparams[name], low, high)
    if not isinstance(hparams["max_features"], str):
        check_range("max_features", hparams["max_features"], 0, open_low=True)
    if isinstance(hparams["max_features"], float):
        check_range("max_features", hparams["max_features"], 0, 1, open_low=True)
    check_directions(hparams["monotone"])


def check_directions(monotone: list[int] | None) -> None:
    """Raise one line unless each feature's direction is one."""
    if any(sign not in (-1, 0, 1) for sign in monotone or ()):
        raise ZooError(f"model.monotone must hold 1, 0 or -1 for each feature, not {monotone}.")


def categorical_features(hparams: Any, spec: DataSpec | None) -> tuple[int, ...]:
    """Return the features whose values are categories: those that the user names, or those that the table has codes
    of, without a direction."""
    if hparams.categorical_features is not None or spec is None or spec.categories is None:
        return tuple(hparams.categorical_features or ())
    directions = hparams.monotone or [0] * spec.num_features
    return tuple(f for f, names in enumerate(spec.categories) if names and not directions[f])


def check_features(hparams: Any, spec: DataSpec) -> None:
    """Raise one line unless the categorical and the monotone features are those of the data."""
    directions, categorical = hparams.monotone or [], hparams.categorical_features or []
    if directions and len(directions) != spec.num_features:
        raise ZooError(
            f"model.monotone needs a number for each of the {spec.num_features} features, not {len(directions)}."
        )
    if any(not 0 <= feature < spec.num_features for feature in categorical):
        raise ZooError(
            f"model.categorical_features must be between 0 and {spec.num_features - 1}, not {list(categorical)}."
        )
    if any(directions) and (spec.num_classes or 2) > 2:
        raise ZooError("model.monotone needs values or two classes to rise and fall: leave it at null.")
    if directions and any(directions[feature] for feature in categorical):
        raise ZooError("A feature cannot be in model.categorical_features and have a direction in model.monotone.")


# A mixin, whose attributes are those of the streaming model that it is mixed into.
_Base: Any = StreamingModel if TYPE_CHECKING else object


class TreeModel(HoldsTrees, CollectsRows, _Base):
    """A mixin for streaming models of one tree or many; a subclass says how many and how rows are drawn for each."""

    has_weights = False
    least_classes = 2  # there must be among the rows; 1 where a caller takes a constant for an answer
    first_tree = 0  # the number of the first tree, by which rows and features are drawn
    takes_missing = True

    @property
    def num_trees(self) -> int:
        """T."""
        return 1

    @property
    def draw_rate(self) -> float | None:
        """How often a tree sees a row on average; None where each sees every row once."""
        return None

    @property
    def wants_score(self) -> bool:
        """Whether the rows that a tree did not see are predicted in a last pass."""
        return False

    @property
    def random_thresholds(self) -> bool:
        """Whether thresholds are drawn."""
        return self.hparams.random_thresholds

    # -- building ------------------------------------------------------------------------------------------------------

    def initialize(self, spec: DataSpec) -> None:
        hp, num_features = self.hparams, spec.num_features
        check_features(hp, spec)
        if self.random_thresholds and hp.categorical_features:
            raise ZooError("Thresholds are not drawn between categories: leave model.categorical_features at null.")
        self.criterion_name = criterion_for(hp.criterion, spec.target, spec.num_targets)
        self.takes_sparse = (
            spec.sparse
            and not (hp.categorical_features or self.random_thresholds)
            and (self.criterion_name != "absolute_error")
        )
        seed = torch.initial_seed() if hp.seed is None else hp.seed
        phase, seed = torch.tensor([SKETCH, seed % 2**63]).unbind()
        no_score = torch.tensor(torch.nan, dtype=torch.float64)
        self._hold(phase=phase, seed=seed, out_of_bag_score=no_score)
        self._hold(**_no_answers(num_features, spec.num_classes, spec.num_targets))
        measures = Measures(0, 0.0, 0.0, class_weight=torch.zeros(spec.num_classes or 0, dtype=torch.float64)).tensors()
        if self.takes_sparse:
            self._hold(**measures)
            self.collect(num_features, spec.num_targets, sparse=True)
        else:
            self._accumulators.update(measures)
            self._hold(**measures)
            self._prepare_passes(spec)
        self._forget_nodes()

    def _prepare_passes(self, spec: DataSpec) -> None:
        """Register what passes over dense rows add up."""
        # Of absolute errors the target is sketched as one more feature.
        columns = spec.num_features + (self.criterion_name == "absolute_error")
        self._add_up(**_no_sums(spec.num_features, columns, spec.num_targets))

    def _forget_growth(self) -> None:
        """Have no more of what passes found than before the first one."""
        self._forget_nodes()
        for name in _CODED:
            setattr(self, f"coded_{name}", getattr(self, f"coded_{name}")[:0].clone())
        self.histogram = self.histogram.new_zeros(0)
        self.root_sums = self.root_sums.new_zeros(0)

    def _forget_nodes(self) -> None:
        self._hold(**_no_nodes())
        self._plan: Plan | None = None

    @property
    def done(self) -> bool:
        return int(self.phase) == DONE

    # -- what growing needs --------------------------------------------------------------------------------------------

    @property
    def categorical(self) -> tuple[int, ...]:
        """The features whose values are categories."""
        return () if self.random_thresholds else categorical_features(self.hparams, self.spec)

    @property
    def num_sums(self) -> int:
        """S."""
        return self.growth.num_sums(self.target_values)

    @property
    def growth(self) -> Growth:
        """How the trees grow."""
        assert self.spec is not None
        return Growth(
            self.entry.name, self.hparams, self.criterion_name, self.spec.num_features, self.spec.num_classes,
            self.spec.num_targets, self.categorical, self.random_thresholds, int(self.seed),
            (self.first_tree, self.first_tree + self.num_trees), self.draw_rate, self.least_classes,
        )  # fmt: skip

    @property
    def _scale(self) -> Scale:
        return Scale(*self.units.tolist())

    def _rules(self) -> Rules:
        return self.growth.rules(self._scale, float(self.total_weight), self.target_values)

    def _limits(self) -> Limits:
        return self.growth.limits(self._scale)

    def _row_sums(self, x: Tensor, y: Tensor, weight: Tensor) -> RowSums:
        """What rows (B, F) with targets and weights add to the sums of their nodes."""
        return self.growth.row_sums(x, y, weight, self._scale, self.target_values)

    # -- the first pass ------------------------------------------------------------------------------------------------

    def _targets(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows (B, F), targets and weights (B,) of a batch, checked; None for weights that are all 1."""
        if batch.y is None:
            raise ZooError(f"{self.entry.name} learns from targets, and the data have none: pass y.")
        weight = None if batch.weight is None else batch.weight.double()
        check_targets(batch.y, weight, self.criterion_name, self.entry.name)
        x = as_rows(batch.x).double()
        return x if is_sparse(x) else x + 0.0, batch.y, weight

    def _weighted(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The same with weights in any case."""
        x, y, weight = self._targets(batch)
        return x, y, torch.ones(len(y), dtype=torch.float64, device=y.device) if weight is None else weight

    def accumulate(self, batch: Batch) -> None:
        x, y, weight = self._weighted(batch)
        phase = int(self.phase)
        if self.takes_sparse:
            super().accumulate(batch)
            return
        if phase == SKETCH:
            there = weight > 0
            self._add_measures(measure(y[there], weight[there], self.spec.num_classes))  # type: ignore[union-attr]
            rows = (sketched(x, y) if self.criterion_name == "absolute_error" else x)[there]
            sketches = [self._kept("sketch", Sketch), sketch_rows(rows, self.hparams.num_bins)]
            self._set_sketch(merge_sketches(sketches, self.hparams.num_bins))
        elif phase == COLLECT:
            there = weight > 0
            x, y, weight = x[there], y[there], weight[there]
            sums, codes = self._row_sums(x, y, weight), encode(x, self._kept("bin", Bins), self.categorical).rows
            content = None if sums.bootstrap is None else sums.bootstrap.content
            found = {"rows": codes, "weight": sums.weight, "place": sums.place, "gradient": sums.gradient}
            columns = {**found, "content": content}
            self.append(**{f"coded_{name}": column for name, column in columns.items() if column is not None})
        elif phase == GROW:
            self._count(x, y, weight)
        else:
            self.score_sums += self._score(x, y, weight)

    def _add_measures(self, measures: Measures) -> None:
        """Join the measures of more rows to those of the rows before."""
        for name, value in measures.tensors(self.device).items():
            pair = torch.stack([getattr(self, name), value])
            setattr(self, name, getattr(pair, _MEASURES[name])(0))

    @property
    def _measures(self) -> Measures:
        assert self.spec is not None
        of_classes = self.class_weight if self.spec.num_classes else None
        total, most, low, high = (float(getattr(self, name)) for name in list(_MEASURES)[1:5])
        return Measures(int(self.num_rows), total, most, low, high, of_classes)

    def _set_sketch(self, sketch: Sketch) -> None:
        for name, value in sketch._asdict().items():
            setattr(self, f"sketch_{name}", value)

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        if self.takes_sparse:
            return super().merge(states)
        merged = {}
        for name in states[0]:
            values = [state[name] for state in states]
            if name.startswith("coded_"):
                merged[name] = torch.cat([value for value in values if len(value)] or values[:1])
            elif not name.startswith("sketch_"):
                merged[name] = getattr(torch.stack(values), _MEASURES.get(name, "sum"))(0)
        sketches = [Sketch(*(state[f"sketch_{name}"] for name in Sketch._fields)) for state in states]
        sketch = merge_sketches(sketches, self.hparams.num_bins)
        return merged | {f"sketch_{name}": value for name, value in sketch._asdict().items()}

    def _check_sums(self) -> None:
        pass  # NaN stands for a missing value in a sketch, and targets are checked batch by batch

    def _set_scale(self, scale: Scale) -> None:
        self.units = torch.tensor(scale, dtype=torch.float64, device=self.device)

    # -- a pass that grows ---------------------------------------------------------------------------------------------

    def reset_accumulators(self) -> None:
        super().reset_accumulators()
        self._plan = None
        if self.spec is None or int(self.phase) != GROW:
            return
        plan = self._current_plan()
        shape = (len(plan.nodes), plan.features.shape[1], self.bin_upper.shape[1] + 1, self.num_sums)
        self.histogram = torch.zeros(shape, dtype=torch.int64, device=self.device)
        self.root_sums = torch.zeros(self.num_trees, self.num_sums, dtype=torch.int64, device=self.device)

    def _current_plan(self) -> Plan:
        if self._plan is None:  # a resumed pass makes the same one again
            before = self.kept_nodes if len(self.kept_nodes) else None
            nodes, bins = self._kept("node", Nodes), self._kept("bin", Bins)
            self._plan = plan_pass(nodes, bins, self._rules(), self._limits(), before)
        return self._plan

    def _count(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        nodes, bins, rules = self._kept("node", Nodes), self._kept("bin", Bins), self._rules()
        codes = encode(x, bins, self.categorical).rows
        sums = self._row_sums(x, y, weight)
        amounts = sums.amounts(rules.criterion.units)
        at = torch.arange(self.num_trees, device=x.device).unsqueeze(1).expand(-1, len(x))
        at = route(nodes, at, codes, bins, rules)
        add_rows(self.histogram, self._current_plan(), at, codes, amounts, sums.place)
        if not bool(self.node_sums.any()):
            self.root_sums += total_of(amounts, sums.place, self.num_sums)

    def solve(self) -> dict[str, float | Tensor]:
        phase = int(self.phase)
        if self.takes_sparse:
            rows = self.take()
            self._learn(rows.x, rows.y.long() if self.spec.target == "class" else rows.y, rows.weight)  # type: ignore[union-attr]
        elif phase == SKETCH:
            bins = bins_of(self._kept("sketch", Sketch), self.hparams.num_bins, self.categorical)
            target = torch.zeros(0, dtype=torch.float64, device=self.device)
            if self.criterion_name == "absolute_error":
                bins, target = part_target(bins)
            self._keep("bin", bins)
            self._set_scale(self.growth.scale(self._measures))
            self.target_values = target
            self._set_sketch(Sketch.empty(self.spec.num_features, self.device))  # type: ignore[union-attr]
            size = int(self.num_rows) * len(bins.number) * (1 if bins.missing < 256 else 4)
            if size <= KEPT_BYTES:
                self.phase.fill_(COLLECT)
                return self._report()
            sums = torch.zeros(self.num_trees, self.num_sums, dtype=torch.int64, device=self.device)
            width = bins.missing + 1
            self._keep("node", roots(sums, self.growth.root_paths, self._rules(), self._limits(), width, known=False))
            self.phase.fill_(GROW)
            self._current_plan()  # says now what does not fit
        elif phase == COLLECT:
            state = self._state()
            rows, weight, *rest = (state[f"coded_{name}"] for name in _CODED)
            place, gradient, content = (column if len(column) else None for column in rest)
            growth, bins = self.growth, self._kept("bin", Bins)
            of_rows = RowSums(weight, place, gradient, None if content is None else growth.bootstrap(content))
            total, values = float(self.total_weight), self.target_values
            self._finish(growth.grow(codes_of_rows(rows), bins, of_rows, self._scale, total, values))
            self._forget_growth()
        elif phase == GROW:
            self._end_growth_pass()
        else:
            self._take_score(self.score_sums)
        return self._report()

    def _end_growth_pass(self) -> None:
        nodes, bins, rules, limits = self._kept("node", Nodes), self._kept("bin", Bins), self._rules(), self._limits()
        plan = self._current_plan()
        if not bool(nodes.sums.any()):  # the first one: what the roots hold is known now
            nodes = close(nodes._replace(sums=self.root_sums), rules, limits)
        if len(plan.subtracted):
            subtract(self.histogram, plan, self.kept)
        nodes = end_pass(nodes, plan, cells_of_histogram(self.histogram), bins, rules, limits)
        self.kept, self.kept_nodes = self.histogram, plan.nodes
        trees, _ = trees_of(nodes, self.num_trees, rules, bins)
        trees = self.growth.in_units(trees, self._scale)
        if is_open(nodes):
            self._keep("tree", trees)
            self._keep("node", nodes)
        else:
            self._finish(self.growth.cut(trees))
            self._forget_growth()

    def _finish(self, trees: Trees) -> None:
        """Keep grown trees, and say what each feature contributed."""
        assert self.spec is not None
        self._keep("tree", trees)
        self.importances = importances(trees, self.spec.num_features)
        self.phase.fill_(SCORE if self.wants_score else DONE)

    def _report(self) -> dict[str, float | Tensor]:
        if int(self.phase) < SCORE:
            return {"depth": float(self.node_depth.max()) if len(self.node_depth) else 0.0}
        trees = self.trees
        values: dict[str, float | Tensor] = {"leaves": float(trees.num_leaves), "depth": float(trees.max_depth)}
        return values | ({"oob_score": self.out_of_bag_score} if self.wants_score and self.done else {})

    # -- rows in memory ------------------------------------------------------------------------------------------------

    def run_passes(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        first = list(itertools.islice(batches(), 2))
        if max_passes is not None or len(first) != 1 or int(self.phase) != SKETCH:
            return super().run_passes(batches, max_passes)
        self._learn(*counted(*self._targets(self.as_batch(first[0]))))
        return self._report()

    def _learn(self, x: Tensor, y: Tensor, weight: Tensor | None) -> None:
        """Grow all trees on rows in memory (N, F), dense or sparse, with targets and weights above 0, (N,)."""
        self.adopt(self.growth.learn(x, y, weight))
        if not self.done:
            weight = torch.ones(len(y), dtype=torch.float64, device=y.device) if weight is None else weight
            self._take_score(self._score(x, y, weight))

    def adopt(self, learned: Learned) -> None:
        """Be the model of what was learned from rows in memory."""
        self._hold(**learned.measures.tensors(self.device))
        self._set_scale(learned.scale)
        self._finish(learned.trees)

    # -- rows that a tree did not see ----------------------------------------------------------------------------------

    def _score(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def _take_score(self, sums: Tensor) -> None:
        raise NotImplementedError

    # -- prediction ----------------------------------------------------------------------------------------------------

    def leaf_values(self, x: Tensor) -> Tensor:
        """Return the mean over trees of what the leaves of rows (B, F) predict, (B, C) or (B, K)."""
        trees = self.trees
        leaves = find_leaves(trees, x, self.turns)
        return trees.value[leaves].mean(0)

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities (B, C), or values (B, K), of inputs (B, *shape)."""
        value = self.leaf_values(as_rows(x))
        if self.spec is not None and self.spec.target == "class":
            return value.clamp_min(torch.finfo(value.dtype).eps).log()  # as scikit-learn's log loss is clipped
        return value


def _made_once(make: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """Keep what a function makes, whose tensors are the same whatever context they are made in."""

    @functools.lru_cache(maxsize=64)
    def made(*sizes: int | None) -> dict[str, Tensor]:
        with torch.device("cpu"), torch.inference_mode(False):
            return make(*sizes)

    return made


@_made_once
def _no_answers(num_features: int, num_classes: int | None, num_targets: int) -> dict[str, Tensor]:
    """What a model of no rows answers by, which nothing writes to: what is learned, or loaded, takes its place.

    Its tree is a leaf, which takes all classes for equally likely, or values for 0.
    """
    long, real, none = torch.zeros(1).long(), torch.zeros(1).double(), torch.full((1,), -1)
    share = 1 / num_classes if num_classes else 0.0
    tree = Trees(
        root=long,
        feature=none,
        threshold=real,
        missing_left=torch.zeros(1, dtype=torch.bool),
        left=none,
        value=torch.full((1, num_classes or num_targets), share, dtype=torch.float64),
        gain=real,
        weight=real,
        num_rows=long,
        depth=long,
        subset=torch.zeros(1, 0, dtype=torch.bool),
        category=torch.zeros(0, 0, dtype=torch.float64),
    )
    return {
        **{f"tree_{name}": column for name, column in tree._asdict().items()},
        "importances": torch.zeros(num_features, dtype=torch.float64),
        "units": torch.zeros(len(Scale._fields), dtype=torch.float64),
    }


@_made_once
def _no_sums(num_features: int, columns: int, num_targets: int) -> dict[str, Tensor]:
    """What passes over dense rows add up, before the first one; `columns` are sketched."""
    none = torch.zeros(0, dtype=torch.int64)
    rows = {"rows": torch.zeros(0, num_features, dtype=torch.uint8), "gradient": none.new_zeros(0, num_targets)}
    return {
        **{f"sketch_{name}": value for name, value in Sketch.empty(columns)._asdict().items()},
        **{f"coded_{name}": rows.get(name, none) for name in _CODED},
        "histogram": none, "root_sums": none, "score_sums": torch.zeros(4, dtype=torch.float64),
    }  # fmt: skip


@_made_once
def _no_nodes() -> dict[str, Tensor]:
    """The nodes of growing trees, and what follows from earlier passes, where there are none; all of it is empty."""
    empty, none = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    names = [*(f"bin_{name}" for name in Bins._fields), *(f"node_{name}" for name in Nodes._fields)]
    # the histogram of the pass before, and its nodes
    return {**dict.fromkeys(names, empty), "target_values": none.double(), "kept": none, "kept_nodes": none}
