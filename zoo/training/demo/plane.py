"""Click points in the plane of two features, and see the boundary or the clusters move.

The model is fitted anew, with its own hyperparameters, to some of the training rows and the points of the clicks.

Legend: N points.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo import visual
from zoo.models.base import ZooModel
from zoo.registry import create_model
from zoo.training.demo.subject import Subject
from zoo.training.demo.widgets import explained
from zoo.training.fit import fit
from zoo.visual.style import thin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zoo.data.spec import DataSpec

__all__ = ["Frame", "Plane", "place", "scene", "suits"]

POINTS = 300  # training rows among which the clicks fall


@dataclass(frozen=True)
class Plane:
    """Points, and the model that was fitted to them.

    Attributes:
        model: the model.
        x: the points in the user's units, (N, 2), float64.
        y: their classes (N,), or None for a model that needs none.
        codes: the classes that the model's own codes 0 … C-1 mean; None where they are the same.
    """

    model: ZooModel
    x: Tensor
    y: Tensor | None = None
    codes: Tensor | None = None

    def with_point(self, point: tuple[float, float], label: int | None = None) -> Plane:
        """Return the points with one more, and a new model of the same hyperparameters, fitted to all of them."""
        x = torch.cat([self.x, torch.tensor([point], dtype=self.x.dtype)])
        y = None if self.y is None else torch.cat([self.y, torch.tensor([label])])
        old = self.model
        scaled = old.preprocessing is not None and old.preprocessing.scaling is not None
        model = fit(create_model(old.entry.name, **old.hparams), x, y, standardize=scaled)
        labels = model.preprocessing.labels if model.preprocessing else None  # where a class has no point
        return Plane(model, x, y, None if labels is None or y is None else torch.tensor(labels))

    def columns(self, points: Tensor) -> dict[str, Tensor]:
        """Return what the model says of points (N, 2)."""
        found = self.model.predict_columns(points)
        return found if self.codes is None else {"prediction": self.codes[found["prediction"]]}


def scene(plane: Plane, spec: DataSpec) -> Figure:
    """Draw the points, and what the model makes of the plane around them."""
    if plane.y is not None:
        return visual.decision_boundary(plane.columns, plane.x, plane.y, spec)
    return visual.clusters(plane.x, plane.columns(plane.x)["prediction"], centroids_of(plane.model), spec)


def centroids_of(model: ZooModel) -> Tensor | None:
    """Return the centroids of a model that has some, in the user's units."""
    centroids = getattr(model, "centroids", None)
    scaling = model.preprocessing.scaling if model.preprocessing else None
    if centroids is None or scaling is None:
        return centroids
    return centroids * scaling.std + scaling.mean


class Frame(NamedTuple):
    """Where a drawn figure's first axes lie, in pixels from the upper left, and what they show.

    Attributes:
        box: left, upper, right and lower edge.
        shown: the values at these edges.
    """

    box: tuple[float, float, float, float]
    shown: tuple[float, float, float, float]

    @classmethod
    def of(cls, figure: Figure) -> Frame:
        """Measure a figure that has been drawn."""
        axes, height = figure.axes[0], figure.bbox.height
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        box = axes.bbox.x0, height - axes.bbox.y1, axes.bbox.x1, height - axes.bbox.y0
        return cls(box, (left, high, right, low))


def place(frame: Frame, pixel: tuple[float, float]) -> tuple[float, float]:
    """Return the point that lies under a pixel.

    Example:
        >>> place(Frame((100, 10, 300, 110), (0, 1, 10, 0)), (200, 85))
        (5.0, 0.25)
    """
    (left, top, right, low), (first, high, last, bottom) = frame
    across = first + (last - first) * (pixel[0] - left) / (right - left)
    return across, high + (bottom - high) * (pixel[1] - top) / (low - top)


def suits(subject: Subject) -> bool:
    """Whether points of the data can be clicked: rows of two numbers, and a class or a cluster as the answer."""
    spec, task = subject.spec, subject.model.entry.task
    if spec.kind != "tabular" or spec.num_features != 2 or subject.raw is None or any(spec.categories or ()):
        return False
    planar = "clustering" in task or (spec.target == "class" and not subject.model.entry.unsupervised)
    encoder = subject.model.preprocessing.encoder if subject.model.preprocessing else None
    return planar and (encoder is None or all(column.kind == "number" for column in encoder.features))


def beginning(subject: Subject) -> Plane:
    """Return some training rows, with the model as it was trained."""
    assert subject.rows is not None
    assert subject.raw is not None
    shown = thin(len(subject.raw), POINTS)
    y = None if subject.model.entry.unsupervised else subject.rows.y
    return Plane(subject.model, subject.raw[shown].double(), None if y is None else y[shown])


def page(subject: Subject) -> None:
    """Add the picture of the plane, in which a click is a point, and the class that the next one gets."""
    import gradio as gr
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    spec = subject.spec
    start = beginning(subject)
    names = list(spec.class_names or map(str, range(spec.num_classes or 0)))

    def picture(plane: Plane) -> tuple[Any, Frame]:
        figure = scene(plane, spec)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3], Frame.of(figure)

    first, frame = picture(start)
    state = gr.State((start, frame))
    gr.Markdown("A click adds a point, and the model is fitted anew to the points that are shown.")
    with gr.Row():
        image = gr.Image(first, interactive=False, buttons=[], show_label=False, elem_id="plane", scale=4, format="png")
        with gr.Column(scale=1, min_width=160):
            if start.y is None:
                chosen = gr.State(None)
            else:
                chosen = gr.Radio(names, value=names[0], label="Class of the next point", elem_id="class")
            again = gr.Button("Begin again", elem_id="again")

    @functools.partial(explained, event=gr.SelectData)
    def click(held: tuple[Plane, Frame], name: str | None, event: Any) -> tuple[Any, ...]:
        plane, frame = held
        plane = plane.with_point(place(frame, event.index), None if name is None else names.index(name))
        pixels, frame = picture(plane)
        return (plane, frame), pixels

    image.select(click, [state, chosen], [state, image], show_progress="minimal")
    again.click(lambda: ((start, frame), first), None, [state, image], show_progress="hidden")
