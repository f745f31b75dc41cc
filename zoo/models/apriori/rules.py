r"""Association rules: how often baskets that contain the items $A$ also contain the items $B$.

```math
\begin{aligned}
\mathrm{supp}(A \to B) &= \tfrac{1}{n} c_{AB} &
\mathrm{conf} &= \frac{c_{AB}}{c_A} &
\mathrm{lift} &= \frac{n\, c_{AB}}{c_A c_B} \\
\mathrm{leverage} &= \frac{n\, c_{AB} - c_A c_B}{n^2} &
\mathrm{conviction} &= \frac{c_A (n - c_B)}{n (c_A - c_{AB})} &
\mathrm{zhang} &= \frac{n\, c_{AB} - c_A c_B}{\max\{c_{AB} (n - c_A),\ c_A (c_B - c_{AB})\}}
\end{aligned}
```

- $A$, $B$: antecedent and consequent, disjoint and not empty
- $c_S$: number of baskets that contain all items of $S$; $c_{AB} = c_{A \cup B}$; $n$: number of baskets
- conviction is infinite where the confidence is 1; Zhang's metric is 0 where its denominator is 0

Sources: R. Agrawal and R. Srikant, VLDB 1994, section 3 (rules by growing consequents: moving items out of
the antecedent only lowers the confidence); S. Brin et al., "Dynamic itemset counting and implication rules
for market basket data", SIGMOD 1997 (lift, there interest, and conviction); G. Piatetsky-Shapiro, 1991
(leverage); T. Zhang, "Association rules", PAKDD 2000.

Deviation: differences are taken of whole counts, so that leverage does not cancel; the division rounds once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations

import torch
from torch import Tensor

from zoo.errors import ZooError, unknown_name
from zoo.models.apriori.itemsets import Level, find_rows

__all__ = ["METRICS", "Rules", "association_rules", "rule_metrics"]

METRICS = ("support", "confidence", "lift", "leverage", "conviction", "zhang")

# Letters: C itemsets of k items, P ways to split k items, R rules, a and c most items of either side.

# Flags that the search for rules holds at a time.
CHUNK = 1 << 22


def rule_metrics(joint: Tensor, antecedent: Tensor, consequent: Tensor, num_baskets: int) -> dict[str, Tensor]:
    """The metrics of rules from the counts of their sides.

    Args:
        joint: number of baskets with both sides, (R,) int64.
        antecedent: number of baskets with the antecedent, (R,) int64.
        consequent: number of baskets with the consequent, (R,) int64.
        num_baskets: number of all baskets, below three thousand million.

    Returns:
        A tensor (R,) float64 for each name of `METRICS`.

    Example:
        >>> metrics = rule_metrics(torch.tensor([2]), torch.tensor([2]), torch.tensor([3]), num_baskets=4)
        >>> [(name, round(value.item(), 4)) for name, value in metrics.items()][:4]
        [('support', 0.5), ('confidence', 1.0), ('lift', 1.3333), ('leverage', 0.125)]
    """
    n = num_baskets
    excess = (n * joint - antecedent * consequent).double()
    bound = torch.maximum(joint * (n - antecedent), antecedent * (consequent - joint))
    missed = n * (antecedent - joint)
    return {
        "support": joint.double() / n,
        "confidence": joint.double() / antecedent,
        "lift": (n * joint).double() / (antecedent * consequent),
        "leverage": excess / n**2,
        "conviction": torch.where(missed > 0, (antecedent * (n - consequent)).double() / missed, torch.inf),
        "zhang": torch.where(bound > 0, excess / bound, 0.0),
    }


@dataclass(frozen=True)
class Rules:
    """Association rules as columns.

    Args:
        antecedents: item numbers, ascending, filled up with -1, (R, a) int64.
        consequents: item numbers, ascending, filled up with -1, (R, c) int64.
        support: share of the baskets with both sides, (R,).
        confidence: share of the baskets with the antecedent that have the consequent, (R,).
        lift: confidence over the share of all baskets with the consequent, (R,).
        leverage: support less what it would be were the sides independent, (R,).
        conviction: how much more often the rule would fail were the sides independent, (R,).
        zhang: association from -1 to 1, 0 for independent sides, (R,).
    """

    antecedents: Tensor
    consequents: Tensor
    support: Tensor
    confidence: Tensor
    lift: Tensor
    leverage: Tensor
    conviction: Tensor
    zhang: Tensor

    def __len__(self) -> int:
        return len(self.support)

    def __getitem__(self, index: slice | Tensor) -> Rules:
        """The rules of a slice, of a mask or of row numbers."""
        return Rules(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def metric(self, name: str) -> Tensor:
        """The column of one of `METRICS`, (R,)."""
        if name not in METRICS:
            raise unknown_name("rule metric", name, METRICS)
        return getattr(self, name)

    def at_least(self, **minimum: float) -> Rules:
        """The rules whose named metrics are at least the given values, as in `at_least(lift=1.2)`."""
        kept = torch.ones_like(self.support, dtype=torch.bool)
        for name, value in minimum.items():
            kept &= self.metric(name) >= value
        return self[kept]

    def sorted(self, by: str = "lift") -> Rules:
        """The rules in descending order of a metric, equal ones by confidence, then in the order of their items."""
        confident = self[torch.sort(self.confidence, descending=True, stable=True).indices]
        return confident[torch.sort(confident.metric(by), descending=True, stable=True).indices]

    def table(self, names: Sequence[str] | None = None) -> list[dict[str, str | float]]:
        """One dictionary a rule: both sides as text, the items' names joined by ` + `, and the metrics."""
        sides = [
            [" + ".join(str(i) if names is None else names[i] for i in row if i >= 0) for row in side.tolist()]
            for side in (self.antecedents, self.consequents)
        ]
        columns = [self.metric(name).tolist() for name in METRICS]
        return [
            {"antecedent": a, "consequent": c, **dict(zip(METRICS, values, strict=True))}
            for a, c, *values in zip(*sides, *columns, strict=True)
        ]


