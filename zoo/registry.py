"""The registry: every model of the zoo under one name, with what it solves and what data it accepts."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import inspect
import typing
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.checks import check_type
from zoo.errors import ZooError, nearest, unknown_name
from zoo.tasks import check_pair, task_names

if TYPE_CHECKING:
    from zoo.data.spec import DataSpec
    from zoo.models.base import ZooModel

__all__ = ["ModelEntry", "create_model", "list_models", "model_entry", "register_model"]

ModelClass = TypeVar("ModelClass", bound=type)

_REGISTRY: dict[str, ModelEntry] = {}

# Explicit rather than found by scanning a folder: this is the zoo. A module is imported when its model is asked for.
_MODULES: dict[str, str] = {
    "agglomerative_clustering": "zoo.models.agglomerative",
    "apriori": "zoo.models.apriori",
    "bert": "zoo.models.transformer",
    "bisecting_kmeans": "zoo.models.kmeans",
    "cnn": "zoo.models.cnn",
    "decision_tree": "zoo.models.trees",
    "glove": "zoo.models.word_vectors",
    "dnc": "zoo.models.memory",
    "draw": "zoo.models.glimpse",
    "gpt": "zoo.models.transformer",
    "gradient_boosting": "zoo.models.trees",
    "gru": "zoo.models.recurrent",
    "kmeans": "zoo.models.kmeans",
    "kernel_svm": "zoo.models.svm",
    "linear_regression": "zoo.models.linear",
    "logistic_regression": "zoo.models.linear",
    "lstm": "zoo.models.recurrent",
    "mlp": "zoo.models.mlp",
    "naive_bayes": "zoo.models.naive_bayes",
    "ntm": "zoo.models.memory",
    "one_class_svm": "zoo.models.svm",
    "pca": "zoo.models.pca",
    "ram": "zoo.models.glimpse",
    "random_forest": "zoo.models.trees",
    "rnn": "zoo.models.recurrent",
    "seq2seq": "zoo.models.glimpse",
    "svm": "zoo.models.svm",
    "transformer": "zoo.models.transformer",
    "transformer_encoder": "zoo.models.transformer",
    "tsne": "zoo.models.tsne",
    "word2vec": "zoo.models.word_vectors",
}

Targets = str | tuple[str, ...] | None


@dataclass(frozen=True)
class ModelEntry:
    """What the zoo knows of a model without building it.

    Attributes:
        name: the name in configs and in `create_model`.
        cls: the LightningModule.
        family: the chapter of the syllabus, which is also the docs page of most families.
        task: what it solves; a model with several takes the one that the data call for.
        accepts: pairs of a kind of data and a kind of target (see `zoo.tasks`); a target of None means that the model
            needs none and looks at none.
        source: author and year of the formula.
        docs: the page under docs/ that describes it, without the suffix.
    """

    name: str
    cls: type
    family: str
    task: tuple[str, ...]
    accepts: tuple[tuple[str, str | None], ...]
    source: str
    docs: str

    @property
    def summary(self) -> str:
        """The first sentence of the class's docstring."""
        return (inspect.getdoc(self.cls) or "").split("\n", 1)[0]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The constructor's keyword arguments with their defaults."""
        return dict(_defaults(self.cls))

    @functools.cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of data that the model takes."""
        return tuple(dict.fromkeys(kind for kind, _ in self.accepts))

    @functools.cached_property
    def unsupervised(self) -> bool:
        """Whether the model needs no targets, so that any data of an accepted kind will do."""
        return all(target is None for _, target in self.accepts)

    def fits(self, kind: str, target: str | None) -> bool:
        """Whether the model takes data of this kind with this target."""
        return (kind, target) in self.accepts or (kind, None) in self.accepts


def register_model(
    name: str,
    *,
    family: str,
    accepts: dict[str, Targets],
    source: str,
    task: str | None = None,
    docs: str | None = None,
) -> Callable[[ModelClass], ModelClass]:
    """Register the decorated LightningModule under `name`, for `create_model`, `train.py` and `zoo-train`.

    Args:
        name: how users call the model; raises if it is taken.
        family: the chapter of the syllabus.
        accepts: for each kind of data that it takes the targets that it learns from: `{"tabular": "class"}`,
            `{"tokens": ("tokens", "class")}`; None where it needs none. The pairs are those of `zoo.tasks`.
        source: author and year of the formula.
        task: what a model that needs no targets does, such as `clustering`; all others take it from the data.
        docs: the docs page, by default that of the model's own name.

    Raises:
        ZooError: for a name that is taken, or a pair that is not in the table of tasks.

    Example:
        >>> import zoo
        >>> from zoo.models.mlp import MLP
        >>> @zoo.register_model("my_mlp", family="feedforward", accepts={"tabular": "class"}, source="me")
        ... class MyMLP(MLP):
        ...     '''My own multilayer perceptron.'''
        >>> zoo.list_models("my_*")
        ['my_mlp']
    """
    pairs = tuple((kind, target) for kind, targets in accepts.items() for target in _tuple(targets))
    for kind, target in pairs:
        check_pair(kind, target)
    tasks = (task,) if task else task_names(pairs)
    if not tasks:
        raise ZooError(f"register_model('{name}') needs a task such as clustering, since its data have no targets.")

    def register(cls: ModelClass) -> ModelClass:
        owner = _owner(name, cls)
        if owner is not None:
            raise ZooError(f"A model named '{name}' is registered already ({owner}): choose another name.")
        entry = ModelEntry(name, cls, family, tasks, pairs, source, docs or name)
        _REGISTRY[name] = entry
        cls.__init__.__signature__ = inspect.signature(cls.__init__)  # type: ignore[misc]  # Lightning asks each model
        cls.entry = entry  # type: ignore[attr-defined]
        return cls

    return register


def _tuple(value: Targets) -> tuple[str | None, ...]:
    return value if isinstance(value, tuple) else (value,)


def _owner(name: str, cls: type) -> str | None:
    """The module that a name belongs to, unless it is that of `cls` itself; of the zoo's own also before its import."""
    if name in _REGISTRY:
        known = _REGISTRY[name].cls
        same = (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
        return None if same else known.__module__
    home = _MODULES.get(name)
    return None if home is None or f"{cls.__module__}.".startswith(f"{home}.") else home


@functools.cache
def _import_foreign() -> None:
    """Import the modules that other packages name in an entry point of the group `zoo.models`.

    A broken one takes nothing away from the others.
    """
    for entry_point in entry_points(group="zoo.models"):
        try:
            entry_point.load()
        except Exception as error:
            package = entry_point.dist.name if entry_point.dist else entry_point.value
            warnings.warn(
                f"The models of '{entry_point.name}' ({package}, entry point of zoo.models) are left out: "
                f"{type(error).__name__}: {error}",
                stacklevel=3,
            )


def list_models(pattern: str = "*", family: str | None = None, task: str | None = None) -> list[str]:
    """Return the sorted names of the registered models that match a shell `pattern`, a family and a task.

    Raises:
        ZooError: for a family or task that no model has, with the nearest ones.

    Example:
        >>> import zoo
        >>> "kmeans" in zoo.list_models("k*", task="clustering")
        True
    """
    _import_foreign()
    names = {*_MODULES, *_REGISTRY}
    if family is not None or task is not None:
        entries = [model_entry(name) for name in names]
        for what, wanted, known in (
            ("family", family, {entry.family for entry in entries}),
            ("task", task, {name for entry in entries for name in entry.task}),
        ):
            if wanted is not None and wanted not in known:
                raise unknown_name(what, str(wanted), known)
        names = {e.name for e in entries if family in (None, e.family) and (task is None or task in e.task)}
    return sorted(fnmatch.filter(names, pattern))


def model_entry(name: str) -> ModelEntry:
    """Return the entry of a registered model; an unknown name raises with the nearest ones."""
    if name not in _REGISTRY:
        if name in _MODULES:
            importlib.import_module(_MODULES[name])
        else:
            _import_foreign()
    if name not in _REGISTRY:
        raise unknown_name("model", str(name), {*_MODULES, *_REGISTRY})
    return _REGISTRY[name]


def create_model(name: str, spec: DataSpec | None = None, **hparams: Any) -> ZooModel:
    """Create a registered model by name.

    Args:
        name: a name of `list_models()`.
        spec: the shape of the data, if the parameters are wanted at once; `fit` supplies it otherwise.
        **hparams: the model's own hyperparameters.

    Raises:
        ZooError: for a hyperparameter that is unknown, with the valid ones, out of range, or of no use beside the
            others.

    Example:
        >>> import zoo
        >>> zoo.create_model("kmeans", num_clusters=10).hparams.num_clusters
        10
    """
    model = make_model(name, **hparams)
    defaults = model.entry.hyperparameters
    model.check_use(key for key in hparams if not _same(model.hparams[key], defaults[key]))
    if spec is not None:
        model.build(spec)
    return model


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def make_model(name: str, **hparams: Any) -> ZooModel:
    """Create a registered model, also with hyperparameters of no use, as a saved model or another library may have."""
    entry = model_entry(name)
    valid = entry.hyperparameters
    annotations = _annotations(entry.cls)
    for key, value in hparams.items():
        if key not in valid:
            raise ZooError(f"{name} has no hyperparameter '{key}'.{nearest(key, valid)} Valid: {', '.join(valid)}.")
        hparams[key] = check_type(f"model.{key}", value, annotations.get(key, Any))
    model: ZooModel = entry.cls(**hparams)
    return model


@functools.cache
def _defaults(cls: type) -> dict[str, Any]:
    return {p.name: p.default for p in inspect.signature(cls).parameters.values()}


@functools.cache
def _annotations(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls.__init__)  # type: ignore[misc]
