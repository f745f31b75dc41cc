"""What people ask of word vectors: neighbours, and how far they agree with files of pairs and analogies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from zoo.checks import check_type
from zoo.errors import ZooError
from zoo.text import WordVectors
from zoo.training.pictures import write_csv
from zoo.training.terminal import make_console

__all__ = ["ask_words"]


def ask_words(model: Any, pairs: str | None, analogies: str | None, near: Sequence[str], folder: Path) -> None:
    """Print what is asked of a model's word vectors, and write it beside the metrics.

    Args:
        model: the model.
        pairs: a file of word pairs with scores, or a folder of such files.
        analogies: a file of questions.
        near: words and sums of words.
        folder: where `pairs.csv`, `analogies.csv` and `near.csv` go.

    Raises:
        ZooError: for a model without word vectors, and for a word without a vector.
    """
    words = getattr(model, "word_vectors", None)
    if not isinstance(words, WordVectors):
        raise ZooError(f"{model.entry.name} has no word vectors: leave pairs, analogies and near out.")
    tables: dict[str, list[dict[str, Any]]] = {}
    if pairs:
        tables["pairs"] = [{"file": of, "spearman": value, "pairs": count, "left out": out}
                           for of, value, count, out in words.rate_pairs(check_type("pairs", pairs, str))]  # fmt: skip
    if analogies:
        found = words.answer_questions(check_type("analogies", analogies, str))
        tables["analogies"] = [{"section": of, "accuracy": value, "questions": count, "left out": out}
                               for of, value, count, out in found]  # fmt: skip
    if near:
        tables["near"] = [{"to": of, "word": word, "cosine": cosine}
                          for of in check_type("near", near, list[str]) for word, cosine in words.near(of)]  # fmt: skip
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
        _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(*rows[0], box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    make_console().print(table)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else value
