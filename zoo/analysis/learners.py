"""What the analyses train anew: a model and its data, as often as they ask, each time on rows of their choice.

A `Learner` is a recipe: the user's arrays with the arguments of `zoo.fit`, or the config of a finished run. A training
makes the model and the data afresh, so that whatever is learnt from rows (scaling, the coding of columns, a vocabulary)
is learnt from those of that training alone. Trainings may run in processes of their own.
"""

from __future__ import annotations

import copy
import logging
import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.data.base import Rows, ZooDataModule
from zoo.data.files import TableData
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError, nearest
from zoo.models.base import ZooModel
from zoo.models.base.evaluation import Evaluation
from zoo.models.base.gradient import NonFiniteLossError
from zoo.models.base.module import check_accepts
from zoo.numerics.hashing import epoch_generator
from zoo.registry import create_model, model_entry
from zoo.training.analyses import Subject
from zoo.training.fit import as_datamodule, fit, fit_in_loop
from zoo.training.plugins import import_plugins
from zoo.training.schema import leave_out_unused

__all__ = [
    "ArrayLearner",
    "Job",
    "Learner",
    "Population",
    "Result",
    "RunLearner",
    "main_metric",
    "measure",
    "train_all",
]

log = logging.getLogger("zoo")

HELD = "held"  # the split of the rows that are asked


class Population(NamedTuple):
    """The rows that there are.

    Attributes:
        spec: what they hold.
        y: targets of all of them by number, (N,) or (N, K).
        pool: the numbers of those to learn from.
        test: the numbers of those that were held out from a run, if there are any.
    """

    spec: DataSpec
    y: Tensor
    pool: Tensor
    test: Tensor | None

    @property
    def strata(self) -> Tensor | None:
        """The class of each row of the pool."""
        return self.y[self.pool] if self.spec.target == "class" else None


class Job(NamedTuple):
    """One training.

    Attributes:
        train: row numbers to train on.
        held: row numbers to ask then.
        seed: of parameters and order.
        changes: what is set otherwise in this training, by name.
        answers: whether the answers to the rows that are asked are wanted, and no metrics.
    """

    train: Tensor
    held: Tensor
    seed: int = 0
    changes: dict[str, Any] = {}
    answers: bool = False


class Result(NamedTuple):
    """What a training came to: metrics of the rows it was trained on and of those that were asked, or the answers."""

    train: dict[str, float]
    held: dict[str, float]
    answers: Tensor | None = None
    failure: str = ""


@dataclass(frozen=True)
class Learner:
    """A recipe of a training; a subclass makes data and fits a model to them."""

    def model(self, changes: dict[str, Any]) -> ZooModel:
        """Return a new model."""
        raise NotImplementedError

    def data(self, parts: dict[str, Tensor] | None, changes: dict[str, Any]) -> ZooDataModule:
        """Return the data, divided as `parts` says, or as they divide themselves."""
        raise NotImplementedError

    def fit(self, parts: dict[str, Tensor], seed: int, changes: dict[str, Any]) -> tuple[ZooModel, ZooDataModule]:
        """Return a new model that was trained on the rows of `parts["train"]`, and the data."""
        raise NotImplementedError

    @property
    def validation(self) -> float:
        """The share of the training rows by which a training stops early."""
        return 0.0

    def check(self, changes: Sequence[str]) -> None:
        """Raise one line for a name that cannot be set otherwise."""
        raise NotImplementedError

    def population(self) -> Population:
        """Return the rows that there are.

        Raises:
            ZooError: for a model or data without targets to compare with.
        """
        model = self.model({})
        data = self.data(None, {})
        spec = data.spec
        if model.entry.unsupervised or spec.target not in ("class", "value"):
            what = "learns without targets" if model.entry.unsupervised else f"is given {spec.describe()}"
            raise ZooError(f"{model.entry.name} {what}: classes or values are needed, which answers are compared with.")
        check_accepts(model.entry, spec)
        members = data.members()
        targets = {name: targets_of(data.rows(name)) for name in members}
        first = next(iter(targets.values()))
        y = first.new_empty(sum(map(len, targets.values())), *first.shape[1:])
        for name, rows in members.items():
            y[rows] = targets[name]
        if spec.target == "class" and int(y.unique().numel()) < 2:
            raise ZooError("All rows are of one class: there is nothing to learn from them.")
        pool = torch.cat([members[name] for name in ("train", "val") if name in members]).sort().values
        return Population(spec, y, pool, members.get("test"))

    def train(self, job: Job) -> Result:
        """Train a model and ask it."""
        train, parts = job.train, {}
        if self.validation:
            order = train.unique()[torch.randperm(len(train.unique()), generator=epoch_generator(job.seed, 0x5A1E))]
            kept = max(1, round(len(order) * self.validation))
            parts["val"] = order[:kept].sort().values
            train = train[~torch.isin(train, parts["val"])]
        try:
            model, data = self.fit({"train": train, **parts, HELD: job.held}, job.seed, job.changes)
        except NonFiniteLossError as error:
            return Result({}, {}, failure=str(error))
        model._trainer = None  # rows are looked at batch by batch, by a model that carries a state along, too
        model.eval()
        if job.answers:
            return Result({}, {}, predictions(model, data.rows(HELD)))
        trained, asked = measure(model, data.rows("train"), data.rows(HELD))
        return Result(trained, asked)


