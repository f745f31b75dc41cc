"""Click points in the plane of two features, and see the boundary or the clusters move.

The model is fitted anew, with its own hyperparameters, to some of the training rows and the points of the clicks.

Legend: N points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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

__all__ = ["Plane", "place", "scene", "suits"]

POINTS = 300  # training rows among which the clicks fall


@dataclass(frozen=True)
class Plane:
    """Points, and the model that was fitted to them.

    Attributes:
        model: the model.
        x: the points in the user's units, (N, 2), float64.
        y: their classes (N,), or None for a model that needs none.
    """

    model: ZooModel
    x: Tensor
    y: Tensor | None = None

    def with_point(self, point: tuple[float, float], label: int | None = None) -> Plane:
        """Return the points with one more, and a model fitted anew to all."""
        x = torch.cat([self.x, torch.tensor([point], dtype=self.x.dtype)])
        y = None if self.y is None else torch.cat([self.y, torch.tensor([label])])
        return replace(self, x=x, y=y, model=refitted(self.model, x, y))


def refitted(model: ZooModel, x: Tensor, y: Tensor | None) -> ZooModel:
    """Return a new model of the same hyperparameters, fitted to points and classes."""
    scaled = model.preprocessing is not None and model.preprocessing.scaling is not None
    return fit(create_model(model.entry.name, **model.hparams), x, y, standardize=scaled)


def scene(plane: Plane, spec: DataSpec) -> Figure:
    """Draw the points, and what the model makes of the plane around them."""
    model = plane.model
    if plane.y is not None:
        return visual.decision_boundary(model.predict_columns, plane.x, plane.y, spec)
    return visual.clusters(plane.x, model.predict_columns(plane.x)["prediction"], centroids_of(model), spec)


def centroids_of(model: ZooModel) -> Tensor | None:
    """Return the centroids of a model that has some, in the user's units."""
    centroids = getattr(model, "centroids", None)
    scaling = model.preprocessing.scaling if model.preprocessing else None
    if centroids is None or scaling is None:
        return centroids
    return centroids * scaling.std + scaling.mean


def place(figure: Figure, pixel: tuple[float, float]) -> tuple[float, float]:
    """Return the point of a drawn figure's first axes that lies under a pixel, counted from the upper left.

    Example:
        >>> from matplotlib.backends.backend_agg import FigureCanvasAgg
        >>> with visual.new_figure(4, 3) as (figure, axes):
        ...     _ = axes.set(xlim=(0, 10), ylim=(0, 1))
        >>> FigureCanvasAgg(figure).draw()
        >>> across, up = figure.axes[0].transData.transform((5.0, 0.25))
        >>> [round(value, 6) for value in place(figure, (across, 330 - up))]
        [5.0, 0.25]
    """
    height = figure.get_size_inches()[1] * figure.dpi
    across, up = figure.axes[0].transData.inverted().transform((pixel[0], height - pixel[1]))
    return float(across), float(up)


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

    def picture(plane: Plane) -> Any:
        import numpy as np

        figure = scene(plane, spec)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3], figure

    first, figure = picture(start)
    state = gr.State((start, figure), time_to_live=None)
    gr.Markdown(f"A click adds a point, and the model is fitted anew to the {len(start.x):,} points that are shown.")
    with gr.Row():
        image = gr.Image(first, interactive=False, buttons=[], show_label=False, elem_id="plane", scale=4, format="png")
        with gr.Column(scale=1, min_width=160):
            if start.y is None:
                chosen = gr.State(None)
            else:
                chosen = gr.Radio(names, value=names[0], label="Class of the next point")
            again = gr.Button("Begin again", elem_id="again")

    @explained
    def click(held: tuple[Plane, Figure], name: str | None, event: gr.SelectData) -> tuple[Any, ...]:
        plane, before = held
        label = None if name is None else names.index(name)
        plane = plane.with_point(place(before, event.index), label)
        pixels, figure = picture(plane)
        return (plane, figure), pixels

    image.select(click, [state, chosen], [state, image], show_progress="minimal")
    again.click(lambda: ((start, figure), first), None, [state, image], show_progress="hidden")
