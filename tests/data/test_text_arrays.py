"""A list of texts with labels, as `zoo.fit` takes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import zoo
from zoo.data.given_texts import as_texts
from zoo.data.registry import create_data
from zoo.data.text_arrays import TextArrays
from zoo.numerics.sparse import dense_rows

TEXTS = ["free prize now", "see you soon", "call now, free", "how are you"] * 6
LABELS = ["spam", "ham"] * 12


@pytest.mark.parametrize("make", [list, tuple, np.array, pd.Series, lambda x: np.array(x, dtype=object)])
def test_texts_are_known_in_every_form(make: Any) -> None:
    assert as_texts(make(TEXTS)) == TEXTS


@pytest.mark.parametrize(
    "x", ["one text", [1, 2], [["a"], ["b"]], [], np.eye(2), {"a": ["b"]}, pd.DataFrame({"a": ["b"]})]
)
def test_what_is_no_list_of_texts(x: Any) -> None:
    assert as_texts(x) is None


@pytest.mark.parametrize("view", ["tokens", "counts", "binary", "tfidf"])
def test_a_list_gives_the_rows_of_a_file(view: str, tmp_path: Any) -> None:
    pd.DataFrame({"text": TEXTS, "label": LABELS}).to_csv(tmp_path / "texts.csv", index=False)
    options: dict[str, Any] = {"path": str(tmp_path / "texts.csv"), "text": "text", "target": "label", "view": view}
    file = create_data("csv", **options, val_fraction=0.25, test_fraction=0.0)
    held = TextArrays(TEXTS, LABELS, view=view, val_fraction=0.25)
    assert held.spec == file.spec
    for split in ("train", "val"):
        index = torch.arange(len(held.rows(split)))
        for ours, theirs in zip(held.rows(split)[index], file.rows(split)[index], strict=True):
            assert (ours is None and theirs is None) or torch.equal(dense_rows(ours), dense_rows(theirs))
    assert held.applied.labels == file.applied.labels


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("naive_bayes", {"likelihood": "multinomial"}), ("logistic_regression", {}), ("svm", {}),
        ("random_forest", {"num_trees": 5}), ("mlp", {"widths": []}), ("gru", {"hidden_size": 8}),
    ],
)  # fmt: skip
def test_every_text_classifier_takes_a_list(name: str, options: dict[str, Any]) -> None:
    steps = {"max_epochs": 8, "lr": 0.05} if name in ("mlp", "gru") else {}
    penalty = {"l2": 1e-3} if name == "logistic_regression" else {}
    model = zoo.fit(zoo.create_model(name, **options), TEXTS, LABELS, device="cpu", **steps, **penalty)
    assert model.spec is not None
    assert model.spec.kind == ("tokens" if steps else "tabular")
    assert model.predict(["a free call", "are you there"]).tolist() == ["spam", "ham"]
    assert model.predict([""]).tolist()[0] in ("spam", "ham")  # a text without a word is answered, too
    assert model.score(TEXTS, LABELS) == 1.0
    assert zoo.evaluate(model, TEXTS, LABELS)["accuracy"] == 1.0


def test_weights_count_texts() -> None:
    weight = [3.0, 1.0] * 12
    model = zoo.create_model("naive_bayes", likelihood="multinomial")
    weighted = zoo.fit(model, TEXTS, LABELS, sample_weight=weight, device="cpu")
    repeated = [*TEXTS, *TEXTS[::2], *TEXTS[::2]], [*LABELS, *LABELS[::2], *LABELS[::2]]
    plain = zoo.fit(zoo.create_model("naive_bayes", likelihood="multinomial"), *repeated, device="cpu")
    ours, theirs = (model.predict_columns(TEXTS)["probability"] for model in (weighted, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments", "options", "line"),
    [
        ("gru", (TEXTS,), {}, "gru learns from targets: pass y"),
        ("svm", (TEXTS, LABELS), {"text": "onehot"}, "text='onehot' is for columns of tables"),
        ("svm", (np.eye(4), [0, 1, 0, 1]), {"text": "tfidf"}, "text='tfidf' is for a list of texts"),
        ("svm", (TEXTS, LABELS[1:]), {}, "X has 24 rows and y has 23"),
        ("gru", ([""] * 4, [0, 1, 0, 1]), {}, "The text is empty"),
        ("gru", (TEXTS, LABELS), {"text": "counts"}, "Of texts it takes the tokens"),
        ("svm", (TEXTS, LABELS), {"sample_weight": [1.0]}, "one weight for each of the 24 rows"),
    ],
)
def test_mistakes_are_one_line(name: str, arguments: Any, options: dict[str, Any], line: str) -> None:
    with pytest.raises(zoo.ZooError, match=line) as caught:
        zoo.fit(zoo.create_model(name), *arguments, device="cpu", **options)
    assert "\n" not in str(caught.value)


def test_the_most_telling_words_are_drawn() -> None:
    """Every text classifier with a weight or a count for each word shows which ones tell most."""
    wanted = {"naive_bayes": "telling_features", "logistic_regression": "coefficients", "svm": "coefficients",
              "random_forest": "importances", "mlp": "coefficients"}  # fmt: skip
    for name, picture in wanted.items():
        options: dict[str, Any] = {"naive_bayes": {"likelihood": "multinomial"}, "random_forest": {"num_trees": 3},
                                   "mlp": {"widths": []}}.get(name, {})  # fmt: skip
        steps = {"max_epochs": 8, "lr": 0.05} if name == "mlp" else {}
        penalty = {"l2": 1e-3} if name == "logistic_regression" else {}
        model = zoo.fit(zoo.create_model(name, **options), TEXTS, LABELS, device="cpu", **steps, **penalty)
        batch = model.as_batch(model.prepare(TEXTS)._replace(y=model.encode_targets(LABELS, len(TEXTS))))
        with torch.inference_mode():
            pictures = dict(model.pictures(batch, model.predict_batch(batch)))
        labels = [text.get_text() for axes in pictures[picture].axes for text in axes.get_yticklabels()]
        assert {"free", "you"} <= set(labels), name
