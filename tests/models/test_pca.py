"""PCA against scikit-learn and NumPy's covariance, and what must not change with batches, processes and order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from zoo.data.spec import Batch
from zoo.models.pca import PCA
from zoo.numerics.moments import BLOCK, centred_blocks, gram, mean_shift, scatter_blocks
from zoo.numerics.spectra import components_for_share, fix_signs, greatest_eigenvalues, krylov_block

SOLVERS = ["covariance", "svd", "randomized"]


def rows_of(count: int = 200, width: int = 7, seed: int = 0) -> Tensor:
    """Correlated rows of decaying variance, away from zero."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    scales = 3.0 ** -torch.arange(width, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) * scales @ mix + 5


def fitted(x: Tensor, batch_size: int | None = None, weight: Tensor | None = None, **hparams: Any) -> PCA:
    if hparams.get("solver") == "randomized":
        hparams = {"num_components": 3, **hparams}
    return zoo.fit(zoo.create_model("pca", **hparams), x, sample_weight=weight, batch_size=batch_size)


def close(ours: Any, theirs: Any, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=rtol, atol=atol)


def assert_same(model: PCA, other: PCA, rtol: float = 1e-9) -> None:
    for name in ("center", "components", "explained_variance", "explained_variance_ratio", "noise_variance"):
        close(getattr(model, name), getattr(other, name), rtol=rtol, atol=rtol)


# -- figures and oracles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_iris_has_the_published_shares(solver: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    model = fitted(datasets.load_iris().data, num_components=2, solver=solver)
    assert model.explained_variance_ratio.tolist() == pytest.approx([0.92461872, 0.05306648], abs=5e-9)


@pytest.mark.parametrize("solver", ["covariance", "svd"])
@pytest.mark.parametrize("whiten", [False, True])
def test_digits_equal_scikit_learns(solver: str, whiten: bool) -> None:
    x = pytest.importorskip("sklearn.datasets").load_digits().data
    decomposition = pytest.importorskip("sklearn.decomposition")
    theirs = decomposition.PCA(20, whiten=whiten, svd_solver="full").fit(x)
    model = fitted(x, num_components=20, solver=solver, whiten=whiten)
    assert float(model.explained_variance_ratio.sum()) == pytest.approx(0.89430, abs=5e-6)
    close(model.center, theirs.mean_)
    close(model.explained_variance, theirs.explained_variance_)
    close(model.explained_variance_ratio, theirs.explained_variance_ratio_)
    close(model.noise_variance, theirs.noise_variance_)
    close(model.components, theirs.components_, atol=1e-10)
    projected = model.predict(x)
    close(projected, theirs.transform(x), atol=1e-9)
    close(model.inverse_transform(projected), theirs.inverse_transform(theirs.transform(x)), atol=1e-9)
    # scikit-learn's covariance counts the variance twice where it whitens; the model is the same.
    theirs = decomposition.PCA(20, svd_solver="full").fit(x)
    close(model.covariance(), theirs.get_covariance(), atol=1e-10)
    close(model.log_likelihood(torch.from_numpy(x)), theirs.score_samples(x))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_all_components_of_few_rows_restore_them(solver: str, shape: tuple[int, int]) -> None:
    x = rows_of(*shape)
    kept = min(shape)
    model = fitted(x, solver=solver, num_components=kept)
    close(model.inverse_transform(model.predict(x)), x, rtol=1e-7)
    close(model.components @ model.components.T, torch.eye(kept), atol=1e-9)
    close(model.explained_variance, np.sort(np.linalg.eigvalsh(np.cov(x.numpy().T)))[::-1][:kept], rtol=1e-6, atol=1e-9)


def test_the_factor_keeps_variances_that_the_covariance_loses() -> None:
    scales = torch.tensor([1.0, 1e-5, 1e-10], dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    x = torch.randn(500, 3, dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0)).Q * scales @ basis.T  # standard deviations scales / √499, exactly so
    model = fitted(x, solver="svd", batch_size=50)
    close(model.explained_variance.sqrt(), scales / 499**0.5, rtol=1e-5)


def test_shifted_float32_rows_keep_their_covariance() -> None:
    x = rows_of(5000) - 5
    shifted = (x + 1e4).float()
    exact = np.cov(shifted.double().numpy().T)
    for precision, bound in (("double", 1e-9), ("single", 1e-4)):
        model = fitted(shifted, batch_size=64, precision=precision)
        error = np.linalg.norm(model.covariance().numpy() - exact) / np.linalg.norm(exact)
        assert error <= bound


