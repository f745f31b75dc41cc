"""t-SNE held to SciPy, scikit-learn and autograd: affinities, gradients, optimizer, maps, new rows."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness
from support import bits
from torch import Tensor

import zoo
from zoo.data.array_data import ArrayData
from zoo.models.tsne import affinities
from zoo.models.tsne import objective as objectives
from zoo.models.tsne.affinities import (
    DenseAffinities,
    conditional_probabilities,
    dense_affinities,
    sparse_affinities,
)
from zoo.models.tsne.interpolation import GridRepulsion
from zoo.models.tsne.objective import (
    MapObjective,
    dense_forces,
    exact_repulsion,
    kl_divergence,
    sparse_attraction,
)
from zoo.models.tsne.placement import ExactField, fixed_field, place
from zoo.models.tsne.tsne import start_of_map
from zoo.numerics.distances import pairwise_distances
from zoo.numerics.neighbors import nearest_neighbors
from zoo.optimizers import TSNEOptimizer
from zoo.optimizers.delta_bar_delta import delta_bar_delta_
from zoo.training.trainer import make_trainer

SCIPY_NAMES = {"manhattan": "cityblock"}
CAREFUL = functools.partial(delta_bar_delta_, lr=0.1, max_step=0.25)
fit = functools.partial(zoo.fit, device="cpu")  # what is compared bit by bit


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(ours: Tensor, other: Tensor | np.ndarray) -> float:
    """Largest difference over the largest value."""
    expected = torch.as_tensor(other, device=ours.device)
    return float((ours - expected).abs().max() / expected.abs().max())


def conditional_by_root(squared: np.ndarray, perplexity: float) -> np.ndarray:
    """One row's probabilities, β found by SciPy's bracketing root finder."""

    def probabilities(log_beta: float) -> np.ndarray:
        weight = np.exp(-np.exp(log_beta) * (squared - squared.min()))
        return weight / weight.sum()

    def excess(log_beta: float) -> float:
        p = probabilities(log_beta)
        p = p[p > 0]
        return -(p * np.log(p)).sum() - np.log(perplexity)

    return probabilities(brentq(excess, -20, 20, xtol=1e-15, rtol=1e-14))


def joint_by_root(distance: np.ndarray, perplexity: float, k: int) -> np.ndarray:
    """P by its definition, over each row's k nearest others."""
    size = len(distance)
    conditional = np.zeros((size, size))
    for row in range(size):
        others = np.delete(np.argsort(distance[row], kind="stable"), np.argsort(distance[row], kind="stable") == row)
        near = others[:k]
        conditional[row, near] = conditional_by_root(distance[row, near] ** 2, perplexity)
    return (conditional + conditional.T) / (2 * size)


# -- affinities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("perplexity", [1.5, 5.0, 30.0, 79.0])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_conditional_probabilities_are_those_of_a_root_finder(perplexity: float, scale: float) -> None:
    squared = normal(12, 80).square().exp()
    ours = conditional_probabilities(squared * scale, perplexity)
    for row, expected in zip(ours, squared.numpy(), strict=True):
        assert relative(row, conditional_by_root(expected, perplexity)) < 1e-9
    entropy = torch.special.entr(ours).sum(1)
    assert float((entropy - np.log(perplexity)).abs().max()) < 1e-9


