r"""Apriori: the itemsets that many baskets contain, and the rules that follow from them.

```math
\mathrm{supp}(S) = \frac{|\{ b : S \subseteq b \}|}{n} \ge s,\qquad
A \to B:\quad \mathrm{conf} = \frac{\mathrm{supp}(A \cup B)}{\mathrm{supp}(A)} \ge c
```

A set can only be frequent if all its subsets are. Pass $k$ over the baskets counts the candidates of $k$ items, which
the frequent sets of $k - 1$ items allow; the passes end where none is left.

Legend: $b$ a basket of $n$; $S$, $A$, $B$ sets of items, $A \cap B = \emptyset$; $s$ `min_support`;
$c$ `min_confidence`.

Source: R. Agrawal and R. Srikant, "Fast algorithms for mining association rules", VLDB 1994.

Deviations: those of `zoo.models.apriori.itemsets` (bit strings instead of a hash tree) and `zoo.models.apriori.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.apriori.itemsets import (
    Level,
    PackedBaskets,
    check_support,
    count_itemsets,
    join_itemsets,
    support_mask,
)
from zoo.models.apriori.rules import Rules, association_rules
from zoo.models.base import StreamingModel
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Apriori", "recommend"]

# Letters: B baskets, N items of all baskets, M different items, C candidates of k items, F frequent itemsets, R rules.

# Rows of the tables and arrows of the graph in TensorBoard.
SHOWN = 100


class Advice(NamedTuple):
    """The rules of one consequent: what a basket must hold, (R, M), the item that is then added, (R,), and how sure
    that is, (R,)."""

    wanted: Tensor
    item: Tensor
    confidence: Tensor

    @classmethod
    def of(cls, rules: Rules, num_items: int) -> Advice:
        rules = rules[(rules.consequents >= 0).sum(1) == 1]
        wanted = torch.zeros(len(rules), num_items + 1).scatter_(1, rules.antecedents % (num_items + 1), 1.0)
        # the column more took what fills the antecedents up
        return cls(wanted[:, :-1], rules.consequents[:, :1].flatten(), rules.confidence)

    def __call__(self, baskets: Tensor) -> tuple[Tensor, Tensor]:
        """The item for each basket (B, M), −1 where no rule applies, and the rule's confidence, 0 there."""
        wanted, item, confidence = (column.to(baskets.device) for column in self)
        if not len(item):
            none = torch.zeros_like(baskets[:, 0], dtype=torch.float64)
            return none.long() - 1, none
        rows = baskets.float()
        applies = (rows @ wanted.T == wanted.sum(1)) & (rows[:, item] == 0)  # (B, R)
        score, rule = torch.where(applies, confidence, 0.0).max(1)
        return torch.where(applies.any(1), item[rule], -1), score


