"""Linear and logistic regression, and how their objectives are minimized."""

from zoo.models.linear.linear_regression import LinearRegression
from zoo.models.linear.logistic_regression import LogisticRegression

__all__ = ["LinearRegression", "LogisticRegression"]
