"""The demo's pages without a browser: what becomes of a drawing, a form or a text, and what is said of it."""

from __future__ import annotations

import base64
import importlib.util
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from support import run_command
from torch import Tensor

import zoo
from zoo.data.new_rows import read_images
from zoo.data.preprocessing import Preprocessing
from zoo.data.scaling import Standardize
from zoo.data.spec import Batch, DataSpec
from zoo.data.transactions import BasketData
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.text import Tokenizer
from zoo.training.demo import images, pages, plane, sequences, tables, texts
from zoo.training.demo.images import Sheet, fitted, ink_of
from zoo.training.demo.subject import Answer, Subject, say
from zoo.training.demo.widgets import answer_file

DIGITS = torch.from_numpy(sklearn.datasets.load_digits().images).unsqueeze(1)  # (1797, 1, 8, 8), 0 to 16


# -- drawings ---------------------------------------------------------------------------------------------------------


def seven(side: int = 280, left: int = 100, top: int = 40, zoom: int = 1) -> Tensor:
    """A drawn seven, 60 × 100 times the zoom."""
    ink = torch.zeros(side, side)
    ink[top : top + 12 * zoom, left : left + 60 * zoom] = 1
    ink[top : top + 100 * zoom, left + 40 * zoom : left + 60 * zoom] = 1
    return ink


def as_url(ink: Tensor) -> str:
    """What a canvas gives: black ink on nothing as a PNG in a data URL."""
    rgba = np.zeros((*ink.shape, 4), np.uint8)
    rgba[..., 3] = (ink * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(rgba, "RGBA").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_the_ink_of_a_canvas_is_its_opacity() -> None:
    ink = seven() * 0.6
    assert torch.allclose(ink_of(as_url(ink)), ink, atol=1 / 255)


@pytest.mark.parametrize("drawing", ["", "data:image/png;base64,", "data:image/png;base64,AAAA", "no, !!", "x,äö"])
def test_what_is_no_drawing_is_refused(drawing: str) -> None:
    with pytest.raises(ZooError, match="reload the page"):
        ink_of(drawing)


def test_an_empty_canvas_is_refused() -> None:
    with pytest.raises(ZooError, match="Nothing is drawn"):
        fitted(torch.zeros(280, 280), Sheet((1, 8, 8)))


def test_digits_are_light_ink_that_fills_its_image() -> None:
    sheet = Sheet.of((1, 8, 8), 16.0, DIGITS)
    assert sheet == Sheet((1, 8, 8), 16.0, dark=True, share=1.0, middle=sheet.middle, pen=sheet.pen)
    rows, columns = np.indices((8, 8)) + 0.5
    mass = DIGITS[:, 0].numpy()
    for place, measured in zip((rows, columns), sheet.middle or (), strict=True):
        assert abs(((mass * place).sum((1, 2)) / mass.sum((1, 2))).mean() - measured) < 1e-5


def test_the_polarity_and_the_size_of_the_ink_are_those_of_the_training_images() -> None:
    framed = torch.nn.functional.pad(DIGITS, [4, 4, 4, 4])  # (N, 1, 16, 16): the ink takes half of it
    for dark, pixels in ((True, framed), (False, 16 - framed)):
        for channels in (1, 3):
            found = Sheet.of((channels, 16, 16), 16.0, pixels.expand(-1, channels, -1, -1))
            assert found == Sheet((channels, 16, 16), 16.0, dark, share=0.5, middle=found.middle, pen=found.pen)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_pen_is_as_wide_as_the_strokes(width: int) -> None:
    strokes = torch.zeros(2, 1, 40, 40)
    strokes[0, 0, 10 : 10 + width, 2:38] = 255
    strokes[1, 0, 2:38, 20 : 20 + width] = 255
    assert Sheet.of((1, 40, 40), 255.0, strokes).pen == pytest.approx(width, rel=0.15)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 20, 32), (1, 1, 1)])
@pytest.mark.parametrize("share", [0.2, 0.75, 1.0])
def test_a_drawing_gets_size_place_polarity_and_channels(shape: tuple[int, int, int], share: float) -> None:
    image = fitted(seven(), Sheet(shape, white=16.0, dark=True, share=share))
    assert image.shape == shape
    assert image.min() >= 0
    assert image.max() <= 16
    assert all(bool((channel == image[0]).all()) for channel in image)
    there = image[0] > 0
    height, width = int(there.any(1).sum()), int(there.any(0).sum())
    longest = share * max(shape[1:])
    assert height == min(shape[1], max(1, round(longest)))
    assert width == min(shape[2], max(1, round(0.6 * longest)))
    light = fitted(seven(), Sheet(shape, white=16.0, dark=False, share=share))
    assert torch.allclose(light, 16 - image)


