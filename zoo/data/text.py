"""Text as tokens for language models: parallel streams cut into windows that follow each other from batch to batch.

The tokens of a split are laid out as B streams of equal length. Batch k holds the k-th window of T tokens of every
stream, so that a recurrent model that carries its state from one batch to the next reads each stream as one long text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.data.base import Rows, ZooDataModule
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.text.tokenization import encode, train_tokenizer

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
        return Batch(tokens=self.tokens[position], y=self.tokens[position + 1])


class TextData(ZooDataModule):
    """Base of the texts: a subclass says where the text comes from.

    Args:
        tokenizer: `character`, `word` or `subword`; learned from the training part alone.
        vocab_size: the most tokens, for words and subwords.
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
        tokenizer: Literal["character", "word", "subword"] = "character",
        vocab_size: int = 8192,
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
        self.tokenizer, self.vocab_size, self.sequence_length = tokenizer, vocab_size, sequence_length
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def texts(self) -> dict[str, str]:
        """Return the texts of the splits."""
        text = self.text()
        test = round(len(text) * (1 - self.test_fraction))
        val = round(len(text) * (1 - self.test_fraction - self.val_fraction))
        return {"train": text[:val], "val": text[val:test], "test": text[test:]}

    def text(self) -> str:
        """Return the whole text."""
        raise NotImplementedError

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        texts = self.texts()
        tokenizer = train_tokenizer(texts["train"], self.tokenizer, self.vocab_size)
        splits: dict[str, Rows | None] = {}
        for name, text in texts.items():
            tokens = encode(tokenizer, text)
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
            vocab_size=tokenizer.get_vocab_size(),
            tokenizer=tokenizer.to_str(),
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

    def text(self) -> str:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))


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

    def files(self) -> list[str]:
        if self.path is None:
            raise ZooError("data.path is missing: pass data.path=FILE, a UTF-8 text or a folder of .txt files.")
        path = Path(self.path)
        files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise ZooError(f"There is no text at {path}: pass data.path=FILE, a UTF-8 text or a folder of .txt files.")
        return [str(file) for file in files]

    def text(self) -> str:
        try:
            return "\n".join(Path(file).read_text(encoding="utf-8") for file in self.files())
        except UnicodeDecodeError as error:
            raise ZooError(f"{self.path} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
