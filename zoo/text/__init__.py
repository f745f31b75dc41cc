"""Text to tokens and back, and decoding from a language model."""

from zoo.text.decoding import sample_token
from zoo.text.tokenizer import Tokenized, Tokenizer

__all__ = ["Tokenized", "Tokenizer", "sample_token"]
