"""Vocabularies learned from a text that is read once, some at a time.

Source: Sennrich, Haddow & Birch 2016 (byte-pair encoding), of bytes as Radford et al. 2019 have it; Schuster & Nakajima
2012 (WordPiece), whose pairs are joined by their frequency here; Kudo 2018 (Unigram).

A text gives the same vocabulary in every process, so that a run can be repeated. The library counts words in a table
whose order is another in every process, and it shows in two places: WordPiece numbers the characters inside words as it
meets them, and these numbers settle ties between pairs; Unigram adds up, and places rare characters, in that order.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ZooError, nearest
from zoo.text import words
from zoo.text.pieces import pieces_of

if TYPE_CHECKING:
    import tokenizers

__all__ = ["KINDS", "ROLES", "learn", "learn_words"]

KINDS = ("char", "word", "bpe", "wordpiece", "unigram")

# What a special token is for, and how it is written: the first in a vocabulary of ours, any of them in one from a file.
ROLES: dict[str, tuple[str, ...]] = {
    "pad": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
    "begin": ("[BOS]", "<s>", "<|endoftext|>"),
    "end": ("[EOS]", "</s>", "<|endoftext|>"),
}
_UNKNOWN = ROLES["unknown"][0]
_PIECES = 256  # pieces of a text whose words are counted at once


def learn(
    texts: Iterable[str],
    kind: str,
    vocab_size: int,
    special_tokens: Sequence[str] | Mapping[str, int] | None = None,
    min_count: int = 1,
    lowercase: bool = False,
) -> tokenizers.Tokenizer:
    """Return a tokenizer of the library with a vocabulary of the texts; see `zoo.text.Tokenizer.train`."""
    special = _checked_special(kind, vocab_size, special_tokens, min_count)
    read = _Counted(texts)
    counted = kind == "word" and words.available()
    train = _characters if kind == "char" else _counted_words if counted else _learned
    backend = train(read, kind, vocab_size, list(special), min_count, lowercase)
    if not read.count:
        raise ZooError("The text is empty: there is nothing to learn a vocabulary from.")
    return _accepted(backend, vocab_size, special, min_count)


def learn_words(
    names: Sequence[str],
    counts: Tensor,
    vocab_size: int,
    special_tokens: Sequence[str] | Mapping[str, int] | None = None,
    min_count: int = 1,
    lowercase: bool = False,
) -> tokenizers.Tokenizer:
    """Return a tokenizer whose tokens are words that have been counted already.

    Args:
        names: the words (in small letters, where `lowercase`).
        counts: how often each was met, (len(names),).
        vocab_size: see `learn`, as those that follow.
    """
    special = _checked_special("word", vocab_size, special_tokens, min_count)
    backend = _most_frequent(names, counts, vocab_size, list(special), min_count, lowercase)
    return _accepted(backend, vocab_size, special, min_count)


def _checked_special(
    kind: str, vocab_size: int, special_tokens: Sequence[str] | Mapping[str, int] | None, min_count: int
) -> dict[str, int]:
    """Return the special tokens with their ids; raise one line for options that do not fit."""
    if kind not in KINDS:
        raise ZooError(f"There is no tokenizer '{kind}'.{nearest(kind, KINDS)} Kinds: {', '.join(KINDS)}.")
    if min_count < 1:
        raise ZooError(f"data.min_count must be at least 1, not {min_count}.")
    special = _special_ids(special_tokens, needs_unknown=kind != "bpe")
    smallest = len(special) + (256 if kind == "bpe" else 1)
    if vocab_size < smallest:
        least = f"{len(special)} special tokens and {'the 256 bytes' if kind == 'bpe' else 'one token'}"
        raise ZooError(f"data.vocab_size={vocab_size} is too small: {least} take {smallest}.")
    return special


def _accepted(
    backend: tokenizers.Tokenizer, vocab_size: int, special: Mapping[str, int], min_count: int
) -> tokenizers.Tokenizer:
    """Return what was learned with the special tokens at their ids; raise one line where it is no vocabulary."""
    found = backend.get_vocab_size()
    if found <= len(special):
        raise ZooError(f"The text has no token that is met {min_count} times: lower data.min_count.")
    if found > vocab_size:
        raise ZooError(f"data.vocab_size={vocab_size} is too small: the text's characters alone take {found}.")
    return _with_ids(backend, special)


class _Counted:
    """Texts, cut into pieces, and how many characters were read of them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts, self.count = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.count += len(text)
            yield from pieces_of([text])


