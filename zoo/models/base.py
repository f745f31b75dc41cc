"""The bases of every model: `GradientModel` takes optimizer steps, `StreamingModel` sums statistics and solves.

Both train through the same `Trainer.fit`, where one pass over the data is one epoch. A family with a choice of solver
derives from both and sets `streaming` in its constructor: the streaming hooks then stand aside for the gradient ones.

    class MyModel(GradientModel):           # initialize(spec), forward(x)
    class MyModel(StreamingModel):          # initialize(spec), accumulate(batch), solve(), done
    class MyModel(StreamingModel, GradientModel):
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.objectives import Classification, Objective, make_objective
from zoo.optimization import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zoo.registry import ModelEntry

__all__ = ["GradientModel", "NonFiniteLossError", "StreamingModel", "ZooModel", "check_range"]


class NonFiniteLossError(ZooError):
    """The loss became infinite or not a number; no step was taken with it."""


def check_range(
    name: str, value: float | None, low: float, high: float = float("inf"), *, open_low: bool = False
) -> None:
    """Raise one line unless low ≤ value ≤ high (low < value where `open_low`); None passes.

    >>> check_range("num_clusters", 0, 1)
    Traceback (most recent call last):
    ...
    zoo.errors.ZooError: model.num_clusters must be at least 1, not 0.
    """
    if value is None or ((low < value if open_low else low <= value) and value <= high):
        return
    bound = f"{'above' if open_low else 'at least'} {low:g}" + (f" and at most {high:g}" if high < float("inf") else "")
    raise ZooError(f"model.{name} must be {bound}, not {value!r}.")


class ZooModel(pl.LightningModule):
    """What all models share: they are built from a `DataSpec`, predict, draw themselves and travel in checkpoints."""

    entry: ClassVar[ModelEntry]
    streaming: bool = False
    # What the kept checkpoint is chosen by; None keeps the last one.
    monitor: str | None = None
    monitor_mode: str = "min"

    if TYPE_CHECKING:  # buffers and submodules are attributes that a type checker cannot know
        hparams: Any
        trainer: Any

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self) -> None:
        super().__init__()
        self.spec: DataSpec | None = None
        self.recipe = Recipe()

    # -- building ------------------------------------------------------------------------------------------------

    def build(self, spec: DataSpec) -> ZooModel:
        """Create the parameters for data of the given shape; a second call with the same spec does nothing.

        Raises:
            ZooError: if the model does not accept such data, with what it accepts.
        """
        if self.spec is not None:
            if (self.spec.kind, self.spec.shape, self.spec.num_classes) != (
                spec.kind,
                spec.shape,
                spec.num_classes,
            ):
                raise ZooError(f"The model was built for {self.spec.describe()}; these are {spec.describe()}.")
            return self
        check_accepts(self.entry, spec)
        self.initialize(spec)
        self.spec = spec
        return self

    def initialize(self, spec: DataSpec) -> None:
        """Create parameters and buffers for the shapes of `spec`."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        if self.spec is None and self.trainer.datamodule is not None:
            spec = getattr(self.trainer.datamodule, "spec", None)
            if not isinstance(spec, DataSpec):
                raise ZooError(
                    f"{type(self.trainer.datamodule).__name__} has no `spec` that says what it yields: give it a "
                    "zoo.DataSpec, or build the model first with zoo.create_model(name, spec=...)."
                )
            self.build(spec)
        # Lightning converts after it has loaded a checkpoint, which rounds the float64 weights of a resumed run.
        self.trainer.strategy.precision_plugin.convert_module(self)

    @property
    def input_dtype(self) -> torch.dtype:
        """The floating type in which inputs are taken: that of the parameters."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def as_batch(self, batch: Any) -> Batch:
        """Return a `Batch` of this model's device and floating type from a `Batch`, a tensor, a pair or a mapping."""
        if isinstance(batch, dict):
            batch = Batch(**batch)
        elif isinstance(batch, Tensor):
            batch = Batch(batch)
        elif not isinstance(batch, Batch):
            batch = Batch(*batch)
        return Batch(*(None if t is None else self._cast(t) for t in batch))  # type: ignore[arg-type]

    def _cast(self, tensor: Tensor) -> Tensor:
        dtype = self.input_dtype if tensor.is_floating_point() else None
        return tensor.to(device=self.device, dtype=dtype)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        return self.as_batch(batch)

    # -- prediction ----------------------------------------------------------------------------------------------

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Return the columns that are predicted for a batch; the first one, `prediction`, is what `predict` returns."""
        raise NotImplementedError

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self.predict_batch(batch)

    @torch.inference_mode()
    def predict(self, x: Any, batch_size: int = 4096) -> Tensor:
        """Predict for inputs (N, *shape), as an array or a tensor, in chunks of `batch_size` rows.

        Raises:
            ZooError: if the model has not been fitted.
        """
        return self.predict_columns(x, batch_size)["prediction"]

    @torch.inference_mode()
    def predict_columns(self, x: Any, batch_size: int = 4096) -> dict[str, Tensor]:
        """Return all predicted columns for inputs (N, *shape), such as class probabilities beside the classes."""
        from zoo.data.arrays import to_tensor

        self.check_fitted()
        assert self.spec is not None
        x = to_tensor(x)
        if tuple(x.shape[1:]) != self.spec.shape:
            raise ZooError(
                f"Expected inputs of shape (N, {', '.join(map(str, self.spec.shape))}), got {tuple(x.shape)}."
            )
        training = self.training
        self.eval()
        chunks = [self.predict_batch(self.as_batch(chunk)) for chunk in x.split(batch_size)]
        self.train(training)
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def check_fitted(self) -> None:
        """Raise one line unless the model has its parameters."""
        if self.spec is None:
            raise ZooError(f"This {type(self).__name__} has seen no data yet: call zoo.fit(model, X) first.")

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        """Yield named matplotlib figures of the model on (at most some thousand) held-out rows.

        Args:
            batch: the rows.
            columns: what `predict_batch` said of them.
        """
        yield from ()

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield named texts for TensorBoard, such as generated samples or a table of rules."""
        yield from ()

    def tables(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield named tables, a dictionary for each row, which a run keeps as CSV files."""
        yield from ()

    def continuation(self, batch: Batch, prompt: str | None, steps: int) -> str | Tensor | None:
        """Return what comes after a prompt, or `steps` values after a batch's series; None if the model cannot say."""
        return None

    def embeddings(self, batch: Batch, columns: dict[str, Tensor]) -> tuple[Tensor, list[str]] | None:
        """Return points (N, D) and a label for each, for TensorBoard's projector, or None."""
        return None

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.spec is not None
        checkpoint["zoo"] = {"model": self.entry.name, "spec": self.spec.to_dict()}

    def configure_optimizers(self) -> Any:
        return None


def check_accepts(entry: ModelEntry, spec: DataSpec) -> None:
    """Raise one line that says what the model accepts, and which data provide it, unless `spec` is such."""
    if spec.kind in entry.accepts and (entry.unsupervised or spec.task in entry.task):
        return
    from zoo.data.registry import list_data

    targets = {
        "classification": "class",
        "regression": "value",
        "language_modeling": "tokens",
        "forecasting": "series",
    }
    wanted: list[str | None] = [targets[task] for task in entry.task if task in targets] or [None]
    fitting = sorted({name for kind in entry.accepts for target in wanted for name in list_data(kind, target)})
    kinds, tasks = " or ".join(entry.accepts), " or ".join(entry.task)
    raise ZooError(
        f"{entry.name} does {tasks} on {kinds} data, but was given {spec.describe()}."
        + (f" Data that fit: {', '.join(fitting)}." if fitting else "")
    )


class GradientModel(ZooModel):
    """A model trained by optimizer steps: a subclass implements `initialize(spec)` and `forward(x)`.

    Loss, metrics and the form of predictions come from `self.objective`, which follows from the data's targets.
    """

    binary_logit: bool = False

    def build(self, spec: DataSpec) -> GradientModel:
        if self.spec is None:
            check_accepts(self.entry, spec)
            self.objective: Objective = make_objective(spec, binary_logit=self.binary_logit)
            if not self.streaming:  # a solved model is its last state
                self.monitor, self.monitor_mode = self.objective.monitor, self.objective.mode
        super().build(spec)
        return self

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if not hasattr(self, "metrics"):  # here, since a model that meets no trainer needs none
            self.metrics = nn.ModuleDict({stage: self.objective.metrics() for stage in ("val", "test")})
            self.mean_loss = nn.ModuleDict({stage: MeanMetric() for stage in ("val", "test")})

    def output(self, batch: Batch) -> Tensor:
        """Return the model's raw output for a batch: `forward` of its inputs."""
        return self(batch.x)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        loss = self.objective.loss(self.output(batch), batch)
        penalty = self.recipe.penalty(self)
        self.check_finite(loss, batch_idx)
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False, prog_bar=True, batch_size=batch.size)
        return loss if penalty is None else loss + penalty

    def check_finite(self, loss: Tensor, batch_idx: int) -> None:
        """Stop before the update if the loss is not finite."""
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch}, "
                f"batch {batch_idx}): no update was made. Lower optimizer.lr, "
                "clip gradients (regularization=gradient_clipping), or look for outliers in the data."
            )

    def _evaluation_step(self, batch: Batch, stage: str) -> None:
        if not batch.size:  # of several processes, one may get no row of the last batch
            return
        output = self.output(batch)
        weight = batch.size if batch.weight is None else batch.weight.sum()
        self.mean_loss[stage].update(self.objective.loss(output, batch), weight)  # type: ignore[operator]
        self.objective.update(self.metrics[stage], output, batch)  # type: ignore[arg-type]

    def _evaluation_end(self, stage: str) -> None:
        values = {"loss": self.mean_loss[stage], **self.metrics[stage]}  # type: ignore[dict-item]
        for name, metric in values.items():
            self.log(f"{stage}/{name}", metric.compute(), prog_bar=stage == "val")  # type: ignore[operator]
            metric.reset()  # type: ignore[operator]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self._evaluation_end("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, "test")

    def on_test_epoch_end(self) -> None:
        self._evaluation_end("test")

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        output = self.output(batch)
        columns = {"prediction": self.objective.predict(output)}
        if isinstance(self.objective, Classification):
            columns["probability"] = self.objective.probabilities(output)
        return columns

    def configure_optimizers(self) -> Any:
        return self.recipe.configure(self)

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        assert self.spec is not None
        if batch.y is None:
            return
        if self.spec.target == "class":
            yield "confusion_matrix", visual.confusion_matrix(batch.y, columns["prediction"], self.spec)
            if self.spec.kind == "tabular" and self.spec.num_features == 2:
                yield "decision_boundary", visual.decision_boundary(self, batch)
        elif self.spec.target == "value":
            yield "residuals", visual.residuals(batch.y, columns["prediction"], self.spec)