@dataclass(frozen=True)
class ArrayLearner(Learner):
    """The user's rows and a model of `zoo.create_model`, trained as `zoo.fit` trains.

    Args:
        name: of the model.
        hparams: its hyperparameters.
        recipe: its optimizer and penalties.
        x: rows.
        y: targets.
        weight: of the rows.
        options: further arguments of `zoo.fit`.
    """

    name: str
    hparams: dict[str, Any]
    recipe: Any
    x: Any
    y: Any
    weight: Any = None
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any, x: Any, y: Any, weight: Any = None, options: dict[str, Any] | None = None) -> ArrayLearner:
        """Return the learner of a model, which stays as it is: fitted or not, its hyperparameters are what counts."""
        if not isinstance(model, ZooModel):
            raise ZooError(f"A model of zoo.create_model is needed first, not {type(model).__name__}.")
        if hasattr(x, "train_dataloader"):
            raise ZooError("Rows are divided anew here: pass arrays, a table or texts, and y, not a DataModule.")
        return cls(model.entry.name, dict(model.hparams), model.recipe, x, y, weight, dict(options or {}))

    @property
    def validation(self) -> float:
        return float(self.options.get("validation", 0.0))

    def check(self, changes: Sequence[str]) -> None:
        known = [*model_entry(self.name).hyperparameters, *_OPTIONS]
        for name in changes:
            if name.removeprefix("model.") not in known:
                raise ZooError(f"{self.name} has no parameter '{name}' to vary.{nearest(name, known)}")

    def model(self, changes: dict[str, Any]) -> ZooModel:
        hparams = {key.removeprefix("model."): value for key, value in changes.items() if key not in _OPTIONS}
        model = create_model(self.name, **{**self.hparams, **hparams})
        model.train_by(self.recipe)
        return model

    def _options(self, changes: dict[str, Any]) -> dict[str, Any]:
        given = {**self.options, **{key: value for key, value in changes.items() if key in _OPTIONS}}
        given.pop("validation", None)
        return given

    def data(self, parts: dict[str, Tensor] | None, changes: dict[str, Any]) -> ZooDataModule:
        return self._data(self.model(changes), parts, self._options(changes), 0)

    def _data(
        self, model: ZooModel, parts: dict[str, Tensor] | None, options: dict[str, Any], seed: int
    ) -> ZooDataModule:
        coding = {name: options.get(name, "auto") for name in ("missing", "text")}
        size, scaled = options.get("batch_size"), options.get("standardize")
        return as_datamodule(model, self.x, self.y, self.weight, size, 0.0, scaled, coding, seed, parts)

    def fit(self, parts: dict[str, Tensor], seed: int, changes: dict[str, Any]) -> tuple[ZooModel, ZooDataModule]:
        model, options = self.model(changes), self._options(changes)
        data = self._data(model, parts, options, seed)
        rest = {key: value for key, value in options.items() if key not in _OF_DATA}
        return fit(model, data, seed=seed, **rest), data


