"""Digits of MNIST somewhere on a larger canvas, among pieces of other digits: most of such an image is of no use.

Where a digit stands and what lies about it is a function of (seed, split, row), made when the row is asked for.

Legend: N digits, B of a batch, S side of the canvas, P pieces of s × s pixels.

Source: Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention", 2014, §4.1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.data.base import Rows
from zoo.data.images import MNIST
from zoo.data.registry import register_data
from zoo.errors import ZooError
from zoo.numerics.hashing import splitmix64, stream_key

__all__ = ["Canvas", "ClutteredMNIST"]


class Canvas:
    """Digits on canvases, made for the rows that are asked for.

    Args:
        digits: bytes, (N, 1, h, w).
        side: S.
        num_pieces: P, pieces of other digits on each canvas.
        piece_size: s.
        key: of the random numbers.

    Example:
        >>> canvas = Canvas(torch.full((3, 1, 2, 2), 9, dtype=torch.uint8), 4, 0, 1, key=0)
        >>> images = canvas[torch.tensor([1, 1])]
        >>> images.shape, int((images[0] == 9).sum()), bool(images[0].equal(images[1]))
        (torch.Size([2, 1, 4, 4]), 4, True)
    """

    def __init__(self, digits: Tensor, side: int, num_pieces: int, piece_size: int, key: int) -> None:
        self.digits, self.side, self.num_pieces, self.piece_size, self.key = digits, side, num_pieces, piece_size, key

    def __getitem__(self, index: Tensor) -> Tensor:
        height, width = self.digits.shape[-2:]
        draws = 2 + 5 * self.num_pieces
        words = splitmix64(self.key, index.unsqueeze(1) * draws + torch.arange(draws)) >> 8  # (B, draws)
        canvas = torch.zeros(len(index), self.side, self.side, dtype=torch.uint8)

        def put(images: Tensor, top: Tensor, left: Tensor) -> None:
            rows = top[:, None] + torch.arange(images.shape[1])
            columns = left[:, None] + torch.arange(images.shape[2])
            place = torch.arange(len(index))[:, None, None], rows[:, :, None], columns[:, None, :]
            canvas[place] = torch.maximum(canvas[place], images)

        top, left = (words[:, k].remainder(self.side - size + 1) for k, size in enumerate((height, width)))
        put(self.digits[index, 0], top, left)
        s, free = self.piece_size, self.side - self.piece_size + 1
        steps = torch.arange(s)
        for piece in words[:, 2:].unflatten(1, (self.num_pieces, 5)).unbind(1) if self.num_pieces else ():
            which, row, column = (
                piece[:, k].remainder(most) for k, most in enumerate((len(self.digits), height - s + 1, width - s + 1))
            )
            rows, columns = row[:, None] + steps, column[:, None] + steps  # (B, s)
            cut = self.digits[which[:, None, None], 0, rows[:, :, None], columns[:, None, :]]  # (B, s, s)
            put(cut, piece[:, 3].remainder(free), piece[:, 4].remainder(free))
        return canvas.unsqueeze(1)


@register_data("cluttered_mnist", kind="image", target="class")
class ClutteredMNIST(MNIST):
    """MNIST's digits, each somewhere on a larger canvas, among pieces of other digits.

    Args:
        side: pixels on a side of the canvas.
        num_pieces: pieces of other digits; 0 for translated digits alone.
        piece_size: pixels on a side of a piece.
        **options: those of `TorchvisionImages`.
    """

    def __init__(self, *, side: int = 60, num_pieces: int = 4, piece_size: int = 8, **options: Any) -> None:
        super().__init__(**options)
        if not 28 <= side <= 4096:
            raise ZooError(f"data.side must be from 28, the digits' own, to 4096, not {side}.")
        if num_pieces < 0:
            raise ZooError(f"data.num_pieces must be at least 0, not {num_pieces}.")
        if not 1 <= piece_size <= 28:
            raise ZooError(f"data.piece_size must be from 1 to 28, not {piece_size}.")
        self.shape = (1, side, side)
        self.clutter = num_pieces, piece_size

    def image_rows(self, splits: dict[str, tuple[Any, Tensor]]) -> dict[str, Rows | None]:
        """Return the rows of each split of (digits, labels), on canvases."""
        side = self.shape[-1]
        numbers = {"train": 0, "val": 1, "test": 2}
        return super().image_rows(
            {
                name: (Canvas(digits, side, *self.clutter, stream_key(self.seed, numbers[name])), labels)
                for name, (digits, labels) in splits.items()
            }
        )