class StreamingModel(ZooModel):
    """A model solved from statistics that are added up in passes over the data.

    A subclass implements `initialize(spec)`, in which it registers accumulators, then `accumulate(batch)`, `solve()`
    and `done`. The result is the same for any batch size, number of processes and order of rows (to rounding). These
    methods know nothing of the trainer: `fit_batches` drives them in a plain loop.
    """

    streaming = True

    def __init__(self) -> None:
        super().__init__()
        self._accumulators: dict[str, Tensor] = {}  # name → its value at the start of a pass
        self._pooled = False  # whether the accumulators hold the sums of all processes already

    @property
    def input_dtype(self) -> torch.dtype:
        return super().input_dtype if not self.streaming else torch.float64

    @property  # type: ignore[misc]
    def automatic_optimization(self) -> bool:
        return not self.streaming

    # -- what a subclass uses and implements ---------------------------------------------------------------------

    def register_accumulator(self, name: str, initial: Tensor) -> None:
        """Register a statistic that starts each pass at `initial` and is added up over batches and processes."""
        self._accumulators[name] = initial
        self.register_buffer(name, initial.clone())

    def accumulate(self, batch: Batch) -> None:
        """Add a batch to the accumulators."""
        raise NotImplementedError

    def solve(self) -> dict[str, float | Tensor]:
        """Turn the accumulators of a finished pass into the model's state; return values to log under `train/`."""
        raise NotImplementedError

    @property
    def done(self) -> bool:
        """Whether no further pass is needed; asked after `solve`."""
        return True

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Combine the accumulators of several processes; the default adds them."""
        return {name: torch.stack([state[name] for state in states]).sum(0) for name in states[0]}

    def reset_accumulators(self) -> None:
        """Put every accumulator back to its initial value."""
        self._pooled = False
        for name, initial in self._accumulators.items():
            setattr(self, name, initial.to(self.device, copy=True))

    # -- the plain loop ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit_batches(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        """Fit without a trainer: `batches()` returns a fresh iterable for each pass. Returns the last pass's values."""
        passes, values = 0, {}
        while max_passes is None or passes < max_passes:
            self.reset_accumulators()
            for batch in batches():
                self.accumulate(self.as_batch(batch))
            self._check_sums()
            values = self.solve()
            passes += 1
            if self.done:
                break
        return values

    # -- the trainer's hooks -------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        if self.streaming:
            self.reset_accumulators()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        if not self.streaming:
            return super().training_step(batch, batch_idx)  # type: ignore[misc, return-value]
        if batch.size:
            with torch.no_grad():
                self.accumulate(batch)
        return None

    def on_train_batch_end(self, *args: Any) -> None:
        # At the last batch rather than at the epoch's end, so that validation, which comes between, sees the solution.
        if self.streaming and self.trainer.is_last_batch:
            self._end_pass()

    def _end_pass(self) -> None:
        with torch.no_grad():
            for name, statistic in self._reduced().items():
                setattr(self, name, statistic)
            self._pooled = True
            self._check_sums()
            values = self.solve()
        for name, value in values.items():
            number = torch.as_tensor(value, dtype=torch.float64, device=self.device)
            self.log(f"train/{name}", number, prog_bar=True, on_step=False, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        if self.streaming and self.done:
            self.trainer.should_stop = True

    def _check_sums(self) -> None:
        """Raise one line if the data held NaN: no statistic survives it."""
        for name, value in self._state().items():
            if value.is_floating_point() and bool(value.isnan().any()):
                raise ZooError(
                    f"{self.entry.name} met NaN or infinite values in the data ({name} is NaN): "
                    "drop those rows or fill them in first."
                )

    def _state(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self._accumulators}

    def _reduced(self) -> dict[str, Tensor]:
        """The accumulators over all processes."""
        if self._trainer is None or self.trainer.world_size == 1 or self._pooled:
            return self._state()
        mine = {name: value.cpu() for name, value in self._state().items()}
        states: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(states, mine)
        return {name: value.to(self.device) for name, value in self.merge(states).items()}

    def configure_optimizers(self) -> Any:
        return None if self.streaming else super().configure_optimizers()

    # -- checkpoints: a half-done pass travels with them ---------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.streaming:
            checkpoint["state_dict"].update({k: v.clone() for k, v in self._reduced().items()})

    def on_train_start(self) -> None:
        # A restored half-done pass holds the sum over all processes: one of them goes on with it.
        if self.streaming and self.trainer.global_rank > 0:
            self.reset_accumulators()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept statistics whose shape follows from the data seen, such as collected rows."""
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if saved is not None and buffer is not None and saved.shape != buffer.shape:
                self._buffers[name] = torch.empty_like(saved, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
