"""Word vectors: what their models share."""

from zoo.models.word_vectors.word_vector_model import WordVectorModel

__all__ = ["WordVectorModel"]