def test_where_and_how_large_it_is_drawn_is_all_one() -> None:
    sheet = Sheet((1, 28, 28), share=20 / 28)
    image = fitted(seven(), sheet)
    assert torch.equal(fitted(seven(left=3, top=160), sheet), image)
    larger = fitted(seven(side=560, left=11, top=5, zoom=2), sheet)
    assert (larger - image).abs().max() < 0.05 * 255
    rows = torch.arange(28) + 0.5
    mass = image[0] / image.sum()
    assert abs(float((mass.sum(1) * rows).sum()) - 14) <= 0.51
    assert abs(float((mass.sum(0) * rows).sum()) - 14) <= 0.51


def test_a_digit_that_is_copied_square_by_square_comes_back() -> None:
    """Each pixel as a square of 35 × 35: of all digits it is the nearest, a column to either side or not."""
    sheet = Sheet.of((1, 8, 8), 16.0, DIGITS)
    for row in range(20):
        ink = (DIGITS[row, 0] / 16).repeat_interleave(35, 0).repeat_interleave(35, 1).float()
        moved = [(DIGITS - fitted(ink, sheet).roll(step, -1)).flatten(1).norm(dim=1) for step in (-1, 0, 1)]
        assert int(torch.stack(moved).amin(0).argmin()) == row


def test_white_of_files_is_white_of_the_training_images(tmp_path: Path) -> None:
    """A PNG of a digit is read in the units of the digits, 0 to 16, and not as bytes."""
    spec = DataSpec("image", (1, 8, 8), "class", num_classes=10)
    file = str(tmp_path / "digit.png")
    Image.fromarray((DIGITS[7, 0] * 255 / 16).round().byte().numpy(), "L").save(file)
    digits = Preprocessing(scaling=Standardize(torch.tensor(0.0), torch.tensor(16.0)))
    assert torch.allclose(read_images([file], spec, digits)[0].double(), DIGITS[7], atol=16 / 255)
    for scaling in (None, Standardize(torch.tensor(33.0), torch.tensor(78.0)), Standardize(*torch.tensor([0.0, 255]))):
        pixels = read_images([file], spec, Preprocessing(scaling=scaling))
        assert np.array_equal(pixels[0, 0].numpy(), np.array(Image.open(file)))


def test_what_is_shown_has_whole_squares() -> None:
    pixels = images.shown(DIGITS[3], 16.0)
    assert pixels.shape == (280, 280, 3)
    assert np.array_equal(pixels[::35, ::35, 0], (DIGITS[3, 0] * 255 / 16).round().byte().numpy())


# -- rows -------------------------------------------------------------------------------------------------------------


TABLE: dict[str, Any] = {
    "size": [1.0, 2.0, 4.0, 9.0, 3.0],
    "colour": ["red", "blue", "red", "green", "red"],
    "count": [3, 1, 2, 2, 7],
}
LABELS = ["yes", "no", "yes", "no", "yes"]


@pytest.mark.parametrize("coding", ["onehot", "codes"])
def test_fields_begin_with_medians_and_the_most_frequent_category(coding: str) -> None:
    model = zoo.fit(zoo.create_model("decision_tree"), TABLE, LABELS, text=coding)
    rows = model.prepare(TABLE).x
    size, colour, count = tables.fields_of(model, rows)
    assert (size.default, count.default) == (np.median(TABLE["size"]), np.median(TABLE["count"]))
    assert (colour.default, colour.choices) == ("red", ("blue", "green", "red"))
    row = tables.row_of(model, (size, colour, count), [9.0, "green", 2])
    assert say(model, row).text == model.predict({"size": [9.0], "colour": ["green"], "count": [2]})[0] == "no"


def test_without_training_rows_the_mean_that_the_model_scales_by_stands_in() -> None:
    x = torch.tensor([[1.0, 10], [2, 20], [6, 30]])
    model = zoo.fit(zoo.create_model("logistic_regression"), x, [0, 1, 1], standardize=True)
    assert [field.default for field in tables.fields_of(model, None)] == [3.0, 20.0]
    plain = zoo.fit(zoo.create_model("logistic_regression"), x, [0, 1, 1], standardize=False)
    assert [field.default for field in tables.fields_of(plain, None)] == [0.0, 0.0]


