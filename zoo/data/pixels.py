"""Images held as bytes: scaled, normalized and augmented a batch at a time.

A random shift and mirror are functions of (seed, epoch, row), so that a resumed run sees the same pixels,
whatever the batch size, the processes and the workers.

Legend: B batch, N images, C channels, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.data.base import Rows, ZooDataModule
from zoo.data.scaling import Standardize
from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.numerics.hashing import splitmix64, stream_key

__all__ = ["Augment", "ImageData", "ImageRows", "channel_moments"]


class Augment:
    """Shift images by up to `padding` pixels (the border is black) and mirror one in two, a batch at once.

    Args:
        padding: greatest shift, in pixels, to each side.
        flip: whether images are mirrored left to right, each with probability ½.
        seed: seed of both.
    """

    def __init__(self, padding: int, flip: bool, seed: int) -> None:
        self.padding, self.flip, self.seed = padding, flip, seed

    def __call__(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """Return the images (B, C, H, W) of the rows `index` (B,) as they look in `epoch`."""
        words = splitmix64(stream_key(self.seed, epoch), index)  # (B,)
        height, width = images.shape[-2:]
        rows = torch.arange(height).expand(len(index), -1)  # (B, H)
        columns = torch.arange(width).expand(len(index), -1)  # (B, W)
        if self.flip:
            columns = torch.where((words & 1).bool().unsqueeze(1), width - 1 - columns, columns)
        if self.padding:
            images = torch.nn.functional.pad(images, [self.padding] * 4)
            span = 2 * self.padding + 1
            rows = rows + (words >> 8 & 0xFFFFFF).remainder(span).unsqueeze(1)
            columns = columns + (words >> 32 & 0xFFFFFF).remainder(span).unsqueeze(1)
        which = torch.arange(len(index))[:, None, None]
        return images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class ImageRows(Rows):
    """Images as bytes with their classes.

    Args:
        pixels: takes an index tensor (B,) and returns uint8 images (B, C, H, W): a tensor does, or a decoder.
        labels: class of each image, (N,).
        scaling: of each channel.
        augment: applied while training.
    """

    def __init__(
        self,
        pixels: Tensor | Any,
        labels: Tensor,
        scaling: Standardize,
        augment: Augment | None = None,
    ) -> None:
        self.pixels, self.labels, self.scaling, self.augment = pixels, labels, scaling, augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Batch:
        images = self.pixels[index]  # (B, C, H, W)
        if self.augment is not None and self.epoch is not None:
            images = self.augment(images, index, self.epoch)
        return self.scaling(Batch(images.float(), self.labels[index]))


def channel_moments(pixels: Any, num_images: int, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (C,) of the bytes of each channel (1 where constant), from integer sums.

    Args:
        pixels: as in `ImageRows`.
        num_images: number of images N.
        chunk: images taken at once.
    """
    total = square = count = 0
    for index in torch.arange(num_images).split(chunk):
        images = pixels[index].int()  # (B, C, H, W)
        total, square = total + images.sum((0, 2, 3)), square + (images * images).sum((0, 2, 3))
        count += images[:, 0].numel()
    mean = total.double() / count  # type: ignore[attr-defined]
    variance = square.double() / count - mean**2  # type: ignore[attr-defined]
    return mean, torch.where(variance > 0, variance.clamp(min=0).sqrt(), 1.0)


class ImageData(ZooDataModule):
    """Base of the image data: normalization by the training images, and augmentation.

    Args:
        normalize: whether each channel is scaled to mean 0 and standard deviation 1 of the training images;
            bytes are scaled to [0, 1] otherwise.
        crop_padding: training images are shifted at random by up to so many pixels.
        flip: whether training images are mirrored at random.
        **options: those of `ZooDataModule`.
    """

    def __init__(self, *, normalize: bool = True, crop_padding: int = 0, flip: bool = False, **options: Any) -> None:
        super().__init__(**options)
        if crop_padding < 0:
            raise ZooError(f"data.crop_padding must be 0 or more, not {crop_padding}.")
        self.normalize, self.crop_padding, self.flip = normalize, crop_padding, flip

    def image_rows(self, splits: dict[str, tuple[Any, Tensor]]) -> dict[str, Rows | None]:
        """Return the rows of each split of (pixels, labels)."""
        splits = self._redivided(splits)
        pixels, labels = splits["train"]
        if self.learnt is not None and self.learnt.scaling is not None:
            scaling = self.learnt.scaling
        else:
            moments = (
                channel_moments(pixels, len(labels)) if self.normalize else (torch.zeros(1), torch.full((1,), 255.0))
            )
            scaling = Standardize(*(moment.float().view(-1, 1, 1) for moment in moments))
        self.applied.scaling = scaling
        augment = Augment(self.crop_padding, self.flip, self.seed) if self.crop_padding or self.flip else None
        rows: Callable[..., Rows] = ImageRows
        return {name: rows(*split, scaling, augment if name == "train" else None) for name, split in splits.items()}

    def _redivided(self, splits: dict[str, tuple[Any, Tensor]]) -> dict[str, tuple[Any, Tensor]]:
        """Return the images of the splits that `divide` asked for."""
        if self.parts is None or not all(isinstance(pixels, Tensor) for pixels, _ in splits.values()):
            return splits
        self.drawn = self.parts
        pixels, labels = (torch.cat(group) for group in zip(*splits.values(), strict=True))
        return {name: (pixels[index], labels[index]) for name, index in self.parts.items()}
