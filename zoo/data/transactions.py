"""Baskets: rows that are sets of items, such as the articles of a receipt.

A batch has the items of all its baskets one after the other in `items` (N,), and the number of items of each in
`lengths` (B,). Items are numbered in sorted order of their names (of their numbers, where all are integers) and stand
in ascending order, once each, in a basket, so that neither the order of the rows nor repeats in the source matter.

Legend: B baskets, N items of all baskets of a batch, M different items.
"""

from __future__ import annotations

import ast
import functools
import itertools
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.base import Rows
from zoo.data.basket_files import SUFFIXES, read_baskets
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.data.splits import SplitData
from zoo.data.tables import find_files
from zoo.errors import ZooError

__all__ = ["BasketData", "BasketFiles", "BasketRows", "PythonImports", "encode_baskets"]


class BasketRows(Rows):
    """Baskets held in memory.

    Args:
        items: item numbers of all baskets one after the other, int32 or int64.
        lengths: number of items of each basket, int64.
    """

    def __init__(self, items: Tensor, lengths: Tensor) -> None:
        self.items, self.lengths = items, lengths
        self.starts = lengths.cumsum(0) - lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def whole(self) -> Batch:
        return Batch(items=self.items.long(), lengths=self.lengths)

    def __getitem__(self, index: Tensor | slice) -> Batch:
        lengths, starts = self.lengths[index], self.starts[index]
        shift = torch.repeat_interleave(starts - (lengths.cumsum(0) - lengths), lengths)
        places = torch.arange(len(shift)) + shift
        return Batch(items=self.items[places].long(), lengths=lengths)


