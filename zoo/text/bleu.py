r"""BLEU: how much of a translation stands in the right one, in runs of one to four words.

```math
p_n = \frac{\sum_i \sum_g \min(c_i(g), r_i(g))}{\sum_i \sum_g c_i(g)}, \qquad
\mathrm{BLEU} = 100\, \min\bigl(1, e^{1 - r / c}\bigr) \Bigl(\prod_{n=1}^4 p_n\Bigr)^{1/4}
```

Where no run of n words is found, p_n is taken as 1 / (2^k c_n) for the k-th such n (the smoothing of NIST's script).

Legend: i texts, g runs of n words, c_i(g) and r_i(g) how often g stands in the translation and in the right one, c and
r how many words all translations and all right ones have, c_n how many runs of n words all translations have.

Source: Papineni et al. 2002. Words are those of NIST's mteval-v13a, by which published figures are made comparable
(Post 2018).
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["NUM_COUNTS", "bleu", "bleu_counts", "bleu_of_counts", "words_13a"]

ORDER = 4  # words of the longest runs
NUM_COUNTS = 2 * ORDER + 2

_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_RULES = (
    (re.compile(r"([!-&(-+/:-@[-`{-~])"), r" \1 "),  # ASCII's signs but for ' , - and .
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def words_13a(text: str) -> list[str]:
    """Return the words and signs of a text, as mteval-v13a parts them.

    >>> words_13a("It costs 1,000.50 (or so), don't it?")
    ['It', 'costs', '1,000.50', '(', 'or', 'so', ')', ',', "don't", 'it', '?']
    """
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = f" {text} "
    for pattern, parted in _RULES:
        text = pattern.sub(parted, text)
    return text.split()


def bleu_counts(translation: str, reference: str) -> list[int]:
    """Return what BLEU needs of one text, to be added up: runs found and runs said for n = 1 … 4, and both lengths.

    >>> bleu_counts("the cat sat", "the cat sat down")
    [3, 2, 1, 0, 3, 2, 1, 0, 3, 4]
    """
    said, right = words_13a(translation), words_13a(reference)
    runs, wanted = _runs(said), _runs(right)
    found = [0] * ORDER
    for run, count in runs.items():
        found[len(run) - 1] += min(count, wanted[run])
    return [*found, *(max(0, len(said) - n) for n in range(ORDER)), len(said), len(right)]


def _runs(words: list[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(words) - n + 1))


def bleu_of_counts(counts: Sequence[float]) -> float:
    """Return BLEU from the sums of `bleu_counts` over all texts."""
    found, said, (length, wanted) = counts[:ORDER], counts[ORDER:-2], counts[-2:]
    if not all(said) or not any(found):  # no text has four words, or none of them is right
        return 0.0
    missed, logs = itertools.count(1), 0.0
    for right, all_runs in zip(found, said, strict=True):
        logs += math.log(right / all_runs if right else 1 / (2.0 ** next(missed) * all_runs))
    return 100 * math.exp(min(0.0, 1 - wanted / length) + logs / ORDER)


def bleu(translations: Iterable[str], references: Iterable[str]) -> float:
    """Return the BLEU of translations beside the right ones, from 0 to 100.

    Args:
        translations: texts.
        references: one for each.

    Example:
        >>> round(bleu(["the cat sat on a mat"], ["the cat sat on the mat"]), 2)
        53.73
    """
    counts = [bleu_counts(said, right) for said, right in zip(translations, references, strict=True)]
    return bleu_of_counts([sum(column) for column in zip(*counts, strict=True)] or [0] * NUM_COUNTS)