def test_randomized_finds_the_leading_components_of_wide_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (300, 2000))
    x = left * 2.0 ** -torch.arange(8) @ right.T + 1e-3 * torch.randn(300, 2000, generator=generator)
    model = fitted(x, num_components=5, solver="randomized", batch_size=64)
    centred = (x - x.mean(0)).numpy()
    _, s, vectors = np.linalg.svd(centred, full_matrices=False)
    close(model.explained_variance, s[:5] ** 2 / 299)
    close(model.components, fix_signs(torch.from_numpy(vectors[:5])), atol=1e-7)
    close(model.explained_variance_ratio, s[:5] ** 2 / (s**2).sum())
    close(model.noise_variance, (s[5:] ** 2).sum() / 299 / 295)
    assert model.sketch.shape == (2000, 15)


@pytest.mark.parametrize(("shape", "wanted"), [((1000, 100), 2), ((2000, 500), 5), ((500, 2000), 5), ((300, 300), 20)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_randomized_on_a_spectrum_that_hardly_decays(shape: tuple[int, int], wanted: int, dtype: torch.dtype) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    exact = np.linalg.svd((x.double() - x.double().mean(0)).numpy(), compute_uv=False)[:wanted] ** 2 / (len(x) - 1)
    theirs = decomposition.PCA(wanted, svd_solver="randomized", random_state=0).fit(x.double().numpy())
    ours = fitted(x, num_components=wanted, solver="randomized").explained_variance.numpy()
    error = np.abs(ours / exact - 1).max()
    assert error < 0.04  # in the default five passes
    assert error < np.abs(theirs.explained_variance_ / exact - 1).max()
    more = fitted(x, num_components=wanted, solver="randomized", num_passes=30, batch_size=300)
    close(more.explained_variance, exact)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6, 1e-12])
def test_randomized_passes_go_on_until_the_components_are_met(tolerance: float) -> None:
    x = torch.randn(400, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = fitted(x, num_components=3, solver="randomized", num_passes=1000, tolerance=tolerance, batch_size=64)
    scatter = (x - x.mean(0)).T @ (x - x.mean(0))
    values = model.explained_variance * (len(x) - 1)
    residual = torch.linalg.vector_norm(scatter @ model.components.T - model.components.T * values, dim=0)
    assert bool((residual <= (tolerance + 1e-13) * values[0]).all())
    assert model.basis.shape[1] < 300 or tolerance < 1e-11


def test_the_likeliest_number_of_components() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator) @ torch.randn(3, 9, generator=generator)
    model = fitted(x + 0.1 * torch.randn(300, 9, generator=generator), num_components="mle")
    assert len(model.components) == 3
    with pytest.raises(zoo.ZooError, match="mle needs at least as many rows as features"):
        fitted(x[:5], num_components="mle")


def test_a_randomized_solver_that_has_not_settled_says_so() -> None:
    x = torch.randn(500, 2000, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"still move after 1 passes; raise model\.num_passes"):
        fitted(x, num_components=5, solver="randomized", num_passes=1)


@pytest.mark.parametrize("rank", [0, 1, 2, 5, 9])
def test_a_krylov_basis_stays_orthonormal_and_ends_in_the_whole_space(rank: int) -> None:
    factor = torch.randn(rank, 9, dtype=torch.float64) * 10.0 ** torch.arange(0, -9, -1)
    matrix, basis, size = factor.T @ factor, torch.linalg.qr(torch.randn(9, 2, dtype=torch.float64)).Q, 0
    columns = []
    while size < basis.shape[1]:
        block, size = basis[:, size:], basis.shape[1]
        column, new = krylov_block(basis, matrix @ block, seed=size)
        columns.append(torch.nn.functional.pad(column, (0, 0, 0, 9 - len(column))))
        basis = torch.cat([basis, new], 1)
        close(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-13)
    projected = torch.cat(columns, 1)
    lower = projected.triu() + projected.triu(1).T
    close(torch.linalg.eigvalsh(lower), np.linalg.eigvalsh(matrix.numpy()), atol=1e-12)


# -- batches, processes, order, weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_and_the_order_of_rows_change_nothing(solver: str, batch_size: int) -> None:
    x = rows_of()
    shuffled = x[torch.randperm(len(x))]
    assert_same(fitted(shuffled, batch_size, solver=solver), fitted(x, solver=solver))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("parts", [(0, 200), (1, 199), (120, 80)])
