"""A grown tree as scikit-learn shows one: arrays over its nodes, each before its children, left before right."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from zoo.models.trees.trees import Trees, find_leaves

__all__ = ["Tree", "preorder"]

_NONE = -2  # scikit-learn's mark of a leaf's feature and threshold


def preorder(trees: Trees) -> torch.Tensor:
    """Return the place of each node (M,) among those of its tree, if each stands before its children."""
    size = torch.ones_like(trees.left)
    inner = [((trees.depth == depth) & (trees.left >= 0)).nonzero()[:, 0] for depth in range(trees.max_depth)]
    for node in reversed(inner):
        size[node] += size[trees.left[node]] + size[trees.left[node] + 1]
    place = torch.zeros_like(trees.left)
    for node in inner:
        left = trees.left[node]
        place[left] = place[node] + 1
        place[left + 1] = place[node] + 1 + size[left]
    return place


class Tree:
    """One tree of a fitted model, read-only; the names are those of `sklearn.tree._tree.Tree`.

    Attributes:
        node_count: number of nodes, M.
        n_leaves: number of leaves.
        max_depth: depth of the deepest leaf.
        n_features: number of features.
        n_outputs: number of targets.
        n_classes: number of classes of each target; 1 for values.
        max_n_classes: the largest of them.
        children_left: left child of each node, (M,); −1 at a leaf.
        children_right: right child.
        feature: that a node asks about, (M,); −2 at a leaf.
        threshold: values up to it go left, (M,); −2 at a leaf.
        missing_go_to_left: whether missing values go left, (M,).
        n_node_samples: rows of each node, (M,).
        weighted_n_node_samples: their weight, (M,).
        value: class shares (M, 1, C) or values (M, K, 1).

    Args:
        trees: a single tree.
        num_features: F.
        criterion: `gini` or `entropy`; None for values.
    """

    def __init__(self, trees: Trees, num_features: int, criterion: str | None) -> None:
        place = preorder(trees)
        order = place.argsort()
        self._trees, self._place, self._criterion = trees, place.numpy(), criterion
        leaf = (trees.left < 0)[order]
        left = trees.left[order].clamp_min(0)
        self.node_count, self.n_leaves, self.max_depth = len(place), int(leaf.sum()), trees.max_depth
        self.n_features = num_features
        self.children_left = torch.where(leaf, -1, place[left]).numpy()
        right = (left + 1).clamp_max(len(place) - 1)
        self.children_right = torch.where(leaf, -1, place[right]).numpy()
        self.feature = trees.feature[order].masked_fill(leaf, _NONE).numpy()
        self.threshold = trees.threshold[order].masked_fill(leaf, _NONE).numpy()
        self.missing_go_to_left = trees.missing_left[order].byte().numpy()
        self.n_node_samples = trees.num_rows[order].numpy()
        self.weighted_n_node_samples = trees.weight[order].numpy()
        value = trees.value[order].numpy()
        self.value = value[:, :, None] if criterion is None else value[:, None]
        self.n_outputs = self.value.shape[1]
        self.n_classes = np.full(self.n_outputs, self.value.shape[2])
        self.max_n_classes = self.value.shape[2]

    @property
    def impurity(self) -> np.ndarray:
        """Impurity of each node, (M,), of classes; of values the zoo's trees do not keep it."""
        if self._criterion is None:
            raise AttributeError("A tree of values keeps the gain of each split, but not the impurity of its nodes.")
        share = self.value[:, 0]
        if self._criterion == "gini":
            return 1 - (share**2).sum(1)
        return -(share * np.log2(np.where(share > 0, share, 1.0))).sum(1)

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Return the leaf of each row, (N,)."""
        return self._place[find_leaves(self._trees, torch.from_numpy(np.asarray(X, dtype=np.float64)))[0].numpy()]

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the value of each row's leaf, (N, K, C), without the axis of a single target."""
        value = self.value[self.apply(X)]
        return value[:, 0] if self.n_outputs == 1 else value

    def decision_path(self, X: np.ndarray) -> sparse.csr_matrix:
        """Return which nodes each row comes through, (N, M)."""
        parent = np.full(self.node_count, -1)
        inner = self.children_left >= 0
        parent[self.children_left[inner]] = parent[self.children_right[inner]] = inner.nonzero()[0]
        at = self.apply(X)
        row, rows, nodes = np.arange(len(at)), [], []
        while len(at):
            rows.append(row)
            nodes.append(at)
            above = parent[at]
            row, at = row[above >= 0], above[above >= 0]
        shape = (len(X), self.node_count)
        row, at = np.concatenate(rows or [row]), np.concatenate(nodes or [at])
        path = sparse.csr_matrix((np.ones(len(at), dtype=np.int64), (row, at)), shape=shape)
        path.sort_indices()
        return path
