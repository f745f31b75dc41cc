"""The door by which Hydra finds `hydra/sweeper=optuna`; it reads this at every start: nothing heavy is imported."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper

__all__ = ["OptunaSweeper"]


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


OPTIONS = {
    "_target_": "hydra_plugins.zoo_optuna.OptunaSweeper",
    "num_trials": 20,  # runs in all, those of an earlier command in the same folder included
    "sampler": "tpe",  # or random
    "prune": True,  # stop a run that is worse than the median of the others so far
    "seed": 0,  # of the sampler
}
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OPTIONS, provider="zoo")