def _special_ids(special: Sequence[str] | Mapping[str, int] | None, needs_unknown: bool) -> dict[str, int]:
    """Return the special tokens with their ids, in the order of these."""
    if special is None or not isinstance(special, Mapping):
        special = {role: number for number, role in enumerate(special or ())}
    for role, number in special.items():
        if role not in ROLES:
            raise ZooError(f"There is no special token '{role}'.{nearest(role, ROLES)} Roles: {', '.join(ROLES)}.")
        if not isinstance(number, int) or number < 0:
            raise ZooError(f"data.special_tokens: the id of {role} must be 0 or more, not {number!r}.")
    if needs_unknown and "unknown" not in special:
        free = next(number for number in range(len(special) + 1) if number not in special.values())
        special = {**special, "unknown": free}
    if len(set(special.values())) < len(special):
        raise ZooError(f"data.special_tokens has an id twice: {', '.join(f'{k}: {v}' for k, v in special.items())}.")
    return {ROLES[role][0]: number for role, number in sorted(special.items(), key=lambda item: item[1])}


def _characters(
    pieces: Iterable[str], kind: str, vocab_size: int, special: list[str], min_count: int, lowercase: bool
) -> tokenizers.Tokenizer:
    """The most frequent characters, in sorted order."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    counts: Counter[str] = Counter()
    for piece in pieces:
        counts.update(piece.lower() if lowercase else piece)
    room = vocab_size - len(special)
    frequent = sorted((c for c in counts if counts[c] >= min_count), key=lambda c: (-counts[c], c))[:room]
    vocabulary = {token: number for number, token in enumerate([*special, *sorted(frequent)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    # In Oniguruma it is the m that lets the dot take a line end.
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?m:.)"), "isolated")
    backend.decoder = decoders.Fuse()
    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.add_special_tokens(special)
    return backend


def _counted_words(
    pieces: Iterable[str], kind: str, vocab_size: int, special: list[str], min_count: int, lowercase: bool
) -> tokenizers.Tokenizer:
    """The most frequent words."""
    met, counts = words.Words(), torch.zeros(0, dtype=torch.long)
    remaining = map(words.lowered, pieces) if lowercase else iter(pieces)
    while part := list(islice(remaining, _PIECES)):
        counts = words.add_counts(counts, met.read(part)[0], len(met))
    return _most_frequent(met.names(), counts, vocab_size, special, min_count, lowercase)


def _most_frequent(
    names: Sequence[str], counts: Tensor, vocab_size: int, special: list[str], min_count: int, lowercase: bool
) -> tokenizers.Tokenizer:
    """Words by how often they were met, and among equals in sorted order."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
    met = counts.numpy()[order]
    frequent = order[(-met).argsort(kind="stable")][: min((met >= min_count).sum(), vocab_size - len(special))]
    tokens = [*special, *(names[i] for i in frequent.tolist())]
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=_UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.add_special_tokens(special)
    return backend


def _learned(
    pieces: Iterable[str], kind: str, vocab_size: int, special: list[str], min_count: int, lowercase: bool
) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    options: dict[str, Any] = {"vocab_size": vocab_size, "special_tokens": special, "show_progress": False}
    normalizer: Any = normalizers.Lowercase() if lowercase else None
    trainer: Any
    train = _train
    if kind == "word":
        backend = Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(min_frequency=min_count, **options)
    elif kind == "bpe":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(min_frequency=min_count, initial_alphabet=alphabet, **options)
    elif kind == "wordpiece":
        backend = Tokenizer(models.WordPiece(unk_token=_UNKNOWN))
        normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        trainer, train = trainers.WordPieceTrainer(min_frequency=min_count, **options), _train_wordpiece
    else:
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        backend.decoder = decoders.Metaspace(prepend_scheme="never")
        trainer, train = trainers.UnigramTrainer(unk_token=_UNKNOWN, **options), _train_unigram
    if normalizer is not None:
        backend.normalizer = normalizer
    try:
        return train(backend, pieces, trainer)
    except ZooError:
        raise  # of the file that is read
    except Exception as error:
        raise ZooError(f"No vocabulary of data.vocab_size={vocab_size} can be learned: {error}.") from error


