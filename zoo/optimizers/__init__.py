"""How a gradient model is trained, apart from what it is: optimizers, schedules and penalties by name."""

from zoo.optimizers.adafactor import Adafactor
from zoo.optimizers.adagrad import Adagrad
from zoo.optimizers.adam import Adam, AdamW
from zoo.optimizers.delta_bar_delta import TSNEOptimizer
from zoo.optimizers.lbfgs import LBFGS
from zoo.optimizers.lion import Lion
from zoo.optimizers.muon import Muon
from zoo.optimizers.recipe import OPTIMIZERS, Recipe, register_optimizer
from zoo.optimizers.rmsprop import RMSprop
from zoo.optimizers.schedules import SCHEDULERS
from zoo.optimizers.sgd import SGD

__all__ = [
    "LBFGS",
    "OPTIMIZERS",
    "SCHEDULERS",
    "SGD",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lion",
    "Muon",
    "RMSprop",
    "Recipe",
    "TSNEOptimizer",
    "register_optimizer",
]
