"""The registry: every model of the zoo under one name, with what it solves and what data it accepts."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.checks import check_type
from zoo.errors import ZooError, nearest, unknown_name

if TYPE_CHECKING:
    from zoo.data.spec import DataSpec
    from zoo.models.base import ZooModel

__all__ = ["ModelEntry", "create_model", "list_models", "model_entry", "register_model"]

ModelClass = TypeVar("ModelClass", bound=type)

_REGISTRY: dict[str, ModelEntry] = {}

# Explicit rather than found by scanning a folder: this list is the zoo.
_MODULES: tuple[str, ...] = (
    "zoo.models.agglomerative.agglomerative_clustering",
    "zoo.models.cnn",
    "zoo.models.kmeans.kmeans",
    "zoo.models.kmeans.bisecting_kmeans",
    "zoo.models.linear.logistic_regression",
    "zoo.models.linear.linear_regression",
    "zoo.models.mlp",
    "zoo.models.pca",
    "zoo.models.apriori.apriori",
    "zoo.models.recurrent.recurrent",
    "zoo.models.tsne.tsne",
)


@dataclass(frozen=True)
class ModelEntry:
    """What the zoo knows of a model without building it.

    Attributes:
        name: the name in configs and in `create_model`.
        cls: the LightningModule.
        family: the chapter of the syllabus, which is also the docs page of most families.
        task: what it solves; a model with several takes the one that the data call for.
        accepts: the kinds of data that it takes (see `zoo.data.DataSpec.kind`).
        source: author and year of the formula.
        docs: the page under docs/ that describes it, without the suffix.
    """

    name: str
    cls: type
    family: str
    task: tuple[str, ...]
    accepts: tuple[str, ...]
    source: str
    docs: str

    @property
    def summary(self) -> str:
        """The first sentence of the class's docstring."""
        return (inspect.getdoc(self.cls) or "").split("\n", 1)[0]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The constructor's keyword arguments with their defaults."""
        parameters = inspect.signature(self.cls).parameters.values()
        return {p.name: p.default for p in parameters}

    @property
    def unsupervised(self) -> bool:
        """Whether the model needs no targets, so that any data of an accepted kind will do."""
        return not set(self.task) & {"classification", "regression", "language_modeling", "forecasting"}


def register_model(
    name: str,
    *,
    family: str,
    task: str | tuple[str, ...],
    accepts: str | tuple[str, ...],
    source: str,
    docs: str | None = None,
) -> Callable[[ModelClass], ModelClass]:
    """Register the decorated LightningModule under `name`, for `create_model`, `train.py` and `zoo-train`.

    Args:
        name: how users call the model; raises if it is taken.
        family: the chapter of the syllabus.
        task: `classification`, `regression`, `clustering`, ...; several where the data decide.
        accepts: kinds of data (`tabular`, `image`, `sequence`, `tokens`, `pairs`, `series`, `transactions`).
        source: author and year of the formula.
        docs: the docs page, by default that of the model's own name.

    Example:
        >>> import zoo
        >>> from zoo.models.mlp import MLP
        >>> @zoo.register_model("my_mlp", family="feedforward", task="classification", accepts="tabular", source="me")
        ... class MyMLP(MLP):
        ...     '''My own multilayer perceptron.'''
        >>> zoo.list_models("my_*")
        ['my_mlp']
    """

    def register(cls: ModelClass) -> ModelClass:
        known = _REGISTRY.get(name)
        if known is not None and (known.cls.__module__, known.cls.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise ZooError(
                f"A model named '{name}' is registered already ({known.cls.__module__}): choose another name."
            )
        entry = ModelEntry(name, cls, family, _tuple(task), _tuple(accepts), source, docs or name)
        _REGISTRY[name] = entry
        cls.entry = entry  # type: ignore[attr-defined]
        return cls

    return register


def _tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _load_zoo() -> dict[str, ModelEntry]:
    _import_models()
    return _REGISTRY


@functools.cache
def _import_models() -> None:
    for module in _MODULES:
        importlib.import_module(module)
    # Other packages name the modules that register their models in an entry point of this group.
    for entry_point in entry_points(group="zoo.models"):
        entry_point.load()


def list_models(pattern: str = "*", family: str | None = None, task: str | None = None) -> list[str]:
    """Return the sorted names of the registered models that match a shell `pattern`, a family and a task.

    Example:
        >>> import zoo
        >>> "kmeans" in zoo.list_models("k*", task="clustering")
        True
    """
    return sorted(
        name
        for name, entry in _load_zoo().items()
        if fnmatch.fnmatch(name, pattern)
        and (family is None or entry.family == family)
        and (task is None or task in entry.task)
    )


def model_entry(name: str) -> ModelEntry:
    """Return the entry of a registered model; an unknown name raises with the nearest ones."""
    # A model of the user's own needs no import of the whole zoo, but a name clash must still be seen.
    registry = _load_zoo()
    if name not in registry:
        raise unknown_name("model", str(name), registry)
    return registry[name]


def create_model(name: str, spec: DataSpec | None = None, **hparams: Any) -> ZooModel:
    """Create a registered model by name.

    Args:
        name: a name of `list_models()`.
        spec: the shape of the data, if the parameters are wanted at once; `fit` supplies it otherwise.
        **hparams: the model's own hyperparameters; an unknown one raises with the valid ones.

    Example:
        >>> import zoo
        >>> zoo.create_model("kmeans", num_clusters=10).hparams.num_clusters
        10
    """
    entry = model_entry(name)
    valid = entry.hyperparameters
    annotations = _annotations(entry.cls)
    for key, value in hparams.items():
        if key not in valid:
            raise ZooError(f"{name} has no hyperparameter '{key}'.{nearest(key, valid)} Valid: {', '.join(valid)}.")
        hparams[key] = check_type(f"model.{key}", value, annotations.get(key, Any))
    model = entry.cls(**hparams)
    if spec is not None:
        model.build(spec)
    return model


@functools.cache
def _annotations(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls.__init__)  # type: ignore[misc]