def _train(backend: tokenizers.Tokenizer, pieces: Iterable[str], trainer: Any) -> tokenizers.Tokenizer:
    backend.train_from_iterator(pieces, trainer)
    return backend


def _train_wordpiece(backend: tokenizers.Tokenizer, pieces: Iterable[str], trainer: Any) -> tokenizers.Tokenizer:
    """Learn pieces of words, the characters inside words numbered in sorted order.

    To be numbered as they are given, they are made special tokens. To find them the text is read once before; as it
    comes but once, it is read from a copy on disk the second time.
    """
    vocab_size, special, prefix = trainer.vocab_size, trainer.special_tokens, trainer.continuing_subword_prefix
    with tempfile.TemporaryFile("w+", encoding="ascii") as copy:
        trainer.vocab_size = 0  # the characters alone
        backend.train_from_iterator(_copied(pieces, copy), trainer)
        inside = sorted(token for token in backend.get_vocab() if len(token) > len(prefix) and token.startswith(prefix))
        copy.seek(0)
        trainer.vocab_size, trainer.special_tokens = vocab_size, [*special, *inside]
        backend.train_from_iterator(map(json.loads, copy), trainer)
    state = json.loads(backend.to_str())
    state["added_tokens"] = [added for added in state["added_tokens"] if added["id"] < len(special)]
    return _from_state(state)


def _copied(pieces: Iterable[str], copy: IO[str]) -> Iterator[str]:
    for piece in pieces:
        copy.write(json.dumps(piece) + "\n")
        yield piece


def _train_unigram(backend: tokenizers.Tokenizer, pieces: Iterable[str], trainer: Any) -> tokenizers.Tokenizer:
    """Learn tokens and their log-probabilities, without what the order of the words leaves in them.

    That is the last digits of each, and the places of the characters that are too rare for a token of their own: the
    library gives them the least log-probability that it found and a ten-thousandth more from one to the next. They get
    the least.
    """
    backend.train_from_iterator(pieces, trainer)
    state = json.loads(backend.to_str())
    scores = dict(state["model"]["vocab"][len(trainer.special_tokens) :])
    least = min(scores.values(), default=0.0)
    rare = least + 1e-4 * sum(len(token) == 1 for token in scores)
    for token, score in scores.items():
        scores[token] = round(least if len(token) == 1 and score < rare else score, 6)
    first = state["model"]["vocab"][: len(trainer.special_tokens)]
    state["model"]["vocab"] = [*first, *sorted(scores.items(), key=lambda item: (-item[1], item[0]))]
    return _from_state(state)


def _from_state(state: dict[str, Any]) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(state, ensure_ascii=False))


def _with_ids(backend: tokenizers.Tokenizer, special: Mapping[str, int]) -> tokenizers.Tokenizer:
    """Move the special tokens to their ids; all others keep their order."""
    if list(special.values()) == list(range(len(special))):
        return backend
    state = json.loads(backend.to_str())
    vocabulary = state["model"]["vocab"]
    is_list = isinstance(vocabulary, list)  # Unigram's: tokens with their scores, in the order of ids
    order = [token for token, _ in vocabulary] if is_list else sorted(vocabulary, key=vocabulary.__getitem__)
    highest = max(special.values())
    if highest >= len(order):
        raise ZooError(f"data.special_tokens: id {highest} is beyond the vocabulary of {len(order)} tokens.")
    tokens = {number: token for token, number in special.items()}
    others = (token for token in order if token not in special)
    placed = [tokens[number] if number in tokens else next(others) for number in range(len(order))]
    if is_list:
        state["model"]["vocab"] = [[token, dict(vocabulary)[token]] for token in placed]
        state["model"]["unk_id"] = placed.index(_UNKNOWN)
    else:
        state["model"]["vocab"] = {token: number for number, token in enumerate(placed)}
    for added in state["added_tokens"]:
        added["id"] = special[added["content"]]
    state["added_tokens"].sort(key=lambda added: added["id"])
    return _from_state(state)
