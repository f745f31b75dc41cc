"""Tokenization on the `tokenizers` library: characters, words and subwords, learned from a text or read from a file.

A tokenizer is one JSON string, which travels in the `DataSpec` and so in each checkpoint, and lies in a run's folder as
`tokenizer.json`, which Hugging Face's library reads too.

Legend: N tokens of a text, V tokens of the vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.text import words
from zoo.text.learning import ROLES, learn, learn_words
from zoo.text.pieces import halves_refused, pieces_of
from zoo.text.vocabulary_files import read_vocabulary
from zoo.text.words import Words

if TYPE_CHECKING:
    import tokenizers

__all__ = ["SHOWN", "Tokenized", "Tokenizer"]

SHOWN = 24  # tokens that a run shows of its text
_PIECES = 64  # pieces of a long text that are encoded together, on all threads of the library


# How byte-level vocabularies write the bytes 0x80 … 0xBF, which go on with a character that another byte has begun.
_GOING_ON = frozenset(chr(256 + byte - 94 if byte < 161 else 323 if byte == 173 else byte) for byte in range(128, 192))


class Tokenized(NamedTuple):
    """What became of a text.

    Attributes:
        ids: N token ids.
        tokens: the tokens as the vocabulary writes them.
        offsets: where each begins and ends in the text, in characters.
    """

    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]


class Tokenizer:
    """Text to token ids and back.

    A special token, such as [MASK], is never found in a text: who writes `[MASK]` means these six characters.

    Args:
        backend: a tokenizer of the `tokenizers` library.

    Example:
        >>> tokenizer = Tokenizer.train(["hello world"], "char")
        >>> tokenizer.decode(tokenizer.encode("hold"))
        'hold'
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend
        backend.encode_special_tokens = True
        backend.no_padding()
        backend.no_truncation()

    # -- where it comes from -----------------------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        kind: str = "bpe",
        vocab_size: int = 8192,
        *,
        special_tokens: Sequence[str] | Mapping[str, int] | None = None,
        min_count: int = 1,
        lowercase: bool = False,
    ) -> Tokenizer:
        """Learn a vocabulary.

        Args:
            texts: the training text, some at a time, such as the lines of a file; it is never held as a whole.
            kind: `char`; `word` (runs of letters and digits, and of punctuation); `bpe` (byte-level byte-pair encoding
                of Sennrich, Haddow & Birch 2016, which knows no unknown character); `wordpiece` (Schuster & Nakajima
                2012); `unigram` (Kudo 2018).
            vocab_size: the most tokens V, special ones included.
            special_tokens: roles, in the order of their ids from 0 on, or with their ids: of pad, unknown, cls, sep,
                mask, begin and end. The unknown token, which all kinds but `bpe` need, is added where it is missing.
            min_count: how often a token must be met to be one.
            lowercase: read capital letters as small ones.

        Raises:
            ZooError: for a text without a token, or a vocabulary too small for the special tokens (and the bytes, or
                the characters of the text).

        Example:
            >>> tokenizer = Tokenizer.train(["to be or not to be"], "word", special_tokens={"pad": 0, "unknown": 3})
            >>> tokenizer.vocabulary
            ['[PAD]', 'be', 'to', '[UNK]', 'not', 'or']
        """
        return cls(learn(texts, kind, vocab_size, special_tokens, min_count, lowercase))

    @classmethod
    def of_words(
        cls,
        names: Sequence[str],
        counts: Tensor,
        vocab_size: int = 8192,
        *,
        special_tokens: Sequence[str] | Mapping[str, int] | None = None,
        min_count: int = 1,
        lowercase: bool = False,
    ) -> Tokenizer:
        """Take the vocabulary of words that have been counted already; see `train` for the options.

        Args:
            names: the words (in small letters, where `lowercase`).
            counts: how often each was met, (len(names),).

        Example:
            >>> Tokenizer.of_words(["not", "to", "be"], torch.tensor([1, 2, 2])).vocabulary
            ['[UNK]', 'be', 'to', 'not']
        """
        return cls(learn_words(names, counts, vocab_size, special_tokens, min_count, lowercase))

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a vocabulary: any `tokenizer.json`, BERT's `vocab.txt`, GPT-2's `encoder.json` beside its `vocab.bpe`.

        Args:
            path: the file, or the folder that it lies in, such as that of a run.

        Raises:
            ZooError: if there is none, or it cannot be read.
        """
        return cls(read_vocabulary(Path(path)))

    @classmethod
    def from_json(cls, text: str | None) -> Tokenizer:
        """Rebuild the tokenizer that `to_json` wrote, such as that of a `DataSpec`."""
        if text is None:
            raise ZooError("These data have no tokenizer.")
        return _from_json(text)

    def to_json(self) -> str:
        """Return everything as one string."""
        return self.backend.to_str()

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, which Hugging Face's library reads too."""
        Path(path).write_text(self.backend.to_str(pretty=True), encoding="utf-8")

    # -- what it knows -----------------------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._ids.values(), default=-1) + 1

    @property
    def vocabulary(self) -> list[str]:
        """The tokens in the order of their ids; one that no token has is empty."""
        tokens = [""] * self.vocab_size
        for token, number in self._ids.items():
            tokens[number] = token
        return tokens

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return self.backend.get_vocab()

    @property
    def characters(self) -> Tensor:
        """How many characters each token stands for, (V,) int64; of those that are bytes, how many it begins.

        >>> Tokenizer.train(["to be"], "word").characters.tolist()
        [5, 2, 2]
        """
        byte_level = type(self.backend.decoder).__name__ == "ByteLevel"
        special = self.backend.get_added_tokens_decoder()
        counts = []
        for number, token in enumerate(self.vocabulary):
            if byte_level and number not in special:  # each sign is a byte
                counts.append(sum(sign not in _GOING_ON for sign in token))
            else:
                counts.append(len(token))
        return torch.tensor(counts)

    def special(self, role: str) -> int | None:
        """Return the id of the special token of a role, or None where there is none.

        >>> Tokenizer.train(["abc"], "char", special_tokens=["pad"]).special("pad")
        0
        """
        found = map(self.backend.token_to_id, ROLES[role])
        return next((number for number in found if number is not None), None)

    # -- there and back ----------------------------------------------------------------------------------------

    def encode(self, text: str) -> Tensor:
        """Return the token ids of a text, (N,) int64."""
        parts = [torch.from_numpy(ids).long() for ids in self.stream(pieces_of([text]))]
        return torch.cat([torch.zeros(0, dtype=torch.long), *parts])

    def encode_all(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the token ids of many texts one after the other, (N,) int32, and how many each has, (len(texts),)."""
        if self._words is not None and words.available():
            return self._read_words(texts)
        ids, lengths = [np.zeros(0, np.int32)], list[int]()
        remaining = iter(texts)
        while part := list(islice(remaining, 4096)):
            rows = [encoding.ids for encoding in self._encodings(part)]
            lengths += map(len, rows)
            ids.append(np.fromiter(chain.from_iterable(rows), np.int32))
        return torch.from_numpy(np.concatenate(ids)), torch.tensor(lengths, dtype=torch.long)

    def numbers(self, tokens: Sequence[str]) -> Tensor:
        """Return the id of each of some tokens, of one that is not known that of the unknown token, int32.

        >>> Tokenizer.train(["to be"], "word").numbers(["be", "or"]).tolist()
        [1, 0]
        """
        ids = map(self._ids.get, tokens, repeat(self.special("unknown")))
        return torch.from_numpy(np.fromiter(ids, np.int32, len(tokens)))

    def stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield the token ids of a long text that comes in pieces, some at a time, as int32."""
        remaining = iter(pieces)
        while part := list(islice(remaining, _PIECES)):
            if self._words is not None and words.available():
                yield self._read_words(part)[0].numpy()
                continue
            encodings = self._encodings(part)
            yield np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32)

    def _encodings(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        with halves_refused(texts):
            return self.backend.encode_batch_fast(texts, add_special_tokens=False)

    @functools.cached_property
    def _words(self) -> Words | None:
        """The vocabulary for a kernel, where tokens are words; else None."""
        known = self.backend.get_vocab(with_added_tokens=False)
        unknown = getattr(self.backend.model, "unk_token", None)
        cut, normalizer = type(self.backend.pre_tokenizer).__name__, type(self.backend.normalizer).__name__
        whole = type(self.backend.model).__name__ == "WordLevel" and unknown in known and cut == "Whitespace"
        added = any(not token.special for token in self.backend.get_added_tokens_decoder().values())
        if not whole or added or normalizer not in ("NoneType", "Lowercase"):
            return None
        names = sorted(known, key=known.__getitem__)
        return Words(names) if known[names[-1]] == len(names) - 1 else None

    def _read_words(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the tokens of texts as `encode_all` does, where `_words` are known."""
        assert self._words is not None
        if self.backend.normalizer is not None:
            texts = list(map(words.lowered, texts))
        model: Any = self.backend.model
        return self._words.read(texts, self._ids[model.unk_token])

    def tokenize(self, text: str) -> Tokenized:
        """Return the ids and the tokens of a text, and where each stands in it.

        >>> Tokenizer.train(["to be"], "word").tokenize("to see").offsets
        [(0, 2), (3, 6)]
        """
        with halves_refused([text]):
            encoding = self.backend.encode(text, add_special_tokens=False)
        return Tokenized(encoding.ids, encoding.tokens, encoding.offsets)

    def shown(self, ids: Sequence[int]) -> list[tuple[str, int]]:
        """Return the text that each of some tokens stands for, with signs for what cannot be seen, and its id.

        >>> Tokenizer.train(["a b"], "char").shown([2, 1])
        [('a', 2), ('␣', 1)]
        """
        signs = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})
        return [(self.decode([number]).translate(signs), number) for number in ids]

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Return the text of token ids (N,)."""
        numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        return self.backend.decode(numbers, skip_special_tokens=False)

    def __repr__(self) -> str:
        return f"Tokenizer({type(self.backend.model).__name__}, vocab_size={self.vocab_size})"


@functools.lru_cache(maxsize=4)
def _from_json(text: str) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    return Tokenizer(Backend.from_str(text))


def special_of(tokenizer: Tokenizer, *roles: str) -> int:
    """Return the id of the special token of the first of some roles that there is."""
    found = next((number for number in map(tokenizer.special, roles) if number is not None), None)
    if found is None:
        raise ZooError(f"The tokenizer has no token for the {roles[0]} of a text: name it in data.special_tokens.")
    return found
