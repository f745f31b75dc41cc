"""Models that hold grown trees: how these are kept in a checkpoint, and what is read off them.

Letters: B rows, F features, T trees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from zoo.data.spec import Batch
from zoo.models.base import StreamingModel
from zoo.models.trees.export import describe, to_graphviz, to_text
from zoo.models.trees.trees import Trees, find_leaves
from zoo.numerics.sparse import as_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["HoldsTrees"]

# A mixin, whose attributes are those of the streaming model that it is mixed into.
_Base: Any = StreamingModel if TYPE_CHECKING else object


class HoldsTrees(_Base):
    """A mixin for streaming models whose state is `trees`."""

    turns: int | None = None  # depth of the deepest leaf, where the model is to be traced

    def _hold(self, **tensors: Tensor) -> None:
        # As `register_buffer` does, which takes some microseconds for each.
        self._buffers.update(tensors)

    def _add_up(self, **initial: Tensor) -> None:
        # As `register_accumulator` does; what is empty is nothing that a checkpoint could write over.
        self._accumulators.update(initial)
        self._buffers.update({name: value.clone() if value.numel() else value for name, value in initial.items()})

    def _keep(self, prefix: str, columns: Any) -> None:
        self._hold(**{f"{prefix}_{name}": column for name, column in columns._asdict().items()})

    def _kept(self, prefix: str, kind: Any) -> Any:
        buffers = self._buffers
        return kind(*[buffers[f"{prefix}_{name}"] for name in kind._fields])

    @property
    def trees(self) -> Trees:
        """The grown trees; of boosting those of all rounds, in a round one for each output."""
        return self._kept("tree", Trees)

    def before_trace(self) -> None:
        super().before_trace()
        self.turns = self.trees.max_depth

    def apply_trees(self, x: Tensor) -> Tensor:
        """Return the leaf that inputs (B, *shape) come to in each tree, (T, B)."""
        return find_leaves(self.trees, as_rows(x).double())

    def trees_in_units(self) -> Trees:
        """Return the trees with thresholds and categories in the user's units, where the rows were scaled first."""
        trees, scaling = self.trees, None if self.preprocessing is None else self.preprocessing.scaling
        if scaling is None or scaling.mean.numel() != self.spec.num_features:
            return trees
        mean, std = (t.to(trees.threshold).flatten() for t in (scaling.mean, scaling.std))
        category = trees.category
        if category.shape[1]:
            category = (category * std.unsqueeze(1) + mean.unsqueeze(1)).round(decimals=6)
        threshold = trees.threshold * std[trees.feature] + mean[trees.feature]
        return trees._replace(threshold=threshold, category=category)

    def to_text(self, tree: int = 0, max_depth: int = 10) -> str:
        """Return a tree as indented text."""
        self.check_fitted()
        return to_text(self.trees_in_units(), self.spec, tree, max_depth)

    def to_graphviz(self, tree: int = 0, max_depth: int = 10) -> str:
        """Return a tree in Graphviz's language."""
        self.check_fitted()
        return to_graphviz(self.trees_in_units(), self.spec, tree, max_depth)

    def diagram(self, tree: int = 0, max_depth: int = 4) -> Figure:
        """Return a tree as a picture."""
        from zoo.visual.trees import DiagramNode, tree_diagram

        self.check_fitted()
        nodes = [
            DiagramNode(
                node.number,
                node.parent,
                node.depth,
                "\n".join(filter(None, (node.question, node.answer, f"{node.num_rows:,} rows"))),
                node.label,
                node.purity,
            )
            for node in describe(self.trees_in_units(), self.spec, tree, max_depth)
        ]
        cut = "" if self.trees.max_depth <= max_depth else f", the first {max_depth} levels"
        classes = self.spec.num_classes if self.trees.value.shape[1] > 1 else None
        number = len(self.trees.root)
        which = f"tree {tree + 1} of {number}" if number > 1 else "the tree"
        return tree_diagram(nodes, classes, f"{which}{cut}")

    def texts(self) -> Iterator[tuple[str, str]]:
        if self.done and len(self.trees.root):
            yield "tree", f"```\n{self.to_text(max_depth=6)}\n```"

    def tables(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        names = self.spec.feature_names or [f"feature {f}" for f in range(self.spec.num_features)]
        shares = self.importances.tolist()
        order = sorted(range(len(shares)), key=lambda f: -shares[f])
        yield "importances", [{"feature": names[f], "importance": shares[f]} for f in order]

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo.visual.trees import importance_bars

        yield from super().pictures(batch, columns)
        if self.done:
            yield "tree", self.diagram()
            yield "importances", importance_bars(self.importances, self.spec.feature_names)
