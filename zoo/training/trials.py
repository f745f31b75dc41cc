"""What a run knows of the search that it is a trial of: whether it is worth going on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.training.sweep import Outcome, Sweep

__all__ = ["Pruned", "Trial", "current", "search_of"]


class Pruned(ZooError):
    """A run was stopped, as others have been better at this point."""


@dataclass
class Trial:
    """A run of a search.

    Attributes:
        is_hopeless: takes a value (less is better) and how far the run is, and says whether to stop it.
        outcome: what the run ended with.
        pruned: whether it was stopped.
    """

    is_hopeless: Callable[[float, int], bool]
    outcome: Outcome | None = None
    pruned: bool = False

    def watch(self) -> Any:
        """Return the callback that asks after each validation."""
        from lightning.pytorch.callbacks import Callback

        trial = self

        class Pruning(Callback):
            """Stop a run that is worse than those before it were."""

            def __init__(self) -> None:
                self.validations = 0

            def on_validation_end(self, trainer: Any, model: Any) -> None:
                value = trainer.callback_metrics.get(model.monitor)
                if trainer.sanity_checking or value is None:
                    return
                self.validations += 1
                sign = -1 if model.monitor_mode == "max" else 1
                if trial.is_hopeless(sign * float(value), self.validations):
                    trial.pruned = True
                    raise Pruned(
                        f"pruned after {self.validations} validation{'s' * (self.validations != 1)}: "
                        f"{model.monitor}={float(value):.4g} is worse than the median of the runs before it"
                    )

        return Pruning()


class _Place:
    """Where the one search of a process, and its one trial at a time, are found."""

    trial: Trial | None = None
    sweep: Sweep | None = None


search_of = _Place()


def current() -> Trial | None:
    """Return the trial that this run is, or None where nothing is searched."""
    return search_of.trial