def splits(size: int, moved: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ways to move `moved` of `size` items to the consequent, and the ways to move one item less.

    Returns:
        Positions moved (P, moved) and left (P, size - moved), and for each way the numbers of those that move
        one item less, (P, moved).
    """
    before = {way: number for number, way in enumerate(combinations(range(size), moved - 1))}
    ways = list(combinations(range(size), moved))
    left = [[i for i in range(size) if i not in way] for way in ways]
    parents = [[before[way[:i] + way[i + 1 :]] for i in range(moved)] for way in ways]
    return torch.tensor(ways), torch.tensor(left), torch.tensor(parents)


def grow_consequents(
    level: Level, levels: Sequence[Level], min_confidence: float, most: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Rules from itemsets of one size: both sides, their joint counts and the antecedents' counts."""
    device, size = level.itemsets.device, level.itemsets.shape[1]
    held = torch.ones(len(level.itemsets), 1, dtype=torch.bool, device=device)  # nothing moved yet: always confident
    for moved in range(1, min(most, size - 1) + 1):
        ways, left, parents = (part.to(device) for part in splits(size, moved))
        row, way = held[:, parents].all(dim=2).nonzero().T
        antecedents = level.itemsets[row].gather(1, left[way])
        smaller = levels[size - moved - 1]
        counts = smaller.counts[find_rows(smaller.itemsets, antecedents)]
        confident = level.counts[row].double() / counts >= min_confidence
        row, way, counts = row[confident], way[confident], counts[confident]
        held = held.new_zeros(len(held), len(ways))
        held[row, way] = True
        yield antecedents[confident], level.itemsets[row].gather(1, ways[way]), level.counts[row], counts


def association_rules(
    levels: Sequence[Level],
    num_baskets: int,
    min_confidence: float = 0.5,
    max_consequents: int | None = None,
) -> Rules:
    r"""All rules $A \to B$ with $A \cup B$ frequent and at least the minimum confidence.

    Args:
        levels: frequent itemsets by size, from one item on, as `frequent_itemsets` returns them.
        num_baskets: number of all baskets.
        min_confidence: least confidence, in [0, 1].
        max_consequents: most items of a consequent; any number if `None`.

    Returns:
        The rules, by the size of the itemset, then of the consequent, then in the order of the itemsets.

    Raises:
        ZooError: if `min_confidence` or `max_consequents` is out of range.

    Source: Agrawal & Srikant 1994, section 3.1 (ap-genrules).

    Example:
        >>> from zoo.models.apriori.itemsets import frequent_itemsets
        >>> levels, n = frequent_itemsets([(torch.tensor([0, 1, 0, 1, 1]), torch.tensor([2, 2, 1, 0]))], 0.5)
        >>> rules = association_rules(levels, n, min_confidence=0.9)
        >>> [(row["antecedent"], row["consequent"], row["lift"]) for row in rules.table(["bread", "milk"])]
        [('bread', 'milk', 1.3333333333333333)]
    """
    if not 0 <= min_confidence <= 1:
        raise ZooError(f"min_confidence is {min_confidence!r}: pass a share from 0 to 1")
    if max_consequents is not None and max_consequents < 1:
        raise ZooError(f"max_consequents is {max_consequents!r}: pass a number from 1, or None for any number")
    longest = len(levels)
    parts: list[tuple[Tensor, ...]] = []
    for level in levels[1:]:
        size = level.itemsets.shape[1]
        step = max(1, CHUNK // (size << size))
        for start in range(0, len(level.itemsets), step):
            part = Level(level.itemsets[start : start + step], level.counts[start : start + step])
            parts += grow_consequents(part, levels, min_confidence, max_consequents or size)
    filled = [(pad(a, longest), pad(b, longest), joint, count) for a, b, joint, count in parts]
    empty = torch.zeros(0, longest, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    antecedents, consequents, joint, count = (
        torch.cat(columns) for columns in zip(*filled, (empty[0], empty[0], empty[1], empty[1]), strict=True)
    )
    return Rules(
        trim(antecedents),
        trim(consequents),
        **rule_metrics(joint, count, counts_of(consequents, levels), num_baskets),
    )


def counts_of(sets: Tensor, levels: Sequence[Level]) -> Tensor:
    """The counts of frequent sets of mixed sizes, filled up with -1, (R, k) to (R,)."""
    counts = sets.new_zeros(len(sets))
    sizes = (sets >= 0).sum(1)
    for size, level in enumerate(levels, start=1):
        rows = (sizes == size).nonzero().squeeze(1)
        counts[rows] = level.counts[find_rows(level.itemsets, sets[rows, :size])]
    return counts


def pad(sets: Tensor, width: int) -> Tensor:
    """Fill rows up with -1, (R, k) to (R, width)."""
    return torch.nn.functional.pad(sets, (0, width - sets.shape[1]), value=-1)


def trim(sets: Tensor) -> Tensor:
    """Drop the columns at the end that are -1 in every row."""
    return sets[:, : int((sets >= 0).any(dim=0).sum())]
