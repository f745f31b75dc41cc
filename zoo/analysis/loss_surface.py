r"""The loss as a surface over two numbers, and the ways that trainings took on it.

```math
L(a, b) = L(\theta_0 + a\, u + b\, v)
```

Of two weights u and v are these themselves. Of more they are the two directions, at right angles, along which the
weights moved most: the first principal components of all points of the ways, each way counting alike. A point beside
the plane is drawn at its foot, where the loss is another than its own; the names of the axes say which share of the
movement they show.

Legend: θ all weights, P of them; θ₀ the end of the way that came lowest; a, b coordinates.

Source: Li, Xu, Taylor, Studer & Goldstein 2018, "Visualizing the loss landscape of neural nets", §7.2.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo import visual
from zoo.data.array_data import check_weight
from zoo.data.arrays import to_tensor
from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.training.analyses import Findings, Subject
from zoo.training.checkpoint import find_checkpoint, load_checkpoint, load_model
from zoo.training.pictures import spread
from zoo.training.run_config import read_config
from zoo.training.terminal import text_table
from zoo.training.weight_path import WeightPath, flat_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LossSurface", "WeightPath", "analyze", "loss_surface", "path_of", "surface_of", "surface_of_runs"]

ROWS = 2000  # whose loss it is
MARGIN = 0.15  # of the ways' extent, beside them
LEAST = 0.25  # width of the picture at least, beside its height, and the other way round


class LossSurface(NamedTuple):
    """A loss over two coordinates.

    Attributes:
        losses: (G, G), a row for each b and a column for each a.
        across: a, (G,).
        up: b, (G,).
        paths: the ways by name, as coordinates (N, 2).
        axes: the names of both.
        ends: the loss at the two ends of each way, by name.
    """

    losses: Tensor
    across: Tensor
    up: Tensor
    paths: dict[str, Tensor]
    axes: tuple[str, str]
    ends: dict[str, tuple[float, float]]

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each way, the one that came lowest first."""
        rows = [{"path": name, "first loss": a, "last loss": b} for name, (a, b) in self.ends.items()]
        return sorted(rows, key=lambda row: row["last loss"])

    def figure(self) -> Figure:
        """Draw the contours of the loss, and each way from its start (a circle) to its end (a cross)."""
        return visual.surface(
            self.losses, self.across, self.up, self.paths, axes=self.axes, title="loss, and the way of the weights"
        )


def loss_surface(
    model: ZooModel,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    paths: Mapping[str, Tensor],
    size: int = 25,
) -> LossSurface:
    """Return the loss of a model around the ways of its weights, on a plane that shows most of them.

    Args:
        model: a trained model that takes optimizer steps; it stays as it is.
        x: rows, as `predict` takes them: those that it was trained on, whose loss a step lowers.
        y: their targets (N,), in the user's labels.
        sample_weight: weights (N,).
        paths: weights along a training, (N, P) each, by name: `WeightPath.points`.
        size: G, points of the grid along each axis.

    Raises:
        ZooError: for a model that takes no steps, or a path of another number of weights.

    Example:
        >>> import torch, zoo
        >>> x, ways = torch.linspace(-1, 1, 30).view(-1, 1), {}
        >>> for name in ("sgd", "adam"):
        ...     ways[name] = WeightPath()
        ...     model = zoo.create_model("linear_regression", solver="gradient")
        ...     model = zoo.fit(model, x, 2 * x[:, 0], optimizer=name, lr=0.1, callbacks=[ways[name]])
        >>> paths = {name: way.points for name, way in ways.items()}
        >>> found = loss_surface(model, x, 2 * x[:, 0], paths=paths, size=9)
        >>> found.axes, found.losses.shape
        (('linear.weight', 'linear.bias'), torch.Size([9, 9]))
    """
    model.check_fitted()
    batch = model.prepare(x)
    if y is not None:
        batch = batch._replace(y=model.encode_targets(y, batch.size))
    elif not model.entry.unsupervised and batch.y is None:
        raise ZooError(f"The loss of {model.entry.name} is against targets: pass y.")
    if sample_weight is not None:
        batch = batch._replace(weight=check_weight(to_tensor(sample_weight, "weight"), batch.size))
    return surface_of(model, batch, paths, size=size)


@torch.no_grad()
def surface_of(model: Any, batch: Batch, paths: Mapping[str, Tensor], *, size: int = 25) -> LossSurface:
    """Return what `loss_surface` does, of rows as the model takes them."""
    if model.streaming or not model.automatic_optimization:
        raise ZooError(f"{model.entry.name} with these settings takes no steps: there is no way to be drawn.")
    copied = copy.deepcopy(model).cpu().double().eval()
    count = len(flat_weights(copied))
    for name, path in paths.items():
        if path.ndim != 2 or path.shape[1] != count or not len(path):
            raise ZooError(f"A path has {count} weights at each point, (N, {count}): '{name}' is {tuple(path.shape)}.")
    ways = {name: _finite(path.detach().cpu().double()) for name, path in paths.items()}
    if not ways:
        raise ZooError("There is no path to be drawn: pass paths={name: WeightPath.points}.")
    batch, recipe = copied.as_batch(batch), replace(copied.recipe, l1_steps="gradient")

    def loss(weights: Tensor) -> float:
        _put(copied, weights)
        penalty = recipe.penalty(copied)
        value = copied.training_loss(batch)
        return float(value if penalty is None else value + penalty)

    ends = {name: (loss(way[0]), loss(way[-1])) for name, way in ways.items()}
    centre = ways[min(ends, key=lambda name: ends[name][1])][-1]
    origin, plane, axes = _plane(copied, centre, list(ways.values()))
    flat = {name: (way - origin) @ plane for name, way in ways.items()}
    across, up = _extent(torch.cat(list(flat.values())), size)
    losses = torch.tensor([[loss(origin + plane @ torch.stack([a, b])) for a in across] for b in up])
    return LossSurface(losses.where(losses.isfinite(), torch.nan), across, up, flat, axes, ends)


