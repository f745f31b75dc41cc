"""The pictures say what the data say: numbers drawn equal the counts, extents are finite."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure

from zoo import DataSpec, visual
from zoo.models.mlp import MLP
from zoo.visual.clusters import plane
from zoo.visual.images import mosaic
from zoo.visual.supervised import confusion_counts


def classes(count: int = 3, **fields) -> DataSpec:
    return DataSpec(kind="tabular", shape=(2,), target="class", num_classes=count, **fields)


def drawn_numbers(figure: Figure) -> list[int]:
    return [int(text.get_text()) for text in figure.axes[0].texts]


def assert_renders(figure: Figure, tmp_path) -> None:
    """It draws to a PNG, and every axis has a finite, non-empty extent."""
    visual.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    for axes in figure.axes:
        for low, high in (axes.get_xlim(), axes.get_ylim()):
            assert torch.isfinite(torch.tensor([low, high])).all()
            assert low != high


def test_confusion_matrix_draws_the_counts_with_the_class_names(tmp_path):
    y, predicted = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 2, 0])
    figure = visual.confusion_matrix(y, predicted, classes(class_names=("ant", "bee", "cat")))
    assert drawn_numbers(figure) == [1, 1, 0, 0, 1, 0, 1, 0, 2]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["ant", "bee", "cat"]
    assert "0.6667" in figure.axes[0].get_title(loc="left")
    assert "6 examples" in figure.axes[0].get_title(loc="left")
    assert_renders(figure, tmp_path)


@pytest.mark.parametrize("count", [2, 10, 21, 100])
def test_confusion_counts_are_those_of_a_plain_loop(count, tmp_path):
    y, predicted = torch.randint(count, (2, 500), generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(count, count, dtype=torch.long)
    for row, column in zip(y.tolist(), predicted.tolist(), strict=True):
        expected[row, column] += 1
    assert torch.equal(confusion_counts(y, predicted, count), expected)
    figure = visual.confusion_matrix(y, predicted, classes(count))
    assert drawn_numbers(figure) == (expected.flatten().tolist() if count <= 20 else [])
    assert len(figure.axes[0].get_xticklabels()) <= 25
    assert_renders(figure, tmp_path)


def test_confusion_matrix_of_a_class_that_never_occurs(tmp_path):
    figure = visual.confusion_matrix(torch.tensor([0, 0]), torch.tensor([0, 0]), classes(2))
    assert drawn_numbers(figure) == [2, 0, 0, 0]
    assert_renders(figure, tmp_path)


def fitted_plane_classifier() -> MLP:
    """Decides for class 1 where the first feature is positive."""
    model = MLP(widths=[])
    model.build(classes(2, feature_names=("length", "width")))
    with torch.no_grad():
        model.net[-1].weight.copy_(torch.tensor([[-4.0, 0.0], [4.0, 0.0]]))
        model.net[-1].bias.zero_()
    return model


def test_decision_boundary_colours_each_side_and_counts_the_wrong_points(tmp_path):
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [2.0, 1.0]])
    model = fitted_plane_classifier()
    figure = visual.decision_boundary(model.predict_columns, x, torch.tensor([0, 1, 0]), model.spec)
    axes = figure.axes[0]
    shades = torch.tensor(axes.images[0].get_array())  # (rows, columns, RGB)
    for side, color in zip((shades[:, 0], shades[:, -1]), visual.class_colors(2), strict=True):
        target = torch.tensor([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)], dtype=torch.float64)
        strength = (1 - side) / (1 - target)  # white mixed with the colour: the same share in each channel
        torch.testing.assert_close(strength, strength[:, :1].expand(-1, 3), rtol=1e-9, atol=0)
        assert strength.min() > 0.4
    assert shades.min() >= 0
    assert shades.max() <= 1
    assert "1 of 3 points wrong" in axes.get_title(loc="left")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("length", "width")
    assert sum(len(points.get_offsets()) for points in axes.collections) == 3
    assert_renders(figure, tmp_path)


def test_decision_boundary_of_one_point_and_of_a_constant_feature(tmp_path):
    model = fitted_plane_classifier()
    for x in (torch.zeros(1, 2), torch.tensor([[0.0, 1.0], [0.0, 2.0]])):
        y = torch.zeros(len(x), dtype=torch.long)
        assert_renders(visual.decision_boundary(model.predict_columns, x, y, model.spec), tmp_path)


def test_decision_boundary_leaves_the_model_as_it_was():
    model = fitted_plane_classifier().train()
    visual.decision_boundary(model.predict_columns, torch.randn(5, 2), torch.zeros(5, dtype=torch.long), model.spec)
    assert model.training


def test_residuals_draw_all_points_and_count_them_in_the_histogram(tmp_path):
    y = torch.linspace(0, 10, 200, dtype=torch.float64)
    predicted = y + torch.sin(7 * y)
    spec = DataSpec(kind="tabular", shape=(1,), target="value", target_names=("height",))
    figure = visual.residuals(y, predicted, spec)
    left, right = figure.axes
    offsets = torch.tensor(left.collections[0].get_offsets())
    assert torch.equal(offsets, torch.stack([y, predicted], 1))
    assert left.get_xlabel() == "true height"
    r2 = float(1 - (y - predicted).square().sum() / (y - y.mean()).square().sum())
    assert f"{r2:.4f}" in left.get_title(loc="left")
    assert sum(bar.get_height() for bar in right.patches) == 200
    assert_renders(figure, tmp_path)


@pytest.mark.parametrize("shape", [(1,), (50, 3), (4, 1)])
def test_residuals_of_any_number_of_targets_and_of_a_single_row(shape, tmp_path):
    y = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    spec = DataSpec(kind="tabular", shape=(1,), target="value", num_targets=shape[-1] if len(shape) > 1 else 1)
    assert_renders(visual.residuals(y, y * 0.9, spec), tmp_path)


def test_residuals_leave_out_what_is_not_finite(tmp_path):
    y, spec = torch.tensor([1.0, 2.0, 3.0]), DataSpec(kind="tabular", shape=(1,), target="value")
    figure = visual.residuals(y, torch.tensor([1.0, float("nan"), 3.5]), spec)
    assert len(figure.axes[0].collections[0].get_offsets()) == 2
    assert_renders(figure, tmp_path)


def test_mosaic_puts_every_tile_in_its_place():
    tiles = torch.arange(5 * 2 * 3, dtype=torch.float64).view(5, 2, 3)
    canvas = mosaic(tiles, columns=2)
    assert canvas.shape == (3 * 3 - 1, 2 * 4 - 1)
    for index, tile in enumerate(tiles):
        top, left = index // 2 * 3, index % 2 * 4
        assert torch.equal(canvas[top : top + 2, left : left + 3], tile)
    assert int(canvas.isfinite().sum()) == tiles.numel()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 1, 8, 8), (3, 3, 32, 32), (2, 4, 16, 6), (9, 2, 4, 40)])
def test_images_of_any_shape(shape, tmp_path):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    figure = visual.images(x, [str(index) for index in range(len(x))], title="some")
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [str(index) for index in range(len(x))]
    for axes in shown:
        values = torch.tensor(axes.images[0].get_array())
        assert values.min() >= 0
        assert values.max() <= 1
    assert_renders(figure, tmp_path)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (16, 1, 3, 3), (40, 3, 7, 7), (6, 8, 5, 5)])
def test_filters_are_drawn_on_a_scale_that_is_symmetric_around_zero(shape, tmp_path):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    figure = visual.filters(weight, activations=torch.rand(shape[0], 6, 6), limit=32)
    image = figure.axes[0].images[0]
    if shape[1] != 3:
        low, high = image.get_clim()
        assert low == -high == -float(weight.flatten(0, 1)[:32].abs().max())
        drawn = torch.tensor(image.get_array().filled(torch.nan))
        expected = weight.flatten(0, 1)[:32].flatten().sort().values
        assert torch.equal(drawn[drawn.isfinite()].sort().values, expected)
    assert_renders(figure, tmp_path)


def test_clusters_of_two_features_stand_where_they_are(tmp_path):
    x = torch.tensor([[0.0, 1.0], [0.0, 2.0], [5.0, 5.0]], dtype=torch.float64)
    spec = DataSpec(kind="tabular", shape=(2,), feature_names=("east", "north"))
    figure = visual.clusters(x, torch.tensor([0, 0, 1]), torch.tensor([[0.0, 1.5], [5.0, 5.0]]), spec)
    axes = figure.axes[0]
    points = torch.cat([torch.tensor(c.get_offsets().data) for c in axes.collections[:-1]])
    assert torch.equal(points, x)
    assert torch.tensor(axes.collections[-1].get_offsets().data).tolist() == [[0.0, 1.5], [5.0, 5.0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("east", "north")
    assert [text.get_text() for text in axes.texts] == ["0", "1"]
    assert_renders(figure, tmp_path)


def test_plane_of_many_features_is_that_of_the_singular_value_decomposition():
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * torch.arange(1, 6)
    origin, axes, names = plane(x)
    _, values, vectors = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    torch.testing.assert_close((axes.T @ vectors[:2].T).abs(), torch.eye(2, dtype=x.dtype), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(origin, x.mean(0))
    share = values.square() / values.square().sum()
    assert f"({100 * float(share[0]):.0f} % of variance)" in names[0]


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (5, 1, 8, 8)])
def test_clusters_of_one_point_one_feature_images_and_noise(shape, tmp_path):
    x = torch.rand(shape)
    labels = torch.arange(shape[0]) - 1
    figure = visual.clusters(x, labels)
    assert "1 noise" in figure.axes[0].get_title(loc="left")
    assert_renders(figure, tmp_path)


def test_curve_draws_each_series(tmp_path):
    figure = visual.curve({"a": [1.0, 2.0, 4.0], "b": torch.tensor([3.0, 1.0, 0.5])}, [0, 10, 20], xlabel="step")
    lines = figure.axes[0].lines
    assert [line.get_xydata().tolist() for line in lines] == [
        [[0, 1], [10, 2], [20, 4]],
        [[0, 3], [10, 1], [20, 0.5]],
    ]
    assert figure.axes[0].get_xlabel() == "step"
    assert_renders(figure, tmp_path)
    assert_renders(visual.curve([1.0]), tmp_path)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 30])
def test_class_colours_all_differ(count):
    colors = visual.class_colors(count)
    assert len(set(colors)) == len(colors) == count


def test_style_leaves_the_callers_settings_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    visual.curve([1.0, 2.0])
    assert dict(matplotlib.rcParams) == before
