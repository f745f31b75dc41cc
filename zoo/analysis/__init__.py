"""Diagnosis of models and gradients."""

from zoo.analysis.backpropagation import analytical_gradient
from zoo.analysis.bias_variance import BiasVariance, bias_variance
from zoo.analysis.calibration import Calibration, calibration
from zoo.analysis.cross_validation import CrossValidation, cross_validation
from zoo.analysis.gradients import GradientCheck, check_gradients, numerical_gradient
from zoo.analysis.jacobian import SequentialJacobian, sequential_jacobian
from zoo.analysis.learning_curve import Curve, learning_curve
from zoo.analysis.loss_surface import LossSurface, WeightPath, loss_surface
from zoo.analysis.permutation import Importances, permutation_importance
from zoo.analysis.validation_curve import validation_curve

__all__ = [
    "BiasVariance",
    "Calibration",
    "CrossValidation",
    "Curve",
    "GradientCheck",
    "Importances",
    "LossSurface",
    "SequentialJacobian",
    "WeightPath",
    "analytical_gradient",
    "bias_variance",
    "calibration",
    "check_gradients",
    "cross_validation",
    "learning_curve",
    "loss_surface",
    "numerical_gradient",
    "permutation_importance",
    "sequential_jacobian",
    "validation_curve",
]
