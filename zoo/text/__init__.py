"""Text to tokens and back, word vectors and their files, and decoding from a language model."""

from zoo.text.beam_search import Hypothesis, beam_search
from zoo.text.decoding import Decoding, decode
from zoo.text.reading import LanguageModel, Reader, select_rows
from zoo.text.sampling import filter_logits, penalize_repetition, sample_token
from zoo.text.speculative import speculate
from zoo.text.text_stream import TextStream
from zoo.text.tokenizer import Tokenized, Tokenizer
from zoo.text.word_vectors import WordVectors

__all__ = [
    "Decoding",
    "Hypothesis",
    "LanguageModel",
    "Reader",
    "TextStream",
    "Tokenized",
    "Tokenizer",
    "WordVectors",
    "beam_search",
    "decode",
    "filter_logits",
    "penalize_repetition",
    "sample_token",
    "select_rows",
    "speculate",
]
