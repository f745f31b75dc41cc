"""Rows of tokens that grow, and what a language model says comes next: each token is read once.

Legend: B rows, T steps, V tokens of the vocabulary, C the most tokens that a model sees (its context).

A model whose context is full goes on with the later half of what it saw: a row of n > C tokens is read from token
⌈(n − C) / h⌉ h on, h = ⌊C / 2⌋, so that what was read is read anew once in h tokens. Where a row is cut follows from
its own length: it is the same alone and beside others, with a cache and without.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["LanguageModel", "Reader", "select_rows", "window_start"]


class LanguageModel(Protocol):
    """What decoding asks of a model; `zoo.models.base.Generates` has it for the models of the zoo.

    Attributes:
        context: the most tokens that it sees, or None.
        caches: whether it has a state, so that tokens are read once.
    """

    @property
    def context(self) -> int | None: ...

    @property
    def caches(self) -> bool: ...

    def next_logits(
        self, tokens: Tensor, state: Any = None, mask: Tensor | None = None, every: bool = False
    ) -> tuple[Tensor, Any]:
        """Return the logits after the last of the tokens (B, T), as (B, V), and what the next call takes as `state`.

        A state that is passed on stays as it was, or can be rewound. `mask` (B, T) says which tokens are there, where
        rows are padded behind their last one; `every` asks for the logits after each token, (B, T, V).
        """
        ...

    def select_state(self, state: Any, rows: Tensor) -> Any:
        """Return the state of some of the rows, each any number of times."""
        ...

    def rewind(self, state: Any, count: int) -> Any:
        """Return the state as it was `count` tokens before, or None where it cannot be had."""
        ...


def select_rows(state: Any, rows: Tensor, dim: int = 0) -> Any:
    """Return rows (N,) of every tensor in tuples, lists and dictionaries; None stays None.

    >>> select_rows({"h": torch.tensor([[1.0], [2.0]])}, torch.tensor([1, 1]))["h"].tolist()
    [[2.0], [2.0]]
    """
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.index_select(dim, rows.to(state.device))
    if isinstance(state, dict):
        return {key: select_rows(part, rows, dim) for key, part in state.items()}
    parts = [select_rows(part, rows, dim) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)


def window_start(length: int, context: int | None) -> int:
    """Return where a row of `length` tokens is read from, so that the model sees at most `context` of them.

    >>> [window_start(length, 8) for length in (8, 9, 12, 13)]
    [0, 4, 4, 8]
    """
    if context is None or length <= context:
        return 0
    half = max(1, context // 2)
    return -((context - length) // half) * half


class Reader:
    """Rows of tokens with room to grow, and the state in which a model has read them.

    Args:
        model: see `LanguageModel`.
        tokens: (B, T), padded behind the last one.
        lengths: number of tokens of each row, at least 1; None for T each.
        room: how many tokens will be added at most.
        state: what the model knows before the first token, such as a sentence to translate.
        cache: False reads all tokens anew at every step.
        keep: how many states before the last one are kept, for `back`.
        barred: ids (N,) of tokens that never come next: their logits are −∞.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: Tensor,
        lengths: list[int] | None = None,
        *,
        room: int,
        state: Any = None,
        cache: bool = True,
        keep: int = 0,
        barred: Tensor | None = None,
    ) -> None:
        self.model, self.cache, self.start, self.barred = model, cache and model.caches, state, barred
        self.lengths = [tokens.shape[1]] * len(tokens) if lengths is None else list(lengths)
        self.tokens = torch.cat([tokens, tokens.new_zeros(len(tokens), room)], 1)  # (B, T + room)
        self.state: Any = None
        self.unread = 0  # tokens at the end of each row that the state does not know
        self.read_from: list[int] | None = None  # where in each row it began to read; None: it has read nothing
        self._kept: deque[tuple[Any, int]] = deque(maxlen=keep)  # states, and how much of the first row they know

    @property
    def starts(self) -> list[int]:
        """From where on each row is seen."""
        return [window_start(length, self.model.context) for length in self.lengths]

    @property
    def span(self) -> float:
        """How many tokens can be added before one of the rows is cut."""
        if self.model.context is None:
            return float("inf")
        return min(s + self.model.context - n for s, n in zip(self.starts, self.lengths, strict=True))

    def logits(self, every: bool = False) -> Tensor:
        """Return the logits of what comes next (B, V); those after each token that was not read yet, where `every`."""
        starts = self.starts
        if self.cache and starts == self.read_from:
            tokens, mask, state = self._last(self.unread), None, self.state
        else:
            self._kept.clear()
            tokens, mask = self._windows(starts)
            state, self.read_from = self.start, starts
        logits, self.state = self.model.next_logits(tokens, state, mask, every)
        self.unread = 0
        self._kept.append((self.state, self.lengths[0]))
        if self.barred is not None and len(self.barred):
            logits = logits.index_fill(-1, self.barred.to(logits.device), -torch.inf)
        return logits

    def append(self, tokens: Tensor) -> None:
        """Add a token (B,) to each row."""
        device = self.tokens.device
        if len(set(self.lengths)) == 1:
            self.tokens[:, self.lengths[0]] = tokens.to(device)
        else:
            self.tokens.scatter_(1, torch.tensor(self.lengths, device=device).unsqueeze(1), tokens.to(device)[:, None])
        self.lengths = [length + 1 for length in self.lengths]
        self.unread += 1

    def select(self, rows: Tensor) -> None:
        """Go on with some of the rows, each any number of times."""
        chosen = rows.tolist()
        if chosen == list(range(len(self.lengths))):
            return
        self.tokens = self.tokens.index_select(0, rows.to(self.tokens.device))
        self.lengths = [self.lengths[row] for row in chosen]
        self.start = self.model.select_state(self.start, rows)
        if self.read_from is not None:
            self.read_from = [self.read_from[row] for row in chosen]
            self.state = self.model.select_state(self.state, rows)

    def back(self, count: int) -> None:
        """Take the last `count` tokens of the one row away."""
        assert len(self.lengths) == 1, "rows go back one at a time"
        known = self.lengths[0] - self.unread
        self.lengths = [self.lengths[0] - count]
        length = self.lengths[0]
        if length >= known:
            self.unread = length - known
            return
        earlier = self.model.rewind(self.state, known - length)
        if earlier is not None:
            self.state, self.unread = earlier, 0
            return
        while self._kept and self._kept[-1][1] > length:
            self._kept.pop()
        if not self._kept:
            self.read_from = None  # all is read anew
            return
        self.state, known = self._kept[-1]
        self.unread = length - known
        if self.unread:  # a recurrent state is that of its end: what was kept of its text is read again
            self.state = self.model.next_logits(self._last(self.unread), self.state)[1]
            self.unread = 0
            self._kept.append((self.state, length))

    def seen(self, vocab_size: int) -> Tensor:
        """Return which tokens stand in each row, (B, V), bool."""
        steps = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        there = steps < torch.tensor(self.lengths, device=self.tokens.device).unsqueeze(1)  # (B, T)
        ids = self.tokens.where(there, self.tokens[:, :1])
        return torch.zeros(len(ids), vocab_size, dtype=torch.bool, device=ids.device).scatter_(1, ids, True)

    def _last(self, count: int) -> Tensor:
        """The last `count` tokens of each row, (B, count)."""
        if len(set(self.lengths)) == 1:
            return self.tokens[:, self.lengths[0] - count : self.lengths[0]]
        ends = torch.tensor(self.lengths, device=self.tokens.device).unsqueeze(1)
        return self.tokens.gather(1, ends - count + torch.arange(count, device=self.tokens.device))

    def _windows(self, starts: list[int]) -> tuple[Tensor, Tensor | None]:
        """What is seen of each row (B, T), and which of it is there, (B, T); None for all."""
        counts = [length - start for start, length in zip(starts, self.lengths, strict=True)]
        widest, device = max(counts), self.tokens.device
        if set(counts) == {widest} and len(set(starts)) == 1:
            return self.tokens[:, starts[0] : starts[0] + widest], None
        steps = torch.arange(widest, device=device)
        mask = steps < torch.tensor(counts, device=device).unsqueeze(1)  # (B, T)
        index = torch.tensor(starts, device=device).unsqueeze(1) + steps
        tokens = self.tokens.gather(1, index.clamp_max(self.tokens.shape[1] - 1))
        return tokens.masked_fill(~mask, 0), mask
