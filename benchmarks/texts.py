"""Linear text classifiers on SMS beside scikit-learn's pipelines: raw texts in, a model that predicts out.

Of 5,574 messages every fifth is left out, and told by both: the share of right answers of ours may not be below the
pipeline's by more than 0.005 (some five messages).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from benchmarks import Job
from benchmarks._grid import name_of

FILE = Path(__file__).resolve().parents[2] / "shared" / "data" / "textclf" / "sms_spam" / "sms_spam.csv"
FEATURES, SLACK = 10_000, 0.005


def jobs() -> Iterator[Job]:
    if not FILE.is_file():
        print(f"left out: there is no {FILE.name}")
        return
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    with open(FILE, encoding="utf-8", newline="") as file:
        rows = np.array(list(csv.reader(file))[1:], dtype=object)
    out = np.arange(len(rows)) % 5 == 0
    (kinds, texts), (new_kinds, new_texts) = (rows[part].T for part in (~out, out))

    def check(ours: Any, theirs: Any) -> None:
        right = [float(np.mean(model.predict(list(new_texts)) == new_kinds)) for model in (ours, theirs)]
        print(f"right answers: ours {right[0]:.4f}, scikit-learn's {right[1]:.4f}")
        assert right[0] >= right[1] - SLACK

    pairs: list[tuple[str, dict[str, Any], str, list[Any]]] = [
        ("naive_bayes", {"likelihood": "multinomial"}, "counts", [CountVectorizer(), MultinomialNB()]),
        ("svm", {}, "tfidf", [TfidfVectorizer(), LinearSVC()]),
    ]
    for name, hparams, view, steps in pairs:
        steps[0].set_params(max_features=FEATURES)
        yield Job(
            f"{name} of {len(texts):,} texts, {view}",
            lambda name=name, hparams=hparams, view=view: zoo.fit(
                zoo.create_model(name, **hparams), list(texts), list(kinds), text=view, device="cpu"
            ),
            lambda steps=steps: make_pipeline(*steps).fit(texts, kinds),
            "scikit-learn", pairs=3, check=check,
        )  # fmt: skip


GRID = (
    (100, 10),
    (100, 300),
    (1_000, 20),
    (1_000, 500),
    (5_000, 20),
    (5_000, 200),
    (30_000, 20),
)  # texts, words of each


def grid() -> Iterator[Job]:
    """Yield raw texts of few and many words to fitted models."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    for rows, length in GRID:
        texts, kinds = written(rows, length)
        where = {"rows": rows, "words": length}
        options: dict[str, Any] = {"pairs": 3, "where": where, "quick": rows * length <= 50_000}
        yield Job(
            f"naive_bayes of texts, counts, {name_of(**where)}",
            lambda texts=texts, kinds=kinds: zoo.fit(
                zoo.create_model("naive_bayes", likelihood="multinomial"), texts, kinds, text="counts", device="cpu"
            ),
            lambda texts=texts, kinds=kinds: make_pipeline(CountVectorizer(), MultinomialNB()).fit(texts, kinds),
            "scikit-learn", **options,
        )  # fmt: skip
        yield Job(
            f"svm of texts, tf-idf, {name_of(**where)}",
            lambda texts=texts, kinds=kinds: zoo.fit(zoo.create_model("svm"), texts, kinds, text="tfidf", device="cpu"),
            lambda texts=texts, kinds=kinds: make_pipeline(TfidfVectorizer(), LinearSVC()).fit(texts, kinds),
            "scikit-learn", **options,
        )  # fmt: skip


def written(rows: int, length: int) -> tuple[list[str], list[str]]:
    """Texts whose words are as frequent as those of people, and which of two kinds each is."""
    rng = np.random.default_rng(0)
    letters = rng.integers(ord("a"), ord("z") + 1, (20_000, 7))
    words = ["".join(map(chr, row[: 2 + i % 6])) for i, row in enumerate(letters)]
    kinds = rng.integers(0, 2, rows)
    places = np.minimum(rng.zipf(1.3, (rows, length)), 9_999) + 10_000 * (
        kinds[:, None] * (rng.random((rows, length)) < 0.1)
    )
    return [" ".join(words[i] for i in row) for row in places], [("no", "yes")[kind] for kind in kinds]