_OF_DATA = ("batch_size", "standardize", "missing", "text")
_OPTIONS = ("lr", "l1", "l2", "max_epochs", "optimizer", *_OF_DATA)


@dataclass(frozen=True)
class RunLearner(Learner):
    """The config of a finished run, trained again as it says, without files.

    Args:
        settings: the config, with whole paths of its data.
        accelerator: what computes.
    """

    settings: dict[str, Any]
    accelerator: str = "auto"

    @classmethod
    def of(cls, subject: Subject) -> RunLearner:
        """Return the learner of the run that is looked at."""
        return cls(subject.settings, subject.accelerator)

    def column(self, name: str) -> Any:
        """Return a column of the run's table, of all rows by number, as an array.

        Raises:
            ZooError: for data that are no table, or have no such column.
        """
        data = self.data(None, {})
        if not isinstance(data, TableData):
            raise ZooError(f"Groups are a column of a table: data '{data.name}' are none (data=csv and parquet are).")
        return data.column(name)

    @property
    def validation(self) -> float:
        """What the run kept aside of the rows that were not tested, if it looked at them."""
        plateau = self.settings.get("scheduler", {}).get("name") == "plateau"
        if not (self.settings["regularization"].get("early_stopping") or plateau):
            return 0.0
        kept, tested = (self.settings["data"].get(key, 0.0) for key in ("val_fraction", "test_fraction"))
        return (kept or 0.1) / (1 - tested)

    def check(self, changes: Sequence[str]) -> None:
        for name in changes:
            section, _, key = self._key(name).partition(".")
            valid = self.settings.get(section)
            if not isinstance(valid, dict) or key.partition(".")[0] not in valid:
                known = [f"{s}.{k}" for s, keys in self.settings.items() if isinstance(keys, dict) for k in keys]
                raise ZooError(f"The run has no key '{self._key(name)}' to vary.{nearest(self._key(name), known)}")

    def _key(self, name: str) -> str:
        return name if "." in name else f"model.{name}"

    def _changed(self, changes: dict[str, Any]) -> dict[str, Any]:
        settings = copy.deepcopy(self.settings)
        for name, value in changes.items():
            *sections, key = self._key(name).split(".")
            section = settings
            for part in sections:
                section = section[part]
            section[key] = value
        import_plugins(settings.get("plugins") or [])
        return settings

    def model(self, changes: dict[str, Any]) -> ZooModel:
        from zoo.training.run import new_model  # which imports Hydra

        return new_model(self._changed(changes))

    def data(self, parts: dict[str, Tensor] | None, changes: dict[str, Any]) -> ZooDataModule:
        from zoo.training.run import new_model, prepare

        settings = self._changed(changes)
        model = new_model(settings)
        return prepare(model, leave_out_unused(settings, model), rows=parts)

    def fit(self, parts: dict[str, Tensor], seed: int, changes: dict[str, Any]) -> tuple[ZooModel, ZooDataModule]:
        from zoo.training.run import device_of, new_model, prepare
        from zoo.training.trainer import make_trainer

        settings = self._changed(changes)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = new_model(settings)
            settings = leave_out_unused(settings, model)
            settings["data"] = settings["data"] | {"num_workers": 0}
            data = prepare(model, settings, rows=parts)
            if model.streaming and settings["trainer"]["limit_train_batches"] == 1:
                device = str(device_of(self.accelerator))
                return fit_in_loop(model, data, settings["trainer"]["max_epochs"], device), data
            regularization = settings["regularization"]
            options = {key: value for key, value in settings["trainer"].items() if key not in _OF_THE_RUN}
            trainer = make_trainer(
                model,
                accelerator=self.accelerator,
                progress=False,
                logger=False,
                early_stopping=regularization["early_stopping"],
                gradient_clip_val=regularization.get("gradient_clip_val"),
                gradient_clip_algorithm=regularization.get("gradient_clip_algorithm"),
                keep_best=self.validation > 0,  # which is what the run's own numbers are of
                averaging=settings.get("averaging"),
                whole_set=settings.get("training", {}).get("name") == "batch",
                **options,
            )
            trainer.fit(model, datamodule=data)
        return model.eval(), data


