"""How a language model goes on with a text: the options of decoding, and the tokens one after the other.

Legend: B rows, V tokens of the vocabulary.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.checks import Range, check_type
from zoo.errors import ZooError, nearest
from zoo.text.reading import Reader
from zoo.text.sampling import penalize_repetition, probabilities, sample_token

__all__ = ["Decoding", "decode"]

Count = Annotated[int, Range(1)]

# What only one way of decoding looks at.
_OF = {
    "sample": ("temperature", "top_k", "top_p", "min_p", "seed"),
    "beam": ("num_beams", "length_penalty", "early_stopping"),
}


@dataclass(frozen=True)
class Decoding:
    """How to go on with a text.

    Args:
        decoding: `sample` draws each token; `greedy` takes the most probable one; `beam` searches for the most probable
            continuation (see `zoo.text.beam_search`).
        steps: the most tokens of a continuation.
        temperature: below 1 bolder, above 1 wilder; 0 takes the most probable token.
        top_k: draw from the k most probable tokens only.
        top_p: draw from the most probable tokens only, whose probabilities sum to p.
        min_p: draw from tokens only that are at least m times as probable as the most probable one.
        repetition_penalty: above 1 makes tokens that were there less probable.
        seed: seed of the draw.
        num_beams: continuations that the search keeps of each prompt.
        length_penalty: above 0 favours longer continuations; 0 the shorter ones.
        early_stopping: true ends the search when as many continuations have ended as there are beams; false when the
            best that goes on is no better than those, for its length; `never` when it could not become better.
        num_return: continuations of each prompt: the best ones of the search, or draws from seed, seed + 1, ….
        stop: texts that end a continuation, which is cut before them.
        cache: false reads the whole text anew at each step.
        draft_steps: tokens that a draft proposes at a time.

    Raises:
        ZooError: for a value out of range, or an option that the way of decoding does not look at.

    Example:
        >>> Decoding("beam", num_beams=0)
        Traceback (most recent call last):
        ...
        zoo.errors.ZooError: num_beams must be an integer of at least 1, not 0.
    """

    decoding: Literal["sample", "greedy", "beam"] = "sample"
    steps: Annotated[int, Range(0, 10_000_000)] = 400
    temperature: Annotated[float, Range(0)] = 0.8
    top_k: Count | None = None
    top_p: Annotated[float, Range(0, 1, open_low=True)] | None = None
    min_p: Annotated[float, Range(0, 1)] | None = None
    repetition_penalty: Annotated[float, Range(1e-3, 1e3)] = 1.0
    seed: Annotated[int, Range(0, 2**63)] = 0
    num_beams: Count = 4
    length_penalty: Annotated[float, Range(-10, 10)] = 1.0
    early_stopping: bool | Literal["never"] = False
    num_return: Count = 1
    stop: str | list[str] | None = None
    cache: bool = True
    draft_steps: Count = 4

    def __post_init__(self) -> None:
        types = typing.get_type_hints(Decoding, include_extras=True)
        for field in fields(self):
            check_type(field.name, getattr(self, field.name), types[field.name])
        if "" in self.stops:
            raise ZooError("stop must not be empty: every text ends with it.")
        for way, names in _OF.items():
            idle = [f.name for f in fields(self) if f.name in names and getattr(self, f.name) != f.default]
            if idle and way != self.decoding:
                raise ZooError(f"{idle[0]} does nothing with decoding={self.decoding}: pass decoding={way}.")
        most = {"beam": self.num_beams, "greedy": 1}.get(self.decoding, self.num_return)
        if self.num_return > most:
            of = f"num_beams={most} finds no more" if self.decoding == "beam" else "there is one greedy continuation"
            raise ZooError(f"num_return={self.num_return} is too many: {of}.")

    @classmethod
    def of(cls, options: dict[str, Any]) -> Decoding:
        """Return the decoding of options by name; an unknown one raises in one line."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise ZooError(f"generate has no option '{name}'.{nearest(name, known)} Valid: {', '.join(known)}.")
        return cls(**options)

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end a continuation."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def takes_best(self) -> bool:
        """Whether each token is the most probable one."""
        return self.decoding == "greedy" or self.temperature == 0

    def distribution(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the probabilities (B, V) that tokens are drawn from.

        Args:
            logits: (B, V).
            seen: the tokens that were there (B, V), bool, where `repetition_penalty` asks for them.
        """
        if seen is not None:
            logits = penalize_repetition(logits, seen, self.repetition_penalty)
        if self.takes_best:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        return probabilities(logits, self.temperature, self.top_k, self.top_p, self.min_p)


def decode(reader: Reader, options: Decoding, generators: list[torch.Generator]) -> Iterator[Tensor]:
    """Yield the next token of each row (B,), `options.steps` times, greedy or drawn.

    Args:
        reader: the prompts, with room for as many tokens.
        options: how.
        generators: one for each row.
    """
    for _ in range(options.steps):
        logits = reader.logits()
        if options.repetition_penalty != 1:
            logits = penalize_repetition(logits, reader.seen(logits.shape[-1]), options.repetition_penalty)
        if options.takes_best:
            token = logits.argmax(-1).cpu()
        else:
            token = sample_token(
                logits.cpu(), options.temperature, options.top_k, generators, options.top_p, options.min_p
            )
        yield token
        reader.append(token)
