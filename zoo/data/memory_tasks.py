r"""Tasks for networks with a memory: sequences of bits that are to be copied, repeated, recalled, predicted and sorted.

A row is a function of (seed, split, row number), so that none is held in memory. Steps of which nothing is asked have
the target −100. Training takes lengths between two bounds, validation and test longer ones, which tell a program that
was learnt from patterns that were memorized.

Letters: B rows, L length of a row, T steps, D bits of an item, F numbers of a step, n words of a row.

Source: Graves, Wayne & Danihelka 2014, §4.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor

from zoo.checks import Range, check_type
from zoo.data.base import Rows, ZooDataModule
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.numerics.hashing import splitmix64, stream_key, uniforms

__all__ = ["AssociativeRecall", "Copy", "MemoryTask", "NGram", "PrioritySort", "RepeatCopy", "bayes_bits"]

IGNORED = -100.0  # a target that does not count
_MOST_BITS = 32  # of an item
_VECTORS = 3  # of an item that is to be recalled
_SORTED = 0.8  # share of the items that is to be put out in order

Maker = Callable[..., Batch]
Bounds = tuple[int, int]


class TaskRows(Rows):
    """Rows of a task, each made of words of its own.

    Args:
        make: returns the batch of sizes (B,), of which L is the first, and words (B, n).
        sizes: the least and the largest L; for tasks whose rows have a second size, the bounds of that, too.
        num_words: n for a length.
        key: of the stream of words.
        num_rows: number of rows.
        growth: rows over which the largest size grows from the least to its full range, the second where there are
            two; 0 for none.
    """

    block_size = 65_536

    def __init__(
        self,
        make: Maker,
        sizes: tuple[Bounds, ...],
        num_words: Callable[[int], int],
        key: int,
        num_rows: int,
        growth: int = 0,
    ) -> None:
        self.make, self.bounds, self.num_words, self.key, self.num_rows = make, sizes, num_words, key, num_rows
        self.growth = growth
        self.num_steps = RowLengths(self)

    def __len__(self) -> int:
        return self.num_rows

    @property
    def stride(self) -> int:
        """Words between the first of a row and that of the next: n of the longest."""
        return self.num_words(self.bounds[0][1])

    def sizes(self, index: Tensor) -> list[Tensor]:
        """Return L of each row, (B,), and the second size where there is one."""
        draws = uniforms(splitmix64(self.key, index * self.stride))
        sizes: list[Tensor] = []
        for draw, (low, high) in zip(draws, self.bounds, strict=False):
            choices = torch.full_like(index, high - low + 1)
            if self.growth and len(sizes) == len(self.bounds) - 1:
                choices = (1 + choices * index // self.growth).minimum(choices)
            sizes.append(low + draw.mul_(0.999999 * choices).long())
        return sizes

    def lengths(self, index: Tensor) -> Tensor:
        """Return L of each row, (B,)."""
        return self.sizes(index)[0]

    def __getitem__(self, index: Tensor) -> Batch:
        sizes = self.sizes(index)
        most = int(sizes[0].max()) if len(index) else self.bounds[0][0]
        counters = (index * self.stride).unsqueeze(1) + torch.arange(self.num_words(most))
        return self.make(*sizes, splitmix64(self.key, counters))


class RowLengths:
    """The lengths of rows as the sampler asks for them, by their numbers, without a list of all."""

    def __init__(self, rows: TaskRows) -> None:
        self.rows = rows

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.rows.lengths(index)


class MemoryTask(ZooDataModule):
    """Base of the tasks: a subclass says what a row is made of.

    Args:
        num_rows: rows of an epoch of training.
        val_rows: rows held out for validation.
        test_rows: rows held out for the test.
        min_length: the least length in training.
        max_length: the largest length in training.
        val_length: the length in validation.
        test_length: the length in the test.
        curriculum: share of an epoch over which the largest length (of `repeat_copy` the largest number of copies)
            grows from the least to its full size; takes the rows in their order.
        **options: those of `ZooDataModule`.
    """

    least = 1  # length that the task makes sense for
    grows = "all lengths are {}: lower data.min_length"  # what a curriculum needs, where it has nothing to do

    def __init__(
        self,
        *,
        num_rows: int = 10_000,
        val_rows: int = 128,
        test_rows: int = 64,
        min_length: int = 1,
        max_length: int = 20,
        val_length: int = 40,
        test_length: int = 120,
        curriculum: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        given = {"num_rows": num_rows, "val_rows": val_rows, "test_rows": test_rows}
        for name, value, low in (
            *((name, value, int(name == "num_rows")) for name, value in given.items()),
            ("min_length", min_length, self.least),
            ("max_length", max_length, min_length),
            ("val_length", val_length, self.least),
            ("test_length", test_length, self.least),
        ):
            if value < low:
                raise ZooError(f"data.{name} must be at least {low}, not {value}.")
        check_type("data.curriculum", curriculum, Annotated[float, Range(0, 1)])
        if curriculum and self.shuffle:
            raise ZooError("data.curriculum takes rows in their order, the short ones first: pass data.shuffle=false.")
        self.num_rows, self.growth = given, round(curriculum * num_rows)
        self.lengths = {
            "train": (min_length, max_length), "val": (val_length, val_length), "test": (test_length, test_length)
        }  # fmt: skip
        low, high = self.sizes("train")[-1]
        if curriculum and low == high:
            raise ZooError(f"data.curriculum does nothing where {self.grows.format(high)}.")

    def sizes(self, split: str) -> tuple[Bounds, ...]:
        """Return the bounds of the sizes of a split's rows, of which the length is the first."""
        return (self.lengths[split],)

    def maker(self, split: str) -> Maker:
        """Return a picklable function from sizes (B,) and words (B, n) to a batch; the first word gave the sizes."""
        raise NotImplementedError

    def num_words(self, length: int) -> int:
        """Return n, the words of a row of some length."""
        return 1 + length

    def num_steps(self, length: int) -> int:
        """Return T, the steps of the longest row of some length in training."""
        raise NotImplementedError

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the numbers of a step and of the bits of an answer."""
        raise NotImplementedError

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        splits: dict[str, Rows | None] = {}
        for number, (split, option) in enumerate((("train", "num_rows"), ("val", "val_rows"), ("test", "test_rows"))):
            count, key = self.num_rows[option], stream_key(self.seed, number)
            growth = self.growth if split == "train" else 0
            rows = TaskRows(self.maker(split), self.sizes(split), self.num_words, key, count, growth)
            splits[split] = rows if count else None
        features, targets = self.names()
        shape = (self.num_steps(self.lengths["train"][1]), len(features))
        spec = DataSpec("sequence", shape, "bits", None, len(targets), feature_names=features, target_names=targets)
        return spec, splits


class BitTask(MemoryTask):
    """Base of the tasks whose items are vectors of bits.

    Args:
        num_bits: D, bits of an item.
        **options: those of `MemoryTask`.
    """

    def __init__(self, *, num_bits: int = 8, **options: Any) -> None:
        super().__init__(**options)
        if not 1 <= num_bits <= _MOST_BITS:
            raise ZooError(f"data.num_bits must be 1 to {_MOST_BITS}, not {num_bits}.")
        self.num_bits = num_bits

    def bit_names(self) -> tuple[str, ...]:
        """Return the names of the bits of an item."""
        return tuple(f"bit {number}" for number in range(self.num_bits))


def bits_of(words: Tensor, count: int) -> Tensor:
    """Return the lowest bits of words (B, n) as zeros and ones, (B, n, count)."""
    return (words.unsqueeze(-1) >> torch.arange(count) & 1).float()


def taken(items: Tensor, place: Tensor) -> Tensor:
    """Return the items (B, n, D) at places (B, T), (B, T, D); any item where there is none."""
    place = place.clamp(0, items.shape[1] - 1).unsqueeze(-1)
    return items.gather(1, place.expand(-1, -1, items.shape[2]))


def asked(values: Tensor, there: Tensor) -> Tensor:
    """Return the targets: values (B, T, K) at the steps (B, T) of which something is asked."""
    return values.masked_fill(~there.unsqueeze(-1), IGNORED)


def channel(there: Tensor, value: Tensor | float = 1.0) -> Tensor:
    """Return a value at some steps (B, T) and 0 at the others, (B, T, 1)."""
    return (there * value).unsqueeze(-1).float()


@register_data("copy", kind="sequence", target="bits")
class Copy(BitTask):
    """Copy: L random items, a delimiter, and then the items again.

    Args:
        **options: those of `BitTask`.

    Example:
        >>> batch = Copy(num_bits=2, max_length=3).rows("train")[torch.arange(4)]
        >>> batch.x.shape[2], batch.y.shape[2]
        (3, 2)
    """

    def maker(self, split: str) -> Maker:
        return functools.partial(make_copy, num_bits=self.num_bits)

    def num_steps(self, length: int) -> int:
        return 2 * length + 1

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (*self.bit_names(), "delimiter"), self.bit_names()


def make_copy(lengths: Tensor, words: Tensor, num_bits: int) -> Batch:
    """Return L items, a delimiter, and L steps that ask for the items: T = 2 L + 1."""
    items, length = bits_of(words[:, 1:], num_bits), lengths.unsqueeze(1)
    step = torch.arange(2 * items.shape[1] + 1).expand(len(lengths), -1)  # (B, T)
    shown, mask = step < length, step <= 2 * length
    x = torch.cat([taken(items, step) * shown.unsqueeze(-1), channel(step == length)], dim=-1)
    return Batch(x, asked(taken(items, step - length - 1), (step > length) & mask), mask=mask)


@register_data("repeat_copy", kind="sequence", target="bits")
class RepeatCopy(BitTask):
    """Repeat copy: L random items and a number, then the items that many times, and a mark at the end.

    The logarithm of the number is told, scaled to mean 0 and deviation 1 over those of training. (Deviation: the paper
    scales the number itself. A larger number than those of training is then so far from them that a network which can
    go on that many times does not even begin.)

    Args:
        max_repeats: the largest number in training; the least is 1.
        val_repeats: the number in validation.
        test_repeats: the number in the test.
        **options: those of `BitTask`.
    """

    grows = "all numbers of copies are {}: raise data.max_repeats"

    def __init__(
        self,
        *,
        max_repeats: int = 10,
        val_repeats: int = 10,
        test_repeats: int = 20,
        max_length: int = 10,
        val_length: int = 10,
        test_length: int = 10,
        **options: Any,
    ) -> None:
        repeats = {"max_repeats": max_repeats, "val_repeats": val_repeats, "test_repeats": test_repeats}
        for name, value in repeats.items():
            if value < 1:
                raise ZooError(f"data.{name} must be at least 1, not {value}.")
        self.repeats = {
            "train": (1, max_repeats), "val": (val_repeats, val_repeats), "test": (test_repeats, test_repeats)
        }  # fmt: skip
        super().__init__(max_length=max_length, val_length=val_length, test_length=test_length, **options)

    def sizes(self, split: str) -> tuple[Bounds, ...]:
        return self.lengths[split], self.repeats[split]

    def maker(self, split: str) -> Maker:
        numbers = torch.arange(1, self.repeats["train"][1] + 1).double().log()
        scale = (float(numbers.mean()), float(numbers.std(correction=0)) or 1.0)
        return functools.partial(make_repeat_copy, num_bits=self.num_bits, scale=scale)

    def num_steps(self, length: int) -> int:
        return length * (self.repeats["train"][1] + 1) + 2

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (*self.bit_names(), "delimiter", "repeats"), (*self.bit_names(), "end")


def make_repeat_copy(
    lengths: Tensor, repeats: Tensor, words: Tensor, num_bits: int, scale: tuple[float, float]
) -> Batch:
    """Return L items, a delimiter with the number r, r L steps that ask for the items, and one for the end."""
    items, length, count = bits_of(words[:, 1:], num_bits), lengths.unsqueeze(1), repeats.unsqueeze(1)
    last = length + 1 + count * length  # the step of the end
    step = torch.arange(int(last.max()) + 1 if len(lengths) else 1).expand(len(lengths), -1)  # (B, T)
    delimiter, ends, mask = step == length, step == last, step <= last
    number = (count.log() - scale[0]) / scale[1]
    shown = taken(items, step) * (step < length).unsqueeze(-1)
    x = torch.cat([shown, channel(delimiter), channel(delimiter, number)], dim=-1)
    answer = taken(items, (step - length - 1) % length) * (~ends).unsqueeze(-1)
    y = asked(torch.cat([answer, channel(ends)], dim=-1), (step > length) & mask)
    return Batch(x, y, mask=mask)


@register_data("associative_recall", kind="sequence", target="bits")
class AssociativeRecall(BitTask):
    """Associative recall: L items of three vectors, then one of them again, and the item that followed it is asked for.

    Args:
        **options: those of `BitTask`; lengths are numbers of items.
    """

    least = 2

    def __init__(
        self,
        *,
        num_bits: int = 6,
        min_length: int = 2,
        max_length: int = 6,
        val_length: int = 10,
        test_length: int = 20,
        **options: Any,
    ) -> None:
        lengths = {"min_length": min_length, "max_length": max_length, "val_length": val_length}
        super().__init__(num_bits=num_bits, test_length=test_length, **lengths, **options)

    def maker(self, split: str) -> Maker:
        return functools.partial(make_associative_recall, num_bits=self.num_bits)

    def num_words(self, length: int) -> int:
        return 1 + _VECTORS * length

    def num_steps(self, length: int) -> int:
        return (_VECTORS + 1) * (length + 2)

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (*self.bit_names(), "delimiter", "query"), self.bit_names()


def make_associative_recall(lengths: Tensor, words: Tensor, num_bits: int) -> Batch:
    """Return L times a delimiter and an item, the query between marks, and steps that ask for the item after it."""
    vectors, length = bits_of(words[:, 1:], num_bits), lengths.unsqueeze(1)
    size = _VECTORS + 1
    query = uniforms(words[:, :1])[1].mul_(0.999999 * (length - 1)).long()  # (B, 1), the number of an item
    step = torch.arange(size * (vectors.shape[1] // _VECTORS + 2)).expand(len(lengths), -1)  # (B, T)
    number, within = step // size, step % size  # of the item, and of the step in it, of which the first is a mark
    mark, mask = within == 0, number < length + 2
    item = torch.where(number < length, number, query + number - length)  # the query, and what follows it
    shown = taken(vectors, _VECTORS * item + within - 1)
    visible = ~mark & (number <= length)
    marks = [channel(mark & (number < length)), channel(mark & (number >= length) & mask)]
    x = torch.cat([shown * visible.unsqueeze(-1), *marks], dim=-1)
    return Batch(x, asked(shown, ~mark & (number == length + 1)), mask=mask)


@register_data("priority_sort", kind="sequence", target="bits")
class PrioritySort(BitTask):
    """Priority sort: L random items, each with a number from −1 to 1, of which the highest 80 % are asked for in order.

    Args:
        **options: those of `BitTask`.
    """

    least = 1

    def __init__(
        self, *, min_length: int = 20, max_length: int = 20, val_length: int = 20, test_length: int = 20, **options: Any
    ) -> None:
        lengths = {"min_length": min_length, "max_length": max_length, "val_length": val_length}
        super().__init__(test_length=test_length, **lengths, **options)

    def maker(self, split: str) -> Maker:
        return functools.partial(make_priority_sort, num_bits=self.num_bits)

    def num_words(self, length: int) -> int:
        return 1 + 2 * length

    def num_steps(self, length: int) -> int:
        return length + 1 + math.ceil(_SORTED * length)

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (*self.bit_names(), "priority", "delimiter"), self.bit_names()


def make_priority_sort(lengths: Tensor, words: Tensor, num_bits: int) -> Batch:
    """Return L items with priorities, a delimiter, and steps that ask for the ⌈0.8 L⌉ highest, the highest first."""
    items, length = bits_of(words[:, 1::2], num_bits), lengths.unsqueeze(1)
    priority = uniforms(words[:, 2::2])[0].mul_(2).sub_(1)  # (B, L)
    absent = torch.arange(items.shape[1]) >= length
    order = priority.masked_fill(absent, -torch.inf).argsort(dim=1, descending=True)
    count = (length * _SORTED).ceil().long()  # (B, 1)
    step = torch.arange(int((length + count).max()) + 1 if len(lengths) else 1).expand(len(lengths), -1)  # (B, T)
    shown, mask = step < length, step <= length + count
    number = taken(priority.unsqueeze(-1), step) * shown.unsqueeze(-1)
    x = torch.cat([taken(items, step) * shown.unsqueeze(-1), number, channel(step == length)], dim=-1)
    answer = taken(taken(items, order), step - length - 1)
    return Batch(x, asked(answer, (step > length) & mask), mask=mask)


@register_data("ngram", kind="sequence", target="bits")
class NGram(MemoryTask):
    """Dynamic n-grams: bits that follow a table drawn anew for each row; each step asks for the next bit.

    The chance of a 1 after each context of n − 1 bits is drawn from Beta(½, ½). Nothing does better than `bayes_bits`.

    Args:
        order: n.
        **options: those of `MemoryTask`; lengths are numbers of bits.
    """

    least = 2

    def __init__(
        self,
        *,
        order: int = 6,
        min_length: int = 200,
        max_length: int = 200,
        val_length: int = 200,
        test_length: int = 200,
        **options: Any,
    ) -> None:
        lengths = {"min_length": min_length, "max_length": max_length, "val_length": val_length}
        super().__init__(test_length=test_length, **lengths, **options)
        if not 1 <= order <= 12:
            raise ZooError(f"data.order must be 1 to 12, not {order}.")
        if min(min_length, val_length, test_length) < order:
            raise ZooError(f"data.order={order} needs sequences of at least as many bits: raise the lengths.")
        self.context = order - 1

    def maker(self, split: str) -> Maker:
        return functools.partial(make_ngram, context=self.context)

    def num_words(self, length: int) -> int:
        return 1 + 2**self.context + length

    def num_steps(self, length: int) -> int:
        return length - 1

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return ("bit",), ("next bit",)


def make_ngram(lengths: Tensor, words: Tensor, context: int) -> Batch:
    """Return the bits but the last, and the bits but the first, of which those with a whole context are asked for."""
    size, length = 2**context, lengths.unsqueeze(1)
    chance = uniforms(words[:, 1 : 1 + size])[0].mul_(math.pi / 2).sin_().square_()  # Beta(½, ½) is the arcsine law
    draws = uniforms(words[:, 1 + size :])[0]  # (B, L)
    place, bits = torch.zeros_like(length), []
    for number, draw in enumerate(draws.unbind(1)):
        fair = torch.full_like(draw, 0.5) if number < context else chance.gather(1, place).squeeze(1)
        bits.append((draw <= fair).long())
        place = (2 * place + bits[-1].unsqueeze(1)) % size
    sequence = torch.stack(bits, dim=1).float().unsqueeze(-1)  # (B, L, 1)
    step = torch.arange(draws.shape[1] - 1).expand(len(lengths), -1)
    mask = step < length - 1
    return Batch(sequence[:, :-1], asked(sequence[:, 1:], mask & (step >= context - 1)), mask=mask)


def bayes_bits(batch: Batch, order: int = 6) -> Tensor:
    r"""Return the bits that the optimal estimator of `ngram` needs for each row, (B,).

    After a context that was followed by $N_1$ ones and $N_0$ zeros it says $(N_1 + \frac12) / (N_1 + N_0 + 1)$.

    Args:
        batch: rows of `ngram`.
        order: n.

    Example:
        >>> batch = NGram(order=1, max_length=200).rows("train")[torch.arange(1)]
        >>> bool(bayes_bits(batch, order=1) < 199)
        True
    """
    assert batch.y is not None
    y, (rows, steps) = batch.y.squeeze(-1), batch.x.shape[:2]
    place = torch.zeros(rows, steps, dtype=torch.int64)
    for back in range(order - 1):  # the context of a step, its last bit the lowest
        place[:, back:] += batch.x[:, : steps - back, 0].long() << back
    counts = y >= 0
    contexts = torch.nn.functional.one_hot(place, 2 ** (order - 1)) * counts.unsqueeze(-1)  # (B, T, 2^(n − 1))

    def seen(what: Tensor) -> Tensor:
        """How often the context of a step was met before it with something, (B, T)."""
        every = contexts * what.unsqueeze(-1)
        return (every.cumsum(1) - every).gather(2, place.unsqueeze(-1)).squeeze(-1).double()

    one = (y > 0.5).long()
    chance = (seen(one) + 0.5) / (seen(torch.ones_like(one)) + 1)
    said = torch.where(one.bool(), chance, 1 - chance)
    return -(said.log2() * counts).sum(1)
