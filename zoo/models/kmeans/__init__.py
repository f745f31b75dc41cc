"""k-means: its models, and the algorithms they are made of."""

from zoo.models.kmeans.bisecting_kmeans import BisectingKMeans
from zoo.models.kmeans.kmeans import KMeans

__all__ = ["BisectingKMeans", "KMeans"]
