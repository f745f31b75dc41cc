"""Text as tokens for language models: parallel streams cut into windows that follow each other from batch to batch.

The tokens of a split are laid out as B streams of equal length. Batch k holds the k-th window of T tokens of every
stream, so that a recurrent model that carries its state from one batch to the next reads each stream as one long text.
"""

from __future__ import annotations

import functools
import json
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.base import Rows, ZooDataModule
from zoo.data.corpus import Corpus
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.data.token_file import cache_folder, fingerprint, keep_text, open_tokens, write_tokens
from zoo.data.tokenizing import TokenizerOptions
from zoo.errors import ZooError
from zoo.text.learning import KINDS
from zoo.text.tokenizer import SHOWN, Tokenizer

__all__ = ["PythonDocs", "PythonSource", "TextData", "TextFile", "TextFolder", "TokenRows"]

_SPAN = 1 << 24  # bytes that are tokenized before the progress is noted


class TokenRows(Rows):
    """Windows of T tokens and, as targets, the tokens that come next.

    Args:
        tokens: the token ids, (N,), or the file that holds them (see `zoo.data.token_file`), which stays on disk.
        sequence_length: T.
        num_streams: B; fewer where the text is too short for so many.
    """

    def __init__(self, tokens: Tensor | Path, sequence_length: int, num_streams: int) -> None:
        self.file = tokens if isinstance(tokens, Path) else None
        self.tokens = open_tokens(tokens) if isinstance(tokens, Path) else tokens
        self.sequence_length = sequence_length
        usable = (len(self.tokens) - 1) // sequence_length
        self.num_streams = self.batch_size = max(1, min(num_streams, usable))
        self.num_windows = usable // self.num_streams

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ if self.file is None else {**self.__dict__, "tokens": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if self.file is not None:  # a worker process maps it for itself
            self.tokens = open_tokens(self.file)

    def with_streams(self, num_streams: int) -> TokenRows:
        """Return the same text as another number of streams."""
        return TokenRows(self.tokens if self.file is None else self.file, self.sequence_length, num_streams)

    def __len__(self) -> int:
        return self.num_windows * self.num_streams

    def __getitem__(self, index: Tensor) -> Batch:
        window, stream = index // self.num_streams, index % self.num_streams
        start = (stream * self.num_windows + window) * self.sequence_length
        position = start.unsqueeze(1) + torch.arange(self.sequence_length)  # (B, T)
        return Batch(tokens=self.tokens[position].long(), y=self.tokens[position + 1].long())


def encode_documents(tokenizer: Tokenizer, corpus: Corpus, start: int, stop: int) -> Iterator[np.ndarray]:
    """Yield the tokens of documents some at a time, int32, parted by the token of the end or else by a line's end."""
    end = tokenizer.special("end")
    between = tokenizer.encode("\n").int().numpy() if end is None else np.array([end], np.int32)
    for follows, pieces in corpus.read(start, stop):
        if follows:
            yield between
        yield from tokenizer.stream(pieces)


def plain_text(corpus: Corpus, start: int, stop: int) -> Iterator[str]:
    """Yield documents as one text in pieces, with a line's end between them."""
    for follows, pieces in corpus.read(start, stop):
        if follows:
            yield "\n"
        yield from pieces


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
        in_memory_limit: bytes of text beyond which its tokens are kept in a file.
        cache_dir: where that is; None for the user's cache folder.
        **options: those of `ZooDataModule`.
    """

    path_options: tuple[str, ...] = ("path", "cache_dir")

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
        in_memory_limit: int = 1 << 28,
        cache_dir: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(shuffle=shuffle, **options)
        self.in_memory_limit, self.cache_dir = in_memory_limit, cache_dir
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
        tokenizer = self.tokenizer_of(corpus, places[1])
        splits: dict[str, Rows | None] = {}
        for name, (start, stop) in zip(("train", "val", "test"), pairwise(places), strict=True):
            tokens = self.tokens(tokenizer, corpus, start, stop)
            if tokens is None:
                continue
            rows = TokenRows(tokens, self.sequence_length, self.batch_size or 1)
            if len(rows):
                splits[name] = rows
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

    def tokenizer_of(self, corpus: Corpus, stop: int) -> Tokenizer:
        """Return the tokenizer, which is learned of the text up to `stop` where there is none.

        That of a text whose tokens go to a file is kept beside them, so that what was broken off goes on with it.
        """
        texts = plain_text(corpus, 0, stop)
        if self.known_tokenizer or self.tokenizing.tokenizer not in KINDS or corpus.size <= self.in_memory_limit:
            return self.tokenizing.make(texts, self.known_tokenizer)
        name = fingerprint(json.dumps(asdict(self.tokenizing)), corpus.documents, stop)
        file = cache_folder(self.cache_dir) / f"{name}.tokenizer.json"
        return Tokenizer.from_json(keep_text(file, lambda: self.tokenizing.make(texts).to_json()))

    def tokens(self, tokenizer: Tokenizer, corpus: Corpus, start: int, stop: int) -> Tensor | Path | None:
        """Return the tokens of a part of the text, in memory or as a file; None for no part."""
        if start == stop:
            return None
        if corpus.size <= self.in_memory_limit:
            parts = [np.zeros(0, np.int32), *encode_documents(tokenizer, corpus, start, stop)]
            return torch.from_numpy(np.concatenate(parts))
        name = fingerprint(tokenizer.to_json(), corpus.documents, start, stop)
        file = cache_folder(self.cache_dir) / f"{name}.tokens"
        spans = corpus.spans(start, stop, _SPAN)
        write_tokens(file, spans, functools.partial(encode_documents, tokenizer, corpus))
        return file

    def rows(self, split: str) -> Rows:
        rows = super().rows(split)
        world_size = self.trainer.world_size if self.trainer else 1
        model = self.trainer.lightning_module if self.trainer else None
        carries = not getattr(model, "streaming", False)  # what is counted needs no streams, and all of the text
        if world_size > 1 and carries:  # every process reads streams of its own
            assert isinstance(rows, TokenRows)
            return rows.with_streams(self.batch_size * world_size)
        return rows

    def sample(self) -> list[tuple[str, int]]:
        rows = self.rows("train")
        assert isinstance(rows, TokenRows)
        return Tokenizer.from_json(self.spec.tokenizer).shown(rows.tokens[:SHOWN].tolist())


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
        path: the UTF-8 file, also packed (.gz, .xz, .bz2), or a folder whose .txt files are joined in the order of
            their names.
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


@register_data("text_folder", kind="tokens", target="tokens")
class TextFolder(TextData):
    """Your own texts: all files of a folder and the folders in it, each a document.

    Args:
        path: the folder.
        suffixes: how the names of the files end.
        **options: those of `TextData`.
    """

    def __init__(self, *, path: str | None = None, suffixes: Sequence[str] = (".txt",), **options: Any) -> None:
        super().__init__(**options)
        self.path, self.suffixes = path, tuple(suffixes)

    def documents(self) -> Sequence[Path | str]:
        if self.path is None or not Path(self.path).is_dir():
            raise ZooError(f"data.path={self.path} is no folder: pass data.path=FOLDER, whose files are documents.")
        files = sorted(f for f in Path(self.path).rglob("*") if f.name.endswith(self.suffixes) and f.is_file())
        if not files:
            raise ZooError(f"{self.path} holds no {' or '.join(self.suffixes)} file: see data.suffixes.")
        return files


@register_data("python_source", kind="tokens", target="tokens")
class PythonSource(TextData):
    """The source of Python's standard library, each module a document, in the order of their names.

    Args:
        num_files: the most modules, spread over all; None for all of them, some ten million characters.
        **options: those of `TextData`.
    """

    def __init__(self, *, num_files: int | None = 100, **options: Any) -> None:
        super().__init__(**options)
        if num_files is not None and num_files < 1:
            raise ZooError(f"data.num_files must be at least 1, not {num_files}.")
        self.num_files = num_files

    def documents(self) -> Sequence[Path | str]:
        root = Path(sysconfig.get_paths()["stdlib"])
        packages = sorted(name for name in sys.stdlib_module_names if (root / name / "__init__.py").is_file())
        files = sorted(root.glob("*.py")) + [file for name in packages for file in sorted((root / name).rglob("*.py"))]
        files = [file for file in files if file.stat().st_size and "test" not in file.relative_to(root).as_posix()]
        count = len(files) if self.num_files is None else min(self.num_files, len(files))
        return [files[i * len(files) // count] for i in range(count)]

    def files(self) -> list[str]:
        return self.tokenizing.files()  # those of the library are not the user's
