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
