"""What all models share: they are built from a `DataSpec`, predict, draw themselves and travel in checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.optimizers import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zoo.registry import ModelEntry

__all__ = ["ZooModel", "check_accepts"]


class ZooModel(pl.LightningModule):
    """What all models share: they are built from a `DataSpec`, predict, draw themselves and travel in checkpoints."""

    entry: ClassVar[ModelEntry]
    streaming: bool = False
    has_weights: bool = False  # that a penalty could shrink
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

    def train_by(self, recipe: Recipe) -> None:
        """Take a recipe; penalties raise where there is nothing that they could shrink."""
        if (recipe.l1 or recipe.l2) and not self.has_weights:
            raise ZooError(f"{self.entry.name} has no weights to penalize: leave regularization.l1 and l2 at 0.")
        self.recipe = recipe

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
