"""Text to tokens and back, and decoding from a language model."""

from zoo.text.decoding import sample_token
from zoo.text.tokenization import decode, encode, load_tokenizer, train_tokenizer

__all__ = ["decode", "encode", "load_tokenizer", "sample_token", "train_tokenizer"]
