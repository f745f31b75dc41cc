"""The user's own images: one folder a class, as `torchvision.datasets.ImageFolder` reads it, decoded by Pillow.

Either `path/CLASS/*.png`, split by fractions, or `path/train/CLASS/*.png` with `val` and `test` beside it.

Legend: N images, B batch, C channels, H×W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.base import Rows, split_rows
from zoo.data.pixels import ImageData
from zoo.data.registry import register_data
from zoo.data.spec import DataSpec
from zoo.errors import ZooError

__all__ = ["Decoder", "ImageFolder"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_GREY = ("1", "L", "LA")


class Decoder:
    """Image files that answer an index tensor (B,) with their pixels as bytes, (B, C, H, W).

    Args:
        paths: the files.
        size: height and width, to which others are resized (bilinear).
        channels: 1 for grey, 3 for colour.
    """

    def __init__(self, paths: list[Path], size: tuple[int, int], channels: int) -> None:
        self.paths, self.size, self.channels = paths, size, channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor) -> Tensor:
        images = torch.empty(len(index), self.channels, *self.size, dtype=torch.uint8)
        for image, row in zip(images, index.tolist(), strict=True):
            image.copy_(self.decode(self.paths[row]))
        return images

    def decode(self, path: Path) -> Tensor:
        """Return the pixels (C, H, W) of one file."""
        with open_image(path) as image:
            try:
                pixels = image.convert("L" if self.channels == 1 else "RGB")
            except (OSError, SyntaxError, ValueError) as error:
                raise ZooError(f"{path} cannot be decoded ({error}): replace or delete it.") from None
        if pixels.size != self.size[::-1]:
            pixels = pixels.resize(self.size[::-1], resample=2)  # bilinear, over the whole area that shrinks
        return torch.from_numpy(np.array(pixels)).view(*self.size, self.channels).permute(2, 0, 1)


def open_image(path: Path) -> Any:
    """Return the opened image, of which only the head is read."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else error
        raise ZooError(f"{path} cannot be read ({reason}): replace or delete it.") from None


@register_data("image_folder", kind="image", target="class")
class ImageFolder(ImageData):
    """Your own images: one folder a class, below the path or below its train, val and test.

    Args:
        path: the folder.
        size: height and width (or one number for both) to which images are resized; None where all are alike.
        channels: 1 for grey, 3 for colour; None: grey where all images are.
        val_fraction: share of the images held out for validation, where there is no folder `val`.
        test_fraction: share of the images held out for the test, where there is no folder `test`.
        in_memory_limit: bytes of pixels beyond which images are decoded batch by batch.
        **options: those of `ImageData`.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        size: int | list[int] | None = None,
        channels: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        in_memory_limit: int = 1 << 30,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        size = [size, size] if isinstance(size, int) else size
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ZooError(f"data.size must be one positive number or [height, width], not {size}.")
        if channels not in (None, 1, 3):
            raise ZooError(f"data.channels must be 1, 3 or null, not {channels}.")
        if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise ZooError("data.val_fraction and data.test_fraction must be 0 or more, and below 1 together.")
        self.path, self.size, self.channels = path, size, channels
        self.fractions, self.in_memory_limit = (val_fraction, test_fraction), in_memory_limit

    def files(self) -> list[str]:
        return sorted(str(path) for paths, _ in self._files()[0].values() for path in paths)

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        files, names = self._files()
        paths = [path for split, _ in files.values() for path in split]
        shape = self._shape(paths)
        splits = {}
        for name, (split, labels) in files.items():
            pixels: Any = Decoder(split, shape[1:], shape[0])
            if len(paths) * torch.Size(shape).numel() <= self.in_memory_limit:
                pixels = pixels[torch.arange(len(split))]
            splits[name] = (pixels, labels)
        spec = DataSpec("image", shape, "class", num_classes=len(names), class_names=names)
        return spec, self.image_rows(splits)

    def _files(self) -> tuple[dict[str, tuple[list[Path], Tensor]], tuple[str, ...]]:
        """Return paths and classes of each split, and the names of the classes."""
        root = Path(self.path or "").expanduser()
        if not self.path or not root.is_dir():
            raise ZooError(f"data.path must be a folder with one folder of images a class, not {self.path!r}.")
        train_root = root / "train" if (root / "train").is_dir() else root
        names = tuple(sorted(p.name for p in train_root.iterdir() if p.is_dir() and p.name[0] != "."))
        if len(names) < 2:
            raise ZooError(f"{train_root} must hold one folder for each of at least two classes; it has {len(names)}.")
        files = {"train": class_files(train_root, names)}
        fractions = list(self.fractions)
        for number, split in enumerate(("val", "test")):
            if train_root != root and (root / split).is_dir():
                files[split], fractions[number] = class_files(root / split, names), 0.0
        paths, labels = files["train"]
        parts = split_rows(len(paths), (fractions[0], fractions[1]), self.seed, labels)
        for split, rows in zip(("train", "val", "test"), parts, strict=True):
            if len(rows):
                files[split] = [paths[row] for row in rows.tolist()], labels[rows]
        return files, names

    def _shape(self, paths: list[Path]) -> tuple[int, int, int]:
        """Return (C, H, W) from the options, or from the heads of all files."""
        size, channels = self.size, self.channels
        if size is None or channels is None:
            first: Path | None = None
            grey = True
            for path in paths:
                with open_image(path) as image:
                    height_width, grey = [image.height, image.width], grey and image.mode in _GREY
                if size is None:
                    size, first = height_width, path
                elif first and size != height_width:
                    raise ZooError(
                        f"{first} is {size[0]}×{size[1]} and {path} is {height_width[0]}×{height_width[1]}: "
                        f"pass data.size=[{size[0]},{size[1]}] (height, width) to resize them."
                    )
            channels = channels or (1 if grey else 3)
        assert size is not None
        return channels, size[0], size[1]


def class_files(root: Path, names: tuple[str, ...]) -> tuple[list[Path], Tensor]:
    """Return the images below the class folders of `root` in sorted order, and their classes (N,)."""
    unknown = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != "." and p.name not in names)
    if unknown:
        raise ZooError(f"{root} has the class folder '{unknown[0]}', which the training images lack.")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        folder = root / name
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
        if not found and folder.is_dir():
            raise ZooError(f"{folder} holds no image ({', '.join(_SUFFIXES[:4])}, ...): fill or delete the folder.")
        paths += found
        labels += [label] * len(found)
    return paths, torch.tensor(labels)
