"""Diagnosis of models and gradients."""

from zoo.analysis.jacobian import SequentialJacobian, sequential_jacobian
from zoo.analysis.permutation import Importances, permutation_importance

__all__ = ["Importances", "SequentialJacobian", "permutation_importance", "sequential_jacobian"]