def _finite(path: Tensor) -> Tensor:
    """A way until it diverged."""
    gone = (~path.isfinite().all(1)).nonzero()
    return path[: int(gone[0])] if len(gone) else path


def _put(model: nn.Module, weights: Tensor) -> None:
    """Give a model all of its trained parameters from one vector."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter, part in zip(parameters, weights.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))


def _plane(model: nn.Module, centre: Tensor, ways: Sequence[Tensor]) -> tuple[Tensor, Tensor, tuple[str, str]]:
    """The origin (P,), two directions (P, 2), and what they are called."""
    if len(centre) == 2:
        named = [(name, p.numel()) for name, p in model.named_parameters() if p.requires_grad]
        names = [name if count == 1 else f"{name}[{i}]" for name, count in named for i in range(count)]
        return torch.zeros_like(centre), torch.eye(2, dtype=centre.dtype), (names[0], names[1])
    moved = torch.cat([(way - centre) / len(way) ** 0.5 for way in ways])  # each way counts alike
    _, sizes, directions = torch.linalg.svd(moved, full_matrices=False)
    if len(sizes) < 2 or len(centre) < 2:  # a single point, or a single weight
        sizes, directions = torch.ones(2, dtype=centre.dtype), torch.eye(max(2, len(centre)), dtype=centre.dtype)
        directions = directions[:, : len(centre)]
    plane = directions[:2].T  # (P, 2)
    plane = plane * torch.where(plane.gather(0, plane.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
    shares = (sizes.square() / sizes.square().sum().clamp_min(1e-300))[:2].tolist()
    return centre, plane, (f"1st direction, {shares[0]:.0%} of the way", f"2nd direction, {shares[1]:.0%} of the way")


def _extent(points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The places of the grid, (G,) along each axis, around all points."""
    low, high = points.amin(0), points.amax(0)
    widest = float((high - low).max()) or 1.0
    spans = (high - low).clamp_min(LEAST * widest) * (1 + 2 * MARGIN)
    middle = (low + high) / 2
    first, last = middle - spans / 2, middle + spans / 2
    across, up = (torch.linspace(float(first[k]), float(last[k]), size, dtype=torch.float64) for k in (0, 1))
    return across, up


def path_of(run: Path) -> Tensor:
    """Return the way of a finished run's weights, (N, P), which its checkpoint carries along.

    Raises:
        ZooError: for a run that kept none.
    """
    kept = load_checkpoint(find_checkpoint(run, "last"))["callbacks"].get(WeightPath.__name__)
    if not kept:
        raise ZooError(
            f"{run} kept no way of its weights: runs of linear_regression, logistic_regression and svm do that are "
            "trained by steps (model.solver=gradient)."
        )
    way = WeightPath()
    way.load_state_dict(kept)
    return way.points


def analyze(subject: Subject, *, runs: list[str] | None = None) -> Findings:
    """Draw the ways of the weights of a finished run, and of others of the model, on the loss of its training rows."""
    folders = [subject.folder, *map(Path, runs or [])]
    paths = {_shown(folder): path_of(folder) for folder in folders if folder is not None}
    found = surface_of(subject.model, training_rows(subject.model, subject.data), paths)
    rows = found.table()
    return Findings({"loss_surface": found.figure()}, {"loss_surface": rows}, text_table(rows))


def training_rows(model: ZooModel, data: Any) -> Batch:
    """Return up to 2,000 training rows, spread evenly over them."""
    rows = data.rows("train")
    return model.as_batch(rows[spread(len(rows), ROWS)])


def _shown(folder: Path) -> str:
    return "/".join(folder.absolute().parts[-3:])


# -- at the end of a sweep ---------------------------------------------------------------------------------------


def surface_of_runs(runs: Mapping[str, Path]) -> LossSurface | None:
    """Return the ways of several runs on one surface, or None where they kept none or lower different losses.

    Args:
        runs: their folders by name.
    """
    from zoo.training.evaluation import data_of

    settings = [read_config(folder / "config.yaml") for folder in runs.values()]
    if len(runs) < 2 or any(_poses(each) != _poses(settings[0]) for each in settings):
        return None
    try:
        paths = {name: path_of(folder) for name, folder in runs.items()}
    except ZooError:
        return None
    first = next(iter(runs.values()))
    model = load_model(find_checkpoint(first, "last"))
    data, _ = data_of(first, settings[0]["data"], {}, model)
    return surface_of(model, training_rows(model, data), paths)


def _poses(settings: dict[str, Any]) -> dict[str, Any]:
    """What of a config says which loss is to be lowered, whatever lowers it."""
    data = {key: value for key, value in settings["data"].items() if key not in ("batch_size", "num_workers")}
    penalties = {key: settings["regularization"].get(key) for key in ("l1", "l2", "l1_steps")}
    return {"model": settings["model"], "data": data, **penalties}
