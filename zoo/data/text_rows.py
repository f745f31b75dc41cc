"""Texts of a table as rows: their tokens, padded or counted batch by batch.

Legend: N texts, M tokens of all, B batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from zoo.data.base import Rows
from zoo.data.spec import Batch
from zoo.data.text_view import Ragged, TextView
from zoo.data.tokenizing import TokenizerOptions
from zoo.text import words
from zoo.text.tokenizer import Tokenizer
from zoo.text.words import Words

__all__ = ["TextRows", "TokenStore", "learn_texts"]

log = logging.getLogger(__name__)


class TokenStore:
    """The tokens of all texts, in memory or in a file that is mapped into it.

    Args:
        tokens: (M,).
        lengths: how many each text has, (N,).
    """

    def __init__(self, tokens: Tensor, lengths: Tensor) -> None:
        self.tokens, self.lengths = tokens, lengths
        self.starts = lengths.cumsum(0) - lengths

    @classmethod
    def of(cls, texts: Iterable[list[str]], view: TextView, tokenizer: Tokenizer) -> TokenStore:
        """Tokenize texts that come some at a time; say how many were cut."""
        return cls.cut((Ragged(*tokenizer.encode_all(part)) for part in texts), view)

    @classmethod
    def cut(cls, texts: Iterable[Ragged], view: TextView) -> TokenStore:
        """Hold tokens of texts that come some at a time, up to `max_length` of each; say how many were cut."""
        parts, lengths, cut = [torch.zeros(0, dtype=torch.int32)], [torch.zeros(0, dtype=torch.long)], 0
        for part in texts:
            tokens, whole = view.cut(part)
            parts.append(tokens.tokens)
            lengths.append(tokens.lengths)
            cut += whole
        if cut:
            log.info(
                "%d texts are longer than data.max_length=%d tokens: the rest of them is cut off.",
                cut,
                view.max_length,
            )
        return cls(torch.cat(parts), torch.cat(lengths))

    def __getitem__(self, index: Tensor) -> Ragged:
        """Return some of the texts, (B,)."""
        if len(index) and _consecutive(index):
            first, last = int(index[0]), int(index[-1])
            start, end = int(self.starts[first]), int(self.starts[last] + self.lengths[last])
            return Ragged(self.tokens[start:end], self.lengths[first : last + 1])
        lengths = self.lengths[index]
        before = lengths.cumsum(0) - lengths
        places = torch.arange(int(lengths.sum())) + (self.starts[index] - before).repeat_interleave(lengths)
        return Ragged(self.tokens[places], lengths)

    def parts(self, index: Tensor, size: int = 4096) -> Iterator[Ragged]:
        """Yield some of the texts, `size` at a time."""
        yield from (self[part] for part in index.split(size))


class TextRows(Rows):
    """The texts of a split.

    Args:
        store: the tokens of all texts.
        index: which of them, (N,).
        y: the targets of all texts, or None.
        view: what a text becomes.
        weight: sample weights of all texts, or None.
    """

    def __init__(
        self, store: TokenStore, index: Tensor, y: Tensor | None, view: TextView, weight: Tensor | None = None
    ) -> None:
        self.store, self.index, self.view = store, index, view
        self.y, self.weight = (None if column is None else column[index] for column in (y, weight))
        self.num_steps = None if view.is_bag else store.lengths[index]

    def __len__(self) -> int:
        return len(self.index)

    def first(self, count: int) -> list[int]:
        """Return the first tokens of the first text that has some."""
        there = self.index[self.store.lengths[self.index] > 0][:1]
        return self.store[there].tokens[:count].tolist()

    def __getitem__(self, index: Tensor) -> Batch:
        y, weight = (None if column is None else column[index] for column in (self.y, self.weight))
        return self.view.batch(self.store[self.index[index]])._replace(y=y, weight=weight)


def learn_texts(
    texts: Callable[[Tensor | None], Iterable[list[str]]],
    training: Tensor,
    tokenizing: TokenizerOptions,
    view: TextView,
    known: str | None = None,
    learnt: bool = False,
) -> tuple[TokenStore, Tokenizer]:
    """Return the tokens of all texts, and the tokenizer, after the view has learnt of the training texts.

    Args:
        texts: gives the texts, or those of some rows (bool), some at a time, each time that it is called.
        training: which of them are training rows, (N,), bool.
        tokenizing: what the user said of the tokens.
        view: what a text becomes.
        known: the JSON of a tokenizer that has been learnt already.
        learnt: whether the view has learnt already.
    """
    counted = _count_words(texts(None), training, tokenizing, view) if known is None else None
    if counted is None:
        tokenizer = tokenizing.make((text for part in texts(training) for text in part), known)
        store = TokenStore.of(texts(None), view, tokenizer)
    else:
        store, tokenizer = counted
    if not learnt:
        view.learn(tokenizer, lambda: store.parts(training.nonzero().squeeze(1)))
    return store, tokenizer


def _count_words(
    texts: Iterable[list[str]], training: Tensor, tokenizing: TokenizerOptions, view: TextView
) -> tuple[TokenStore, Tokenizer] | None:
    """Do in one pass over the texts what else takes one to learn the words and one to number them.

    Words get the numbers in which they are met, and those of the tokenizer when all are counted. None where tokens are
    no words, without a kernel, and where no word is in the training texts.
    """
    if tokenizing.tokenizer != "word" or not words.available():
        return None
    met, counts, start = Words(), torch.zeros(0, dtype=torch.long), 0

    def read() -> Iterator[Ragged]:
        nonlocal counts, start
        for part in texts:
            found = Ragged(*met.read(map(words.lowered, part) if tokenizing.lowercase else part))
            counted = training[start : start + len(part)]
            start += len(part)
            tokens = found.tokens if bool(counted.all()) else found.tokens[counted.repeat_interleave(found.lengths)]
            counts = words.add_counts(counts, tokens, len(met))
            yield found

    store = TokenStore.cut(read(), view)
    if not bool(counts.any()):
        return None
    names = met.names()
    tokenizer = tokenizing.of_words(names, counts)
    store.tokens = tokenizer.numbers(names)[store.tokens]
    return store, tokenizer


def _consecutive(index: Tensor) -> bool:
    """Whether each number is one more than that before it."""
    return int(index[-1] - index[0]) == len(index) - 1 and bool((index.diff() == 1).all())
