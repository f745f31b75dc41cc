"""Text to tokens and back, word vectors and their files, and decoding from a language model."""

from zoo.text.decoding import sample_token
from zoo.text.tokenizer import Tokenized, Tokenizer
from zoo.text.word_vectors import WordVectors

__all__ = ["Tokenized", "Tokenizer", "WordVectors", "sample_token"]