# What a training in between does not do as the run did.
_OF_THE_RUN = ("accelerator", "devices", "strategy", "num_nodes", "fast_dev_run", "profiler")


def targets_of(rows: Rows) -> Tensor:
    """Return the targets of all rows."""
    parts = [rows[index].y for index in torch.arange(len(rows)).split(65536)]
    return torch.cat(parts)  # type: ignore[arg-type]


def batches(model: ZooModel, rows: Rows) -> Iterator[Batch]:
    """Yield rows as the model takes them, some thousand at a time."""
    for index in torch.arange(len(rows)).split(4096):
        yield model.as_batch(rows[index])


@torch.inference_mode()
def measure(model: ZooModel, *splits: Rows) -> list[dict[str, float]]:
    """Return the metrics of the rows of each split, as a run's table has them.

    Raises:
        ZooError: for a model that has none.
    """
    evaluation, found = Evaluation(model.pooling()), []
    for rows in splits:
        for batch in batches(model, rows):
            values, weight = model.evaluate(batch), model.row_weight(batch)
            if weight is None:
                weight = torch.ones(batch.size, dtype=torch.float64, device=model.device)
            evaluation.update(values, batch.y, weight)
        found.append({name: float(value) for name, value in evaluation.compute().items()})
    if not all(found):
        raise ZooError(f"{model.entry.name} measures nothing of rows that are held out.")
    return found


@torch.inference_mode()
def predictions(model: ZooModel, rows: Rows) -> Tensor:
    """Return what a model predicts for rows: classes 0 … C−1 (N,), or values (N,) or (N, K), float64."""
    found = torch.cat([model.predict_batch(batch)["prediction"].cpu() for batch in batches(model, rows)])
    return found.double() if found.is_floating_point() else found


def main_metric(metrics: Sequence[str]) -> str:
    """Return the metric that a curve shows unless another is asked for.

    >>> main_metric(["loss", "accuracy", "f1"]), main_metric(["loss", "mse", "r2"])
    ('accuracy', 'r2')
    """
    return next((name for name in ("accuracy", "r2") if name in metrics), metrics[0])


# -- many of them ------------------------------------------------------------------------------------------------

_LEARNER: Learner | None = None  # of a process that does nothing else


def train_all(
    learner: Learner, jobs: Sequence[Job], processes: int = 1, *, keep_failures: bool = False
) -> list[Result]:
    """Return the results of trainings, in their order, which do not depend on the number of processes.

    Args:
        learner: the recipe.
        jobs: the trainings.
        processes: how many of them run at a time, each in a process with a thread of its own; 1 runs them here.
        keep_failures: whether one whose loss became infinite is a result too, rather than an error.

    Raises:
        ZooError: for a training that diverged, or data that do not suit the model.
    """
    if processes < 1:
        raise ZooError(f"processes must be at least 1, not {processes}.")
    if processes == 1 or len(jobs) == 1:
        with _quietly():
            found = [learner.train(job) for job in jobs]
    else:
        found = _in_processes(learner, jobs, min(processes, len(jobs)))
    failure = next((result.failure for result in found if result.failure), "")
    if failure and not keep_failures:
        raise ZooError(f"A training diverged. {failure}")
    return found


def _in_processes(learner: Learner, jobs: Sequence[Job], processes: int) -> list[Result]:
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")  # a fork of a process whose threads hold locks may wait for ever
    try:
        with ProcessPoolExecutor(processes, context, _begin, (learner,)) as pool:
            return list(pool.map(_train_one, jobs))
    except BrokenProcessPool:
        raise ZooError("A process that trained was ended from outside (out of memory?): lower processes.") from None


def _begin(learner: Learner) -> None:
    global _LEARNER
    torch.set_num_threads(1)
    _LEARNER = learner


def _train_one(job: Job) -> Result:
    assert _LEARNER is not None
    with _quietly():
        return _LEARNER.train(job)


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what each training would say of its data and its convergence, once for all of them."""
    before, level = log.level, max(log.level, logging.WARNING)
    log.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once")
            yield
    finally:
        log.setLevel(before)
