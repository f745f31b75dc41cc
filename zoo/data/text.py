"""Text as tokens for language models: parallel streams cut into windows that follow each other from batch to batch.

The tokens of a split are laid out as B streams of equal length. Batch k holds the k-th window of T tokens of every
stream, so that a recurrent model that carries its state from one batch to the next reads each stream as one long text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.base import Rows, ZooDataModule
from zoo.data.corpus import Corpus
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.data.tokenizing import TokenizerOptions
from zoo.errors import ZooError
from zoo.text.learning import KINDS
from zoo.text.pieces import pieces_of
from zoo.text.tokenizer import Tokenizer

__all__ = ["PythonDocs", "TextData", "TextFile", "TokenRows"]


class TokenRows(Rows):
    """Windows of T tokens and, as targets, the tokens that come next.

    Args:
        tokens: the token ids, (N,).
        sequence_length: T.
        num_streams: B; fewer where the text is too short for so many.
    """

    def __init__(self, tokens: Tensor, sequence_length: int, num_streams: int) -> None:
        self.tokens, self.sequence_length = tokens, sequence_length
        usable = (len(tokens) - 1) // sequence_length
        self.num_streams = self.batch_size = max(1, min(num_streams, usable))
        self.num_windows = usable // self.num_streams

    def __len__(self) -> int:
        return self.num_windows * self.num_streams

    def __getitem__(self, index: Tensor) -> Batch:
        window, stream = index // self.num_streams, index % self.num_streams
        start = (stream * self.num_windows + window) * self.sequence_length
        position = start.unsqueeze(1) + torch.arange(self.sequence_length)  # (B, T)
        return Batch(tokens=self.tokens[position].long(), y=self.tokens[position + 1].long())


def encode_documents(tokenizer: Tokenizer, documents: Iterable[Iterator[str]]) -> Tensor:
    """Return the tokens of documents, (N,) int32, parted by the token of the end or else by a line's end."""
    end = tokenizer.special("end")
    if end is None:
        documents = [joined(documents)]
    parts = [np.zeros(0, np.int32)]
    for number, document in enumerate(documents):
        if number:
            parts.append(np.array([end], np.int32))
        parts += tokenizer.stream(chain.from_iterable(map(pieces_of, document)))
    return torch.from_numpy(np.concatenate(parts))


def joined(documents: Iterable[Iterator[str]]) -> Iterator[str]:
    """Yield documents as one text, some at a time, with a line's end between them."""
    for number, document in enumerate(documents):
        if number:
            yield "\n"
        yield from document


class TextData(ZooDataModule):
    """Base of the texts: a subclass says which documents there are.

    Documents are joined by the token for the end of a text, where the tokenizer has one, else by a line's end.

    Args:
        tokenizer: `char`, `word`, `bpe`, `wordpiece` or `unigram`, learned from the training part alone; or one that
            is there: `tokenizer.json`, BERT's `vocab.txt`, GPT-2's `encoder.json` with its `vocab.bpe`, or a folder.
        vocab_size: the most tokens.
        special_tokens: special tokens in the order of their ids, or with them: pad, unknown, cls, sep, mask, begin and
            end; None for what the tokenizer needs.
        min_count: how often a token must be met to be one.
        lowercase: read capital letters as small ones.
        sequence_length: T, tokens in a window; also how far back a gradient goes.
        val_fraction: share of the text, at its end before the test part, that is held out for validation.
        test_fraction: share of the text, at its end, that is held out for the test.
        batch_size: B, number of streams read in parallel.
        shuffle: take the windows in random order, for models that carry no state.
        **options: those of `ZooDataModule`.
    """

    def __init__(
        self,
        *,
        tokenizer: str = "char",
        vocab_size: int = 8192,
        special_tokens: list[str] | dict[str, int] | None = None,
        min_count: int = 1,
        lowercase: bool = False,
        sequence_length: int = 128,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        shuffle: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(shuffle=shuffle, **options)
        if sequence_length < 1:
            raise ZooError(f"data.sequence_length must be at least 1, not {sequence_length}.")
        if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise ZooError("data.val_fraction and data.test_fraction must be 0 or more and leave a part to train on.")
        self.tokenizing = TokenizerOptions(tokenizer, vocab_size, special_tokens, min_count, lowercase)
        self.sequence_length, self.val_fraction, self.test_fraction = sequence_length, val_fraction, test_fraction

    def documents(self) -> Sequence[Path | str]:
        """Return the documents: files, or texts in memory."""
        raise NotImplementedError

    @classmethod
    def is_path(cls, option: str, value: Any) -> bool:
        return super().is_path(option, value) or (option == "tokenizer" and value not in KINDS)

    def files(self) -> list[str]:
        return [*(str(d) for d in self.documents() if isinstance(d, Path)), *self.tokenizing.files()]

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        corpus = Corpus(self.documents())
        held_out = self.val_fraction + self.test_fraction
        places = [0, corpus.cut(1 - held_out), corpus.cut(1 - self.test_fraction), corpus.size]
        tokenizer = self.tokenizing.make(joined(corpus.read(*places[:2])), self.known_tokenizer)
        splits: dict[str, Rows | None] = {}
        for name, (start, stop) in zip(("train", "val", "test"), pairwise(places), strict=True):
            tokens = encode_documents(tokenizer, corpus.read(start, stop))
            if len(tokens) > self.sequence_length:
                splits[name] = TokenRows(tokens, self.sequence_length, self.batch_size or 1)
        if "train" not in splits:
            raise ZooError(
                f"The training text has no window of {self.sequence_length} tokens: lower data.sequence_length."
            )
        spec = DataSpec(
            "tokens",
            (self.sequence_length,),
            "tokens",
            vocab_size=tokenizer.vocab_size,
            tokenizer=tokenizer.to_json(),
            stream=not self.shuffle,
        )
        return spec, splits

    def rows(self, split: str) -> Rows:
        rows = super().rows(split)
        world_size = self.trainer.world_size if self.trainer else 1
        if world_size > 1:  # every process reads streams of its own
            assert isinstance(rows, TokenRows)
            return TokenRows(rows.tokens, self.sequence_length, self.batch_size * world_size)
        return rows


@register_data("python_docs", kind="tokens", target="tokens")
class PythonDocs(TextData):
    """Python's own documentation of its language, about 0.7 million characters, from the standard library.

    Args:
        **options: those of `TextData`.
    """

    def documents(self) -> Sequence[Path | str]:
        from pydoc_data.topics import topics

        return ["\n\n".join(topics[name] for name in sorted(topics))]


@register_data("text_file", kind="tokens", target="tokens")
class TextFile(TextData):
    """A text of your own: a file, or a folder of .txt files.

    Args:
        path: the UTF-8 file, or a folder whose .txt files are joined in the order of their names.
        **options: those of `TextData`.
    """

    def __init__(self, *, path: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.path = path

    def documents(self) -> Sequence[Path | str]:
        if self.path is None:
            raise ZooError("data.path is missing: pass data.path=FILE, a UTF-8 text or a folder of .txt files.")
        path = Path(self.path)
        files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise ZooError(f"There is no text at {path}: pass data.path=FILE, a UTF-8 text or a folder of .txt files.")
        return files