def test_the_search_ends_with_its_slowest_row(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, turn = [], affinities._turn
    monkeypatch.setattr(affinities, "_turn", lambda *known: turns.append(None) or turn(*known))
    squared = torch.cdist(normal(300, 50, seed=1), normal(300, 50, seed=2)).square()
    conditional_probabilities(squared, 30.0)
    assert len(turns) <= 15  # it is Newton's method; a row that left its root would need thirty to come back


def test_no_affinity_of_a_map_is_denormal() -> None:
    rows = torch.arange(40.0, dtype=torch.float64)[:, None]
    matrix = dense_affinities(rows, 5.0).matrix
    kept = dense_affinities(rows, 5.0).to(torch.float32, "cpu").matrix
    least = torch.finfo(torch.float32).tiny
    assert bool(((matrix > 0) & (matrix < least)).any())
    assert not bool(((kept > 0) & (kept < least)).any())
    assert relative(kept, matrix.float()) < 1e-15


def test_a_perplexity_that_a_row_cannot_have_gives_equal_probabilities() -> None:
    squared = torch.tensor([[0.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0], [0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    third, quarter = 1 / 3, 1 / 4
    p = conditional_probabilities(squared, perplexity=2.0)
    assert relative(p[:2], torch.tensor([[third, third, third, 0], [quarter] * 4])) < 1e-15
    assert float(torch.special.entr(p[2]).sum().exp()) == pytest.approx(2, rel=1e-9)
    assert torch.equal(conditional_probabilities(squared, perplexity=9.0), torch.full_like(squared, quarter))


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_joint_probabilities_follow_their_definition(metric: str) -> None:
    rows = normal(60, 4)
    distance = cdist(rows.numpy(), rows.numpy(), SCIPY_NAMES.get(metric, metric))
    dense = dense_affinities(rows, 10.0, metric).matrix
    assert relative(dense, joint_by_root(distance, 10.0, 59)) < 1e-9
    sparse = sparse_affinities(rows, 10.0, metric)
    assert relative(sparse.dense(), joint_by_root(distance, 10.0, 30)) < 1e-9
    assert float(dense.sum()) == pytest.approx(1, abs=1e-12)
    assert 2 * float(sparse.weight.sum()) == pytest.approx(1, abs=1e-12)
    assert torch.equal(dense, dense.T)
    assert not dense.diagonal().any()


def test_sparse_probabilities_over_all_neighbours_are_the_dense_ones() -> None:
    rows = normal(30, 3)
    sparse = sparse_affinities(rows, 5.0, num_neighbors=29)
    assert relative(sparse.dense(), dense_affinities(rows, 5.0).matrix) < 1e-12
    row = torch.arange(30).repeat_interleave(sparse.pointer.diff())
    matrix = torch.zeros(30, 30, dtype=torch.float64)
    matrix[row, sparse.column.long()] = sparse.weight[sparse.pair]
    assert torch.equal(matrix, sparse.dense())


def test_a_perplexity_too_high_and_a_single_row_are_one_line() -> None:
    for build in (dense_affinities, sparse_affinities):
        with pytest.raises(zoo.ZooError, match=r"A perplexity of 30 needs more than 30 rows, and these are 30"):
            build(normal(30, 2), 30.0)
        with pytest.raises(zoo.ZooError, match="at least 2 rows"):
            build(normal(1, 2), 0.5)


# -- objective and gradient --------------------------------------------------------------------------------------


def kl_by_definition(points: np.ndarray, joint: np.ndarray) -> float:
    weight = 1 / (1 + cdist(points, points, "sqeuclidean"))
    np.fill_diagonal(weight, 0)
    q = weight / weight.sum()
    near = joint > 0
    return float((joint[near] * np.log(joint[near] / q[near])).sum())


@pytest.mark.parametrize("num_components", [1, 2, 3])
@pytest.mark.parametrize("num_neighbors", [None, 15])
def test_the_gradient_is_that_of_autograd(num_components: int, num_neighbors: int | None, device: torch.device) -> None:
    rows, points = normal(50, 6).to(device), normal(50, num_components, seed=1).to(device).requires_grad_()
    objective = MapObjective(rows, num_components, 5.0, method="exact", num_neighbors=num_neighbors)
    value = kl_divergence(points, objective.affinities)
    (expected,) = torch.autograd.grad(value, points)
    assert relative(objective.gradient(points.detach()), expected) < 1e-9
    affinities = objective.affinities
    joint = affinities.matrix if isinstance(affinities, DenseAffinities) else affinities.dense()
    assert value.item() == pytest.approx(kl_by_definition(points.detach().cpu().numpy(), joint.cpu().numpy()), rel=1e-9)
    assert objective.divergence(points.detach()).item() == pytest.approx(value.item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("power", [-120, 110])
def test_the_scale_of_rows_changes_no_bit(power: int, dtype: torch.dtype) -> None:
    x, new = normal(60, 4).to(dtype), normal(7, 4, seed=1).to(dtype)
    plain, scaled = (fit(zoo.create_model("tsne", perplexity=5, num_steps=20), x * s) for s in (1.0, 2.0**power))
    assert torch.equal(plain.embedding, scaled.embedding)
    assert torch.equal(plain.predict(new), scaled.predict(new * 2.0**power))


def test_exaggeration_multiplies_the_attraction_alone() -> None:
    points = normal(30, 2, seed=1)
    objective = MapObjective(normal(30, 4), perplexity=5.0)
    force, total = exact_repulsion(points)
    attracted = objective.gradient(points) + 4 * force / total
    assert relative(objective.gradient(points, 12.0), 12 * attracted - 4 * force / total) < 1e-12


def test_forces_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, points = normal(40, 3), normal(40, 2, seed=1)
    affinities = dense_affinities(rows, 5.0)
    whole = [*dense_forces(points, affinities), kl_divergence(points, affinities)]
    monkeypatch.setattr(objectives, "_CHUNK_ELEMENTS", 90)
    for ours, expected in zip(
        [*dense_forces(points, affinities), kl_divergence(points, affinities)], whole, strict=True
    ):
        assert relative(ours, expected) < 1e-12


def test_dense_and_sparse_attraction_agree() -> None:
    rows, points = normal(40, 3), normal(40, 2, seed=1)
    sparse = sparse_affinities(rows, 5.0)
    dense = dense_forces(points, DenseAffinities(sparse.dense()))[0]
    assert relative(sparse_attraction(points, sparse), dense) < 1e-12


# -- interpolation -----------------------------------------------------------------------------------------------

# Bounds are for the interpolation, not for rounding: the spacing of the nodes is 0.35 where the map is wide. What it
# leaves out falls with the distance over which the kernels vary, 1, against the spacing.


@pytest.mark.parametrize(
    ("width", "force_bound", "total_bound"), [(1e-4, 1e-8, 1e-8), (2, 5e-5, 1e-5), (40, 0.02, 5e-3)]
)
def test_interpolated_repulsion_is_near_the_exact_one(
    width: float, force_bound: float, total_bound: float, device: torch.device
) -> None:
    points = (normal(2000, 2) * width).to(device)
    expected, total = exact_repulsion(points)
    force, sum_of_weights = GridRepulsion()(points)
    assert float((force - expected).norm() / expected.norm()) < force_bound
    assert abs(float(sum_of_weights / total) - 1) < total_bound


def test_interpolated_forces_cancel_in_sum_and_move_with_the_map() -> None:
    points = normal(500, 2) * 20
    repulsion = GridRepulsion()
    force, total = repulsion(points)
    # Action is reaction: the kernel is odd, and points are spread and read in the same way.
    assert float(force.sum(0).abs().max()) < 1e-9 * float(force.abs().sum())
    moved, moved_total = repulsion(points + torch.tensor([1234.5, -77.0]))
    assert relative(moved, force) < 1e-9
    assert float(moved_total) == pytest.approx(float(total), rel=1e-9)


def test_kept_kernels_do_not_change_the_result() -> None:
    repulsion = GridRepulsion()
    for width in (1.0, 1.01, 30.0, 30.5, 1.0):
        points = normal(100, 2) * width
        assert torch.equal(repulsion(points)[0], GridRepulsion()(points)[0])


@pytest.mark.parametrize(
    "points", [torch.zeros(3, 2), torch.tensor([[5.0, 5.0]]), torch.tensor([[0.0, 0.0], [400.0, 0.0]])]
)
def test_degenerate_maps_have_finite_repulsion(points: Tensor) -> None:
    force, total = GridRepulsion()(points.double())
    expected, exact_total = exact_repulsion(points.double())
    assert float((force - expected).abs().max()) < 1e-3
    assert float((total - exact_total).abs()) < 0.02


def test_a_fixed_map_repels_others_as_the_exact_sum_says() -> None:
    points, queries = normal(800, 2) * 5, normal(50, 2, seed=1) * 6
    field = fixed_field(points)
    queries = field.clamp(queries)
    force, total = field(queries)
    expected, expected_total = ExactField(points)(queries)
    assert float((force - expected).norm() / expected.norm()) < 0.01
    assert relative(total, expected_total) < 1e-3


# -- optimizer ---------------------------------------------------------------------------------------------------


def test_the_optimizer_follows_its_formula() -> None:
    gradients = normal(20, 5, 2)
    start = normal(5, 2, seed=1)
    point = torch.nn.Parameter(start.clone())
    optimizer = TSNEOptimizer([point], lr=0.3, momentum=0.7, min_gain=0.5, max_step=0.4)
    y, u, g = start.numpy().copy(), np.zeros((5, 2)), np.ones((5, 2))
    for slope in gradients:
        point.grad = slope.clone()
        optimizer.step()
        step = slope.numpy()
        for i, j in np.ndindex(5, 2):
            g[i, j] = max(0.5, g[i, j] * 0.8 if np.sign(u[i, j]) == np.sign(step[i, j]) else g[i, j] + 0.2)
        u = 0.7 * u - 0.3 * g * step
        for i in range(5):
            u[i] *= min(1, 0.4 / np.hypot(*u[i]))
        y += u
    assert relative(point.data, y) < 1e-12


def test_the_optimizer_minimizes_and_takes_a_closure() -> None:
    point = torch.nn.Parameter(torch.tensor([[3.0, -2.0]]))
    optimizer = TSNEOptimizer([point], lr=0.1, momentum=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = point.square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(100)]
    assert losses[0] == 13
    assert losses[-1] < 1e-6


@pytest.mark.parametrize("options", [{"lr": 0}, {"momentum": 1.0}, {"min_gain": 0}, {"max_step": -1}])
def test_the_optimizer_refuses_values_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(zoo.ZooError, match="not "):
        TSNEOptimizer([torch.zeros(1, 1)], **options)  # type: ignore[arg-type]


def test_another_model_must_name_the_learning_rate() -> None:
    with pytest.raises(zoo.ZooError, match=r"pass optimizer\.lr"):
        fit(zoo.create_model("mlp", widths=[2]), normal(8, 2), torch.arange(8) % 2, optimizer="tsne", max_epochs=1)


# -- the model ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy(x[:300]), torch.from_numpy(y[:300])


def create(**options: object) -> zoo.models.tsne.TSNE:  # type: ignore[name-defined]
    return zoo.create_model("tsne", **{"perplexity": 10.0, "num_steps": 300, "early_steps": 100, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted(digits: tuple[Tensor, Tensor]) -> zoo.models.tsne.TSNE:  # type: ignore[name-defined]
    return fit(create(), *digits)


def test_forces_side_by_side_are_the_same_and_threads_stay_as_they_were() -> None:
    points = normal(400, 2, seed=1).float() * 9
    objective = MapObjective(normal(400, 4).float(), perplexity=5.0, method="fft").to(points)
    expected = objective.gradient(points)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with objective.side_by_side(points):
            assert relative(objective.gradient(points), expected) < 1e-5  # float32, sums in another order
        assert torch.get_num_threads() == threads
        with pytest.raises(RuntimeError, match="stop"), objective.side_by_side(points):
            raise RuntimeError("stop")
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize("method", ["exact", "fft"])
def test_a_map_of_digits_keeps_neighbours_together(method: str, device: torch.device) -> None:
    rows = torch.from_numpy(load_digits().data[:600])
    model = zoo.fit(create(method=method), rows, device=device.type)
    assert trustworthiness(rows.numpy(), model.embedding.cpu().numpy(), n_neighbors=12) > 0.98
    affinities = MapObjective(rows[model.order.cpu()], perplexity=10.0, method=method).affinities
    exact = kl_divergence(model.points.data.cpu().double(), affinities)
    assert float(model.divergence) == pytest.approx(float(exact), rel=2e-3)  # Z is interpolated, the map float32
    assert float(exact) < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("method", ["exact", "fft"])
def test_all_digits_reach_the_known_figures(method: str) -> None:
    x = load_digits().data
    model = fit(zoo.create_model("tsne", method=method), x)
    assert float(model.divergence) <= 0.7536
    assert trustworthiness(x, model.embedding.numpy(), n_neighbors=12) >= 0.991


def test_the_map_is_the_same_for_any_batches_and_any_order_of_rows(digits: tuple[Tensor, Tensor]) -> None:
    x = digits[0][:80]
    order = torch.randperm(80)
    options = {"num_steps": 60, "early_steps": 30}
    whole = fit(create(**options), x).embedding
    assert torch.equal(fit(create(**options), x, batch_size=7).embedding, whole)
    assert torch.equal(fit(create(**options), x[order]).embedding, whole[order])
    assert torch.equal(fit(create(**options, steps_per_epoch=7), x).embedding, whole)


def test_the_trainer_makes_the_same_map_and_counts_its_epochs(digits: tuple[Tensor, Tensor]) -> None:
    x = digits[0][:80]
    whole = fit(create(num_steps=60, early_steps=30), x)
    model = create(num_steps=60, early_steps=30, steps_per_epoch=20)
    trainer = make_trainer(model, progress=False, accelerator="cpu")
    trainer.fit(model, datamodule=ArrayData(x, batch_size=32))
    assert trainer.current_epoch == 3
    assert torch.equal(model.points, whole.points)
    assert trainer.callback_metrics["train/kl_divergence"].item() == pytest.approx(float(whole.divergence))


def test_a_run_that_goes_on_ends_in_the_same_bits(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    states = []
    for stop in (4, 2):
        folder = tmp_path / str(stop)
        for epochs in sorted({stop, 4}):
            model = create(num_steps=80, early_steps=30, steps_per_epoch=20)
            trainer = make_trainer(
                model, run_dir=folder, max_epochs=epochs, progress=False, accelerator="cpu", logger=False
            )
            last = folder / "checkpoints" / "last.ckpt"
            trainer.fit(
                model, datamodule=ArrayData(digits[0][:80], batch_size=32), ckpt_path=last if last.exists() else None
            )
        assert model.done
        states.append(bits(model.state_dict()))
    assert states[0] == states[1]


def test_a_second_fit_starts_afresh(digits: tuple[Tensor, Tensor]) -> None:
    model = create(num_steps=20)
    first = fit(model, digits[0][:60]).embedding
    other = fit(model, digits[0][60:150]).embedding
    assert len(other) == 90
    assert torch.equal(fit(model, digits[0][:60]).embedding, first)


def test_other_optimizers_lower_the_divergence_too(digits: tuple[Tensor, Tensor]) -> None:
    def divergence(steps: int) -> float:
        model = create(num_steps=steps, early_steps=0)
        return float(fit(model, digits[0][:80], optimizer="adam", lr=0.5).divergence)

    assert divergence(200) < divergence(1) / 2


def test_a_fitted_row_is_predicted_at_its_own_place(fitted, digits) -> None:  # type: ignore[no-untyped-def]
    assert torch.equal(fitted.predict(digits[0]), fitted.embedding)


def test_new_rows_land_among_their_own_class(fitted, digits) -> None:  # type: ignore[no-untyped-def]
    x, y = load_digits(return_X_y=True)
    placed = fitted.predict(x[300:600])
    near = torch.cdist(placed, fitted.embedding).topk(5, largest=False).indices
    votes = digits[1][near].mode(1).values
    oracle = digits[1][nearest_neighbors(digits[0], 5, torch.from_numpy(x[300:600]))[1]].mode(1).values
    truth = torch.from_numpy(y[300:600])
    assert (votes == truth).double().mean() > (oracle == truth).double().mean() - 0.05


def test_new_rows_are_placed_alike_in_any_company(fitted) -> None:  # type: ignore[no-untyped-def]
    x = load_digits().data[300:350]
    whole = fitted.predict(x)
    assert relative(fitted.predict(x, batch_size=7), whole) < 1e-5  # float32


def test_placing_lowers_the_divergence() -> None:
    points = normal(200, 2) * 10
    distance, neighbor = nearest_neighbors(normal(200, 4), 15, normal(20, 4, seed=1))
    start, before = place(distance, neighbor, points, CAREFUL, steps=0)
    p = conditional_probabilities(distance.square(), 5.0)
    assert relative(start, (p[..., None] * points[neighbor]).sum(1)) < 1e-12
    weight = 1 / (1 + torch.cdist(start, points).square())
    q = (weight / weight.sum(1, keepdim=True)).gather(1, neighbor)
    # The sum of weights is interpolated.
    assert relative(before, (p * (p / q).log()).sum(1)) < 1e-3
    after = place(distance, neighbor, points, CAREFUL, exaggeration=1.0)[1]
    assert bool((after < before + 1e-3).all())


@pytest.mark.parametrize("num_components", [1, 3])
def test_maps_of_other_dimensions(num_components: int, digits: tuple[Tensor, Tensor]) -> None:
    model = fit(create(num_components=num_components), digits[0][:100])
    assert model.embedding.shape == (100, num_components)
    assert model.predict(digits[0][100:105]).shape == (5, num_components)


def test_precomputed_distances_have_the_affinities_of_the_rows(digits: tuple[Tensor, Tensor]) -> None:
    x = digits[0][:60]
    distance = pairwise_distances(x, x, "manhattan")
    model = fit(create(metric="precomputed", init="random", num_steps=5), distance)
    expected = MapObjective(x, perplexity=10.0, metric="manhattan").affinities.matrix  # type: ignore[union-attr]
    assert relative(model.objective.affinities.matrix.double(), expected) < 1e-6  # float32
    assert torch.equal(model.predict(distance), model.embedding)
    with pytest.raises(zoo.ZooError, match="N × N distances"):
        fit(create(metric="precomputed", init="random"), distance[:50])


def test_the_start_is_the_principal_components_scaled() -> None:
    rows = normal(200, 5) * torch.tensor([1.0, 5.0, 2.0, 0.1, 3.0])
    start = start_of_map(rows, 2)
    centred = (rows - rows.mean(0)).numpy()
    vectors = np.linalg.svd(centred)[2][:2]
    expected = centred @ vectors.T
    expected *= 1e-4 / expected[:, 0].std()
    signs = np.sign((start.numpy() * expected).sum(0))
    # Noise of 1e-6 is added.
    assert np.abs(start.numpy() - expected * signs).max() < 6e-6
    assert float(start_of_map(rows, 2, "random").std()) == pytest.approx(1e-4, rel=0.1)


@pytest.mark.parametrize(
    "rows",
    [
        torch.ones(20, 3),
        torch.cat([torch.zeros(15, 2), torch.ones(15, 2)]),
        torch.cat([normal(20, 1), torch.full((20, 2), 7.0)], 1),
        normal(3, 2),
        normal(2, 2),
    ],
    ids=["one row twenty times", "two rows", "constant features", "three rows", "two rows in all"],
)
@pytest.mark.parametrize("method", ["exact", "fft"])
def test_degenerate_rows_have_a_finite_map(rows: Tensor, method: str) -> None:
    model = fit(create(perplexity=min(5.0, len(rows) - 1.0), method=method), rows)
    assert bool(torch.isfinite(model.embedding).all())
    assert bool(torch.isfinite(model.divergence))
    assert bool(torch.isfinite(model.predict(rows + 0.5)).all())


def test_what_cannot_be_mapped_is_said_in_one_line(digits: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(zoo.ZooError, match="at least 2 rows"):
        fit(create(), digits[0][:1])
    model = create(perplexity=30.0)
    with pytest.raises(
        zoo.ZooError, match=r"perplexity of 30 needs more than 30 rows, and these are 20: pass model\.p"
    ):
        fit(model, digits[0][:20])
    with pytest.raises(zoo.ZooError, match="no map yet"):
        model.predict(digits[0][:20])
    with pytest.raises(zoo.ZooError, match="same weight"):
        fit(create(), digits[0], sample_weight=torch.ones(300))
    with pytest.raises(zoo.ZooError, match="no weights to penalize"):
        fit(create(), digits[0], l2=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perplexity": 0.0}, "perplexity must be above 0"),
        ({"num_components": 0}, "num_components must be at least 1"),
        ({"early_exaggeration": 0.5}, "early_exaggeration must be at least 1"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"method": "fft", "num_components": 3}, "maps of two dimensions"),
        ({"metric": "precomputed"}, "model.init=random"),
    ],
)
def test_arguments_out_of_range_are_said_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        create(**options)


def test_pictures_show_the_map_and_the_placed_rows(fitted, digits) -> None:  # type: ignore[no-untyped-def]
    batch = fitted.as_batch((digits[0][:50] + 0.5, digits[1][:50]))
    figures = dict(fitted.pictures(batch, fitted.predict_batch(batch)))
    drawn = sum(len(collection.get_offsets()) for collection in figures["map"].axes[0].collections)
    assert drawn == 350
    points, labels = fitted.embeddings(batch, {})
    assert len(points) == len(labels) == 300
