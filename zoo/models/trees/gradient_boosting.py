r"""Gradient boosting: a sum of small trees, each a Newton step down the loss that the ones before it leave.

```math
F_m(x) = F_{m-1}(x) + \eta\, v_{m, \text{leaf}(x)}, \qquad
v = \frac{\sum_i g_i}{\sum_i h_i + \lambda}, \qquad
g_i = -w_i \frac{\partial \ell(y_i, F)}{\partial F}, \quad h_i = w_i \frac{\partial^2 \ell}{\partial F^2}
```

with the losses of `zoo.models.trees.losses`. A tree is grown where the gain is greatest, to `num_leaves` leaves. Where
the second derivative says nothing (absolute error, quantiles) a leaf takes the quantile of its residuals instead. The
values of a categorical feature are parted into two sets, tried in the order of their Newton steps.

The first pass sketches the features, the second collects the rows as codes, one byte a value, on which all trees are
grown at its end; sparse rows are collected and coded in a single pass. Sums are integers, draws of rows and the choice
of the validation rows are hashes of their content: the model is the same for any batches, order of rows and number of
processes.

Legend: η = `learning_rate`, λ = `l2`, p probabilities, w weights.
Sources: Friedman, "Greedy function approximation: a gradient boosting machine", 2001; Ke et al., "LightGBM", 2017.
Deviation: features are drawn for each node, not for each tree.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.preprocessing import Preprocessing
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import CollectsRows, GradientModel, StreamingModel
from zoo.models.base.uses import GIVEN
from zoo.models.trees import lightgbm_text
from zoo.models.trees.bins import (
    Bins,
    Codes,
    Sketch,
    bins_of,
    code_rows,
    codes_of_rows,
    encode,
    merge_sketches,
    sketch_rows,
)
from zoo.models.trees.boosting import Rounds, Rows, Settings, boost, draw
from zoo.models.trees.holds_trees import HoldsTrees
from zoo.models.trees.losses import OF_CLASSES, OF_VALUES, Loss
from zoo.models.trees.nodes import Limits
from zoo.models.trees.sparse_codes import SparseCodes, code_sparse_rows
from zoo.models.trees.tree_model import categorical_features, check_directions, check_features
from zoo.models.trees.trees import Trees, find_leaves, first_trees, importances, joined
from zoo.numerics.hashing import content_hash
from zoo.numerics.sparse import as_rows, is_sparse, take_rows
from zoo.registry import register_model

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

__all__ = ["GradientBoosting"]

SKETCH, COLLECT, DONE = range(3)  # what a pass is for
ROUNDS_AHEAD = 8  # grown at a time where training may stop
_VALIDATION = 0x7A11  # the stream of the draws of rows that are held out


@register_model(
    "gradient_boosting",
    family="trees",
    accepts={"tabular": ("class", "value"), "image": "class"},
    source="Friedman 2001",
    docs="gradient_boosting",
)
class GradientBoosting(HoldsTrees, CollectsRows, StreamingModel, GradientModel):
    """Gradient boosting of trees grown best first, on rows that two passes turn into bytes.

    Args:
        loss: `log_loss` of classes; `squared_error`, `absolute_error`, `quantile`, `poisson` or `gamma` of values; null
            takes the first that fits.
        quantile: q of the quantile loss.
        num_trees: rounds; of more than two classes each round grows a tree for each class.
        learning_rate: η.
        num_leaves: leaves of a tree, at most; null for no limit.
        max_depth: of a tree's deepest leaf.
        min_samples_leaf: rows of a leaf, at least.
        min_hessian: Σ h of a leaf, at least.
        l2: λ, beside Σ h.
        max_samples: share of the rows that each round sees.
        max_features: share of the features that each node looks at.
        categorical_features: numbers of the features whose values are categories; null takes those that a table has
            codes of (`data.text=codes`).
        monotone: for each feature 1 where predictions must not fall with it, −1 where they must not rise, else 0.
        patience: rounds without a better validation loss after which training stops; null takes all rounds and rows.
        validation_fraction: share of the rows that are held out for that.
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
    takes_missing = True
    binary_logit = True
    least_classes = 2  # there must be among the rows; 1 where a caller takes a constant for an answer

    needs = {"quantile": {"loss": ("quantile",)}, "validation_fraction": {"patience": GIVEN}}

    def __init__(
        self,
        *,
        loss: Literal["log_loss", "squared_error", "absolute_error", "quantile", "poisson", "gamma"] | None = None,
        quantile: float = 0.5,
        num_trees: int = 100,
        learning_rate: float = 0.1,
        num_leaves: int | None = 31,
        max_depth: int | None = None,
        min_samples_leaf: int = 20,
        min_hessian: float = 1e-3,
        l2: float = 0.0,
        max_samples: float = 1.0,
        max_features: float = 1.0,
        categorical_features: list[int] | None = None,
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
            ("num_trees", 1, 1_000_000, False),
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
        check_directions(monotone)

    # -- building ------------------------------------------------------------------------------------------------------

    def initialize(self, spec: DataSpec) -> None:
        hp = self.hparams
        fitting = OF_CLASSES if spec.target == "class" else OF_VALUES
        if hp.loss is not None and hp.loss not in fitting:
            raise ZooError(f"model.loss={hp.loss} does not fit {spec.target} targets: choose {' or '.join(fitting)}.")
        if spec.num_targets > 1:
            raise ZooError(f"gradient_boosting takes one target, and there are {spec.num_targets}.")
        check_features(hp, spec)
        self.num_outputs: int = 1 if spec.num_classes in (None, 2) else spec.num_classes  # type: ignore[assignment]
        self.loss = Loss(hp.loss or fitting[0], self.num_outputs, hp.quantile)
        seed = torch.initial_seed() if hp.seed is None else hp.seed
        self.register_buffer("seed", torch.tensor(seed % 2**63))
        self.register_buffer("phase", torch.tensor(SKETCH))
        self.takes_sparse = spec.sparse and not hp.categorical_features
        if self.takes_sparse:
            self.collect(spec.num_features, sparse=True)
        else:
            self._prepare_passes(spec.num_features)
        self._keep("bin", Bins(*(torch.zeros(0) for _ in Bins._fields)))
        self._keep("tree", joined([]))
        self.register_buffer("start", torch.zeros(self.num_outputs, dtype=torch.float64))
        self.register_buffer("train_losses", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("val_losses", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("importances", torch.zeros(spec.num_features, dtype=torch.float64))

    def _prepare_passes(self, num_features: int) -> None:
        """Register what passes over dense rows find and keep."""
        for name, value in Sketch.empty(num_features)._asdict().items():
            self.register_accumulator(f"sketch_{name}", value)
        self.register_accumulator("codes", torch.zeros(0, num_features, dtype=torch.uint8))
        self.register_accumulator("targets", torch.zeros(0, dtype=torch.float64))
        self.register_accumulator("weights", torch.zeros(0, dtype=torch.float64))
        self.register_accumulator("contents", torch.zeros(0, dtype=torch.int64))

    @property
    def done(self) -> bool:
        return int(self.phase) == DONE

    @property
    def passes_needed(self) -> int:
        return 1 if self.takes_sparse else 2  # to find the bins, and to collect the rows

    # -- the passes ----------------------------------------------------------------------------------------------------

    def _rows(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (B, F), targets and weights (B,) of a batch, checked, without those of no weight."""
        if batch.y is None:
            raise ZooError("gradient_boosting learns from targets, and the data have none: pass y.")
        x, y = as_rows(batch.x).double(), batch.y.double().view(-1)
        x = x if is_sparse(x) else x + 0.0
        weight = torch.ones_like(y) if batch.weight is None else batch.weight.double()
        if bool((weight < 0).any()):
            raise ZooError("gradient_boosting was given negative sample weights: weights must be 0 or more.")
        if not bool(y.isfinite().all()):
            raise ZooError("gradient_boosting was given targets that are NaN or infinite: drop those rows first.")
        there = weight > 0
        return (x, y, weight) if bool(there.all()) else (take_rows(x, there), y[there], weight[there])

    def accumulate(self, batch: Batch) -> None:
        x, y, weight = self._rows(batch)
        if self.takes_sparse:
            super().accumulate(batch)
            return
        if int(self.phase) == SKETCH:
            parts = [self._kept("sketch", Sketch), sketch_rows(x, self.hparams.num_bins)]
            for name, value in merge_sketches(parts, self.hparams.num_bins)._asdict().items():
                setattr(self, f"sketch_{name}", value)
            return
        codes = encode(x, self._kept("bin", Bins), self.categorical).rows
        self.append(codes=codes, targets=y, weights=weight, contents=self._content(x, y))

    @staticmethod
    def _content(x: Tensor, y: Tensor) -> Tensor:
        return content_hash(x, y.unsqueeze(1))

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        if self.takes_sparse:
            return super().merge(states)
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
        if self.takes_sparse:
            rows = self.take()
            return self.boost(rows.x, rows.y, rows.weight)
        if int(self.phase) == SKETCH:
            self._keep("bin", bins_of(self._kept("sketch", Sketch), self.hparams.num_bins, self.categorical))
            self.phase.fill_(COLLECT)
            return {}
        state, bins = self._state(), self._kept("bin", Bins)
        contents = state["contents"]
        coded = codes_of_rows(state["codes"])
        values = self._boost(Rows(coded, bins, state["targets"], state["weights"], contents, self._held_out(contents)))
        for name in ("codes", "targets", "weights", "contents"):
            setattr(self, name, state[name][:0])
        return values

    @torch.no_grad()
    def run_passes(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        first = list(itertools.islice(batches(), 2))
        if max_passes is not None or len(first) != 1 or int(self.phase) != SKETCH:
            return super().run_passes(batches, max_passes)
        x, y, weight = self._rows(self.as_batch(first[0]))
        return self.boost(x, y, weight)

    # -- boosting ------------------------------------------------------------------------------------------------------

    @property
    def categorical(self) -> tuple[int, ...]:
        """The features whose values are categories."""
        return categorical_features(self.hparams, self.spec)

    def _held_out(self, content: Tensor) -> Tensor:
        """The rows that early stopping watches, (N,), by their content."""
        if self.hparams.patience is None:
            return torch.zeros_like(content, dtype=torch.bool)
        return draw(int(self.seed), _VALIDATION, content) <= self.hparams.validation_fraction

    def _settings(self, num_features: int) -> Settings:
        hp = self.hparams
        limits = Limits(
            max_depth=hp.max_depth,
            max_leaf_nodes=hp.num_leaves,
            max_features=max(1, math.ceil(hp.max_features * num_features)),
        )
        return Settings(
            hp.learning_rate, limits, hp.min_samples_leaf, hp.min_hessian, hp.l2, hp.max_samples, self.categorical,
            tuple(hp.monotone) if hp.monotone and any(hp.monotone) else None, int(self.seed),
        )  # fmt: skip

    @torch.no_grad()
    def boost(
        self,
        x: Tensor,
        y: Tensor,
        weight: Tensor,
        *,
        held_out: Tensor | None = None,
        go_on: bool = False,
        stop: Callable[[Rounds], int | None] | None = None,
        every: int = 1,
    ) -> dict[str, float | Tensor]:
        """Grow all trees on rows in memory.

        Args:
            x: rows, (N, F), float64, dense or sparse.
            y: their targets, (N,), float64.
            weight: of each row, above 0, (N,).
            held_out: rows that train no tree but are watched, (N,); None draws them, if there is a `patience`.
            go_on: keep the trees that there are, of which `num_trees` counts all.
            stop: asked after some rounds how many of them are kept, where training ends with these, or None to go on;
                None stops by `patience`, at the best round.
            every: rounds at a time that `stop` is asked about.

        Returns:
            The losses of the last round that is kept, and the number of rounds.
        """
        codes: Codes | SparseCodes
        if is_sparse(x):
            bins, codes = code_sparse_rows(x, self.hparams.num_bins)
        else:
            bins, codes = code_rows(x, self.hparams.num_bins, self.categorical)
        content = self._content(x, y)
        held_out = self._held_out(content) if held_out is None else held_out
        return self._boost(Rows(codes, bins, y, weight, content, held_out), go_on=go_on, x=x, stop=stop, every=every)

    def _boost(
        self,
        rows: Rows,
        *,
        go_on: bool = False,
        x: Tensor | None = None,
        stop: Callable[[Rounds], int | None] | None = None,
        every: int = 1,
    ) -> dict[str, float | Tensor]:
        self._check_rows(rows)
        loss, patience = self.loss, self.hparams.patience
        old: list[Trees] = []
        grown: list[Trees] = []
        losses: list[tuple[float, float]] = []
        if go_on:
            assert x is not None
            old, output = [self.trees], self.raw_output(x)
            losses = list(zip(self.train_losses.tolist(), self.val_losses.tolist(), strict=True))
        else:
            self.start = loss.constant(rows.y, rows.weight.masked_fill(rows.held_out, 0.0))
            output = self.start.expand(len(rows.y), -1).clone()  # (N, K)
        before, kept = len(losses), self.hparams.num_trees
        together = every if stop is not None else kept if patience is None else ROUNDS_AHEAD
        numbers = range(before, kept)
        for found in boost(rows, loss, self._settings(len(rows.bins.number)), output, numbers, together):
            grown.append(found.trees)
            losses += zip(found.train_losses, found.val_losses, strict=True)
            if stop is not None:
                if (wanted := stop(found)) is not None:
                    kept = len(losses) - len(found.train_losses) + wanted
                    losses = losses[:kept]
                    break
            elif patience is not None:
                ended, kept = _best_round([val for _, val in losses], patience)
                if ended:
                    losses = losses[: kept + patience]
                    break
        kept = min(kept, len(losses))
        new = first_trees(joined(grown), max(0, kept - before) * self.num_outputs)
        trees = joined([*old, *([new] if len(new.root) else [])])
        self._keep("tree", trees)
        columns = torch.tensor(losses, dtype=torch.float64, device=rows.y.device).view(-1, 2)
        self.train_losses, self.val_losses = columns.unbind(1)
        self.register_buffer("importances", _shares(trees, len(rows.bins.number)))
        self.phase.fill_(DONE)
        values: dict[str, float | Tensor] = {"loss": losses[kept - 1][0], "rounds": float(kept)}
        return values | ({"val_loss": losses[kept - 1][1]} if patience is not None else {})

    def _check_rows(self, rows: Rows) -> None:
        """Raise one line for rows that nothing can be learnt from."""
        assert self.spec is not None
        y, hp = rows.y, self.hparams
        if not len(y):
            raise ZooError("gradient_boosting was given no rows with a weight above 0: there is nothing to learn from.")
        if self.spec.target == "class" and self.least_classes > 1 and bool((y == y[0]).all()):
            raise ZooError("gradient_boosting was given a single class: at least two are needed to tell them apart.")
        if self.loss.is_log and bool((y < 0).any() if self.loss.name == "poisson" else (y <= 0).any()):
            least = "of 0 or more" if self.loss.name == "poisson" else "above 0"
            raise ZooError(f"model.loss={self.loss.name} needs targets {least}: use squared_error.")
        if self.loss.is_log and not bool((y > 0).any()):
            raise ZooError("model.loss=poisson needs a target above 0: all of them are 0.")
        if bool(rows.held_out.all()) or (hp.patience is not None and not bool(rows.held_out.any())):
            raise ZooError("Too few rows to hold some out: pass model.patience=null, or another validation_fraction.")

    # -- prediction ----------------------------------------------------------------------------------------------------

    def raw_output(self, x: Tensor) -> Tensor:
        """Return the sums of the trees, (B, K), of inputs (B, *shape)."""
        trees = self.trees
        output = self.start.expand(x.shape[0], -1)
        if not len(trees.root):
            return output.clone()
        leaves = find_leaves(trees, as_rows(x).double(), self.turns)  # (T, B)
        return output + trees.value[leaves, 0].unflatten(0, (-1, self.num_outputs)).sum(0).T

    def staged_output(self, x: Tensor | np.ndarray) -> Iterator[Tensor]:
        """Yield the sums of the trees, (B, K), of inputs (B, *shape) after each round."""
        trees, x = self.trees, torch.as_tensor(x)
        output = self.start.expand(len(x), -1).clone()
        leaves = find_leaves(trees, as_rows(x).double())
        for first in range(0, len(trees.root), self.num_outputs):
            output = output + trees.value[leaves[first : first + self.num_outputs], 0].T
            yield output

    def staged(self, x: Tensor | np.ndarray) -> Iterator[Tensor]:
        """Yield what `forward` returns of inputs (B, *shape) after each round, (B, K)."""
        return (output.exp() if self.loss.is_log else output for output in self.staged_output(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 1) of two classes or (B, C), or values (B, 1), of inputs (B, *shape)."""
        output = self.raw_output(x)
        return output.exp() if self.loss.is_log else output

    # -- LightGBM's text model -----------------------------------------------------------------------------------------

    @classmethod
    def from_lightgbm(cls, source: str | os.PathLike[str], class_names: Sequence[str] | None = None) -> Self:
        """Return the model that LightGBM trained, which predicts the same.

        Args:
            source: a file that `Booster.save_model` wrote, or the text itself.
            class_names: what the classes 0 … C-1 are called; LightGBM keeps no names.

        Raises:
            ZooError: for what is no such text, or a kind of tree or objective that is not here.
        """
        is_text = isinstance(source, str) and "\n" in source
        text = str(source) if is_text else _read_text(source)
        found = lightgbm_text.parse(text)
        is_class = found.loss == "log_loss"
        number = max(2, found.num_outputs) if is_class else None
        if class_names is not None and len(class_names) != number:
            raise ZooError(f"class_names needs {number} names, not {len(class_names)}.")
        model = cls(loss=found.loss, num_trees=max(1, len(found.trees.root) // found.num_outputs))  # type: ignore[arg-type]
        names = None if class_names is None else tuple(class_names)
        model.build(
            DataSpec(
                "tabular", (len(found.feature_names),), "class" if is_class else "value", num_classes=number,
                class_names=names, feature_names=found.feature_names, dtype="float64",
            )
        )  # fmt: skip
        model._keep("tree", found.trees)
        model.register_buffer("importances", _shares(found.trees, len(found.feature_names)))
        model.phase.fill_(DONE)
        model._begun = True
        model.preprocessing = None if names is None else Preprocessing(labels=names, missing=True)
        return model.eval()

    def to_lightgbm(self) -> str:
        """Return the model as LightGBM's text, for `lightgbm.Booster(model_str=...)`, which predicts the same.

        Raises:
            ZooError: for categories that are not integers of 0 or more.
        """
        self.check_fitted()
        assert self.spec is not None
        names = self.spec.feature_names or tuple(f"Column_{f}" for f in range(self.spec.num_features))
        trees = Trees(*(column.cpu() for column in self.trees_in_units()))
        return lightgbm_text.write(trees, self.start.cpu(), self.loss.name, names, self.loss.q)

    # -- what is shown -------------------------------------------------------------------------------------------------

    def tables(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        yield from super().tables()
        pairs = zip(self.train_losses.tolist(), self.val_losses.tolist(), strict=True)
        yield "rounds", [{"trees": i + 1, "loss": a, "val_loss": b} for i, (a, b) in enumerate(pairs)]

    def curves(self) -> Iterator[tuple[str, list[float]]]:
        if self.done:
            yield "rounds/train_loss", self.train_losses.tolist()
            if self.hparams.patience is not None:
                yield "rounds/val_loss", self.val_losses.tolist()

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo.visual.trees import staged_curve

        yield from super().pictures(batch, columns)
        if not self.done:
            return
        curves = {"training rows": self.train_losses.tolist()}
        best = None
        if self.hparams.patience is not None:
            curves["rows held out"] = self.val_losses.tolist()
            best = len(self.trees.root) // self.num_outputs
        yield "rounds", staged_curve(curves, self.loss.name.replace("_", " "), best)


def _best_round(losses: list[float], patience: int) -> tuple[bool, int]:
    """Whether so many rounds have passed without a better one, and which was the best until then, from 1."""
    best = 0
    for number, loss in enumerate(losses):
        if loss < losses[best]:
            best = number
        if number - best >= patience:
            return True, best + 1
    return False, best + 1


def _read_text(path: str | os.PathLike[str]) -> str:
    """Return what stands in a file, or say in one line why it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(
            f"{path} cannot be read: {error.strerror if isinstance(error, OSError) else 'no text'}."
        ) from None


def _shares(trees: Trees, num_features: int) -> Tensor:
    """Shares of the features in the gains of all trees together, (F,)."""
    whole = trees._replace(root=trees.root[:1])
    return importances(whole, num_features) if len(trees.root) else torch.zeros(num_features, dtype=torch.float64)