def test_an_empty_field_is_a_missing_value() -> None:
    x = torch.tensor([[1.0, 10], [2, 20], [6, 30]])
    model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), x, [1.0, 2.0, 3.0])
    with pytest.raises(ZooError, match="'feature 1' is empty: fill it in"):
        tables.row_of(model, tables.fields_of(model, x), [1.0, None])
    refusing = zoo.fit(zoo.create_model("naive_bayes"), TABLE, LABELS)
    with pytest.raises(ZooError, match="column 'size' lacks 1 of 1 values"):
        say(refusing, tables.row_of(refusing, tables.fields_of(refusing, None), [None, "red", 1]))
    filling = zoo.fit(zoo.create_model("naive_bayes"), TABLE, LABELS, missing="median")
    fields = tables.fields_of(filling, None)
    answers = [say(filling, tables.row_of(filling, fields, [size, "red", 1])) for size in (None, 3.0)]
    assert answers[0] == answers[1]


def test_the_answer_is_that_of_predict_with_its_probabilities() -> None:
    model = zoo.fit(zoo.create_model("naive_bayes"), TABLE, LABELS)
    row = {name: values[:1] for name, values in TABLE.items()}
    answer = say(model, row)
    assert answer.text == model.predict(row)[0]
    assert answer.shares is not None
    table = model.predict_table(row)
    assert answer.shares == {name: table.column(f"probability_{name}")[0].as_py() for name in ("no", "yes")}
    assert answer.label == answer.shares


def test_the_class_that_is_shown_is_the_one_that_is_predicted() -> None:
    """A machine that votes may answer another class than the most probable one: then no bars contradict it."""
    assert Answer("b", {"a": 0.6, "b": 0.4}).label == "b"
    assert Answer("a", {"a": 0.6, "b": 0.4}).label == {"a": 0.6, "b": 0.4}
    assert Answer("3").label == "3"


def saved(model: ZooModel, folder: Path) -> Subject:
    zoo.save_model(model, folder / "model.ckpt")
    return Subject.of(model, folder / "model.ckpt", folder)


def test_a_dropped_table_is_answered_as_by_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = sklearn.datasets.load_iris(return_X_y=True, as_frame=True)
    subject = saved(zoo.fit(zoo.create_model("logistic_regression"), x, y), tmp_path)
    x.sample(frac=1, random_state=0)[x.columns[::-1]].to_csv(tmp_path / "new.csv", index=False)
    file, table, said = answer_file(str(tmp_path / "new.csv"), subject)
    again = tmp_path / "again.csv"
    assert run_command([f"run={subject.run}", f"data.path={tmp_path}/new.csv", f"output={again}"], "predict") == 0
    assert Path(file).read_bytes() == again.read_bytes()
    assert table["headers"] == ["prediction", "probability_0", "probability_1", "probability_2"]
    assert len(table["data"]) == 150
    assert said == "150 answers."


def test_a_table_without_a_column_is_refused_by_its_name(tmp_path: Path) -> None:
    subject = saved(zoo.fit(zoo.create_model("decision_tree"), TABLE, LABELS), tmp_path)
    (tmp_path / "new.csv").write_text("size,count\n1,2\n")
    with pytest.raises(ZooError, match="no column 'colour'"):
        answer_file(str(tmp_path / "new.csv"), subject)
    assert not list(tmp_path.glob("*_answers.csv"))


# -- texts ------------------------------------------------------------------------------------------------------------


def test_the_text_grows_until_it_is_what_generate_says() -> None:
    tokenizer = Tokenizer.train(["to be or not to be, that is the question"], kind="char")
    spec = DataSpec("tokens", (16,), "tokens", vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.to_json())
    model = zoo.create_model("gpt", spec, num_layers=1, num_heads=2, hidden_size=16)
    found = list(texts.going_on(model, "to be", 20, 0.8, 3, seed=4))
    assert found[0] == "to be"
    assert len(found) > 5
    assert all(later.startswith(before) for before, later in itertools.pairwise(found))
    assert found[-1] == model.generate("to be", steps=20, temperature=0.8, top_k=3, seed=4)


