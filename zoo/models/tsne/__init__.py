"""t-SNE: the model, and the algorithms it is made of."""

from zoo.models.tsne.tsne import TSNE

__all__ = ["TSNE"]
