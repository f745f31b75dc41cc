"""Trees: the models, and the engine that grows them."""

from zoo.models.trees.decision_tree import DecisionTree
from zoo.models.trees.gradient_boosting import GradientBoosting
from zoo.models.trees.random_forest import RandomForest

__all__ = ["DecisionTree", "GradientBoosting", "RandomForest"]
