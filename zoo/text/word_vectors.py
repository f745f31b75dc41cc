r"""Words with their vectors: what is near, what is to a as b is to c, and how well that agrees with people.

```math
\cos(u, v) = \frac{u^\top v}{\|u\| \, \|v\|}, \qquad
a : b :: c : \arg\max_{d \ne a, b, c} \cos(d, \hat b - \hat a + \hat c), \quad \hat u = u / \|u\|
```

Legend: V words, D numbers of a vector, N pairs or questions.
Source: Mikolov, Yih & Zweig 2013 (analogies by the offset); Levy & Goldberg 2014, who call it 3CosAdd.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError, nearest
from zoo.text.vector_files import read_vectors, write_vectors

__all__ = ["Agreement", "WordVectors"]

_QUESTIONS = 256  # that are answered together


class Agreement(NamedTuple):
    """What a file of pairs or a section of questions came to.

    Attributes:
        name: that of the file or the section.
        value: Spearman's rank correlation of pairs, the share of right answers of questions; NaN of none.
        judged: how many there were.
        left_out: how many were not, since a word of theirs has no vector.
    """

    name: str
    value: float
    judged: int
    left_out: int


class WordVectors:
    """Words with their vectors.

    Args:
        words: V different words, the most frequent first.
        vectors: (V, D).

    Raises:
        ZooError: for another number of words than of vectors.

    Example:
        >>> words = WordVectors(["king", "man", "woman", "queen"], torch.tensor([[3.0, 1], [1, 1], [1, -1], [3, -1]]))
        >>> [word for word, cosine in words.analogy("man", "king", "woman")]
        ['queen']
        >>> round(words.similarity("king", "queen"), 2)
        0.8
    """

    def __init__(self, words: Sequence[str], vectors: Tensor) -> None:
        if vectors.ndim != 2 or len(words) != len(vectors):
            raise ZooError(f"{len(words)} words need as many vectors (V, D), not {tuple(vectors.shape)}.")
        self.words, self.vectors = list(words), vectors
        self.numbers = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def load(cls, path: str | Path) -> WordVectors:
        """Read a file of word2vec (text or binary) or GloVe, or the folder of a run that learned word vectors."""
        return cls(*read_vectors(path))

    def save(self, path: str | Path, *, binary: bool | None = None) -> None:
        """Write a file of word2vec, which gensim reads.

        Args:
            path: the file.
            binary: whether it is the binary format; None for every name but those that end in `.txt` or `.txt.gz`.
        """
        text = str(path).removesuffix(".gz").endswith(".txt")
        write_vectors(path, self.words, self.vectors, binary=not text if binary is None else binary)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.numbers

    def __getitem__(self, word: str) -> Tensor:
        """Return the vector of a word, (D,)."""
        return self.vectors[self._number(word)]

    def __repr__(self) -> str:
        return f"WordVectors({len(self):,} words of {self.vectors.shape[1]} numbers)"

    # -- near words ------------------------------------------------------------------------------------------------

    @cached_property
    def units(self) -> Tensor:
        """The vectors at length 1, (V, D); one of zeros stays so."""
        vectors = self.vectors.detach().to(torch.promote_types(self.vectors.dtype, torch.float32))
        largest = vectors.abs().amax(1, keepdim=True)
        scaled = vectors / torch.where(largest > 0, largest, 1.0)  # whose squares neither vanish nor overflow
        return scaled / scaled.norm(dim=1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)

    def similarity(self, one: str, other: str) -> float:
        """Return the cosine of two words' vectors."""
        return float(self.units[self._number(one)] @ self.units[self._number(other)])

    def most_similar(
        self, words: str | Sequence[str], minus: str | Sequence[str] = (), k: int = 10
    ) -> list[tuple[str, float]]:
        """Return the `k` words whose vectors point most nearly where the sum of unit vectors does, with the cosines.

        Args:
            words: a word, or several that are added; none of them is among the answers.
            minus: words that are subtracted.
            k: how many; fewer where there are no more words.

        Raises:
            ZooError: for a word without a vector, with the nearest ones.
        """
        if k < 1:
            raise ZooError(f"k must be at least 1, not {k}.")
        plus, less = ([words] if isinstance(words, str) else list(words), [minus] if isinstance(minus, str) else minus)
        given = torch.tensor([self._number(word) for word in (*plus, *less)], device=self.units.device)
        if not len(given):
            raise ZooError("There is no word to be near to.")
        signs = torch.tensor([1.0] * len(plus) + [-1.0] * len(less)).to(self.units)
        target = signs @ self.units[given]
        cosines = self.units @ (target / target.norm().clamp_min(torch.finfo(target.dtype).tiny))
        cosines[given] = -torch.inf
        value, number = cosines.topk(min(k, max(0, len(self) - len(given.unique()))))
        return [(self.words[n], v) for n, v in zip(number.tolist(), value.clamp(-1, 1).tolist(), strict=True)]

    def analogy(self, a: str, b: str, c: str, k: int = 1) -> list[tuple[str, float]]:
        """Return what is to `c` as `b` is to `a`: the `k` words nearest to b - a + c.

        Raises:
            ZooError: for a word without a vector.
        """
        return self.most_similar([b, c], [a], k)

    def near(self, expression: str, k: int = 10) -> list[tuple[str, float]]:
        """Return the words nearest to a word, or to a sum such as `king - man + woman`.

        Raises:
            ZooError: for what is no such sum, or a word without a vector.

        Example:
            >>> vectors = torch.tensor([[3.0, 1], [1, 1], [1, -1], [3, -1]])
            >>> words = WordVectors(["king", "man", "woman", "queen"], vectors)
            >>> words.near("king - man + woman", k=1)[0][0]
            'queen'
        """
        if expression in self:
            return self.most_similar(expression, k=k)
        if not re.fullmatch(r"(\s*[+-]?\s*[^\s+-]+)*\s*", expression):
            raise ZooError(f"'{expression}' is no sum of words: write it like 'king - man + woman'.")
        parts = re.findall(r"\s*([+-]?)\s*([^\s+-]+)", expression)
        chosen = {sign: [word for s, word in parts if (s == "-") == (sign == "-")] for sign in "+-"}
        return self.most_similar(chosen["+"], chosen["-"], k)

    def _number(self, word: str) -> int:
        number = self.numbers.get(word)
        if number is None:
            raise ZooError(f"'{word}' is none of the {len(self):,} words.{nearest(word, self.words[:50_000])}")
        return number

    # -- what people say ---------------------------------------------------------------------------------------------

    @cached_property
    def _folded(self) -> dict[str, int]:
        """Words without regard to capital letters; of several the first, which is the most frequent."""
        return {word.upper(): len(self) - 1 - number for number, word in enumerate(reversed(self.words))}

    def rate_pairs(self, path: str | Path) -> list[Agreement]:
        """Return how far the cosines rank pairs of words as people do, for a file, or each of a folder.

        Args:
            path: a pair and its score in a line, with tabs, commas or blanks between them; words are looked up without
                regard to capital letters.

        Returns:
            Spearman's rank correlation of each file. Pairs with a word that has no vector are left out, and counted.

        Raises:
            ZooError: for a file that holds something else.
        """
        return [self._rate(file) for file in _files(Path(path))]

    def _rate(self, path: Path) -> Agreement:
        pairs, scores, left_out = [], [], 0
        for number, line in _lines(path):
            parts = re.split(r"[\t,;]|\s+", line.strip())
            try:
                one, other, score = parts[0], parts[1], float(parts[2])
            except (IndexError, ValueError):
                if number == 1 and len(parts) >= 3:  # the names of columns
                    continue
                raise ZooError(f"{path}, line {number}: two words and their score were expected.") from None
            places = [self._folded.get(word.upper()) for word in (one, other)]
            if None in places:
                left_out += 1
                continue
            pairs.append(places)
            scores.append(score)
        if len(pairs) < 2:
            return Agreement(path.stem, float("nan"), len(pairs), left_out)
        chosen = self.units[torch.tensor(pairs, device=self.units.device)].cpu().double()  # (N, 2, D)
        chosen /= chosen.norm(dim=2, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        cosines = chosen.prod(1).sum(1).float()  # rounded: what differs by rounding alone is of equal rank
        return Agreement(path.stem, _spearman(cosines, torch.tensor(scores)), len(pairs), left_out)

    def answer_questions(self, path: str | Path) -> list[Agreement]:
        """Return the share of analogies that are answered rightly, for each section of a file, and for all of them.

        Args:
            path: lines `: SECTION`, each followed by its questions, four words a line: a is to b as c is to d. Words
                are looked up without regard to capital letters.

        Returns:
            The accuracy of each section, and `all` at the end. Questions with a word that has no vector are left out,
            and counted.

        Raises:
            ZooError: for a file that holds something else.
        """
        names: list[str] = []
        section, questions, left_out = list[int](), list[list[int]](), list[int]()
        for file in _files(Path(path)):
            for number, line in _lines(file):
                words = line.split()
                if words[0] == ":":
                    names.append(" ".join(words[1:]))
                    left_out.append(0)
                    continue
                if len(words) != 4 or not names:
                    raise ZooError(f"{file}, line {number}: four words, below a line ': SECTION', were expected.")
                places = [self._folded.get(word.upper(), -1) for word in words]
                if min(places) < 0:
                    left_out[-1] += 1
                else:
                    questions.append(places)
                    section.append(len(names) - 1)
        right = self._answered(torch.tensor(questions, dtype=torch.long).view(-1, 4)).double()
        of = torch.tensor(section, dtype=torch.long)
        count = torch.bincount(of, minlength=len(names))
        share = torch.bincount(of, right, minlength=len(names)) / count
        found = zip(names, share.tolist(), count.tolist(), left_out, strict=True)
        total = Agreement("all", float(right.mean()), len(right), sum(left_out))
        return [*(Agreement(*values) for values in found), total]

    def _answered(self, questions: Tensor) -> Tensor:
        """Whether the fourth word of each question (N, 4) is the answer to the three others, (N,)."""
        # Of each word the number of the one that is it in another case.
        same = torch.tensor([self._folded[word.upper()] for word in self.words], device=self.units.device)  # (V,)
        right = [torch.zeros(0, dtype=torch.bool)]
        for part in questions.to(same.device).split(_QUESTIONS):
            a, b, c = (self.units[part[:, i]] for i in range(3))
            cosines = (b - a + c) @ self.units.T  # (Q, V), each times the length of the sum, which ranks alike
            for i in range(3):
                cosines.masked_fill_(same == part[:, i : i + 1], -torch.inf)
            right.append((same[cosines.argmax(1)] == part[:, 3]).cpu())
        return torch.cat(right)


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise ZooError(f"There is no file of pairs or questions at {path}.")
    return files


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are neither empty nor a remark, with their numbers."""
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                yield number, line
    except UnicodeDecodeError:
        raise ZooError(f"{path} is not UTF-8 text.") from None


def _spearman(one: Tensor, other: Tensor) -> float:
    """Return the correlation of the ranks of two rows of values (N,); equal values share their mean rank."""
    ranks = torch.stack([_ranks(one), _ranks(other)])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    _, place, count = values.double().unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2)[place].double()
