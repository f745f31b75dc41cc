r"""The random forest: the mean of many trees, each grown on its own draw of the rows, each node on its own draw of
features.

```math
\hat y(x) = \frac1T \sum_t h_t(x), \qquad
w_{ti} \sim \mathrm{Poisson}(r), \qquad
\text{out-of-bag: } \hat y_i = \text{mean of } h_t(x_i) \text{ over } t \text{ with } w_{ti} = 0
```

Legend: T trees $h_t$, $w_{ti}$ how often tree t sees row i, r = `max_samples`. The trees grow side by side, in one pass
over the data for each depth (`zoo.models.trees.passes`). Draws are hashes of the row's content, the tree and the seed
(`zoo.models.trees.bootstrap`), and of the node's path, so that a forest is the same for any batches, order of rows and
number of processes. With `random_thresholds` each node draws one threshold a feature (extremely randomized trees).

Sources: Breiman, "Random forests", 2001; Geurts, Ernst & Wehenkel, "Extremely randomized trees", 2006.
Deviations: rows are weighed by Poisson variates instead of drawn with replacement. A node whose drawn features allow no
split draws as many again, where scikit-learn goes on one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch
from zoo.models.base import GradientModel, StreamingModel
from zoo.models.trees.tree_model import DONE, TreeModel, check_tree_hparams
from zoo.models.trees.trees import find_leaves, importances, joined
from zoo.numerics.sparse import take_rows
from zoo.registry import register_model

__all__ = ["RandomForest"]

_ROWS_AT_ONCE = 8192  # times trees, which bounds memory


@register_model(
    "random_forest",
    family="trees",
    accepts={"tabular": ("class", "value"), "image": "class"},
    source="Breiman 2001",
    docs="trees",
)
class RandomForest(TreeModel, StreamingModel, GradientModel):
    """A random forest, or extremely randomized trees, all grown side by side in one pass over the data for each depth.

    Args:
        num_trees: trees.
        criterion: `gini` or `entropy` of classes; `squared_error`, `absolute_error` or `poisson` of values; null takes
            gini or squared_error.
        max_depth: of the deepest leaf.
        min_samples_split: rows of a node that may be split, at least.
        min_samples_leaf: rows of a leaf, at least.
        min_weight_fraction_leaf: share of the total weight in a leaf, at least.
        min_gain: least weighted fall of the mean impurity by a split.
        max_leaf_nodes: leaves of a tree at most; it then grows where the gain is greatest.
        max_features: features looked at in a node: a number, a share, `sqrt`, `log2`, null for all, or `auto`: `sqrt`
            for classes and all for values.
        random_thresholds: draw one threshold a feature and node (extremely randomized trees).
        bootstrap: whether each tree draws its rows; else it sees all.
        max_samples: how many rows a tree draws, as a share of all, at most 4.
        oob_score: whether rows are predicted by the trees that did not see them, in a last pass: accuracy, or R²; with
            a bootstrap only.
        ccp_alpha: α of cost-complexity pruning.
        categorical_features: numbers of the features whose values are categories; null takes those that a table has
            codes of (`data.text=codes`).
        monotone: for each feature 1 where predictions must not fall with it, −1 where they must not rise, else 0.
        num_bins: bins of a feature; null gives each distinct value its own.
        histogram_mb: megabytes of counts in a pass, at most; nodes that do not fit wait for the next one.
        seed: of the draws; null takes the run's.

    Raises:
        ZooError: for a hyperparameter out of range, a criterion that does not fit
            the targets, a single class, or bins that do not fit into memory.

    Example:
        >>> import torch, zoo
        >>> x = torch.arange(40.0).view(20, 2)
        >>> model = zoo.fit(zoo.create_model("random_forest", num_trees=5), x, (x[:, 0] > 20).long())
        >>> model.predict(x[[0, 19]]).tolist()
        [0, 1]
    """

    needs = {"max_samples": {"bootstrap": (True,)}}

    def __init__(
        self,
        *,
        num_trees: int = 100,
        criterion: Literal["gini", "entropy", "squared_error", "absolute_error", "poisson"] | None = None,
        max_depth: int | None = None,
        min_samples_split: int = 2,
        min_samples_leaf: int = 1,
        min_weight_fraction_leaf: float = 0.0,
        min_gain: float = 0.0,
        max_leaf_nodes: int | None = None,
        max_features: int | float | Literal["auto", "sqrt", "log2"] | None = "auto",
        random_thresholds: bool = False,
        bootstrap: bool = True,
        max_samples: float = 1.0,
        oob_score: bool = True,
        ccp_alpha: float = 0.0,
        categorical_features: list[int] | None = None,
        monotone: list[int] | None = None,
        num_bins: int | None = 255,
        histogram_mb: int = 256,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_tree_hparams(self.hparams)
        check_range("num_trees", num_trees, 1, 1_000_000)
        check_range("max_samples", max_samples, 0, 4, open_low=True)

    @property
    def num_trees(self) -> int:
        return self.hparams.num_trees

    @property
    def draw_rate(self) -> float | None:
        return self.hparams.max_samples if self.hparams.bootstrap else None

    @property
    def wants_score(self) -> bool:
        return self.hparams.oob_score and self.hparams.bootstrap

    @property
    def oob_score(self) -> Tensor:
        """Accuracy, or R², of the rows as predicted by the trees that did not see them; NaN without a bootstrap."""
        return self.out_of_bag_score

    @torch.no_grad()
    def add_trees(self, number: int, batches: Callable[[], Iterable[Batch]]) -> None:
        """Grow more trees beside those that there are: from the same rows, those of a forest grown at once.

        Args:
            number: of trees to add.
            batches: a fresh iterable of batches for each pass.
        """
        self.check_fitted()
        assert self.spec is not None
        more = type(self)(**{**self.hparams, "num_trees": number, "oob_score": False, "seed": int(self.seed)})
        more.first_tree, more.least_classes = len(self.trees.root), self.least_classes
        more.build(self.spec).to(self.device)
        more.fit_batches(batches)
        trees = joined([self.trees, more.trees])
        self._keep("tree", trees)
        self.hparams["num_trees"] = len(trees.root)
        self.register_buffer("importances", importances(trees, self.spec.num_features))
        if self.wants_score:
            self.units = more.units
            sums = [self._score(*self._weighted(self.as_batch(batch))) for batch in batches()]
            self._take_score(torch.stack(sums).sum(0))

    def unseen_values(self, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the trees that did not see training rows predict of them on average, and how many there are.

        Args:
            x: rows, (B, F), float64.
            y: their targets, (B,) or (B, K).
            weight: their weights, (B,).

        Returns:
            Class shares (B, C) or values (B, K), zeros where every tree saw the row; number of trees, (B,).
        """
        bootstrap, trees = self._row_sums(x, y, weight).bootstrap, self.trees
        assert bootstrap is not None
        unseen = (bootstrap.factor() == 0).double()  # (T, B)
        number = unseen.sum(0)
        values = torch.einsum("tb,tbv->bv", unseen, trees.value[find_leaves(trees, x)])
        return values / number.clamp_min(1).unsqueeze(1), number

    def _score(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Sums of the score, (4,): weight, and that of the right ones; of values squared errors, Σ w y and Σ w y²."""
        sums = torch.zeros(4, dtype=torch.float64, device=x.device)
        step = max(1, _ROWS_AT_ONCE * 100 // self.num_trees)
        for x_part, y_part, part in zip(_parts(x, step), y.split(step), weight.split(step), strict=True):
            value, number = self.unseen_values(x_part, y_part, part)
            w = part * (number > 0)
            if not y.is_floating_point():
                sums[:2] += torch.stack([w.sum(), w @ (value.argmax(1) == y_part).double()])
                continue
            target = (y_part.view(len(y_part), -1).double() - self.units[3]) / self.units[4]
            error = ((value - y_part.view(len(y_part), -1)) / self.units[4]).square().sum(1)
            sums += torch.stack([w.sum(), w @ error, w @ target.mean(1), w @ target.square().sum(1)])
        return sums

    def _take_score(self, sums: Tensor) -> None:
        weight, first, total, squares = sums
        assert self.spec is not None
        if self.spec.target == "class":
            self.out_of_bag_score = first / weight
        else:
            spread = squares - total.square() * self.spec.num_targets / weight
            self.out_of_bag_score = 1 - first / spread
        self.phase.fill_(DONE)


def _parts(x: Tensor, size: int) -> Iterator[Tensor]:
    """Rows (N, F), dense or sparse, `size` at a time."""
    return (take_rows(x, slice(start, start + size)) for start in range(0, len(x), size))
