"""Synthetic streams of any length: a row is a function of (seed, row number), so none is held in memory.

Row n takes the words n·W … n·W + W - 1 of the seed's stream (see `zoo.numerics.hashing`), and the splits are
ranges of rows.

- blobs: class c uniform, x ~ N(center_c, cluster_std²) (the mixture of scikit-learn's `make_blobs`)
- moons: angle t uniform on [0, π], class 0 at (cos t, sin t), class 1 at (1 - cos t, ½ - sin t), plus noise
- regression: x ~ N(0, 1), y = x · w + b + noise ε, with w and b uniform on [-100, 100] and known

Legend: B batch, F features, C classes, W words of a row. Deviation: scikit-learn deals classes in equal
numbers; here each row draws its own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zoo.data.base import Rows
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.data.splits import SplitData
from zoo.errors import ZooError
from zoo.numerics.hashing import normals, splitmix64, stream_key, uniforms

__all__ = ["Blobs", "Moons", "Regression", "SyntheticRows"]

# A chunk of words stays in the cache and below the size from which torch starts threads.
_CHUNK_WORDS = 16_384


class SyntheticRows(Rows):
    """The rows `first` … `first + num_rows - 1` of a synthetic stream.

    Args:
        source: the DataModule whose `make(words)` turns the words (B, W) of some rows into their x and y.
        first: number of the first row.
        num_rows: number of rows.
    """

    block_size = 65_536

    def __init__(self, source: Synthetic, first: int, num_rows: int) -> None:
        self.make, self.key, self.num_words = source.generator(), stream_key(source.seed), source.num_words
        self.first, self.num_rows = first, num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: Tensor) -> Batch:
        columns = torch.arange(self.num_words)
        counters = (index + self.first).mul_(self.num_words).unsqueeze(1)  # (B, 1)
        chunks = counters.split(max(1, _CHUNK_WORDS // self.num_words))
        parts = [self.make(splitmix64(self.key, chunk + columns)) for chunk in chunks]
        if len(parts) == 1:
            return parts[0]
        return Batch(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))  # type: ignore[misc]


class Synthetic(SplitData):
    """Base of the synthetic data: a subclass sets `num_words`, `generator` returns what makes rows of words.

    Args:
        num_rows: number of rows of all splits together.
        **options: those of `SplitData`.
    """

    num_words: int

    def __init__(self, *, num_rows: int = 1000, **options: Any) -> None:
        super().__init__(**options)
        _check("num_rows", num_rows, 1)
        self.num_rows = num_rows

    def describe(self) -> DataSpec:
        """Return the spec."""
        raise NotImplementedError

    def generator(self) -> Any:
        """Return a picklable function from words (B, W) to a `Batch`."""
        raise NotImplementedError

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        val, test = (round(self.num_rows * share) for share in (self.val_fraction, self.test_fraction))
        train = self.num_rows - val - test
        ranges = {"train": (0, train), "val": (train, val), "test": (train + val, test)}
        return self.describe(), {
            name: SyntheticRows(self, *where) if where[1] else None for name, where in ranges.items()
        }


def _check(name: str, value: float, low: float) -> None:
    if not low <= value < math.inf:
        raise ZooError(f"data.{name} must be at least {low:g}, not {value}.")


def _uniform(seed: int, stream: int, shape: tuple[int, ...], high: float) -> Tensor:
    """Return float64 constants of a data set, uniform on [-high, high]."""
    words = splitmix64(stream_key(seed, stream), torch.arange(torch.Size(shape).numel()))
    return uniforms(words, torch.float64)[0].mul_(2).sub_(1).mul_(high).view(shape)


@register_data("blobs", kind="tabular", target="class")
class Blobs(Synthetic):
    """Gaussian clusters: any number of rows, features and clusters, made as they are asked for.

    Args:
        num_features: number of features.
        num_classes: number of clusters, whose centers are drawn from the seed.
        centers: the centers themselves, a list of points, in place of `num_features` and `num_classes`.
        cluster_std: standard deviation of each feature within a cluster.
        center_box: the centers are drawn from [-center_box, center_box].
        **options: those of `Synthetic`.

    Example:
        >>> Blobs(num_rows=10_000_000_000, centers=[[0.0, 0.0], [5.0, 5.0]]).spec.shape
        (2,)
    """

    def __init__(
        self,
        *,
        num_features: int = 2,
        num_classes: int = 3,
        centers: list[list[float]] | None = None,
        cluster_std: float = 1.0,
        center_box: float = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if centers is not None and len({len(center) for center in centers}) != 1:
            raise ZooError("data.centers must be a list of points of one length, such as [[0,0],[5,5]].")
        for name, value, low in (
            ("num_features", num_features, 1),
            ("num_classes", num_classes if centers is None else len(centers), 1),
            ("cluster_std", cluster_std, 0),
            ("center_box", center_box, 0),
        ):
            _check(name, value, low)
        self.cluster_std = cluster_std
        if centers is None:
            self.centers = _uniform(self.seed, 1, (num_classes, num_features), center_box)  # (C, F)
        else:
            self.centers = torch.tensor(centers, dtype=torch.float64)
        self.num_words = 1 + -(-self.centers.shape[1] // 2)

    def describe(self) -> DataSpec:
        num_classes, num_features = self.centers.shape
        return DataSpec("tabular", (num_features,), "class", num_classes=num_classes)

    def generator(self) -> _MakeBlobs:
        return _MakeBlobs(self.centers.float(), self.cluster_std)


class _MakeBlobs:
    def __init__(self, centers: Tensor, std: float) -> None:
        self.centers, self.std = centers, std

    def __call__(self, words: Tensor) -> Batch:
        label = (words[:, 0] >> 1 & 0x3FFF_FFFF_FFFF_FFFF) % len(self.centers)  # (B,)
        x = normals(words[:, 1:])[:, : self.centers.shape[1]]  # (B, F)
        return Batch(self.centers[label].add_(x, alpha=self.std), label)


@register_data("moons", kind="tabular", target="class")
class Moons(Synthetic):
    """Two interleaved half circles in the plane, for models that can bend their decision boundary.

    Args:
        noise: standard deviation added to both coordinates.
        **options: those of `Synthetic`.
    """

    num_words = 2

    def __init__(self, *, noise: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        _check("noise", noise, 0)
        self.noise = noise

    def describe(self) -> DataSpec:
        return DataSpec("tabular", (2,), "class", num_classes=2, class_names=("upper", "lower"))

    def generator(self) -> _MakeMoons:
        return _MakeMoons(self.noise)


class _MakeMoons:
    def __init__(self, noise: float) -> None:
        self.noise = noise

    def __call__(self, words: Tensor) -> Batch:
        label = words[:, 0] & 1  # (B,)
        angle = uniforms(words[:, 0])[0].mul_(math.pi)
        upper = torch.stack((angle.cos(), angle.sin()), dim=1)  # (B, 2)
        lower = torch.tensor([1.0, 0.5]) - upper
        x = torch.where(label.bool().unsqueeze(1), lower, upper)
        return Batch(x.add_(normals(words[:, 1:]), alpha=self.noise), label)


@register_data("regression", kind="tabular", target="value")
class Regression(Synthetic):
    """A linear relation with known weights and Gaussian noise, of any number of rows and features.

    Args:
        num_features: number of features.
        noise: standard deviation of the noise of the values.
        **options: those of `Synthetic`.

    Attributes:
        weight: the true weights, (F,), float64.
        bias: the true bias, (), float64.

    Example:
        >>> data = Regression(num_features=3, noise=0.0)
        >>> batch = data.rows("train")[torch.arange(4)]
        >>> torch.allclose(batch.x @ data.weight + data.bias, batch.y)
        True
    """

    def __init__(self, *, num_features: int = 10, noise: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        _check("num_features", num_features, 1)
        _check("noise", noise, 0)
        self.noise = noise
        self.weight = _uniform(self.seed, 1, (num_features,), 100.0)
        self.bias = _uniform(self.seed, 2, (), 100.0)
        self.num_words = -(-(num_features + 1) // 2)

    def describe(self) -> DataSpec:
        return DataSpec("tabular", (len(self.weight),), "value", dtype="float64")

    def generator(self) -> _MakeRegression:
        return _MakeRegression(self.weight, self.bias, self.noise)


class _MakeRegression:
    def __init__(self, weight: Tensor, bias: Tensor, noise: float) -> None:
        self.weight, self.bias, self.noise = weight, bias, noise

    def __call__(self, words: Tensor) -> Batch:
        z = normals(words, torch.float64)  # (B, F + 1), perhaps one more
        x = z[:, : len(self.weight)].contiguous()
        y = (x * self.weight).sum(1).add_(self.bias)  # a matrix product rounds by the number of rows
        return Batch(x, y.add_(z[:, len(self.weight)], alpha=self.noise))