def test_two_processes_find_what_one_finds(solver: str, parts: tuple[int, int]) -> None:
    x = rows_of()
    whole = fitted(x, solver=solver)
    first, second = (zoo.create_model("pca", spec=whole.spec, **whole.hparams) for _ in range(2))
    for _ in range(whole.hparams.num_passes if solver == "randomized" else 1):
        for model, rows in zip((first, second), x.split(parts), strict=True):
            model.reset_accumulators()
            model.accumulate(Batch(rows))
        merged = first.merge([first._state(), second._state()])
        for model in (first, second):
            for name, value in merged.items():
                setattr(model, name, value.clone())
            model.solve()
    assert_same(first, whole)
    assert_same(second, whole)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_whole_weight_counts_as_repeats_and_zero_as_absence(solver: str) -> None:
    x, weight = rows_of(50), torch.arange(50, dtype=torch.float64) % 4
    repeated = x.repeat_interleave(weight.long(), dim=0)
    assert_same(fitted(x, 7, weight, solver=solver), fitted(repeated, solver=solver))


def test_blocks_of_rows_merge_to_the_moments_of_all() -> None:
    x = rows_of(2 * BLOCK + 3, 3)
    nothing = torch.zeros((), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    scatter = torch.zeros(3, 3, dtype=torch.float64)
    sizes = []
    for so_far in centred_blocks(*nothing, x):
        count, mean, z = so_far
        scatter += gram(z)
        sizes.append(len(z) - 1)
    assert sizes == [BLOCK, BLOCK, 3]
    close(mean, x.numpy().mean(0))
    close(scatter / (count - 1), np.cov(x.numpy().T))


@pytest.mark.parametrize("shift", [0.0, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scatter_is_that_of_centred_rows_near_zero_or_far(shift: float, dtype: torch.dtype) -> None:
    x = torch.randn(3000, 4, dtype=torch.float64).to(dtype) + shift
    count, mean = torch.zeros((), dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    scatter = torch.zeros(4, 4, dtype=torch.float64)
    for part in x.split((1, 999, 2000)):
        for so_far in scatter_blocks(count, mean, part, dtype=dtype):
            count, mean, added = so_far
            scatter += added
    rtol = 1e-9 if dtype == torch.float64 else 1e-5
    exact = x.double().numpy()
    close(mean, exact.mean(0), rtol=rtol, atol=rtol)
    close(scatter / 2999, np.cov(exact.T), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_some_rows_that_mislead_about_the_mean_cost_no_digits(dtype: torch.dtype) -> None:
    x = torch.randn(5120, 70, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:: 5120 // 256] += 1000  # the rows that the mean is judged by
    x[1::2] += 1000 * 5120 / 256
    ((_, mean, scatter),) = scatter_blocks(torch.tensor(0.0), torch.zeros(70), x.to(dtype), dtype=dtype)
    centred = x - x.mean(0)
    rtol = 1e-10 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(mean, x.mean(0), rtol=rtol, atol=0)
    torch.testing.assert_close(scatter, centred.T @ centred, rtol=rtol, atol=0)


@pytest.mark.parametrize("number", [1, 20, 30, 31, None])
def test_the_greatest_eigenvalues_are_those_of_all(number: int | None) -> None:
    z = torch.randn(400, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z[:, 1] = z[:, 0]
    values, vectors = greatest_eigenvalues(z.T @ z, number)
    expected = torch.linalg.eigvalsh(z.T @ z).flip(0)[: len(values)]
    assert len(values) == len(vectors) >= (number or 300)
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(len(values), dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(vectors @ (z.T @ z), values[:, None] * vectors, rtol=0, atol=1e-9)


def test_merging_with_nothing_changes_nothing() -> None:
    nothing, mean = torch.zeros(()), torch.tensor([1.0, 2.0])
    count, merged, row = mean_shift(nothing, torch.zeros(2), torch.tensor(3.0), mean)
    assert (count.item(), merged.tolist(), row.tolist()) == (3.0, [1.0, 2.0], [0.0, 0.0])
    count, merged, row = mean_shift(nothing, torch.zeros(2), nothing, torch.zeros(2))
    assert (count.item(), merged.tolist(), row.tolist()) == (0.0, [0.0, 0.0], [0.0, 0.0])


@pytest.mark.parametrize("width", [1, 63, 64, 65, 130, 300])
def test_the_gram_matrix_of_any_width(width: int) -> None:
    z = torch.randn(20, width, dtype=torch.float64)
    close(gram(z), z.T @ z)


# -- options ---------------------------------------------------------------------------------------------------------


def test_a_share_of_the_variance_chooses_the_number() -> None:
    x = rows_of()
    shares = fitted(x).explained_variance_ratio
    for share in (0.5, 0.9, 0.999):
        model = fitted(x, num_components=share)
        total = model.explained_variance_ratio.sum()
        assert float(total) > share
        assert float(total - shares[len(model.components) - 1]) <= share
    assert components_for_share(torch.tensor([0.0, 0.0]), 0.5) == 1


def test_whitened_projections_have_unit_covariance() -> None:
    x = rows_of()
    projected = fitted(x, whiten=True, num_components=5).predict(x)
    close(torch.cov(projected.T), torch.eye(5), rtol=1e-9, atol=1e-9)


def test_signs_do_not_hang_on_rounding() -> None:
    half = 0.5**0.5
    for first in (half, half * (1 + 1e-15), half * (1 - 1e-15)):
        row = torch.tensor([[-first, half]], dtype=torch.float64)
        assert fix_signs(row)[0, 0] > 0
    assert fix_signs(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


def test_images_are_flattened_and_come_back() -> None:
    x = rows_of(30, 12).reshape(30, 1, 3, 4)
    model = fitted(x)
    assert model.components.shape == (12, 12)
    close(model.inverse_transform(model.predict(x)), x, rtol=1e-8)
    batch = model.as_batch(Batch(x))
    names = [name for name, _ in model.pictures(batch, model.predict_batch(batch))]
    assert names == ["scree", "map", "components"]


# -- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_equal_rows_have_no_variance_and_no_nan(solver: str) -> None:
    x = torch.full((5, 3), 7.0, dtype=torch.float64)
    model = fitted(x, solver=solver, num_components=2, whiten=True)
    assert model.explained_variance.tolist() == [0.0, 0.0]
    assert model.explained_variance_ratio.tolist() == [0.0, 0.0]
    assert model.predict(x).tolist() == [[0.0, 0.0]] * 5
    close(model.inverse_transform(model.predict(x)), x)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_constant_feature_divides_by_nothing(solver: str) -> None:
    x = rows_of(40, 4)
    x[:, 2] = 3.0
    model = fitted(x, solver=solver, num_components=4, whiten=True)
    assert bool(torch.isfinite(model.predict(x)).all())
    assert float(model.explained_variance[3]) == pytest.approx(0.0, abs=1e-12)
    close(model.components[:3, 2], torch.zeros(3))


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_row_is_refused(solver: str) -> None:
    with pytest.raises(zoo.ZooError, match=r"needs at least 2 rows .* was given 1"):
        fitted(torch.ones(1, 3), solver=solver)


def test_too_many_components_are_refused() -> None:
    with pytest.raises(zoo.ZooError, match="num_components is 5, but 20 rows of 4 features have at most 4"):
        fitted(rows_of(20, 4), num_components=5)


def test_values_that_are_not_finite_are_refused() -> None:
    model = zoo.create_model("pca", spec=zoo.DataSpec("tabular", (2,)))
    with pytest.raises(zoo.ZooError, match="NaN or infinite"):
        model.fit_batches(lambda: [Batch(torch.tensor([[1.0, float("nan")], [2.0, 3.0]]))])


def test_a_density_needs_variance_in_every_direction() -> None:
    model = fitted(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]), num_components=1)
    with pytest.raises(zoo.ZooError, match="keep fewer components"):
        model.log_likelihood(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"num_components": 0}, "model.num_components must be above 0"),
        ({"num_components": 1.5}, "pass an integer, or a share of the variance below 1"),
        ({"solver": "randomized"}, "needs model.num_components as an integer"),
        ({"solver": "randomised"}, "model.solver must be one of .* Did you mean randomized"),
        ({"num_passes": 0}, "model.num_passes must be at least 1"),
        ({"tolerance": -1.0}, "model.tolerance must be at least 0"),
        ({"num_components": "mel"}, "model.num_components must be"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message) as caught:
        zoo.create_model("pca", **hparams)
    assert "\n" not in str(caught.value)


def test_projections_and_rows_of_another_width_are_refused_in_one_line() -> None:
    x = rows_of()
    model = fitted(x, num_components=2)
    close(model.inverse_transform(model.predict(x).numpy()), model.inverse_transform(model.predict(x)))
    close(model.log_likelihood(x.numpy()), model.log_likelihood(x))
    with pytest.raises(zoo.ZooError, match=r"Expected projections of shape \(N, 2\), got \(4, 3\)"):
        model.inverse_transform(torch.zeros(4, 3))
    with pytest.raises(zoo.ZooError, match=r"Expected inputs of shape"):
        model.log_likelihood(x[:, :3])


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_whose_squares_vanish_are_refused(solver: str) -> None:
    with pytest.raises(zoo.ZooError, match="scale the data first"):
        fitted(rows_of() * 1e-200, solver=solver)
    close(fitted(rows_of() * 1e-100, solver=solver).explained_variance_ratio.sum() <= 1, True)


@pytest.mark.parametrize("solver", ["covariance", "svd", "randomized"])
@pytest.mark.parametrize("scale", [1e200, -1e160])
def test_rows_whose_squares_overflow_are_one_line(solver: str, scale: float) -> None:
    x = scale * torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(zoo.ZooError, match=r"scale the (data|features)"):
        zoo.fit(zoo.create_model("pca", num_components=2, solver=solver), x)