def test_a_gap_is_filled_with_the_likeliest_tokens() -> None:
    tokenizer = Tokenizer.train(["to be or not to be that is the question"], "word")
    spec = DataSpec("tokens", (16,), "tokens", vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.to_json())
    model = zoo.create_model("bert", spec, num_layers=1, num_heads=2, hidden_size=16).eval()
    found = texts.filled(model, "to be ___ not to", 3)
    ids = tokenizer.encode("to be or not to")
    ids[2] = model.mask_token
    shares = model(ids[None])[0, 2].softmax(-1)
    assert list(found.values()) == pytest.approx(shares.sort(descending=True).values[:3].tolist())
    assert list(found) == [tokenizer.vocabulary[i] for i in shares.topk(3).indices.tolist()]
    for text in ("no gap", "two ___ of ___"):
        with pytest.raises(ZooError, match="A text has one gap"):
            texts.filled(model, text)


def test_a_translation_is_that_of_predict_and_the_pair_has_its_tokens() -> None:
    tokenizer = Tokenizer.train(["one two three"], "word", special_tokens=["pad", "unknown", "begin", "end"])
    spec = DataSpec("pairs", (5, 6), "tokens", vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.to_json())
    model = zoo.create_model("seq2seq", spec, hidden_size=8).eval()
    model.preprocessing = Preprocessing()
    said, pair = texts.translated(model, "one two")
    assert said == model.predict(["one two"])[0]
    assert pair.target[0, 0] == tokenizer.special("begin")
    assert pair.y is not None
    assert pair.y[0, -1] == tokenizer.special("end")
    assert torch.equal(pair.target[0, 1:], pair.y[0, :-1])
    with pytest.raises(ZooError, match="nothing to translate"):
        texts.translated(model, " ")


# -- the plane --------------------------------------------------------------------------------------------------------


def test_a_point_moves_the_boundary_as_a_new_fit_does() -> None:
    x = torch.tensor([[0.0, 0], [1, 0], [4, 0], [5, 1]]).double()
    y = torch.tensor([0, 0, 1, 1])
    model = zoo.fit(zoo.create_model("logistic_regression"), x, y, standardize=True)
    after = plane.Plane(model, x, y).with_point((3.0, 2.0), 0)
    assert (len(after.x), after.y.tolist()) == (5, [0, 0, 1, 1, 0])  # type: ignore[union-attr]
    again = zoo.fit(zoo.create_model("logistic_regression"), after.x, after.y, standardize=True)
    points = torch.randn(50, 2, dtype=torch.float64) * 3
    expected = again.predict_columns(points)["probability"]
    assert torch.allclose(after.model.predict_columns(points)["probability"], expected)
    assert not torch.allclose(model.predict_columns(points)["probability"], expected)


def test_a_class_without_a_point_keeps_its_place() -> None:
    """A model fitted to the classes 0 and 2 numbers them 0 and 1; the picture does not."""
    x, y = torch.tensor([[0.0, 0], [1, 0], [4, 0]]).double(), torch.tensor([0, 0, 2])
    start = plane.Plane(zoo.fit(zoo.create_model("decision_tree"), x, torch.tensor([0, 1, 2])), x, y)
    assert start.with_point((5.0, 1.0), 2).columns(x)["prediction"].tolist() == [0, 0, 2]


def test_a_click_falls_where_matplotlib_puts_the_point() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    x = torch.randn(40, 2).double() * torch.tensor([1.0, 100.0])
    model = zoo.fit(zoo.create_model("kmeans", num_clusters=2), x)
    figure = plane.scene(plane.Plane(model, x), model.spec)  # type: ignore[arg-type]
    FigureCanvasAgg(figure).draw()
    frame = plane.Frame.of(figure)
    for point in x[:5].tolist():
        across, up = figure.axes[0].transData.transform(point)
        assert plane.place(frame, (across, figure.bbox.height - up)) == pytest.approx(point)


def test_centroids_are_drawn_where_their_points_are() -> None:
    """In the units of the user, also of a model that scales."""
    x = torch.cat([torch.randn(20, 2) + torch.tensor([100.0, -3]), torch.randn(20, 2)]).double()
    model = zoo.fit(zoo.create_model("kmeans", num_clusters=2), x, standardize=True)
    label = model.predict(x)
    centroids = plane.centroids_of(model)
    assert centroids is not None
    for k in (0, 1):
        assert torch.allclose(centroids[k].double(), x[label == k].mean(0), atol=1e-4)


# -- sequences, series, baskets ---------------------------------------------------------------------------------------


