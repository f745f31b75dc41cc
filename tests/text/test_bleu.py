"""BLEU beside sacrebleu's, which published figures are made with."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.text.bleu import bleu, words_13a

sacrebleu = pytest.importorskip("sacrebleu", reason="the peer that BLEU is checked against is not installed")
WORDS = sacrebleu.BLEU().tokenizer  # mteval-v13a's, its default

SIGNS = st.text(alphabet="ab1 .,-!?'\"&;<>/()éß\u202f\n\t$%{}~`^@", max_size=24)
ENTITIES = st.sampled_from(["&quot;", "&amp;lt;", "<skipped>", "1,000.5", "3-4", "a-\nb", "l'homme", ".", "..."])
TEXTS = st.lists(st.one_of(SIGNS, ENTITIES), max_size=6).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_words_are_those_of_mteval(text: str) -> None:
    assert words_13a(text) == WORDS(text.rstrip()).split()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_bleu_of_any_texts(pairs: list[tuple[str, str]]) -> None:
    said, right = zip(*pairs, strict=True)
    assert bleu(said, right) == pytest.approx(sacrebleu.corpus_bleu(list(said), [list(right)]).score, rel=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("cut", [0, 1])
def test_bleu_of_texts_that_are_partly_right(share: float, cut: int) -> None:
    draw = random.Random(0)
    right = [
        [draw.choice(["the", "a", "cat", "dog", "sat", "ran", "on", ",", "mat", "."]) for _ in range(9)]
        for _ in range(40)
    ]
    said = [[draw.choice("xy") if draw.random() < share else word for word in row[cut:]] for row in right]
    texts = [[" ".join(row) for row in rows] for rows in (said, right)]
    assert bleu(*texts) == pytest.approx(sacrebleu.corpus_bleu(texts[0], [texts[1]]).score, rel=1e-12)


def test_nothing_to_score() -> None:
    assert bleu([], []) == bleu([""], [""]) == bleu(["a"], ["a"]) == 0
