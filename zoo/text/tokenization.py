"""Tokenization on the `tokenizers` library: characters, words or subwords, learned from a text.

Every tokenizer is one JSON string, which travels in the `DataSpec` and so in each checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from zoo.errors import ZooError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["UNKNOWN", "decode", "encode", "load_tokenizer", "train_tokenizer"]

UNKNOWN = "[UNK]"
_PIECE = 20_000  # characters encoded at a time; a whole book at once would take memory for every offset


def train_tokenizer(
    text: str, kind: Literal["character", "word", "subword"] = "character", vocab_size: int = 8192
) -> Tokenizer:
    """Learn a vocabulary from a text.

    Args:
        text: the training text.
        kind: `character`, `word` (split at blanks and punctuation), or `subword` (byte-level byte-pair encoding of
            Sennrich, Haddow & Birch 2016, which knows no unknown word).
        vocab_size: the most tokens, for words and subwords.

    Raises:
        ZooError: if the text is empty.

    Example:
        >>> tokenizer = train_tokenizer("hello world")
        >>> decode(tokenizer, encode(tokenizer, "hold"))
        'hold'
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if not text:
        raise ZooError("The text is empty: there is nothing to learn a vocabulary from.")
    if kind == "character":
        vocabulary = {token: index for index, token in enumerate([UNKNOWN, *sorted(set(text))])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        # In Oniguruma it is the m that lets the dot take a line end.
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?m:.)"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        return tokenizer
    if kind == "word":
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer: Any = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=[UNKNOWN], show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_pieces(text), trainer)
    return tokenizer


def load_tokenizer(json: str | None) -> Tokenizer:
    """Rebuild a tokenizer from the JSON in a `DataSpec`."""
    from tokenizers import Tokenizer

    if json is None:
        raise ZooError("These data have no tokenizer.")
    return Tokenizer.from_str(json)


def _pieces(text: str) -> Iterator[str]:
    """Cut at the ends of lines, where no token goes on."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PIECE)
        end = len(text) if end < 0 else end + 1
        yield text[start:end]
        start = end


def encode(tokenizer: Tokenizer, text: str) -> Tensor:
    """Return the token ids of a text, (N,) int64."""
    encodings = tokenizer.encode_batch_fast(list(_pieces(text)), add_special_tokens=False)
    return torch.cat([torch.tensor(e.ids, dtype=torch.long) for e in encodings] or [torch.zeros(0, dtype=torch.long)])


def decode(tokenizer: Tokenizer, ids: Tensor) -> str:
    """Return the text of token ids (N,)."""
    return tokenizer.decode(ids.tolist(), skip_special_tokens=False)
