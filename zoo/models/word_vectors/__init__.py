"""Word vectors: Word2Vec and GloVe, and what they share."""

from zoo.models.word_vectors.glove import GloVe
from zoo.models.word_vectors.word2vec import Word2Vec
from zoo.models.word_vectors.word_vector_model import WordVectorModel

__all__ = ["GloVe", "Word2Vec", "WordVectorModel"]
