"""BLEU of held-out translations, a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from zoo.models.base.evaluation import Pooling
from zoo.text.bleu import NUM_COUNTS, bleu_counts, bleu_of_counts

__all__ = ["Bleu", "counts_of"]


def counts_of(sources: Sequence[str], translations: Sequence[str], references: Sequence[str]) -> Tensor:
    """Return what `Bleu` takes of some texts, (B, 11): a number that stands for the source, and the counts of BLEU."""
    rows = zip(sources, translations, references, strict=True)
    counts = [[_number(source), *bleu_counts(said, right)] for source, said, right in rows]
    return torch.tensor(counts, dtype=torch.float64).view(-1, 1 + NUM_COUNTS)


def _number(text: str) -> int:
    """A number of 53 bits, which a float64 holds."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 11


class Bleu(Pooling):
    """BLEU of all translations; a source that occurs several times counts once, beside the first of its references.

    The values are those of `counts_of`; a row of weight 0 counts as none.

    >>> metric = Bleu()
    >>> metric.update(counts_of(["s", "s"], ["a b c d", "a b c d"], ["a b c d", "e f g h"]), None, torch.ones(2))
    >>> metric.compute().item()
    100.0
    """

    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(torch.float64)
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, values: Tensor, y: Tensor | None, weight: Tensor) -> None:
        self.rows.append(values[weight > 0].double().flatten())

    def compute(self) -> Tensor:
        rows = dim_zero_cat(self.rows).view(-1, 1 + NUM_COUNTS).cpu()
        _, source = rows[:, 0].unique(return_inverse=True)
        places = torch.arange(len(rows))
        first = torch.full_like(places, len(rows)).scatter_reduce_(0, source, places, "amin")
        counts = rows[first[first < len(rows)], 1:].sum(0)
        return torch.tensor(bleu_of_counts(counts.tolist()), dtype=torch.float64)
