"""Dates as people write them, and as ISO 8601 does: sentence pairs that come with the library."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import torch

from zoo.data.parallel_text import PairData
from zoo.data.registry import register_data
from zoo.data.tokenizing import TokenizerOptions
from zoo.errors import ZooError
from zoo.numerics.hashing import epoch_generator

__all__ = ["Dates"]

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FORMS = (
    "{day} {month} {year}", "{month} {day}, {year}", "{weekday}, {day} {month} {year}", "{day} {month:.3} {year}",
    "{day}.{number}.{year}", "{number}/{day}/{year}", "{weekday:.3} {month:.3} {day} {year}",
    "the {day}{th} of {month} {year}",
)  # fmt: skip
_FIRST, _LAST = date(1900, 1, 1).toordinal(), date(2099, 12, 31).toordinal()
_DRAWN = 0xDA7E  # sets the draw of the days apart from that of the splits


@register_data("dates", kind="pairs", target="tokens")
class Dates(PairData):
    """Dates between 1900 and 2099 as people write them, to be said as ISO 8601 does: "May 3, 1979" is "1979-05-03".

    Tokens are characters.

    Args:
        num_pairs: how many pairs there are.
        **options: those of `SplitData`.
    """

    max_length = 64
    tokenizing = TokenizerOptions("char", special_tokens=["pad", "unknown", "begin", "end"])

    def __init__(self, *, num_pairs: int = 4000, **options: Any) -> None:
        super().__init__(**options)
        if num_pairs < 1:
            raise ZooError(f"data.num_pairs must be at least 1, not {num_pairs}.")
        self.num_pairs = num_pairs

    def pairs(self) -> Iterator[tuple[str, str]]:
        generator = epoch_generator(self.seed, _DRAWN)
        days = torch.randint(_FIRST, _LAST + 1, (self.num_pairs,), generator=generator).tolist()
        forms = torch.randint(len(_FORMS), (self.num_pairs,), generator=generator).tolist()
        for ordinal, form in zip(days, forms, strict=True):
            day = date.fromordinal(ordinal)
            yield written(day, _FORMS[form]), day.isoformat()


def written(day: date, form: str) -> str:
    """Return a date in one of the forms.

    >>> written(date(1979, 5, 3), "the {day}{th} of {month} {year}")
    'the 3rd of May 1979'
    """
    last = 0 if day.day in (11, 12, 13) else day.day % 10
    return form.format(
        day=day.day, month=_MONTHS[day.month - 1], number=day.month, year=day.year, weekday=_DAYS[day.weekday()],
        th={1: "st", 2: "nd", 3: "rd"}.get(last, "th"),
    )  # fmt: skip
