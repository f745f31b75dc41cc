"""Diagnosis of models and gradients."""

from zoo.analysis.permutation import Importances, permutation_importance

__all__ = ["Importances", "permutation_importance"]
