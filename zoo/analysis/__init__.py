"""Diagnosis of models and gradients."""

from zoo.analysis.backpropagation import analytical_gradient
from zoo.analysis.gradients import GradientCheck, check_gradients, numerical_gradient
from zoo.analysis.jacobian import SequentialJacobian, sequential_jacobian
from zoo.analysis.permutation import Importances, permutation_importance

__all__ = [
    "GradientCheck",
    "Importances",
    "SequentialJacobian",
    "analytical_gradient",
    "check_gradients",
    "numerical_gradient",
    "permutation_importance",
    "sequential_jacobian",
]
