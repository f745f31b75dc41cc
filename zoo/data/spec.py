"""What a DataModule yields, said once: models take their shapes from it and nothing of it is in a config."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from zoo.numerics.sparse import is_sparse, take_rows
from zoo.tasks import find_task

__all__ = ["Batch", "DataSpec", "Kind", "Target"]

Kind = Literal["tabular", "image", "sequence", "tokens", "pairs", "series", "transactions"]
Target = Literal["class", "value", "tokens", "series", "bits"]


class Batch(NamedTuple):
    """A batch of B examples, its inputs by name; what the data do not have is None.

    Examples of different lengths are padded to T steps behind their last one, and a mask says which steps count: True
    for a step that is there. Whatever stands in a padded step changes no answer, loss, metric or gradient. Baskets,
    which are sets and have no steps, lie one after the other instead.

    Attributes:
        x: numbers: rows (B, F), images (B, C, H, W), sequences and series (B, T, F). Rows that are mostly zeros, as
            bags of words are, come as a sparse matrix (CSR); models that ask for none (`takes_sparse`) get it dense.
        y: class indices (B,), values (B,) or (B, num_targets), next tokens (B, T) or bits (B, T, num_targets), with
            −100 where none counts.
        weight: sample weights (B,); None means one each.
        mask: which steps of `x` or `tokens` are there, (B, T), bool; None means all.
        tokens: token ids (B, T).
        segments: to which of two texts each token belongs, (B, T).
        source: token ids of what is translated, (B, S).
        source_mask: which of them are there, (B, S), bool.
        target: token ids of the translation so far, (B, T).
        target_mask: which of them are there, (B, T), bool.
        items: items of all baskets one after the other, (N,).
        lengths: number of items of each basket, (B,).
    """

    # Inputs are typed as if they were there: a model reads those that its kind of data has.
    x: Tensor = None  # type: ignore[assignment]
    y: Tensor | None = None
    weight: Tensor | None = None
    mask: Tensor | None = None
    tokens: Tensor = None  # type: ignore[assignment]
    segments: Tensor | None = None
    source: Tensor = None  # type: ignore[assignment]
    source_mask: Tensor | None = None
    target: Tensor = None  # type: ignore[assignment]
    target_mask: Tensor | None = None
    items: Tensor = None  # type: ignore[assignment]
    lengths: Tensor = None  # type: ignore[assignment]

    @property
    def size(self) -> int:
        """Number of examples."""
        x = self.x  # asked several times a step: `shape` costs a third of what `len` of a tensor does
        if x is None:
            x = next(rows for rows in (self.tokens, self.source, self.lengths) if rows is not None)
        return x.shape[0]

    @property
    def inputs(self) -> Tensor:
        """What stands first among the inputs: numbers, tokens or the source."""
        found = next((rows for rows in (self.x, self.tokens, self.source, self.items) if rows is not None), None)
        assert found is not None, "a batch without inputs"
        return found

    @classmethod
    def of(cls, kind: str, inputs: Tensor, y: Tensor | None = None, mask: Tensor | None = None) -> Batch:
        """Return a batch of bare inputs under the name that data of this kind have.

        >>> Batch.of("tokens", torch.tensor([[3, 1]])).tokens
        tensor([[3, 1]])
        """
        return cls(**{"tokens" if kind == "tokens" else "x": inputs}, y=y, mask=mask)

    def rows(self, index: Tensor | slice) -> Batch:
        """Return some of the examples (not of baskets, whose items lie one after the other)."""
        assert self.items is None
        if self.x is not None and is_sparse(self.x):
            return self._replace(x=None).rows(index)._replace(x=take_rows(self.x, index))
        if isinstance(index, Tensor) and index.dtype == torch.int64 and index.ndim == 1:  # faster than by brackets
            return Batch(*[None if column is None else column.index_select(0, index) for column in self])
        return Batch(*[None if column is None else column[index] for column in self])

    def split(self, size: int) -> Iterator[Batch]:
        """Yield the examples `size` at a time; a batch without any comes as it is."""
        if self.size <= size:
            yield self
        elif self.items is None:
            yield from (self.rows(slice(i, i + size)) for i in range(0, self.size, size))
        else:
            ends = self.lengths.cumsum(0)
            for i in range(0, self.size, size):
                lengths = self.lengths[i : i + size]
                stop = int(ends[min(i + size, self.size) - 1])
                yield Batch(items=self.items[stop - int(lengths.sum()) : stop], lengths=lengths)


@dataclass(frozen=True)
class DataSpec:
    """The shape and meaning of what a DataModule yields.

    Attributes:
        kind: `tabular` (F,), `image` (C, H, W), `sequence` (T, F), `tokens` (T,), `pairs`, `series` (T, F) or
            `transactions` (see `zoo.tasks`).
        shape: shape of one input, without the batch.
        target: `class`, `value`, `tokens`, `series`, `bits`, or None where there are no targets.
        num_classes: number of classes, for `class` targets.
        num_targets: number of values predicted at once, for `value`, `series` and `bits` targets.
        vocab_size: number of different tokens or items.
        class_names: a name for each class.
        feature_names: a name for each input feature (or item of a basket).
        target_names: a name for each predicted value.
        categories: for each feature the names of its categories, whose places 0, 1, … are its values; none for numbers.
        tokenizer: the JSON of a tokenizer of the `tokenizers` library.
        dtype: name of the floating type of the inputs, such as `float32`.
        sparse: whether most of the inputs are 0, so that batches hold them as sparse matrices.
        stream: whether each batch goes on where the one before ended, so that a model may carry its state along.

    Example:
        >>> DataSpec(kind="tabular", shape=(4,), target="class", num_classes=3).num_features
        4
    """

    kind: Kind
    shape: tuple[int, ...] = ()
    target: Target | None = None
    num_classes: int | None = None
    num_targets: int = 1
    vocab_size: int | None = None
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    categories: tuple[tuple[str, ...], ...] | None = None
    tokenizer: str | None = None
    dtype: str = "float32"
    sparse: bool = False
    stream: bool = False

    @property
    def num_features(self) -> int:
        """Number of values in one input, flattened."""
        return math.prod(self.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The floating type of the inputs."""
        return getattr(torch, self.dtype)

    @property
    def task(self) -> str | None:
        """The supervised task that the targets pose, or None without targets."""
        task = find_task(self.kind, self.target)
        return None if task is None else task.name

    @property
    def example_shape(self) -> tuple[int | None, ...]:
        """The shape of one input, with None for a number of steps that may differ."""
        if self.kind == "pairs":
            return (None,) * len(self.shape)
        return (None, *self.shape[1:]) if self.kind in ("sequence", "tokens") else self.shape

    def matches(self, other: DataSpec, targets: bool = True) -> bool:
        """Whether a model that was built for these data can take the others; it may not look at the targets."""
        names = ["kind", "example_shape", "vocab_size"]
        names += ["target", "num_classes", "num_targets"] if targets else []
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def to_dict(self) -> dict[str, Any]:
        """Return plain primitives, fit for a checkpoint."""
        return {key: _listed(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> DataSpec:
        """Rebuild the spec that `to_dict` wrote."""
        return cls(**{key: _tupled(value) for key, value in fields.items()})

    def describe(self) -> str:
        """Say in a few words what the data are, for messages."""
        shape = "×".join(map(str, self.shape))
        sizes = [
            f"{count:,} {what}"
            for what, count in (("classes", self.num_classes), ("tokens", self.vocab_size))
            if count and (what == "classes" or self.kind == "tokens")
        ]
        return (
            f"{self.kind} data"
            + (f" ({shape})" if shape else "")
            + (f" with {self.target} targets" if self.target else "")
            + (f" and {' and '.join(sizes)}" if sizes else "")
        )


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value
