"""What `word2vec` and `glove` share once their vectors are learned: asking them, saving them, looking at them.

Letters: V tokens of the vocabulary, W words of it, D numbers of a vector, B texts, T tokens of the longest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.spec import Batch
from zoo.models.base import ZooModel
from zoo.text import Tokenizer, WordVectors
from zoo.text.learning import ROLES
from zoo.text.vector_files import VECTOR_FILES, write_vectors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["WordVectorModel", "special_tokens"]

_PROJECTED = 5000  # words that TensorBoard's projector shows
_DRAWN = 150  # words of the map
_ASKED = 30  # words whose neighbours are listed
_SIGNS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})


def special_tokens(tokenizer: str | None) -> list[int]:
    """Return the ids of tokens that are no words, such as the one for what is unknown.

    Args:
        tokenizer: the JSON of a tokenizer; None where tokens are bare numbers.
    """
    if tokenizer is None:
        return []
    found = map(Tokenizer.from_json(tokenizer).special, ROLES)
    return sorted({number for number in found if number is not None})


_Base: Any = ZooModel if TYPE_CHECKING else object


class WordVectorModel(_Base):
    """A mixin: a subclass says its `vectors`, one for each token of the vocabulary."""

    @property
    def vectors(self) -> Tensor:
        """The vectors of all tokens, (V, D)."""
        raise NotImplementedError

    @property
    def word_vectors(self) -> WordVectors:
        """The words, without special tokens, with their vectors: for many questions hold on to it."""
        self.check_fitted()
        tokenizer, vectors = self.spec.tokenizer, self.vectors.detach().cpu()
        if tokenizer is None:  # it was fitted to numbers
            return WordVectors([str(number) for number in range(len(vectors))], vectors)
        special = {*special_tokens(tokenizer)}
        vocabulary = Tokenizer.from_json(tokenizer).vocabulary
        kept = [number for number, word in enumerate(vocabulary) if word and number not in special]
        # A file of vectors has no room for a blank, which a character may be.
        return WordVectors([vocabulary[number].translate(_SIGNS) for number in kept], vectors[torch.tensor(kept)])

    def similarity(self, one: str, other: str) -> float:
        """Return the cosine of two words' vectors; see `zoo.text.WordVectors`."""
        return self.word_vectors.similarity(one, other)

    def most_similar(
        self, words: str | Sequence[str], minus: str | Sequence[str] = (), k: int = 10
    ) -> list[tuple[str, float]]:
        """Return the `k` words nearest to a word, or to a sum of words; see `zoo.text.WordVectors`."""
        return self.word_vectors.most_similar(words, minus, k)

    def analogy(self, a: str, b: str, c: str, k: int = 1) -> list[tuple[str, float]]:
        """Return what is to `c` as `b` is to `a`; see `zoo.text.WordVectors`."""
        return self.word_vectors.analogy(a, b, c, k)

    def save(self, path: str | Path, *, binary: bool | None = None) -> None:
        """Write the vectors in word2vec's format, which gensim reads; see `zoo.text.WordVectors`."""
        self.word_vectors.save(path, binary=binary)

    # -- what a run keeps and shows ----------------------------------------------------------------------------------

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean of the vectors of each text's words, (B, D); zeros for a text without a known word."""
        tokens = batch.tokens  # (B, T)
        there = torch.ones_like(tokens, dtype=torch.bool) if batch.mask is None else batch.mask.clone()
        for token in special_tokens(self.spec.tokenizer):
            there &= tokens != token
        weight = there.to(self.vectors.dtype)
        if torch.compiler.is_exporting():
            sums = (self.vectors[tokens] * weight.unsqueeze(-1)).sum(1)
        else:  # no (B, T, D) is made
            sums = F.embedding_bag(tokens, self.vectors, mode="sum", per_sample_weights=weight)
        return {"prediction": sums / weight.sum(1, keepdim=True).clamp_min(1)}

    def exports(self) -> Iterator[tuple[str, Callable[[IO[bytes]], None]]]:
        words = self.word_vectors
        yield VECTOR_FILES[0], functools.partial(write_vectors, words=words.words, vectors=words.vectors)

    def tables(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        words = self.word_vectors
        rows = [{"word": word, "near": " ".join(w for w, _ in words.near(word, 8))} for word in self._examples(words)]
        yield "neighbours", rows

    def texts(self) -> Iterator[tuple[str, str]]:
        for name, rows in self.tables():
            yield name, "\n".join(["|word|near|", "|---|---|", *(f"|{r['word']}|{r['near']}|" for r in rows)])

    def _examples(self, words: WordVectors) -> list[str]:
        """Some words, of which the most frequent say little."""
        known = [word for word in words.words if len(word) > 3 and word.isalpha()] or words.words
        return known[:_ASKED] if len(words) > 1 else []

    def embeddings(self, batch: Batch, columns: dict[str, Tensor]) -> tuple[Tensor, list[str]]:
        words = self.word_vectors
        return words.vectors[:_PROJECTED], words.words[:_PROJECTED]

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo.visual.maps import word_map

        words = self.word_vectors
        yield "words", word_map(words.units[:_DRAWN], words.words[:_DRAWN])
