r"""The decision tree: questions about one feature at a time, until the rows that give the same answers agree.

```math
\text{node } t \to (t_L, t_R) \text{ by } x_f \le \theta, \qquad
(f, \theta) = \arg\max\; s(t_L) + s(t_R) - s(t)
```

with the score s of `zoo.models.trees.criteria`. A leaf predicts the class shares, the mean (squared error, Poisson) or
the median (absolute error) of its training rows.

Rows are binned once (`zoo.models.trees.bins`), so that the tree grows from counts in one pass a depth, whatever the
number of rows; with as many bins as distinct values, or `num_bins=null`, it is the tree of all thresholds. It is the
same to the bit for any order of rows, batches and number of processes. A threshold lies in the middle between the
values of the node's own rows on both sides. Rows where the feature is missing go where the gain is greater; where none
was missing in training, to the side with more rows.

Source: Breiman, Friedman, Olshen & Stone, "Classification and regression trees", 1984.
Deviations: of equal gains the last feature and the smallest threshold win, where CART takes any. Categories of more
than two classes are ordered by the share of the node's largest class, which is a heuristic; of two, or values, the
order finds the best subset (Fisher 1958).
"""

from __future__ import annotations

from typing import Literal

from zoo.models.base import GradientModel, StreamingModel
from zoo.models.trees.tree_model import TreeModel, check_tree_hparams
from zoo.registry import register_model

__all__ = ["DecisionTree"]


@register_model(
    "decision_tree",
    family="trees",
    accepts={"tabular": ("class", "value"), "image": "class"},
    source="Breiman, Friedman, Olshen & Stone 1984",
    docs="trees",
)
class DecisionTree(TreeModel, StreamingModel, GradientModel):
    """A decision tree for classes or values, grown from counts in one pass over the data for each depth.

    Args:
        criterion: `gini` or `entropy` of classes; `squared_error`, `absolute_error` or `poisson` of values; null takes
            gini or squared_error.
        max_depth: of the deepest leaf.
        min_samples_split: rows of a node that may be split, at least.
        min_samples_leaf: rows of a leaf, at least.
        min_weight_fraction_leaf: share of the total weight in a leaf, at least.
        min_gain: least weighted fall of the mean impurity by a split.
        max_leaf_nodes: leaves at most; the tree then grows where the gain is greatest.
        max_features: features looked at in a node: a number, a share, `sqrt`, `log2`, or null for all.
        random_thresholds: draw one threshold a feature and node, instead of the best.
        ccp_alpha: α of cost-complexity pruning: the least fall of the mean impurity for each leaf that a branch has
            more.
        categorical_features: numbers of the features whose values are categories; null takes those that a table has
            codes of (`data.text=codes`).
        monotone: for each feature 1 where predictions must not fall with it, −1 where they must not rise, else 0.
        num_bins: bins of a feature; null gives each distinct value its own.
        histogram_mb: megabytes of counts in a pass, at most; nodes that do not fit wait for the next one.
        seed: of the draws of features; null takes the run's.

    Raises:
        ZooError: for a hyperparameter out of range, a criterion that does not fit the targets, a single class, or bins
            that do not fit into memory.

    Example:
        >>> import torch, zoo
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), ["no", "no", "yes", "yes"]
        >>> model = zoo.fit(zoo.create_model("decision_tree"), x, y)
        >>> print(model.to_text())
        |-- x[0] <= 1.5: no (100%), 2 rows
        |-- not x[0] <= 1.5: yes (100%), 2 rows
    """

    def __init__(
        self,
        *,
        criterion: Literal["gini", "entropy", "squared_error", "absolute_error", "poisson"] | None = None,
        max_depth: int | None = None,
        min_samples_split: int = 2,
        min_samples_leaf: int = 1,
        min_weight_fraction_leaf: float = 0.0,
        min_gain: float = 0.0,
        max_leaf_nodes: int | None = None,
        max_features: int | float | Literal["sqrt", "log2"] | None = None,
        random_thresholds: bool = False,
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
