"""Sequences: images read row by row, and the adding problem."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.data.base import Rows
from zoo.data.bundled import Digits
from zoo.data.images import MNIST
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.data.synthetic import Synthetic
from zoo.errors import ZooError
from zoo.numerics.hashing import uniforms

__all__ = ["Adding", "DigitsRows", "ImagesAsRows", "MNISTRows"]


class ImagesAsRows(Rows):
    """Grey images (B, 1, H, W) as sequences (B, T = H, F = W), from top to bottom."""

    def __init__(self, images: Rows) -> None:
        self.images, self.block_size = images, images.block_size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor) -> Batch:
        batch = self.images[index]
        return batch._replace(x=batch.x.squeeze(1))


def as_sequences(
    spec: DataSpec, splits: dict[str, Rows | None], classes: int
) -> tuple[DataSpec, dict[str, Rows | None]]:
    """Turn the spec and the splits of grey images into those of sequences of their rows."""
    sequence = DataSpec("sequence", spec.shape[1:], "class", num_classes=classes, class_names=spec.class_names)
    return sequence, {name: None if rows is None else ImagesAsRows(rows) for name, rows in splits.items()}


@register_data("digits_rows", kind="sequence", target="class")
class DigitsRows(Digits):
    """Handwritten digits read row by row: sequences of 8 steps of 8 pixels.

    Args:
        **options: those of `Digits`.
    """

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        return as_sequences(*super().load(), classes=10)


@register_data("mnist_rows", kind="sequence", target="class")
class MNISTRows(MNIST):
    """MNIST read row by row: sequences of 28 steps of 28 pixels.

    Args:
        **options: those of `MNIST`.
    """

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        return as_sequences(*super().load(), classes=10)


@register_data("adding", kind="sequence", target="value")
class Adding(Synthetic):
    """The adding problem: the sum of the two marked numbers of a long sequence (Hochreiter & Schmidhuber 1997).

    Each step has a number in (0, 1] and a mark; one mark falls into the first half and one into the second. The
    constant answer 1 has a mean squared error of 1/6.

    Args:
        length: T, steps of a sequence.
        **options: those of `Synthetic`.
    """

    def __init__(self, *, length: int = 100, num_rows: int = 60_000, **options: Any) -> None:
        super().__init__(num_rows=num_rows, **options)
        if length < 2:
            raise ZooError(f"data.length must be at least 2, not {length}.")
        self.length, self.num_words = length, length + 1

    def describe(self) -> DataSpec:
        return DataSpec("sequence", (self.length, 2), "value")

    def generator(self) -> _MakeAdding:
        return _MakeAdding(self.length)


class _MakeAdding:
    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, words: Tensor) -> Batch:
        values = uniforms(words[:, :-1])[0]  # (B, T)
        half = self.length // 2
        first, second = (u.mul(0.999999) for u in uniforms(words[:, -1]))
        marked = torch.stack([(first * half).long(), half + (second * (self.length - half)).long()], dim=1)  # (B, 2)
        marks = torch.zeros_like(values).scatter_(1, marked, 1.0)
        return Batch(torch.stack([values, marks], dim=2), (values * marks).sum(1))
