"""What all models share: they are built from a `DataSpec`, predict, draw themselves and travel in checkpoints."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import IO, TYPE_CHECKING, Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from zoo.checks import PLAIN, is_too_large
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base.answers import labelled, to_arrow
from zoo.models.base.attributes import QuickAttributes
from zoo.models.base.evaluation import Evaluation, Pooling
from zoo.models.base.uses import Needs, check_use
from zoo.numerics.sparse import dense_rows
from zoo.optimizers import Recipe

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

    from zoo.data.preprocessing import Preprocessing
    from zoo.registry import ModelEntry

__all__ = ["ZooModel", "check_accepts"]


class ZooModel(QuickAttributes, pl.LightningModule):
    """What all models share: they are built from a `DataSpec`, predict, draw themselves and travel in checkpoints."""

    entry: ClassVar[ModelEntry]
    streaming: bool = False
    has_weights: bool = False  # that a penalty could shrink
    compiles: bool = False  # whether torch.compile finds operations to join in a step of training
    convex: bool = False  # so that a fit by steps has one minimum, and falls short of it or not
    needs: ClassVar[Needs] = {}  # what hyperparameters that are not always of use ask for
    adjustable: ClassVar[tuple[str, ...]] = ()  # hyperparameters that a trained model may be given anew
    takes_missing: bool = False  # whether it learns from missing values, which come as NaN
    takes_sparse: bool = False  # whether it reads rows as sparse matrices (CSR) where the data have them
    # What the kept checkpoint is chosen by; None keeps the last one.
    monitor: str | None = None
    monitor_mode: str = "min"
    # What a model begins with, here since each attribute that a constructor sets takes its time.
    spec: DataSpec | None = None
    given: tuple[str, ...] = ()  # hyperparameters that a user gave another value than the default
    preprocessing: Preprocessing | None = None  # None: rows come prepared
    recipe: Recipe = Recipe()

    if TYPE_CHECKING:  # buffers and submodules are attributes that a type checker cannot know
        hparams: Any
        trainer: Any

        def __getattr__(self, name: str) -> Any: ...

    def save_hyperparameters(self, *args: Any, **options: Any) -> None:
        """Keep the constructor's arguments as `hparams`, as Lightning does.

        It looks through the frames of all callers for them, and copies them value by value, which takes as long as a
        small fit.
        """
        found: dict[str, Any] = {}
        frame = caller = sys._getframe(1)
        plain = not args and not options
        while plain and frame is not None and frame.f_code.co_name == "__init__":
            code, values = frame.f_code, frame.f_locals
            if values.get(code.co_varnames[0]) is not self:
                break
            plain = not code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
            found |= {name: values[name] for name in code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]}
            frame = frame.f_back  # type: ignore[assignment]
        if not plain or not found or not all(map(_is_plain, found.values())):
            return super().save_hyperparameters(*args, **{"frame": caller, **options})
        self._log_hyperparams, self._hparams_name = True, "kwargs"
        self._set_hparams(found)
        initial = {name: list(value) if type(value) is list else value for name, value in found.items()}
        self._hparams_initial = self._to_hparams_dict(initial)
        return None

    # -- building ------------------------------------------------------------------------------------------------

    def build(self, spec: DataSpec) -> ZooModel:
        """Create the parameters for data of the given shape; a second call with the same spec does nothing.

        Raises:
            ZooError: if the model does not accept such data, with what it accepts.
        """
        if self.spec is not None:
            if not self.spec.matches(spec, targets=not self.entry.unsupervised):
                raise ZooError(
                    f"The model was built for {self.spec.describe()}; these are {spec.describe()}. "
                    f"Make a new one with zoo.create_model('{self.entry.name}')."
                )
            return self
        check_accepts(self.entry, spec)
        check_use(self, spec)
        try:
            self.initialize(spec)
        except (MemoryError, RuntimeError, TypeError) as error:
            if not is_too_large(error):
                raise
            raise ZooError(
                f"{self.entry.name} of this size does not fit in memory: lower the largest of its hyperparameters"
                f"{', or data.max_features' if spec.sparse else ''}."
            ) from None
        self.spec = spec
        return self

    def initialize(self, spec: DataSpec) -> None:
        """Create parameters and buffers for the shapes of `spec`."""
        raise NotImplementedError

    def check_use(self, given: Iterable[str]) -> None:
        """Raise one line if one of the `given` hyperparameters does nothing; those that need data, when it is built."""
        self.given = tuple(given)
        check_use(self)

    def train_by(self, recipe: Recipe) -> None:
        """Take a recipe; penalties raise where there is nothing that they could shrink."""
        if (recipe.l1 or recipe.l2) and not self.has_weights:
            raise ZooError(f"{self.entry.name} has no weights to penalize: leave regularization.l1 and l2 at 0.")
        self.recipe = recipe

    @property
    def heeds(self) -> frozenset[str]:
        """What of a run's options means something to the model; any other is refused where it is given.

        Of `steps` (that some of them, or a gauge of them, are asked for), `optimizer`, `scheduler`, `gradient_clipping`
        (which also stands for gradients that are added up), `penalties`, `compile`, `activation_checkpointing`, and
        `shares` of its layers, one for each process.
        """
        of_steps = () if self.streaming else ("steps", "optimizer", "scheduler", "gradient_clipping")
        more = {"penalties": self.has_weights, "compile": self.compiles}
        return frozenset((*of_steps, *(name for name, holds in more.items() if holds)))

    def setup(self, stage: str | None = None) -> None:
        if self.trainer.datamodule is not None and (self.spec is None or stage == "fit"):
            spec = getattr(self.trainer.datamodule, "spec", self.spec)
            if not isinstance(spec, DataSpec):
                raise ZooError(
                    f"{type(self.trainer.datamodule).__name__} has no `spec` that says what it yields: give it a "
                    "zoo.DataSpec, or build the model first with zoo.create_model(name, spec=...)."
                )
            self.build(spec)
        if stage == "fit":
            self.preprocessing = getattr(self.trainer.datamodule, "preprocessing", self.preprocessing)
        if not hasattr(self, "evaluations"):  # here, since a model that meets no trainer needs none
            self.evaluations = nn.ModuleDict({split: Evaluation(self.pooling()) for split in ("val", "test")})
        # Lightning converts after it has loaded a checkpoint, which rounds the float64 weights of a resumed run.
        self.trainer.strategy.precision_plugin.convert_module(self)

    @property
    def input_dtype(self) -> torch.dtype:
        """The floating type in which inputs are taken: that of the parameters."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    @property
    def target_dtype(self) -> torch.dtype | None:
        """The floating type in which targets are taken; None leaves them in their own."""
        return self.input_dtype

    def as_batch(self, batch: Any) -> Batch:
        """Return a `Batch` of this model's device and floating type.

        Args:
            batch: a `Batch`, a mapping of its fields, bare inputs, or a tuple of inputs and targets (and weights).
        """
        if isinstance(batch, dict):
            batch = Batch(**batch)
        elif not isinstance(batch, Batch):
            inputs, *rest = (batch,) if isinstance(batch, Tensor) else batch
            y, weight = [*rest, None, None][:2]
            batch = Batch.of(self.spec.kind if self.spec else "tabular", inputs, y)._replace(weight=weight)
        (inputs, y, *rest), dtype = batch, self.input_dtype
        x, *others = [None if t is None else self._cast(t, dtype) for t in (inputs, *rest)]
        return Batch(x, None if y is None else self._cast(y, self.target_dtype), *others)  # type: ignore[arg-type]

    def _cast(self, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
        tensor = tensor if self.takes_sparse else dense_rows(tensor)
        return tensor.to(device=self.device, dtype=dtype if tensor.is_floating_point() else None)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """As Lightning does, without its walk through all that a batch may hold where nothing is to be moved."""
        if device.type == "cpu" and isinstance(batch, Batch):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        return self.as_batch(batch)

    # -- prediction ----------------------------------------------------------------------------------------------

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Return the columns that are predicted for a batch; the first one, `prediction`, is what `predict` returns."""
        raise NotImplementedError

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self.predict_batch(batch)

    @torch.inference_mode()
    def predict(self, x: Any, batch_size: int = 4096, *, raw: bool = True) -> Any:
        """Predict for the user's rows, in chunks of `batch_size` of them, and answer in the user's labels.

        Args:
            x: rows as the user has them: a table, whose columns are found by name in any order, an array or a tensor
                (N, *shape), a list of texts, a list of baskets, or torch's `Dataset` or `DataLoader`, whose targets are
                passed over. A `Batch` of a DataModule is prepared already.
            batch_size: rows at a time.
            raw: False for rows that are scaled and coded already.

        Returns:
            A tensor; a NumPy array of text where the classes that the model was trained on were text.

        Raises:
            ZooError: if the model has not been fitted, or for rows that it was not made for.
        """
        return labelled(self.predict_columns(x, batch_size, raw=raw)["prediction"], self.user_labels)

    def predict_columns(self, x: Any, batch_size: int = 4096, *, raw: bool = True) -> dict[str, Tensor]:
        """Return all predicted columns for rows, such as class probabilities (N, C) beside the classes 0 … C-1.

        Arguments are those of `predict`.
        """
        chunks = list(self._predicted(x, batch_size, raw))
        return {name: _joined([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def predict_table(self, x: Any, batch_size: int = 4096, *, raw: bool = True) -> pa.Table:
        """Return all that is predicted for rows as an Arrow table, with `probability_<class>` for each class.

        Arguments are those of `predict`; `.to_pandas()` of the answer is a DataFrame.
        """
        return self.answers(self.predict_columns(x, batch_size, raw=raw))

    def answers(self, columns: dict[str, Tensor]) -> pa.Table:
        """Return predicted columns (and targets) as an Arrow table in the user's labels."""
        assert self.spec is not None
        labels: dict[str, Any] = {}
        if self.spec.target == "class":
            labels["target"] = None if self.preprocessing is None else self.preprocessing.labels
        if self.user_labels is not None or (self.spec.target == "class" and not self.entry.unsupervised):
            labels["prediction"] = self.user_labels
        return to_arrow(columns, self.spec, labels)

    @property
    def user_labels(self) -> Sequence[Any] | None:
        """What the user calls the codes 0 … C-1 that the model predicts; None where these are the user's own."""
        assert self.spec is not None
        if self.spec.target != "class" or self.entry.unsupervised or self.preprocessing is None:
            return None
        return self.preprocessing.labels

    @torch.inference_mode()
    def _predicted(self, x: Any, batch_size: int, raw: bool) -> Iterator[dict[str, Tensor]]:
        """Yield what is predicted for each `batch_size` of the rows."""
        batch = self.prepare(x, raw=raw)
        training = self.training
        self.eval()
        try:
            for part in batch.split(batch_size):
                yield self.predict_batch(self.as_batch(part))
        finally:
            self.train(training)

    def prepare(self, x: Any, *, raw: bool = True, where: str = "X") -> Batch:
        """Return rows as a batch that the model takes: the user's own where `raw`, else scaled and coded already."""
        from zoo.data.arrays import inputs_from
        from zoo.data.foreign import opened

        self.check_fitted()
        assert self.spec is not None
        if isinstance(x, Batch):
            return x
        x = opened(x, name=where).x
        if raw and self.preprocessing is not None:
            return self.preprocessing(x, self.spec, where)
        return inputs_from(x, self.spec, missing=self.takes_missing)

    def encode_targets(self, y: Any, num_rows: int) -> Tensor:
        """Return the user's targets of `num_rows` rows as the model was trained on: the codes of classes, or values.

        Raises:
            ZooError: for a class that the training rows lacked, or another number of rows.
        """
        from zoo.data.arrays import targets_for

        assert self.spec is not None
        labels = None if self.preprocessing is None else self.preprocessing.labels
        return targets_for(y, self.spec, labels, num_rows)

    @torch.inference_mode()
    def score(self, x: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return how well the user's rows are predicted: the accuracy of classes, or R² of values (the mean over K).

        Args:
            x: rows, as `predict` takes them.
            y: targets (N,) or (N, K), in the user's labels, or the name of the table's column of them; None where the
                rows of torch's `Dataset` or `DataLoader` bring them.
            sample_weight: weights (N,).

        Raises:
            ZooError: for a model that predicts no targets, or a class that the training rows lacked.
        """
        from zoo.data.arrays import scored
        from zoo.data.foreign import opened

        self.check_fitted()
        x, y, _ = opened(x, y)
        assert self.spec is not None
        if self.entry.unsupervised or self.spec.target not in ("class", "value", "series"):
            raise ZooError(f"{self.entry.name} predicts no targets to compare with: zoo.evaluate says what it reached.")
        predicted = self.predict_columns(x)["prediction"]
        targets = self.encode_targets(y, len(predicted))
        return scored(predicted, targets, sample_weight, classes=self.spec.target == "class")

    def check_fitted(self) -> None:
        """Raise one line unless the model has its parameters."""
        if self.spec is None:
            raise ZooError(f"This {type(self).__name__} has seen no data yet: call zoo.fit(model, X) first.")

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        """Yield named matplotlib figures of the model on (at most some thousand) held-out rows.

        What is said of a row's target alone has a place of its own, `pictures_of_answers`, which sees all rows.

        Args:
            batch: the rows.
            columns: what `predict_batch` said of them.
        """
        yield from ()

    def pictures_of_answers(self, y: Tensor, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        """Yield named figures of what a model of classes or values says of all held-out rows.

        Args:
            y: targets, (N,) or (N, K).
            columns: what `predict_batch` said of the rows: `prediction`, and `probability` and `decision` where it has
                them.
        """
        from zoo import visual

        assert self.spec is not None
        prediction, probability = columns["prediction"], columns.get("probability")
        if self.spec.target == "value":
            yield "residuals", visual.residuals(y, prediction, self.spec)
            return
        yield "confusion_matrix", visual.confusion_matrix(y, prediction, self.spec)
        if probability is not None and len(y.unique()) > 1 and bool(probability.isfinite().all()):
            yield "roc", visual.roc(y, probability, self.spec)
            yield "precision_recall", visual.precision_recall(y, probability, self.spec)

    def curves(self) -> Iterator[tuple[str, list[float]]]:
        """Yield named curves of what a solved model did within its last pass: a value for each of its own steps."""
        return iter(())

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield named texts for TensorBoard, such as generated samples or a table of rules."""
        yield from ()

    def samples(self, batch: Batch) -> Iterator[tuple[str, str]]:
        """Yield named texts for TensorBoard that the model makes of held-out rows, such as translations."""
        yield from ()

    def tables(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield named tables, a dictionary for each row, which a run keeps as CSV files."""
        yield from ()

    def exports(self) -> Iterator[tuple[str, Callable[[IO[bytes]], None]]]:
        """Yield the files that a finished run keeps for other programs: the name of each, and what writes it."""
        yield from ()

    def embeddings(self, batch: Batch, columns: dict[str, Tensor]) -> tuple[Tensor, list[str]] | None:
        """Return points (N, D) and a label for each, for TensorBoard's projector, or None."""
        return None

    def graph_input(self, batch: Batch) -> Tensor | tuple[Tensor, ...]:
        """Return an input, or several, for which TensorBoard draws the graph of `forward`."""
        return dense_rows(batch.rows(slice(1)).inputs)

    # -- looks ---------------------------------------------------------------------------------------------------

    def describe(self) -> str:
        """Say in a few words what the model was built for and how large it is."""
        if self.spec is None:
            return "not fitted"
        count = sum(p.numel() for p in self.parameters())
        return f"for {self.spec.describe()}" + (f", {count:,} parameters" if count else "")

    def extra_repr(self) -> str:
        return ", ".join([*(f"{key}={value!r}" for key, value in self.hparams.items()), self.describe()])

    def _repr_html_(self) -> str:
        rows = {**self.hparams, "state": self.describe()}
        cells = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<table><caption>{escape(type(self).__name__)}</caption>{cells}</table>"

    # -- evaluation ----------------------------------------------------------------------------------------------

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """Return one value a row (B,) for each metric of held-out rows; a model without metrics returns none.

        The base averages them over all rows, with their weights, and over all processes, and logs the result as
        `val/NAME` and `test/NAME`.
        """
        return {}

    def pooling(self) -> dict[str, Pooling]:
        """Return what becomes of the values of a metric that is not their mean."""
        return {}

    def row_weight(self, batch: Batch) -> Tensor | None:
        """Return how much each row counts in the metrics, (B,), or None where all count alike."""
        return batch.weight

    def _evaluation_step(self, batch: Batch, split: str) -> None:
        if not batch.size:  # of several processes, one may get no row of the last batch
            return
        values, weight = self.evaluate(batch), self.row_weight(batch)
        if weight is None:
            weight = torch.ones(batch.size, dtype=torch.float64, device=self.device)
        self.evaluations[split].update(values, batch.y, weight)  # type: ignore[operator]

    def _evaluation_end(self, split: str) -> None:
        for name, value in self.evaluations[split].compute().items():  # type: ignore[operator]
            self.log(f"{split}/{name}", value, prog_bar=split == "val")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self._evaluation_end("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, "test")

    def on_test_epoch_end(self) -> None:
        self._evaluation_end("test")

    # -- export --------------------------------------------------------------------------------------------------

    def before_trace(self) -> None:
        """Make ready, in a copy that learns no more, for a trace: what answers take as plain numbers becomes such.

        Raises:
            ZooError: for answers that no trace holds, with the reason.
        """

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.spec is not None
        checkpoint["zoo"] = {"model": self.entry.name, "spec": self.spec.to_dict()}
        if self.preprocessing is not None:
            checkpoint["zoo"]["preprocessing"] = self.preprocessing.to_dict()

    def configure_optimizers(self) -> Any:
        return None


def _is_plain(value: Any) -> bool:
    """Whether a hyperparameter is a value that nobody can change, or a list of such."""
    return type(value) in PLAIN or (type(value) in (list, tuple) and all(type(item) in PLAIN for item in value))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def check_accepts(entry: ModelEntry, spec: DataSpec) -> None:
    """Raise one line that says what the model accepts, and which data provide it, unless `spec` is such."""
    if entry.fits(spec.kind, spec.target):
        return
    from zoo.data.registry import list_data

    fitting = sorted({name for kind, target in entry.accepts for name in list_data(kind, target)})
    wanted = " or ".join(
        f"{kind} data" + (f" with {target} targets" if target else "") for kind, target in entry.accepts
    )
    raise ZooError(
        f"{entry.name} takes {wanted}, but was given {spec.describe()}."
        + _as_texts(entry, spec)
        + _with_target(entry, spec)
        + _as_other_targets(entry, spec)
        + (f" Data that fit: {', '.join(fitting)}." if fitting else "")
    )


def _with_target(entry: ModelEntry, spec: DataSpec) -> str:
    """What to pass where nothing but the targets is missing."""
    lacking = spec.target is None and any(
        kind == spec.kind and target in ("class", "value") for kind, target in entry.accepts
    )
    return " Pass data.target=COLUMN for a file of your own." if lacking else ""


def _as_other_targets(entry: ModelEntry, spec: DataSpec) -> str:
    """What to pass where the model takes the same rows with classes for values, or values for classes."""
    if spec.target == "value" and entry.fits(spec.kind, "class"):
        return " Numbers that stand for classes are told by data.task=classification (in Python by y of integers)."
    if spec.target == "class" and entry.fits(spec.kind, "value"):
        return " Integers that are values are told by data.task=regression (in Python by y of floats)."
    return ""


def _as_texts(entry: ModelEntry, spec: DataSpec) -> str:
    """What to pass where the model takes the texts of a table in another view."""
    if spec.kind == "tokens" and spec.target != "tokens" and entry.fits("tabular", spec.target):
        return " Of texts it takes bags: pass data.view=counts (or binary, tfidf)."
    return " Of texts it takes the tokens: pass data.view=tokens." if spec.kind == "tabular" and spec.tokenizer else ""