def test_a_sequence_comes_back_from_its_text() -> None:
    x = torch.tensor([[0.5, -1, 2], [1e-3, 0, 7]])
    assert torch.equal(sequences.numbers_of(sequences.typed(x), 3), x)
    assert torch.equal(sequences.numbers_of("\n0.5,-1 2\n\n0.001, 0, 7\n", 3), x)


@pytest.mark.parametrize(
    ("text", "line"), [("", "no step"), ("1 2\n3", "Line 2 has 1 numbers"), ("1 x", "Line 1 holds more than numbers")]
)
def test_a_text_that_is_no_sequence_is_refused_by_its_line(text: str, line: str) -> None:
    with pytest.raises(ZooError, match=line):
        sequences.numbers_of(text, 2)


def test_the_rules_that_speak_of_a_basket_are_those_that_apply_and_add() -> None:
    baskets = [["a", "b", "c"], ["a", "b"], ["a", "c"], ["b", "c", "d"], ["a", "b", "c"]]
    model = zoo.fit(zoo.create_model("apriori", min_support=0.2, min_confidence=0.5, min_lift=0.0), BasketData(baskets))
    said, rules = sequences.advice(model, ["a", "b"])
    expected = [
        rule
        for rule in model.rules.table(model.spec.feature_names)  # type: ignore[union-attr]
        if set(str(rule["antecedent"]).split(" + ")) <= {"a", "b"}
        and not set(str(rule["consequent"]).split(" + ")) <= {"a", "b"}
    ]
    assert expected
    assert rules == expected
    assert said.startswith(model.predict([["a", "b"]])[0])
    with pytest.raises(ZooError, match="basket is empty"):
        sequences.advice(model, [])


# -- which page -------------------------------------------------------------------------------------------------------


def test_each_kind_of_data_has_its_page() -> None:
    x = torch.randn(30, 2)
    assert pages.page_of(zoo.fit(zoo.create_model("kmeans", num_clusters=2), x)) is pages.tabular
    pixels = zoo.fit(zoo.create_model("pca", num_components=2), torch.rand(9, 1, 4, 4))
    assert pages.page_of(pixels) is images.page
    spam = zoo.fit(zoo.create_model("naive_bayes"), ["win cash now", "see you soon"], ["spam", "ham"])
    assert pages.page_of(spam) is texts.class_page
    rules = zoo.fit(zoo.create_model("apriori", min_support=0.2), BasketData([["a", "b"], ["a"]]))
    assert pages.page_of(rules) is sequences.basket_page


def test_a_model_with_nothing_to_show_is_refused_by_its_name() -> None:
    spec = DataSpec("tokens", (8,), "tokens", vocab_size=5)  # numbers that are no text
    model = zoo.create_model("gpt", spec, num_layers=1, num_heads=1, hidden_size=4)
    with pytest.raises(ZooError, match="gpt comes without preprocessing"):
        pages.page_of(model)
    model.preprocessing = Preprocessing()
    with pytest.raises(ZooError, match=r"gpt on tokens data .* has nothing to show"):
        pages.page_of(model)


def test_without_gradio_one_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = saved(zoo.fit(zoo.create_model("kmeans", num_clusters=2), torch.randn(9, 2)), tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "gradio" else found(name, *a))
    assert run_command([f"run={subject.run}"], "demo") == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("pip install 'refzoo[demo]'.")
    assert run_command([f"run={subject.run}", "port=70000"], "demo") == 1
    assert "port must be" in capsys.readouterr().err


def test_the_training_rows_are_those_of_the_run(tmp_path: Path) -> None:
    """In the user's units; and a page is there without them."""
    subject = saved(zoo.fit(zoo.create_model("kmeans", num_clusters=2), torch.randn(9, 2)), tmp_path)
    assert subject.raw is None
    assert subject.title == "kmeans"
    model = zoo.fit(zoo.create_model("logistic_regression"), *sklearn.datasets.load_iris(return_X_y=True))
    model.preprocessing = Preprocessing(scaling=Standardize(torch.full((4,), 2.0), torch.full((4,), 3.0)))
    of_run = Subject(model, tmp_path, tmp_path, {"data": {"name": "iris", "seed": 0}})
    assert of_run.raw is not None
    assert isinstance(of_run.rows, Batch)
    bundled = torch.from_numpy(sklearn.datasets.load_iris().data)
    assert bool((torch.cdist(of_run.raw.double(), bundled).min(1).values < 1e-6).all())
    gone = Subject(model, tmp_path, tmp_path, {"data": {"name": "csv", "path": "gone.csv", "target": "a"}})
    assert gone.raw is None
