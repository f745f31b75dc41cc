r"""How a model sees texts: as their tokens, or as a bag of n-grams that is counted, weighted or just looked for.

```math
x_{ij} = n_{ij}, \qquad x_{ij} = [n_{ij} > 0], \qquad
x_{ij} = \frac{n_{ij}\, w_j}{\|n_i \odot w\|}, \quad w_j = 1 + \ln \frac{1 + N}{1 + N_j}
```

for `counts`, `binary` and `tfidf`. Texts are kept as their tokens, one text after the other; the rows of a bag are made
batch by batch, so that no table of all texts and n-grams is ever held.

Legend: N texts, B of a batch, T tokens of the longest, M tokens of all, F features; n_ij how often the j-th n-gram is
in text i, N_j in how many texts it is.

Source: Salton & Buckley 1988 (tf-idf; the smoothed form is scikit-learn's); Weinberger et al. 2009 (hashed features).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.kernels import row_counts
from zoo.numerics.hashing import splitmix64
from zoo.numerics.sparse import sparse_rows
from zoo.text.tokenizer import Tokenizer

__all__ = ["Ragged", "TextView", "n_grams"]

log = logging.getLogger(__name__)


class Ragged(NamedTuple):
    """Tokens of texts of different lengths, one text after the other.

    Attributes:
        tokens: (M,).
        lengths: how many each text has, (B,).
    """

    tokens: Tensor
    lengths: Tensor

    @property
    def rows(self) -> Tensor:
        """The text of each token, (M,)."""
        return torch.arange(len(self.lengths)).repeat_interleave(self.lengths)

    @property
    def places(self) -> Tensor:
        """The place of each token in its text, (M,)."""
        starts = self.lengths.cumsum(0) - self.lengths
        return torch.arange(len(self.tokens)) - starts.repeat_interleave(self.lengths)

    def cut(self, longest: int) -> Ragged:
        """Return the first tokens of each text."""
        if not len(self.lengths) or int(self.lengths.max()) <= longest:
            return self
        return Ragged(self.tokens[self.places < longest], self.lengths.clamp(max=longest))

    def padded(self, blank: int) -> Batch:
        """Return tokens (B, T) and their mask; a text without a token is read as the single token `blank`.

        >>> Ragged(torch.tensor([5, 6, 7]), torch.tensor([1, 0, 2])).padded(blank=1).tokens
        tensor([[5, 0],
                [1, 0],
                [6, 7]])
        """
        longest = max(1, int(self.lengths.max())) if len(self.lengths) else 1
        tokens = torch.zeros(len(self.lengths), longest, dtype=torch.long)
        mask = torch.arange(longest) < self.lengths.unsqueeze(1)  # (B, T)
        tokens[mask] = self.tokens.long()
        empty = self.lengths == 0
        tokens[empty, 0], mask[empty, 0] = blank, True
        return Batch(tokens=tokens, mask=None if bool(mask.all()) else mask)


def n_grams(texts: Ragged, longest: int, base: int, left_out: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Return every run of 1 to `longest` tokens of each text.

    Args:
        texts: the tokens.
        longest: n.
        base: one more than the largest token; a run a₁ … a_n becomes the key Σ (a_i + 1)(base + 1)^(n - i), modulo 2⁶⁴.
        left_out: tokens that are in no run.

    Returns:
        The keys (K,) and the text of each (K,).

    Example:
        >>> keys, rows = n_grams(Ragged(torch.tensor([2, 0, 2]), torch.tensor([2, 1])), longest=2, base=9)
        >>> keys.tolist(), rows.tolist()
        ([3, 1, 3, 31], [0, 0, 1, 0])
    """
    tokens, rows = texts.tokens.long(), texts.rows
    usable = torch.ones_like(tokens, dtype=torch.bool)
    for token in left_out:
        usable &= tokens != token
    key, whole = tokens + 1, usable
    found = [(key[whole], rows[whole])]
    for n in range(2, longest + 1):
        if len(tokens) < n:
            break
        last = slice(n - 1, None)
        whole = whole[:-1] & usable[last] & (rows[last] == rows[: len(rows) - n + 1])
        key = key[:-1] * (base + 1) + tokens[last] + 1
        found.append((key[whole], rows[: len(rows) - n + 1][whole]))
    return torch.cat([keys for keys, _ in found]), torch.cat([rows for _, rows in found])


