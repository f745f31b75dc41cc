"""The base of the models that are solved from statistics of a pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.models.base.module import ZooModel

__all__ = ["StreamingModel"]


class StreamingModel(ZooModel):
    """A model solved from statistics that are added up in passes over the data.

    A subclass implements `initialize(spec)`, in which it registers accumulators, then `accumulate(batch)`, `solve()`
    and `done`. The result is the same for any batch size, number of processes and order of rows (to rounding). These
    methods know nothing of the trainer: `fit_batches` drives them in a plain loop.
    """

    streaming = True
    takes_single: ClassVar[bool] = False  # whether float32 is made float64 a block at a time, where it is read
    answers_by: ClassVar[tuple[str, ...]] = ()  # the accumulators that a solved model still answers by
    _pooled: bool = False  # whether the accumulators hold the sums of all processes already
    _own: bool = False  # whether a checkpoint gave this process what it had added up itself
    _begun: bool = False  # whether a pass has left its traces, which another fit must not meet

    def __init__(self) -> None:
        super().__init__()
        self._accumulators: dict[str, Tensor] = {}  # name → its value at the start of a pass
        self._appended: list[dict[str, Tensor]] = []  # rows that are not yet joined to their accumulators

    @property
    def input_dtype(self) -> torch.dtype:
        return super().input_dtype if not self.streaming else torch.float64

    def _cast(self, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
        whole = self.streaming and self.takes_single and tensor.dtype == torch.float32
        return super()._cast(tensor, None if whole and tensor.layout == torch.strided else dtype)

    @property  # type: ignore[misc]
    def automatic_optimization(self) -> bool:
        return not self.streaming

    # -- what a subclass uses and implements ---------------------------------------------------------------------

    def register_accumulator(self, name: str, initial: Tensor) -> None:
        """Register a statistic that starts each pass at `initial` and is added up over batches and processes."""
        self._accumulators[name] = initial
        self.register_buffer(name, initial.clone())

    def append(self, **rows: Tensor) -> None:
        """Join rows of a batch to accumulators that hold those of the batches before; `merge` must join them, too."""
        self._appended.append(rows)

    def begin(self) -> None:
        """Forget an earlier fit: called before the first pass of every fit that is not resumed.

        The parameters and buffers become those that `initialize` makes. What a user set since the last pass, such as
        centroids to start from, stays.
        """
        if self._begun and self.spec is not None:
            device = self.device
            self.initialize(self.spec)
            self.to(device)
        self._begun = True

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

    @property
    def passes_needed(self) -> int | None:
        """How many passes a fit takes; None where that follows from the data."""
        return 1 if type(self).done is StreamingModel.done else None

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Combine the accumulators of several processes; the default adds them."""
        return {name: torch.stack([state[name] for state in states]).sum(0) for name in states[0]}

    def reset_accumulators(self) -> None:
        """Put every accumulator back to its initial value."""
        self._pooled, self._appended = False, []
        for name, initial in self._accumulators.items():
            setattr(self, name, initial.to(self.device, copy=True))

    def idle(self) -> list[str]:
        """Return the names of the statistics in `state_dict()` that no answer needs once the model is solved."""
        return [
            f"{path}.{name}".lstrip(".")
            for path, part in self.named_modules()
            for name in vars(part).get("_accumulators", ())  # a model may hold another that it is fitted by
            if name not in self.answers_by
        ]

    def before_trace(self) -> None:
        super().before_trace()
        for name in self.idle():
            path, _, buffer = name.rpartition(".")
            self.get_submodule(path)._buffers.pop(buffer, None)

    # -- the plain loop ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit_batches(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        """Fit without a trainer: `batches()` returns a fresh iterable for each pass. Returns the last pass's values."""
        self.begin()
        return self.run_passes(batches, max_passes)

    @torch.no_grad()
    def run_passes(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        """Take passes until the model is done, from where it stands; who knows a shorter way overrides this."""
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

    def setup(self, stage: str | None = None) -> None:
        if stage == "fit" and self.streaming:
            self.begin()  # a checkpoint to go on from is read after this, and brings its own state
        super().setup(stage)

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
        if not self.streaming:
            super().on_train_batch_end(*args)
        elif self.trainer.is_last_batch:
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
        """Raise one line if the data held NaN, or values whose squares overflow: no statistic survives it."""
        for name, value in self._state().items():
            # A sum is cheaper than a look at each number; infinities of both signs have none, either.
            if value.is_floating_point() and math.isnan(value.sum()) and bool(value.isnan().any()):
                raise ZooError(
                    f"{self.entry.name} met NaN or infinite values, or some so large that their squares overflow "
                    f"({name} is NaN): drop or fill in such rows, or scale the features, as standardize=true does."
                )

    def _state(self) -> dict[str, Tensor]:
        appended, self._appended = self._appended, []
        for name in appended[0] if appended else ():
            kept, rows = getattr(self, name), [part[name] for part in appended]
            rows = [kept.to(rows[0].dtype), *rows] if len(kept) else rows
            setattr(self, name, rows[0] if len(rows) == 1 else torch.cat(rows))
        return {name: getattr(self, name) for name in self._accumulators}

    def _reduced(self) -> dict[str, Tensor]:
        """The accumulators over all processes."""
        states = self._states()
        return states[0] if len(states) == 1 else self._merged(states)

    def _states(self) -> list[dict[str, Tensor]]:
        """The accumulators of each process; of all in one once they are pooled."""
        if self._trainer is None or self.trainer.world_size == 1 or self._pooled:
            return [self._state()]
        states: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(states, {name: value.cpu() for name, value in self._state().items()})
        return states

    def _merged(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in self.merge(states).items()}

    def configure_optimizers(self) -> Any:
        return None if self.streaming else super().configure_optimizers()

    # -- checkpoints: a half-done pass travels with them ---------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.streaming:
            states = self._states()
            whole = states[0] if len(states) == 1 else self._merged(states)
            checkpoint["state_dict"].update({k: v.clone() for k, v in whole.items()})
            if len(states) > 1:
                checkpoint["zoo"]["accumulators"] = states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        states = checkpoint["zoo"].get("accumulators", [])
        self._own = self._trainer is not None and len(states) == self.trainer.world_size
        if self._own:  # each process goes on with what it added up, so that the sums end in the same bits
            checkpoint["state_dict"].update(states[self.trainer.global_rank])

    def on_train_start(self) -> None:
        # A half-done pass of another number of processes holds the sums over all of them: one goes on with it.
        if self.streaming and self.trainer.global_rank > 0 and not self._own:
            self.reset_accumulators()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept statistics whose shape follows from the data seen, such as collected rows."""
        self._begun = True
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if saved is not None and buffer is not None:  # each in memory of its own, as several may begin as one
                like = buffer if saved.shape == buffer.shape else saved
                self._buffers[name] = torch.empty_like(like, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