def recommend(baskets: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """The item that each basket lacks and that the most confident rule adds.

    Args:
        baskets: zeros and ones, (B, M).
        rules: whatever rules; those of one consequent are used, (R,).

    Returns:
        Item numbers, -1 where no rule applies, and the rules' confidence, 0 there, (B,) each.
    """
    advice = Advice.of(rules, baskets.shape[1])
    parts = [advice(part) for part in baskets.split(max(1, (1 << 24) // max(1, len(advice.item))))]
    return torch.cat([item for item, _ in parts]), torch.cat([confidence for _, confidence in parts])


@register_model(
    "apriori",
    family="association_rules",
    task="association_rules",
    accepts={"transactions": None},
    source="Agrawal & Srikant 1994",
)
class Apriori(StreamingModel):
    """Frequent itemsets, one pass over the baskets for each size, and the association rules among them.

    After the fit `levels` holds the itemsets by size and `rules` the rules. A prediction is the item that the most
    confident rule would add to a basket, or -1.

    Args:
        min_support: share of the baskets as a float above 0, or number of baskets as an integer from 1.
        max_length: most items of a set; any number if null.
        min_confidence: least confidence of a rule, from 0 to 1.
        max_consequents: most items that a rule concludes; any number if null.
        min_lift: least lift of a rule.
        sort_by: what rules are sorted by, in descending order.

    Raises:
        ZooError: for an argument out of range, in one line.

    Example:
        >>> import zoo
        >>> from zoo.data.transactions import BasketData
        >>> data = BasketData([["bread", "milk"], ["bread", "milk", "jam"], ["milk"]])
        >>> model = zoo.create_model("apriori", spec=data.spec, min_support=0.5)
        >>> values = model.fit_batches(lambda: [data.rows("train")[slice(None)]])
        >>> [(row["antecedent"], row["consequent"]) for row in model.rules.table(data.spec.feature_names)]
        [('bread', 'milk'), ('milk', 'bread')]
    """

    advice: Advice | None = None  # that of the rules, where the model is to be traced

    def __init__(
        self,
        *,
        min_support: int | float = 0.05,
        max_length: int | None = None,
        min_confidence: float = 0.5,
        max_consequents: int | None = None,
        min_lift: float = 0.0,
        sort_by: Literal["support", "confidence", "lift", "leverage", "conviction", "zhang"] = "lift",
    ) -> None:
        super().__init__()
        check_support(min_support, "model.min_support")
        check_range("max_length", max_length, 1)
        check_range("min_confidence", min_confidence, 0, 1)
        check_range("max_consequents", max_consequents, 1)
        check_range("min_lift", min_lift, 0)
        self.save_hyperparameters()

    def initialize(self, spec: DataSpec) -> None:
        self.num_items = spec.num_features
        self.register_buffer("candidates", torch.arange(self.num_items).unsqueeze(1))
        # Frequent itemsets of all sizes, filled up with -1.
        self.register_buffer("itemsets", torch.zeros(0, 1, dtype=torch.int64))
        self.register_buffer("supports", torch.zeros(0, dtype=torch.int64))
        self.register_accumulator("num_baskets", torch.zeros((), dtype=torch.int64))
        self.register_accumulator("counts", torch.zeros(self.num_items, dtype=torch.int64))

    def reset_accumulators(self) -> None:
        self._accumulators["counts"] = torch.zeros(len(self.candidates), dtype=torch.int64)
        super().reset_accumulators()

    # -- a pass --------------------------------------------------------------------------------------------------

    def accumulate(self, batch: Batch) -> None:
        if batch.weight is not None:
            raise ZooError("apriori counts baskets and takes no weights: repeat the baskets instead.")
        items, lengths = self.flat(batch)
        self.num_baskets += len(lengths)
        self.counts += count_itemsets(items, lengths, self.candidates)

    def flat(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Items (N,) and lengths (B,) of a batch, which may also be a matrix of zeros and ones, (B, M)."""
        if batch.lengths is None:
            chosen = batch.x != 0
            return chosen.nonzero()[:, 1], chosen.sum(1)
        if len(batch.items):
            low, high = batch.items.aminmax()
            if low < 0 or high >= self.num_items:
                raise ZooError(f"Items must be numbered from 0 to {self.num_items - 1}, as the DataSpec says.")
        return batch.items, batch.lengths

    @torch.no_grad()
    def run_passes(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        """Take passes until no candidate is left; of baskets in memory, a list, only the first one reads them."""
        held = batches()
        if not isinstance(held, list) or self.candidates.shape[1] > 1:
            return super().run_passes(batches, max_passes)
        whole = [self.as_batch(batch) for batch in held]
        if any(batch.weight is not None for batch in whole):
            return super().run_passes(batches, max_passes)  # which says why not
        packed = PackedBaskets([self.flat(batch) for batch in whole])
        self.reset_accumulators()
        self.num_baskets += packed.num_baskets
        found: list[Level] = []
        values: dict[str, Any] = {}
        while not self.done and (max_passes is None or len(found) < max_passes):
            self.counts = packed.count(self.candidates)
            found.append(self._frequent())
            values = self._advance(found[-1])
        self._keep(found)
        return {**values, "itemsets": len(self.itemsets)} if self.done else values

    def solve(self) -> dict[str, float | Tensor]:
        found = self._frequent()
        self._keep([found])
        values = self._advance(found)
        if self.done:
            values["itemsets"] = len(self.itemsets)
            if self._trainer is not None:  # who logs it; most fits in memory ask for the itemsets alone
                values["rules"] = len(self.rules)
        return values

    def _frequent(self) -> Level:
        """The candidates that were met often enough."""
        least, number = self.hparams.min_support, int(self.num_baskets)
        if isinstance(least, int) and least > number:
            raise ZooError(f"model.min_support={least} is more than the {number} baskets: lower it.")
        kept = support_mask(self.counts, number, least)
        return Level(self.candidates[kept], self.counts[kept])

    def _keep(self, found: list[Level]) -> None:
        """Add itemsets to those of fewer items."""
        kept = [Level(self.itemsets, self.supports), *(level for level in found if len(level.counts))]
        size = max(level.itemsets.shape[1] for level in kept)
        self.itemsets = torch.cat(
            [torch.nn.functional.pad(level.itemsets, (0, size - level.itemsets.shape[1]), value=-1) for level in kept]
        )
        self.supports = torch.cat([level.counts for level in kept])

    def _advance(self, found: Level) -> dict[str, float | Tensor]:
        """Set the candidates of the next pass; return what is logged of this one."""
        (number, size), frequent, longest = self.candidates.shape, found.itemsets, self.hparams.max_length
        stop = len(frequent) == 0 or (longest is not None and size >= longest)
        self.candidates = frequent[:0] if stop else join_itemsets(frequent)
        return {"size": size, "candidates": number, "frequent": len(frequent)}

    @property
    def done(self) -> bool:
        return len(self.candidates) == 0

    # -- the fitted model ----------------------------------------------------------------------------------------

    @property
    def levels(self) -> list[Level]:
        """The frequent itemsets by size, from one item on."""
        sizes = (self.itemsets >= 0).sum(1)
        return [
            Level(self.itemsets[sizes == size, :size], self.supports[sizes == size])
            for size in range(1, int(sizes.max()) + 1 if len(sizes) else 1)
        ]

    @property
    def rules(self) -> Rules:
        """The rules that pass the thresholds, sorted, on the CPU."""
        levels = [Level(level.itemsets.cpu(), level.counts.cpu()) for level in self.levels]
        rules = association_rules(
            levels, int(self.num_baskets), self.hparams.min_confidence, self.hparams.max_consequents
        )
        return rules.at_least(lift=self.hparams.min_lift).sorted(self.hparams.sort_by)

    def dense(self, batch: Batch) -> Tensor:
        """The baskets of a batch as zeros and ones, (B, M)."""
        if batch.lengths is None:
            return batch.x
        rows = torch.repeat_interleave(torch.arange(batch.size, device=batch.items.device), batch.lengths)
        baskets = torch.zeros(batch.size, self.num_items, device=batch.items.device)
        baskets[rows, batch.items] = 1
        return baskets

    def before_trace(self) -> None:
        self.advice = Advice.of(self.rules, self.num_items)
        super().before_trace()

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        if self.advice is not None:
            item, confidence = self.advice(self.dense(batch))
        else:
            item, confidence = recommend(self.dense(batch), self.rules)
        return {"prediction": item, "confidence": confidence}

    @property
    def user_labels(self) -> Sequence[str] | None:
        """The names of the items."""
        return None if self.spec is None else self.spec.feature_names

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """The share of the baskets to which some rule adds an item."""
        return {"advised": (self.predict_batch(batch)["prediction"] >= 0).double()}

    def texts(self) -> Iterator[tuple[str, str]]:
        for name, rows in self.tables():
            yield name, markdown(rows[:SHOWN])

    def tables(self) -> Iterator[tuple[str, list[dict[str, str | float]]]]:
        assert self.spec is not None
        names = self.spec.feature_names
        yield "rules", self.rules.table(names)
        sets = [
            " + ".join(str(i) if names is None else names[i] for i in row if i >= 0) for row in self.itemsets.tolist()
        ]
        counts = self.supports.tolist()
        yield (
            "itemsets",
            [
                {"itemset": items, "count": count, "support": count / int(self.num_baskets)}
                for items, count in zip(sets, counts, strict=True)
            ],
        )

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        assert self.spec is not None
        rules = self.rules
        yield "rule_graph", visual.rule_graph(rules, self.spec.feature_names)
        yield "rule_metrics", visual.rule_metrics(rules)


def markdown(rows: list[dict[str, str | float]]) -> str:
    """A table in Markdown."""
    if not rows:
        return "none"
    lines = ["|".join(rows[0]), "|".join("---" for _ in rows[0])]
    lines += ["|".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()) for row in rows]
    return "\n".join(f"|{line}|" for line in lines)
