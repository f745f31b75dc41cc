"""Word vectors: `glove`."""

from zoo.models.word_vectors.glove import GloVe

__all__ = ["GloVe"]
