"""Trees as text: indented lines, and the language of Graphviz.

Letters: M nodes, C classes, K targets, B categories.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from zoo.models.trees.trees import Trees

if TYPE_CHECKING:
    from zoo.data.spec import DataSpec

__all__ = ["NodeText", "describe", "to_graphviz", "to_text"]


ROUNDING = 1e-10  # beside the largest value of a tree, what is left of a sum that is nothing


class NodeText(NamedTuple):
    """A node in words: its number, depth, parent (−1 for none), whether it is the left child, its question (none at a
    leaf), what it predicts, and the class, number of rows and share of the weight."""

    number: int
    depth: int
    parent: int
    is_left: bool
    question: str
    answer: str
    label: int
    num_rows: int
    purity: float


def describe(trees: Trees, spec: DataSpec, tree: int = 0, max_depth: int = 10) -> Iterator[NodeText]:
    """Yield the nodes of a tree from the root on, each before its children, left before right.

    Args:
        trees: of which one is described.
        spec: with the names of features and classes.
        tree: which one.
        max_depth: deeper nodes are left out.
    """
    stack = [(int(trees.root[tree]), -1, True)]
    first = stack[0][0]
    last = int(trees.root[tree + 1]) if tree + 1 < len(trees.root) else len(trees.value)
    rounding = ROUNDING * float(trees.value[first:last].abs().max())
    while stack:
        node, parent, is_left = stack.pop()
        depth, left = int(trees.depth[node]), int(trees.left[node])
        shown = left >= 0 and depth < max_depth
        value = [0.0 if abs(v) < rounding else v for v in trees.value[node].tolist()]
        is_class = spec.target == "class" and len(value) > 1  # of boosting each tree has one value
        label = max(range(len(value)), key=value.__getitem__) if is_class else 0
        yield NodeText(
            number=node - first, depth=depth, parent=parent, is_left=is_left,
            question=_question(trees, spec, node) if shown else "", answer=_answer(spec, value, label), label=label,
            num_rows=int(trees.num_rows[node]), purity=value[label] if is_class else 1.0,
        )  # fmt: skip
        if shown:
            stack += [(left + 1, node - first, False), (left, node - first, True)]


def _question(trees: Trees, spec: DataSpec, node: int) -> str:
    feature = int(trees.feature[node])
    name = spec.feature_names[feature] if spec.feature_names else f"x[{feature}]"
    missing = bool(trees.missing_left[node])
    if trees.category.shape[1] and not bool(trees.category[feature, 0].isnan()):
        values = trees.category[feature][~trees.category[feature].isnan()].tolist()
        names = spec.categories[feature] if spec.categories else ()
        words = names if len(names) == len(values) else [f"{value:g}" for value in values]
        chosen = [word for word, is_left in zip(words, trees.subset[node].tolist(), strict=False) if is_left]
        listed = ", ".join(chosen[:8]) + (", …" if len(chosen) > 8 else "")
        return f"{name} in {{{listed}}}"
    threshold = float(trees.threshold[node])
    if math.isinf(threshold) and threshold > 0:
        return f"{name} is {'missing or ' if missing else ''}known"
    return f"{name} <= {threshold:.6g}"


def _answer(spec: DataSpec, value: list[float], label: int) -> str:
    if spec.target != "class" or len(value) == 1:
        return ", ".join(f"{v:.6g}" for v in value)
    name = spec.class_names[label] if spec.class_names else str(label)
    return f"{name} ({value[label]:.0%})"


def to_text(trees: Trees, spec: DataSpec, tree: int = 0, max_depth: int = 10) -> str:
    """Return a tree as indented lines: the question of each node, and after it its rows if the answer is yes, then if
    no.

    Args:
        trees: of which one is written.
        spec: with the names of features and classes.
        tree: which one.
        max_depth: deeper nodes are left out.
    """
    lines: list[str] = []
    questions: dict[int, str] = {}
    for node in describe(trees, spec, tree, max_depth):
        if node.parent >= 0:
            question = questions[node.parent] if node.is_left else f"not {questions[node.parent]}"
            lines.append(
                "|   " * (node.depth - 1)
                + f"|-- {question}"
                + ("" if node.question else f": {node.answer}, {node.num_rows} rows")
            )
        elif not node.question:
            lines.append(f"{node.answer}, {node.num_rows} rows")
        questions[node.number] = node.question
    return "\n".join(lines)


def to_graphviz(trees: Trees, spec: DataSpec, tree: int = 0, max_depth: int = 10) -> str:
    """Return a tree in Graphviz's language, for `dot -Tsvg`.

    Args:
        trees: of which one is written.
        spec: with the names of features and classes.
        tree: which one.
        max_depth: deeper nodes are left out.
    """
    lines = ["digraph tree {", '  node [shape=box, style=rounded, fontname="sans-serif"];']
    for node in describe(trees, spec, tree, max_depth):
        parts = [part for part in (node.question, node.answer, f"{node.num_rows} rows") if part]
        label = "\\n".join(part.replace("\\", "\\\\").replace('"', '\\"') for part in parts)
        lines.append(f'  {node.number} [label="{label}"];')
        if node.parent >= 0:
            lines.append(f'  {node.parent} -> {node.number} [label="{"yes" if node.is_left else "no"}"];')
    return "\n".join([*lines, "}"])
