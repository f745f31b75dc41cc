"""The small real data sets that scikit-learn carries: nothing to download, the same on every machine.

Sources: digits, Alpaydin & Kaynak 1998; iris, Fisher 1936; wine, Forina et al. 1991; breast_cancer, Street,
Wolberg & Mangasarian 1993; diabetes, Efron, Hastie, Johnstone & Tibshirani 2004.
Deviation: digits are scaled from 0…16 to [0, 1].
"""

from __future__ import annotations

from typing import Any

import torch

from zoo.data.base import Rows
from zoo.data.registry import register_data
from zoo.data.scaling import Standardize
from zoo.data.spec import Batch, DataSpec
from zoo.data.splits import SplitData, TabularData

__all__ = ["BreastCancer", "Diabetes", "Digits", "Iris", "Wine"]


def bundled(name: str) -> Any:
    """Return scikit-learn's bundled data set `name`."""
    from sklearn import datasets

    return getattr(datasets, f"load_{name}")()


@register_data("digits", kind="image", target="class")
class Digits(SplitData):
    """Handwritten digits: 1,797 grey images of 8×8 in 10 classes.

    Args:
        **options: those of `SplitData`.
    """

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        source = bundled("digits")
        self.applied.scaling = Standardize(torch.tensor(0.0), torch.tensor(16.0))
        x = self.applied.scaled(Batch(torch.from_numpy(source.images).float().unsqueeze(1))).x  # (N, 1, 8, 8)
        names = tuple(map(str, source.target_names))
        spec = DataSpec("image", (1, 8, 8), "class", num_classes=10, class_names=names)
        return spec, self.split_tensors(Batch(x, torch.from_numpy(source.target).long()), spec)


class _Table(TabularData):
    """A bundled table of float64 features."""

    source: str
    target = "class"

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        source = bundled(self.source)
        x, y = torch.from_numpy(source.data), torch.from_numpy(source.target)
        names = tuple(map(str, getattr(source, "target_names", ()))) or None
        spec = DataSpec(
            "tabular",
            (x.shape[1],),
            self.target,  # type: ignore[arg-type]
            num_classes=len(names) if names else None,
            class_names=names,
            feature_names=tuple(map(str, source.feature_names)),
            target_names=None if names else ("progression",),
            dtype="float64",
        )
        return spec, self.scale(self.split_tensors(Batch(x, y.long() if names else y), spec))


@register_data("iris", kind="tabular", target="class")
class Iris(_Table):
    """Iris flowers: 150 rows of 4 lengths in cm, 3 species.

    Args:
        **options: those of `TabularData`.
    """

    source = "iris"


@register_data("wine", kind="tabular", target="class")
class Wine(_Table):
    """Wines: 178 rows of 13 chemical measurements, 3 cultivars.

    Args:
        **options: those of `TabularData`.
    """

    source = "wine"


@register_data("breast_cancer", kind="tabular", target="class")
class BreastCancer(_Table):
    """Breast cancer (Wisconsin, diagnostic): 569 rows of 30 measurements of cell nuclei, malignant or benign.

    Args:
        **options: those of `TabularData`.
    """

    source = "breast_cancer"


@register_data("diabetes", kind="tabular", target="value")
class Diabetes(_Table):
    """Diabetes: 442 rows of 10 measurements, and the disease's progression a year later as the value.

    Args:
        **options: those of `TabularData`.
    """

    source = "diabetes"
    target = "value"
