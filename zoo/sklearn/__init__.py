"""Estimators under scikit-learn's own names, thin over the models of the zoo."""
