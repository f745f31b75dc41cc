"""The doors by which Hydra finds what sweeps need: `hydra/sweeper=optuna`, and a callback that notes their folder.

Hydra reads this at every start: nothing heavy is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper

__all__ = ["NoteFolder", "OptunaSweeper"]


class OptunaSweeper(Sweeper):
    """Chooses the runs of a sweep by those that have ended; what it does is in `zoo.training.search`."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from zoo.training.search import search

        return search(self, arguments, **self.options)


class NoteFolder(Callback):
    """Notes where a sweep's folder is before any of its runs is looked at, so that a refused one leaves none."""

    def on_multirun_start(self, config: Any, **more: Any) -> None:
        from zoo.training.trials import search_of

        if search_of.sweep is not None:
            search_of.sweep.folder = Path(config.hydra.sweep.dir)


OPTIONS = {
    "_target_": "hydra_plugins.zoo_sweeps.OptunaSweeper",
    "num_trials": 20,  # runs in all, those of an earlier command in the same folder included
    "sampler": "tpe",  # or random
    "prune": True,  # stop a run that is worse than the median of the others so far
    "seed": 0,  # of the sampler
}
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OPTIONS, provider="zoo")
NOTES = {"folder": {"_target_": "hydra_plugins.zoo_sweeps.NoteFolder"}}
ConfigStore.instance().store(group="hydra/callbacks", name="zoo", node=NOTES, provider="zoo")
