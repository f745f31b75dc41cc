"""Sentence pairs from a tab-separated file: a sentence and its translation in each line.

Legend: N pairs, B batch, S tokens of the longest source, T of the longest target.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.base import Rows
from zoo.data.corpus import Corpus
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.data.splits import SplitData
from zoo.data.text_rows import TokenStore
from zoo.data.text_view import Ragged, TextView
from zoo.data.tokenizing import TokenizerOptions
from zoo.errors import ZooError
from zoo.text.learning import KINDS
from zoo.text.tokenizer import SHOWN, Tokenizer, special_of

__all__ = ["PairData", "PairRows", "ParallelText"]

IGNORED = -100  # a target that does not count, as in torch
_SOME = 4096  # texts that are tokenized together


class PairRows(Rows):
    """Pairs of texts, each side padded by itself.

    The source is `w₁ … w_S end`. The target begins with `begin w₁ … w_T`, and what is to be said after each of its
    tokens, `y`, is `w₁ … w_T end`.

    Args:
        source: the tokens of the sources.
        target: those of the targets.
        index: which pairs, (N,).
        begin: the token that a target begins with.
        end: the token that a text ends with.
    """

    def __init__(self, source: TokenStore, target: TokenStore, index: Tensor, begin: int, end: int) -> None:
        self.source, self.target, self.index, self.begin, self.end = source, target, index, begin, end
        self.num_steps = source.lengths[index] + target.lengths[index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Tensor) -> Batch:
        rows = self.index[index]
        source, target = with_ends(self.source[rows], end=self.end), self.target[rows]
        said, follows = with_ends(target, begin=self.begin), with_ends(target, end=self.end)
        sources, targets, y = source.padded(self.end), said.padded(self.begin), follows.padded(self.end)
        missing = targets.mask
        return Batch(
            source=sources.tokens,
            source_mask=sources.mask,
            target=targets.tokens,
            target_mask=targets.mask,
            y=y.tokens if missing is None else y.tokens.masked_fill(~missing, IGNORED),
        )


def with_ends(texts: Ragged, begin: int | None = None, end: int | None = None) -> Ragged:
    """Return texts with a token before the first or after the last of each.

    >>> with_ends(Ragged(torch.tensor([5, 6, 7]), torch.tensor([1, 2])), end=9).tokens.tolist()
    [5, 9, 6, 7, 9]
    """
    more = (begin is not None) + (end is not None)
    lengths = texts.lengths + more
    stops = lengths.cumsum(0)
    tokens = torch.empty(int(lengths.sum()), dtype=texts.tokens.dtype)
    taken = torch.ones(len(tokens), dtype=torch.bool)
    for token, places in ((begin, stops - lengths), (end, stops - 1)):
        if token is not None:
            tokens[places], taken[places] = token, False
    tokens[taken] = texts.tokens
    return Ragged(tokens, lengths)


class PairData(SplitData):
    """Base of sentence pairs: a subclass sets `max_length` and `tokenizing`, and its `pairs` yields them.

    Both languages share one vocabulary. Pairs of equal sources are in the same split, so that no sentence that was
    trained on is translated in the test.
    """

    max_length: int
    tokenizing: TokenizerOptions

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yield sources with their translations, at least one pair."""
        raise NotImplementedError

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        pairs = list(self.pairs())
        numbers: dict[str, int] = {}
        groups = torch.tensor([numbers.setdefault(source, len(numbers)) for source, _ in pairs])
        members = self.split(len(numbers))
        index = {name: torch.isin(groups, part).nonzero().squeeze(1) for name, part in members.items()}
        training = index["train"].tolist() if "train" in index else []
        texts = (text for number in training for text in pairs[number])
        tokenizer = self.tokenizing.make(texts, self.known_tokenizer)
        begin, end = special_of(tokenizer, "begin", "cls"), special_of(tokenizer, "end", "sep")
        view = TextView("", max_length=self.max_length)
        source, target = (TokenStore.of(some_of([pair[side] for pair in pairs]), view, tokenizer) for side in (0, 1))
        splits: dict[str, Rows | None] = {n: PairRows(source, target, part, begin, end) for n, part in index.items()}
        shape = (int(source.lengths.max()) + 1, int(target.lengths.max()) + 1)
        spec = DataSpec("pairs", shape, "tokens", vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.to_json())
        return spec, splits

    def sample(self) -> list[tuple[str, int]]:
        rows = self.rows("train")
        assert isinstance(rows, PairRows)
        batch = rows[torch.zeros(1, dtype=torch.long)]
        tokens = torch.cat([batch.source[0], batch.target[0]])[:SHOWN]
        return Tokenizer.from_json(self.spec.tokenizer).shown(tokens.tolist())