def encode_baskets(baskets: Iterable[Iterable[Hashable]]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Number the items of baskets.

    Args:
        baskets: one iterable of items a basket; an empty one counts as a basket, repeats of an item do not.

    Returns:
        Item numbers of all baskets (N,) int32, items of each basket, int64, and the items' names.

    Example:
        >>> encode_baskets([["milk", "bread", "milk"], [], ["milk"]])
        (tensor([0, 1, 1], dtype=torch.int32), tensor([2, 0, 1]), ('bread', 'milk'))
    """
    from array import array

    numbers: dict[Hashable, int] = defaultdict(itertools.count().__next__)
    flat, ends = array("q"), array("q")
    for basket in baskets:
        flat.extend(map(numbers.__getitem__, basket))
        ends.append(len(flat))
    names = [str(item) for item in numbers]
    integers = all(name.removeprefix("-").isdecimal() for name in names)
    order = sorted(range(len(names)), key=(lambda i: int(names[i])) if integers else names.__getitem__)
    rank = torch.tensor(order, dtype=torch.int64).argsort()
    until, items = (torch.frombuffer(part, dtype=torch.int64) if part else rank[:0] for part in (ends, flat))
    lengths = until.diff(prepend=until.new_zeros(1)) if len(until) else until
    rows, base = torch.repeat_interleave(lengths), max(len(names), 1)
    keys = torch.unique(rows * base + rank[items])  # ascending in each basket, each item once
    return (keys % base).int(), torch.bincount(keys // base, minlength=len(lengths)), tuple(names[i] for i in order)


class Baskets(SplitData):
    """Base of the basket data: a subclass implements `read`.

    Args:
        val_fraction: share of the baskets held out for validation; 0 for none.
        test_fraction: share of the baskets held out for the test; 0 for none.
        **options: those of `ZooDataModule`.
    """

    def __init__(
        self, *, val_fraction: float = 0.0, test_fraction: float = 0.0, batch_size: int = 4096, **options: Any
    ) -> None:
        super().__init__(val_fraction=val_fraction, test_fraction=test_fraction, batch_size=batch_size, **options)

    def read(self) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Return items, lengths and names, as `encode_baskets` does."""
        raise NotImplementedError

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        items, lengths, names = self.read()
        if not names:
            raise ZooError("The baskets hold no item: there is nothing to count.")
        rows = BasketRows(items, lengths)
        spec = DataSpec("transactions", (len(names),), vocab_size=len(names), feature_names=names)
        parts = self.split(len(rows))
        if len(parts) == 1 and self.parts is None:  # all baskets in their order: no copy
            return spec, {"train": rows}
        splits: dict[str, Rows | None] = {}
        for name, part in parts.items():
            batch = rows[part]
            splits[name] = BasketRows(batch.items.int(), batch.lengths)
        return spec, splits


class BasketData(Baskets):
    """Baskets from Python, for `zoo.fit`.

    Args:
        baskets: one list of items a basket, or a matrix of zeros and ones, (B, M).
        names: the names of the matrix's columns.
        **options: those of `Baskets`.

    Example:
        >>> data = BasketData([["milk", "bread"], ["milk"]])
        >>> data.spec.feature_names, data.rows("train")[torch.tensor([0])].items.tolist()
        (('bread', 'milk'), [0, 1])
    """

    name, of_python = "baskets", True

    def __init__(self, baskets: Any, names: Sequence[str] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.baskets, self.names = baskets, names

    def read(self) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        if not hasattr(self.baskets, "shape"):
            return encode_baskets(self.baskets)
        return encode_matrix(torch.as_tensor(self.baskets), self.names)


def encode_matrix(matrix: Tensor, names: Sequence[str] | None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Baskets from a matrix of zeros and ones, (B, M), in the form of `encode_baskets`."""
    if matrix.ndim != 2 or bool(((matrix != 0) & (matrix != 1)).any()):
        raise ZooError("A matrix of baskets has a row a basket and a column an item, and holds zeros and ones alone.")
    if names is not None and len(names) != matrix.shape[1]:
        raise ZooError(f"{len(names)} names were given for {matrix.shape[1]} columns: give one a column.")
    chosen = matrix != 0
    names = range(matrix.shape[1]) if names is None else names  # type: ignore[assignment]
    return chosen.nonzero()[:, 1].int(), chosen.sum(1), tuple(map(str, names))  # type: ignore[arg-type]


@register_data("baskets", kind="transactions", target=None)
class BasketFiles(Baskets):
    """Your own baskets: a line of items each (.csv, .txt; .dat with blanks between them; .gz too), or one-hot Parquet.

    Args:
        path: the files: one, a list, a folder or a pattern.
        delimiter: what stands between the items of a line; None for a comma, and for blanks in .dat files.
        encoding: text encoding of the files.
        **options: those of `Baskets`.
    """

    def __init__(
        self,
        *,
        path: str | list[str] | None = None,
        delimiter: str | None = None,
        encoding: str = "utf8",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path, self.delimiter, self.encoding = path, delimiter, encoding

    def files(self) -> list[str]:
        return find_files(self.path, SUFFIXES)

    def read(self) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        return encode_baskets(
            basket for path in self.files() for basket in read_baskets(path, self.delimiter, self.encoding)
        )


@register_data("python_imports", kind="transactions", target=None)
class PythonImports(Baskets):
    """Python's standard library: each file a basket of the modules that it imports (no download).

    Args:
        **options: those of `Baskets`.
    """

    def read(self) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        return encode_baskets(standard_library_imports())


@functools.cache
def standard_library_imports() -> tuple[frozenset[str], ...]:
    """The top-level modules that each file of the standard library imports, tests left out, in order of paths."""
    root = Path(sysconfig.get_paths()["stdlib"])
    packages = sorted(name for name in sys.stdlib_module_names if (root / name / "__init__.py").is_file())
    files = sorted(root.glob("*.py")) + [file for name in packages for file in sorted((root / name).rglob("*.py"))]
    kept = (file for file in files if not {"test", "tests", "idle_test"} & set(file.relative_to(root).parts))
    return tuple(frozenset(imported_modules(file)) for file in kept)


def imported_modules(file: Path) -> Iterator[str]:
    """Yield the top-level name of each absolute import of a Python file."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # a template or a sample of bad syntax
        return
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements in a syntax tree, however deep, without looking into expressions, which are most of it."""
    for block in ("body", "orelse", "handlers", "finalbody", "cases"):
        for inner in getattr(node, block, ()):
            yield inner
            yield from statements(inner)
