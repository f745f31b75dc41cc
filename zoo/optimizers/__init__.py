"""How a gradient model is trained, apart from what it is: optimizers, schedules, penalties and averages by name."""

from zoo.optimizers.adafactor import Adafactor
from zoo.optimizers.adagrad import Adagrad
from zoo.optimizers.adam import Adam, AdamW
from zoo.optimizers.averaging import AVERAGES, EMA, SWA, make_average
from zoo.optimizers.delta_bar_delta import TSNEOptimizer
from zoo.optimizers.lbfgs import LBFGS
from zoo.optimizers.lion import Lion
from zoo.optimizers.muon import Muon
from zoo.optimizers.recipe import OPTIMIZERS, Recipe, register_optimizer
from zoo.optimizers.rmsprop import RMSprop
from zoo.optimizers.schedules import SCHEDULERS
from zoo.optimizers.sgd import SGD

__all__ = [
    "AVERAGES",
    "EMA",
    "LBFGS",
    "OPTIMIZERS",
    "SCHEDULERS",
    "SGD",
    "SWA",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lion",
    "Muon",
    "RMSprop",
    "Recipe",
    "TSNEOptimizer",
    "make_average",
    "register_optimizer",
]
