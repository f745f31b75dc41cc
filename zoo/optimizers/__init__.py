"""How a gradient model is trained, apart from what it is: optimizers, schedules and penalties by name."""

from zoo.optimizers.delta_bar_delta import TSNEOptimizer
from zoo.optimizers.recipe import OPTIMIZERS, Recipe, register_optimizer
from zoo.optimizers.schedules import SCHEDULERS

__all__ = ["OPTIMIZERS", "SCHEDULERS", "Recipe", "TSNEOptimizer", "register_optimizer"]
