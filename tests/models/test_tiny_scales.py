"""Numbers at the edge of float64: solved, or one line that says what to do."""

from __future__ import annotations

import warnings

import pytest
import torch

import zoo

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1e-300, 1e-320])
def test_tsne_of_denormal_rows_is_that_of_others(scale: float) -> None:
    def fitted(x: torch.Tensor) -> torch.Tensor:
        model = zoo.fit(zoo.create_model("tsne", perplexity=5, num_steps=10, precision="double"), x)
        return model.embedding

    found = fitted(X * scale)
    assert found.isfinite().all()
    if scale > 1e-308:  # all digits are there
        assert torch.allclose(found, fitted(X), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("scale", "size"), [(1e-160, "small"), (1e-300, "small"), (1e160, "large")])
def test_naive_bayes_says_that_squares_leave_float64(scale: float, size: str) -> None:
    y = (X[:, 0] > 0).long()
    with pytest.raises(zoo.ZooError, match=f"The features are too {size} for naive_bayes.*standardize=true"):
        zoo.fit(zoo.create_model("naive_bayes"), X * scale, y)
    assert zoo.fit(zoo.create_model("naive_bayes"), X * scale, y, standardize=True).score(X * scale, y) > 0.9
    fine = zoo.fit(zoo.create_model("naive_bayes"), X * 1e-150, y)
    expected = zoo.fit(zoo.create_model("naive_bayes"), X, y).predict(X)
    assert torch.equal(fine.predict(X * 1e-150), expected)


@pytest.mark.parametrize("constant", [0.0, 1.0, 1e-20])
def test_features_that_do_not_vary_are_no_tiny_ones(constant: float) -> None:
    model = zoo.fit(zoo.create_model("naive_bayes"), torch.full((6, 2), constant), torch.tensor([0, 1, 1, 1, 1, 1]))
    assert model.predict(torch.full((1, 2), constant)).item() == 1  # the priors


def test_linear_regression_says_that_its_coefficients_overflow() -> None:
    y = X @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert zoo.fit(zoo.create_model("linear_regression"), X * 1e-300, y).score(X * 1e-300, y) == pytest.approx(1)
    with pytest.raises(zoo.ZooError, match="coefficients of linear_regression are too large for float64"):
        zoo.fit(zoo.create_model("linear_regression"), X * 1e-310, y)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("svm", {}), ("svm", {"method": "dual"}), ("svm", {"features": "nystroem", "num_components": 5}),
        ("kernel_svm", {}), ("kernel_svm", {"kernel": "linear"}), ("kernel_svm", {"gamma": 1.0}),
        ("one_class_svm", {}), ("naive_bayes", {}),
    ],
)  # fmt: skip
def test_a_column_whose_squares_overflow_is_a_line_and_not_chance(name: str, options: dict[str, object]) -> None:
    x, y = X * torch.tensor([1e300, 1.0, 1.0], dtype=torch.float64), (X[:, 0] > 0).long()
    y = None if name == "one_class_svm" else y
    with pytest.raises(zoo.ZooError, match=r"standardize=true does\.$") as found:
        zoo.fit(zoo.create_model(name, **options), x, y)
    assert "\n" not in str(found.value)
    zoo.fit(zoo.create_model(name, **options), x, y, standardize=True)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error"])
def test_boosting_of_huge_targets_is_that_of_others(loss: str) -> None:
    y = X[:, 0] + X[:, 1]
    options = {"loss": loss, "num_trees": 5, "min_samples_leaf": 5}
    plain = zoo.fit(zoo.create_model("gradient_boosting", **options), X, y).predict(X)
    huge = zoo.fit(zoo.create_model("gradient_boosting", **options), X, y * 2.0**996).predict(X)
    assert torch.allclose(huge / 2.0**996, plain, rtol=1e-12)


def test_rows_too_small_for_a_scaled_kernel_are_a_line() -> None:
    with pytest.raises(zoo.ZooError, match="too large or too small for a kernel"):
        zoo.fit(zoo.create_model("kernel_svm"), X * 1e-200, (X[:, 0] > 0).long())


@pytest.mark.parametrize(
    ("name", "options", "others"),
    [
        ("svm", {}, 0.0), ("svm", {"method": "dual"}, 0.0), ("svm", {"method": "dual", "loss": "hinge"}, 1.0),
        ("kernel_svm", {"kernel": "linear"}, 0.0), ("kernel_svm", {}, 1.0), ("naive_bayes", {}, 1.0),
    ],
)  # fmt: skip
def test_a_column_too_small_to_count_is_a_line_and_not_chance(
    name: str, options: dict[str, object], others: float
) -> None:
    """The column that tells the classes is 1e-100; the others are nothing, or noise."""
    x, y = X * torch.tensor([1e-100, others, others], dtype=torch.float64), (X[:, 0] > 0).long()
    with pytest.warns(UserWarning, match=r"1 of 3 features \(by place: 0\).*as standardize=true does\.$"):
        zoo.fit(zoo.create_model(name, **options), x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert zoo.fit(zoo.create_model(name, **options), x, y, standardize=True).score(x, y) > 0.9
        zoo.fit(zoo.create_model(name, **options), x + X * 1e-3, y)  # small, and no word of it
