"""Texts in a list as a DataModule: what `zoo.fit(model, texts, labels)` trains on.

Legend: N texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from zoo.data.arrays import code_targets, labels_of
from zoo.data.base import Rows
from zoo.data.spec import DataSpec
from zoo.data.splits import SplitData
from zoo.data.text_rows import TextRows, learn_texts
from zoo.data.text_table import TextOptions, spec_of_texts
from zoo.errors import ZooError

__all__ = ["TextArrays"]


class TextArrays(SplitData):
    """Texts in a list as a DataModule; what a text becomes is learnt from the training texts.

    Args:
        texts: N texts.
        y: targets (N,): text and integers are classes, floats are values; None without.
        weight: sample weights (N,); None for one each.
        view: what a text becomes: `tokens`, `counts`, `binary` or `tfidf`; see `zoo.data.text_view`.
        column: what a table calls them.
        val_fraction: share of the texts held out for validation.
        **options: those of `ZooDataModule`.

    Raises:
        ZooError: for another number of targets than of texts.

    Example:
        >>> TextArrays(["free prize", "see you"], ["spam", "ham"], view="counts").spec.feature_names
        ('free', 'prize', 'see', 'you')
    """

    name, of_python = "texts", True

    def __init__(
        self,
        texts: list[str],
        y: Any = None,
        weight: Tensor | None = None,
        *,
        view: str = "tokens",
        column: str = "text",
        val_fraction: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(val_fraction=val_fraction, test_fraction=0.0, **options)
        self.texts, self.weight, self.text_options = texts, weight, TextOptions(view=view)
        self.column = column
        self.y, self.fields = code_targets(y, len(texts))
        self.applied.labels = labels_of(y, self.fields.get("class_names"))

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        parts = self.split(len(self.texts), self.y if self.fields.get("target") == "class" else None)
        if "train" not in parts:
            raise ZooError("There is no text to train on.")
        training = torch.zeros(len(self.texts), dtype=torch.bool).index_fill_(0, parts["train"], True)
        view, known = self.text_options.view_of(self.column), self.known_tokenizer
        store, tokenizer = learn_texts(self._parts, training, self.text_options.tokenizing, view, known)
        self.applied.text = view
        rows = {name: TextRows(store, part, self.y, view, self.weight) for name, part in parts.items()}
        return spec_of_texts(view, tokenizer, int(store.lengths.max()), self.fields), {**rows}

    def _parts(self, chosen: Tensor | None = None) -> Iterator[list[str]]:
        """Yield the texts, or those of the rows (N,), bool, that are chosen."""
        yield self.texts if chosen is None else [self.texts[i] for i in chosen.nonzero().squeeze(1).tolist()]
