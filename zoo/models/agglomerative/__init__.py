"""Hierarchical clustering from the bottom up: the model, and the algorithms it is made of."""

from zoo.models.agglomerative.agglomerative_clustering import AgglomerativeClustering

__all__ = ["AgglomerativeClustering"]
