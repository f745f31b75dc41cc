"""Pictures of a run: their numbers are those of the whole split, and one that fails takes nothing away."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

import zoo
from zoo.data.array_data import ArrayData
from zoo.training import pictures
from zoo.training.pictures import draw

ROWS = 6000


def drawn(model: Any, data: Any, folder: Path) -> dict[str, str]:
    """The titles of what is drawn, by name."""
    titles, keep = {}, pictures.keep_picture

    def noted(figure: Any, file: Path, *others: Any) -> None:
        titles[file.stem] = figure.axes[0].get_title(loc="left") or figure.get_suptitle()
        keep(figure, file, *others)

    with mock.patch.object(pictures, "keep_picture", noted):
        draw(model, data, "test", folder / "pictures")
    return titles


def noisy(classes: bool) -> ArrayData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 2, generator=generator)
    y = x[:, 0] + torch.randn(ROWS, generator=generator)
    return ArrayData(x, (y > 0).long() if classes else y, test_fraction=0.5)


@pytest.mark.parametrize("most", [None, 2500])
def test_numbers_of_a_classifier_are_those_of_all_rows(
    most: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where so many rows cannot be held at once, the title says how many were."""
    data = noisy(classes=True)
    model = zoo.fit(zoo.create_model("naive_bayes"), data)
    if most is not None:
        monkeypatch.setattr(pictures, "MAX_VALUES", 4 * most)  # a class, a prediction, two probabilities
    titles = drawn(model, data, tmp_path)
    rows = data.rows("test")
    number = len(rows) if most is None else most
    batch = model.as_batch(rows[torch.linspace(0, len(rows) - 1, number, dtype=torch.float64).round().long()])
    score = model.predict_columns(batch)["probability"][:, 1]
    said = "test" if most is None else f"{most:,} of {len(rows):,} test rows"
    assert titles["roc"] == f"ROC, area {roc_auc_score(batch.y, score):.4f} · {said}"
    precision = average_precision_score(batch.y, score)
    assert titles["precision_recall"] == f"precision–recall, average precision {precision:.4f} · {said}"
    right = ((score > 0.5) == batch.y.bool()).double().mean()
    assert titles["confusion_matrix"] == f"accuracy {right:.4f}, {number:,} examples · {said}"
    assert titles["decision_boundary"].endswith(f"of 2,000 points wrong · 2,000 of {len(rows):,} test rows")


def test_r2_of_a_picture_is_that_of_all_rows(tmp_path: Path) -> None:
    data = noisy(classes=False)
    model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), data)
    rows = data.rows("test")
    batch = rows[torch.arange(len(rows))]
    assert batch.y is not None
    expected = r2_score(batch.y, model.predict(batch))
    assert drawn(model, data, tmp_path)["residuals"] == f"R² {expected:.4f} · test"


def test_a_picture_that_fails_is_a_line_and_the_others_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = noisy(classes=True)
    model = zoo.fit(zoo.create_model("naive_bayes"), data)

    def fails(*args: Any) -> Any:
        raise RuntimeError("min(): Expected\nreduction dim")
        yield

    monkeypatch.setattr(type(model), "pictures", fails)
    with caplog.at_level(logging.WARNING):
        titles = drawn(model, data, tmp_path)
    assert set(titles) == {"confusion_matrix", "roc", "precision_recall"}
    assert [r.getMessage() for r in caplog.records] == [
        "Not all pictures could be drawn (RuntimeError: min(): Expected); the run is whole without them."
    ]


def test_densities_of_a_feature_whose_variance_overflows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In its own units; the features that float64 can square are drawn."""
    x = torch.randn(60, 2, dtype=torch.float64) * torch.tensor([1e300, 1.0], dtype=torch.float64)
    data = ArrayData(x, torch.arange(60) % 2, test_fraction=0.5, standardize=True)
    model = zoo.fit(zoo.create_model("naive_bayes"), data)
    assert "densities" in drawn(model, data, tmp_path)
    assert not caplog.records


@pytest.mark.parametrize("scale", [1.0, 6.8e4, 1e-12])
def test_no_title_of_residuals_leaves_the_figure(scale: float) -> None:
    """TensorBoard shows what lies within."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    y = torch.randn(50, dtype=torch.float64) * scale
    figure = zoo.visual.residuals(y, y * 0.3 - 1.2345 * scale, zoo.DataSpec("tabular", (1,), "value"))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        box = axes._left_title.get_window_extent(canvas.get_renderer())
        assert box.x1 <= figure.bbox.x1


def test_nodes_of_a_tree_stand_apart_and_rounding_is_nothing() -> None:
    """Questions about many categories are broken into lines within the node's place."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    generator = torch.Generator().manual_seed(0)
    jobs = [
        f"{kind}-{what}-service" for kind in ("Armed", "Handlers", "Protective") for what in ("cleaners", "farming")
    ]
    codes = torch.randint(6, (600, 2), generator=generator)
    table = {"occupation": [jobs[c] for c in codes[:, 0]], "relationship of theirs": [jobs[c] for c in codes[:, 1]]}
    y = ((codes[:, 0] * 5 + codes[:, 1] * 3) % 7 + torch.randn(600, generator=generator) > 3).long()
    model = zoo.fit(zoo.create_model("gradient_boosting", num_trees=2), table, y, text="codes")
    figure = model.diagram()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes: dict[tuple[float, float], Any] = {}
    for text in figure.axes[0].texts:
        boxes[text.get_position()] = text.get_bbox_patch().get_window_extent(canvas.get_renderer())
    apart = list(boxes.values())
    assert len(apart) > 8

    def overlap(a: Any, b: Any) -> bool:
        return a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1

    overlaps = [(i, j) for i in range(len(apart)) for j in range(i) if overlap(apart[i], apart[j])]
    assert not overlaps
    assert "e-1" not in figure.axes[0].texts[0].get_text()
