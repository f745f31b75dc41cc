"""The options of every text that say what its tokens are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.errors import ZooError
from zoo.text.learning import KINDS
from zoo.text.tokenizer import Tokenizer
from zoo.text.vocabulary_files import find_vocabulary

__all__ = ["TokenizerOptions"]


@dataclass(frozen=True)
class TokenizerOptions:
    """What the user says of the tokens.

    Attributes:
        tokenizer: `char`, `word`, `bpe`, `wordpiece` or `unigram`, or a vocabulary's file or folder.
        vocab_size: the most tokens.
        special_tokens: roles of special tokens, in the order of their ids or with them.
        min_count: how often a token must be met to be one.
        lowercase: whether capital letters are read as small ones.
    """

    tokenizer: str = "char"
    vocab_size: int = 8192
    special_tokens: list[str] | dict[str, int] | None = None
    min_count: int = 1
    lowercase: bool = False

    def __post_init__(self) -> None:
        if self.vocab_size < 1:
            raise ZooError(f"data.vocab_size must be at least 1, not {self.vocab_size}.")
        if self.tokenizer not in KINDS and (self.special_tokens is not None or self.lowercase or self.min_count != 1):
            raise ZooError(
                "data.special_tokens, data.min_count and data.lowercase are of a tokenizer that is learned: "
                f"{self.tokenizer} has its own."
            )

    def make(self, texts: Iterable[str], known: str | None = None) -> Tokenizer:
        """Return the tokenizer that is `known`, as JSON, or the one from a file, or one learned from the texts."""
        if known is not None:
            return Tokenizer.from_json(known)
        if self.tokenizer not in KINDS:
            return Tokenizer.load(self.tokenizer)
        return Tokenizer.train(texts, self.tokenizer, self.vocab_size, **self._learned)

    def of_words(self, names: Sequence[str], counts: Tensor) -> Tokenizer:
        """Return the tokenizer of words that have been counted already; see `Tokenizer.of_words`."""
        return Tokenizer.of_words(names, counts, self.vocab_size, **self._learned)

    @property
    def _learned(self) -> dict[str, Any]:
        return {
            "special_tokens": self.special_tokens, "min_count": self.min_count, "lowercase": self.lowercase
        }  # fmt: skip

    def files(self) -> list[str]:
        """Return the files of a vocabulary that is not learned."""
        return [] if self.tokenizer in KINDS else [str(file) for file in find_vocabulary(Path(self.tokenizer))]