@dataclass
class TextView:
    """What texts become, with what was learnt of the training texts; it travels in the checkpoint beside the tokenizer.

    Attributes:
        column: the column of a table that holds the texts.
        view: `tokens`, `counts`, `binary` or `tfidf`.
        max_length: the most tokens of a text; what comes after them is cut off.
        ngrams: a feature is a run of 1 to so many tokens.
        max_features: the most features F: the most frequent runs, or the number of buckets where `hashed`.
        hashed: whether runs share features by their hash, so that no vocabulary is kept.
        vocab_size: one more than the largest token.
        left_out: tokens that are no feature: special ones.
        keys: the keys of the features, sorted, (F,); None for tokens, or where hashed.
        idf: the weights w of the features, (F,), for `tfidf`.
    """

    column: str
    view: str = "tokens"
    max_length: int | None = None
    ngrams: int = 1
    max_features: int = 10_000
    hashed: bool = False
    vocab_size: int = 0
    left_out: tuple[int, ...] = ()
    blank: int = 0
    keys: Tensor | None = None
    idf: Tensor | None = None

    @property
    def is_bag(self) -> bool:
        """Whether a text becomes a row of numbers."""
        return self.view != "tokens"

    @property
    def num_features(self) -> int:
        """F."""
        return self.max_features if self.keys is None else len(self.keys)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values and tensors, fit for a checkpoint."""
        return asdict(self) | {"left_out": list(self.left_out)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TextView:
        """Rebuild the view that `to_dict` wrote."""
        return cls(**{**values, "left_out": tuple(values["left_out"])})

    # -- learning ----------------------------------------------------------------------------------------------

    def learn(self, tokenizer: Tokenizer, training: Callable[[], Iterable[Ragged]]) -> None:
        """Take features and their weights from the tokens of the training texts, in up to two passes over them."""
        special = {tokenizer.special(role) for role in ("unknown", "pad", "begin", "end", "cls", "sep", "mask")}
        self.left_out = tuple(sorted(number for number in special if number is not None))
        self.vocab_size = tokenizer.vocab_size
        self.blank = next((n for n in map(tokenizer.special, ("unknown", "end", "pad")) if n is not None), 0)
        if not self.is_bag:
            return
        if not self.hashed:
            if (self.vocab_size + 1) ** self.ngrams >= 2**63:
                raise ZooError(
                    f"data.ngrams={self.ngrams} of {self.vocab_size} tokens are too many to tell apart: pass "
                    "data.hashed=true, or lower data.ngrams or data.vocab_size."
                )
            self._learn_keys(training())
        if self.view == "tfidf":
            self._learn_idf(training())

    def _learn_keys(self, training: Iterable[Ragged]) -> None:
        keys, counts = self._count_tokens(training) if self.ngrams == 1 else self._count_runs(training)
        if not len(keys):
            raise ZooError(
                f"The training texts of column '{self.column}' hold no known token: there is nothing to count."
            )
        if len(keys) > self.max_features:
            log.info("Of %d n-grams the %d most frequent are features.", len(keys), self.max_features)
        frequent = counts.argsort(descending=True, stable=True)[: self.max_features]
        self.keys = keys[frequent].sort().values

    def _count_tokens(self, training: Iterable[Ragged]) -> tuple[Tensor, Tensor]:
        """Return the keys of the tokens that there are, ascending, and how often each is there."""
        counts = torch.zeros(self.vocab_size, dtype=torch.long)
        for part in training:
            counts += torch.bincount(part.tokens, minlength=self.vocab_size)
        counts[list(self.left_out)] = 0
        there = counts.nonzero().squeeze(1)
        return there + 1, counts[there]

    def _count_runs(self, training: Iterable[Ragged]) -> tuple[Tensor, Tensor]:
        """Return the keys of the runs of tokens that there are, ascending, and how often each is there."""
        keys, counts = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
        for part in training:
            found, times = self._keys(part)[0].unique(return_counts=True)
            keys, place = torch.cat([keys, found]).unique(return_inverse=True)
            counts = torch.zeros(len(keys), dtype=torch.long).scatter_add_(0, place, torch.cat([counts, times]))
        return keys, counts

    def _learn_idf(self, training: Iterable[Ragged]) -> None:
        texts, containing = 0, torch.zeros(self.num_features, dtype=torch.long)
        for part in training:
            containing += torch.bincount(self._counted(part)[1], minlength=self.num_features)
            texts += len(part.lengths)
        self.idf = ((1 + texts) / (1 + containing)).log() + 1

    # -- seeing ------------------------------------------------------------------------------------------------

    def encode(self, texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Ragged, int]:
        """Return the tokens of texts, cut to `max_length`, and how many texts were cut."""
        return self.cut(Ragged(*tokenizer.encode_all(texts)))

    def cut(self, tokens: Ragged) -> tuple[Ragged, int]:
        """Return tokens cut to `max_length`, and how many texts were cut."""
        if self.max_length is None:
            return tokens, 0
        return tokens.cut(self.max_length), int((tokens.lengths > self.max_length).sum())

    def batch(self, texts: Ragged) -> Batch:
        """Return tokens as a model takes them: (B, T) with their mask, or as sparse rows (B, F)."""
        if not self.is_bag:
            return texts.padded(self.blank)
        crow, features, counts = self._counted(texts)
        shape = len(texts.lengths), self.num_features
        values = torch.ones_like(counts) if self.view == "binary" else counts
        if self.idf is not None:
            rows = torch.arange(shape[0]).repeat_interleave(crow.diff())
            values *= self.idf[features].float()
            squares = torch.zeros(shape[0]).index_add_(0, rows, values.square())
            values /= squares.sqrt()[rows]
        return Batch(sparse_rows(crow, features, values, shape))

    def feature_names(self, tokenizer: Tokenizer) -> tuple[str, ...]:
        """Return the tokens of each feature, with blanks between; of hashed ones there are none."""
        if self.keys is None:
            return ()
        vocabulary, base = tokenizer.vocabulary, self.vocab_size + 1
        if self.ngrams == 1:
            return tuple(vocabulary[key - 1] for key in self.keys.tolist())
        return tuple(" ".join(vocabulary[token - 1] for token in _digits(key, base)) for key in self.keys.tolist())

    def _counted(self, texts: Ragged) -> tuple[Tensor, Tensor, Tensor]:
        """Return where each text begins in what follows (B + 1,), its features ascending (K,), and how often each is
        in it, (K,), float32."""
        if self.ngrams == 1 and row_counts.available():
            return row_counts.row_counts(texts.tokens, texts.lengths, self._token_features, self.num_features)
        features, rows = self._features(texts)
        cells, counts = (rows * self.num_features + features).unique(return_counts=True)
        rows, features = cells // self.num_features, cells % self.num_features
        crow = torch.bincount(rows, minlength=len(texts.lengths)).cumsum(0)
        return torch.cat([crow.new_zeros(1), crow]), features, counts.float()

    def _keys(self, texts: Ragged) -> tuple[Tensor, Tensor]:
        return n_grams(texts, self.ngrams, self.vocab_size, self.left_out)

    def _features(self, texts: Ragged) -> tuple[Tensor, Tensor]:
        """Return the feature and the text of each n-gram that is one."""
        keys, rows = self._keys(texts)
        features = self._feature_of(keys)
        known = features >= 0
        return features[known], rows[known]

    def _feature_of(self, keys: Tensor) -> Tensor:
        """Return the feature of each key, -1 where it is none."""
        if self.keys is None:
            return splitmix64(0, keys).remainder_(self.max_features)
        features = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return features.where(self.keys[features] == keys, -1)

    @functools.cached_property
    def _token_features(self) -> Tensor:
        """The feature of each token where runs are of one, -1 where it is none, int32."""
        features = self._feature_of(torch.arange(1, self.vocab_size + 1))
        features[list(self.left_out)] = -1
        return features.int()


def _digits(key: int, base: int) -> Iterator[int]:
    """Yield the digits of a number, the highest first."""
    head, last = divmod(key, base)
    if head:
        yield from _digits(head, base)
    yield last