@register_data("parallel_text", kind="pairs", target="tokens")
class ParallelText(PairData):
    """Your own sentence pairs: a line has a sentence, a tab, and its translation.

    Both languages share one vocabulary. Pairs of equal sources are in the same split, so that no sentence that was
    trained on is translated in the test.

    Args:
        path: the UTF-8 file.
        source: the column of the sources, from 0 on.
        target: the column of the targets.
        max_words: pairs with a longer text are left out; null keeps all.
        max_length: the most tokens of a text, of which the first are kept.
        tokenizer: what a token is: see `zoo.data.text.TextData`.
        vocab_size: the most tokens.
        special_tokens: special tokens with their ids; begin and end are needed, and are there by default.
        min_count: how often a token must be met to be one.
        lowercase: read capital letters as small ones.
        **options: those of `SplitData`.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        source: int = 0,
        target: int = 1,
        max_words: int | None = None,
        max_length: int = 128,
        tokenizer: str = "bpe",
        vocab_size: int = 8192,
        special_tokens: list[str] | dict[str, int] | None = None,
        min_count: int = 1,
        lowercase: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        limits = (
            ("source", source, 0),
            ("target", target, 0),
            ("max_words", max_words, 1),
            ("max_length", max_length, 1),
        )
        for name, value, least in limits:
            if value is not None and value < least:
                raise ZooError(f"data.{name} must be at least {least}, not {value}.")
        if special_tokens is None and tokenizer in KINDS:
            special_tokens = ["pad", "unknown", "begin", "end"]
        self.path, self.columns, self.max_words, self.max_length = path, (source, target), max_words, max_length
        self.tokenizing = TokenizerOptions(tokenizer, vocab_size, special_tokens, min_count, lowercase)

    @classmethod
    def is_path(cls, option: str, value: Any) -> bool:
        return option == "path" or (option == "tokenizer" and value not in KINDS)

    def files(self) -> list[str]:
        if self.path is None or not Path(self.path).is_file():
            raise ZooError(f"data.path={self.path} is no file: pass data.path=FILE, sentence pairs with a tab between.")
        return [self.path, *self.tokenizing.files()]

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yield the pairs of the file in its order but for those that are too long; a blank line is none."""
        found = False
        for number, line in enumerate(lines_of(Path(self.files()[0])), 1):
            if not line.strip():
                continue
            cells = line.split("\t")
            if len(cells) <= max(self.columns):
                last = max(self.columns)
                raise ZooError(
                    f"{self.path}: line {number} has {len(cells)} columns, and no column {last} (from 0 on): a tab "
                    "parts them, and data.source and data.target are their numbers."
                )
            pair = cells[self.columns[0]].strip(), cells[self.columns[1]].strip()
            if self.max_words is None or all(len(text.split()) <= self.max_words for text in pair):
                found = True
                yield pair
        if not found:
            short = "" if self.max_words is None else f" of at most data.max_words={self.max_words} words a text"
            raise ZooError(f"{self.path} has no pair{short}.")


def some_of(texts: list[str]) -> Iterator[list[str]]:
    """Yield texts some at a time."""
    yield from (texts[i : i + _SOME] for i in range(0, len(texts), _SOME))


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file."""
    corpus, rest = Corpus([path]), ""
    for _, pieces in corpus.read(0, corpus.size):
        for piece in pieces:
            *lines, rest = (rest + piece).split("\n")
            yield from lines
    if rest:
        yield rest
