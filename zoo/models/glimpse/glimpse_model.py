"""What `ram` and `draw` share: a network that sees an image through glimpses, one after the other, and then answers.

Letters: B images, T glimpses, H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from zoo.data.spec import Batch
from zoo.models.base import ZooModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Glances", "LooksAtImages", "pixels"]

SHOWN = 8  # images whose glances are drawn


class Glances(NamedTuple):
    """What a network did with some images.

    Attributes:
        hidden: the state after the last glimpse, (B, H).
        centres: where it looked, (B, T, 2), x and y in pixels from the upper left corner.
        sides: how large the squares were that it saw, (B, T, K) in pixels, K squares at each place.
        log_probs: log π of the places that it chose by chance, (B, T − 1); None where none were.
        baselines: what reward it expected before each of these, (B, T − 1); None where there is none.
    """

    hidden: Tensor
    centres: Tensor
    sides: Tensor
    log_probs: Tensor | None = None
    baselines: Tensor | None = None


class LooksAtImages(ZooModel):
    """A mixin for gradient models that classify images by glimpses: a subclass implements `glance(x)`."""

    def glance(self, x: Tensor) -> Glances:
        """Return what the network does with images (B, C, H, W)."""
        raise NotImplementedError

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)
        assert self.spec is not None
        few = batch.x[:SHOWN]
        found = self.glance(few)
        names = self.spec.class_names or tuple(map(str, range(self.spec.num_classes or 0)))
        said = [names[int(c)] for c in columns["prediction"][: len(few)]]
        if batch.y is not None:
            said = [f"{names[int(y)]} → {c}" for y, c in zip(batch.y[: len(few)], said, strict=True)]
        yield "glances", visual.glances(few, found.centres, found.sides, said)

    def graph_input(self, batch: Batch) -> Tensor:
        return batch.x[:1]


def pixels(places: Tensor, height: int, width: int) -> Tensor:
    """Return places (…, 2) between −1 and 1 in pixels from the middle of the first one.

    >>> import torch
    >>> pixels(torch.tensor([0.0, -1.0]), 4, 4)
    tensor([ 1.5000, -0.5000])
    """
    sides = places.new_tensor([width, height])
    return (places + 1) / 2 * sides - 0.5
