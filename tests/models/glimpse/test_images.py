"""`ram` and `draw`: what they saw, that an answer depends on its image alone, and the gradient of where to look."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.data.spec import Batch, DataSpec

SPEC = DataSpec("image", (2, 8, 10), "class", num_classes=3)
SIZES: dict[str, dict[str, Any]] = {
    "ram": {"num_glimpses": 3, "glimpse_size": 3, "num_scales": 2, "hidden_size": 8, "glimpse_hidden_size": 6},
    "draw": {"num_glimpses": 3, "glimpse_size": 3, "hidden_size": 8},
}


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return zoo.create_model(name, SPEC, **{**SIZES[name], **options}).double().eval()


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 2, 8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "options"), [("ram", {}), ("ram", {"num_paths": 5}), ("draw", {})])
def test_an_answer_depends_on_its_image_alone(name: str, options: dict[str, Any]) -> None:
    model, x = build(name, **options), images()
    together = model(x)
    assert torch.equal(together, model(x))
    torch.testing.assert_close(together, torch.cat([model(row.unsqueeze(0)) for row in x]))
    torch.testing.assert_close(together.flip(0), model(x.flip(0)))


def test_monte_carlo_is_the_mean_over_paths() -> None:
    model, x = build("ram", num_paths=4), images()
    paths = [model.head(model._look(x, *noise).hidden).softmax(-1) for noise in model._paths(x)]
    torch.testing.assert_close(model(x).exp(), torch.stack(paths).mean(0))
    assert (paths[0] - paths[1]).abs().max() > 1e-6
    torch.testing.assert_close(model(x).exp().sum(1), torch.ones(4).double())


@pytest.mark.parametrize("name", ["ram", "draw"])
def test_the_last_layers_of_the_chain_learn(name: str) -> None:
    model, x, y = build(name).train(), images(), torch.tensor([0, 1, 2, 0])
    model.training_loss(Batch(x=x, y=y)).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert not missing


def test_a_glimpse_of_one_step_needs_no_policy() -> None:
    model, batch = build("ram", num_glimpses=1).train(), Batch(x=images(), y=torch.tensor([0, 1, 2, 0]))
    loss = model.training_loss(batch)
    assert loss.isfinite()
    found = model.glance(batch.x)
    assert found.log_probs is None
    assert found.centres.shape == (4, 1, 2)


def test_rewards_reach_the_policy_and_answers_the_core() -> None:
    """The policy's gradient is Σ_t (R − b_t) ∂ log N(l_t; μ_t, σ²) by hand, and the answer's loss does not reach it."""
    model, x, y = build("ram", std=0.3), images(), torch.tensor([0, 1, 2, 0])
    first, noise = torch.zeros(4, 2).double(), torch.randn(4, 2, 2, dtype=torch.float64)
    drawn = model._look(x, first, noise)
    model.glance = lambda _: drawn
    model.training_loss(Batch(x=x, y=y)).backward()
    ours = model.policy.weight.grad.clone()
    states, place, state = [], first, torch.zeros(4, 8).double()
    reward = (model.head(drawn.hidden).argmax(1) == y).double()
    expected = torch.zeros_like(ours)
    for step in range(2):
        state = model.core(model._seen(x, place), state)
        states.append(state)
        mean = (state @ model.policy.weight.T + model.policy.bias).tanh()
        place = (mean + 0.3 * noise[:, step]).clamp(-1, 1).detach()
        for row, axis in itertools.product(range(4), range(2)):
            advantage = reward[row] - drawn.baselines[row, step]
            slope = noise[row, step, axis] / 0.3 * (1 - mean[row, axis] ** 2)  # ∂ log N / ∂ (W_π h)
            expected[axis] -= (advantage * slope * state[row] / 4).detach()
    torch.testing.assert_close(ours, expected)
    height, width = 8, 10
    centres = (place + 1) / 2 * torch.tensor([width, height]).double() - 0.5
    torch.testing.assert_close(drawn.centres[:, 2], centres)


def test_weights_count_rows() -> None:
    model, x, y = build("ram"), images(), torch.tensor([0, 1, 2, 0])
    weight, repeated = torch.tensor([2.0, 1.0, 0.0, 1.0]).double(), torch.tensor([0, 0, 1, 3])
    drawn = model._look(x, torch.zeros(4, 2).double(), torch.ones(4, 2, 2).double())
    rows = type(drawn)(*[part[repeated] for part in drawn])
    model.glance = lambda _: drawn
    weighted = model.training_loss(Batch(x=x, y=y, weight=weight))
    model.glance = lambda _: rows
    torch.testing.assert_close(weighted, model.training_loss(Batch(x=x[repeated], y=y[repeated])))


def test_the_first_window_of_draw_is_the_whole_image() -> None:
    found = build("draw").glance(images())
    torch.testing.assert_close(found.centres[:, 0], torch.tensor([4.5, 3.5]).double().expand(4, 2))
    torch.testing.assert_close(found.sides[:, 0, 0], torch.full((4,), 9.0 + 2).double())


@pytest.mark.parametrize("name", ["ram", "draw"])
def test_pictures_show_the_path(name: str) -> None:
    model, batch = build(name), Batch(x=images(3), y=torch.tensor([0, 1, 2]))
    pictures = dict(model.pictures(batch, model.predict_batch(batch)))
    axes = pictures["glances"].axes[:3]
    found = model.glance(batch.x)
    for row, axis in enumerate(axes):
        path = torch.as_tensor(axis.lines[0].get_xydata())
        torch.testing.assert_close(path, found.centres[row].detach())
        assert len(axis.patches) == found.sides[row].numel()
        assert "→" in axis.get_title() + axis.get_title(loc="left")


@pytest.mark.parametrize(
    ("name", "options"),
    [("ram", {"num_glimpses": 0}), ("ram", {"std": 0.0}), ("ram", {"num_scales": 20}), ("ram", {"num_paths": 0}),
     ("draw", {"glimpse_size": 0}), ("draw", {"hidden_size": 0})],
)  # fmt: skip
def test_mistakes_are_one_line(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(zoo.ZooError, match=rf"model\.{next(iter(options))} must be"):
        zoo.create_model(name, **options)


def test_scales_that_see_no_more_are_refused() -> None:
    """And the last that is not holds the image from its corners: read at each pixel, more would take minutes."""
    spec = zoo.DataSpec(kind="image", shape=(1, 8, 11), target="class", num_classes=3)
    zoo.create_model("ram", spec, glimpse_size=4, num_scales=4)  # 32 ≥ 22
    with pytest.raises(zoo.ZooError, match=r"model\.num_scales must be at most 4 .* 8×11, not 5"):
        zoo.create_model("ram", spec, glimpse_size=4, num_scales=5)
    zoo.create_model("ram", spec, glimpse_size=50)
