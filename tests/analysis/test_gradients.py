"""Gradients by differences, by formula and by automatic differentiation; planted mistakes are found and named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support import CPU, create, default_data, run_command, tiny_batch
from torch import Tensor, nn

import zoo
from zoo import layers
from zoo.analysis import analytical_gradient, backpropagation, backward, check_gradients, numerical_gradient
from zoo.analysis.backward import (
    attention_backward,
    convolution_backward,
    gru_backward,
    layer_norm_backward,
    lstm_backward,
    rnn_backward,
)
from zoo.analysis.gradients import default_step, directional_errors, step_errors
from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.optimizers import Recipe

ROWS = zoo.DataSpec(kind="tabular", shape=(5,), target="class", num_classes=3)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def tanh_sums(x: Tensor) -> Tensor:
    """log Σ exp of the running sums of tanh: what complex numbers pass through, too."""
    return torch.log(torch.exp(torch.cumsum(torch.tanh(x), 0)).sum())


def test_the_errors_of_differences_are_as_small_as_they_can_be() -> None:
    x = drawn(40)
    truth = torch.func.grad(tanh_sums)(x)
    steps = [10.0 ** (-k / 3) for k in range(3, 36)]
    errors = step_errors(tanh_sums, x, truth, steps)
    assert min(errors["central"]) <= 1e-10
    assert relative(numerical_gradient(tanh_sums, x), truth) <= 1e-9  # at the step that is chosen by itself
    assert min(errors["forward"]) <= 1e-7
    assert relative(numerical_gradient(tanh_sums, x, method="complex"), truth) <= 1e-15
    single = step_errors(tanh_sums, x.float(), truth, [10.0 ** (-k / 4) for k in range(2, 20)], ("central",))
    assert min(single["central"]) <= 5e-5
    assert relative(numerical_gradient(tanh_sums, x.float()), truth) <= 5e-4


def test_the_errors_draw_a_v() -> None:
    x = drawn(10)
    steps = [1e-1, 1e-3, 1e-5, 1e-8, 1e-12]
    central = step_errors(tanh_sums, x, torch.func.grad(tanh_sums)(x), steps, ("central",))["central"]
    assert central[0] > 100 * central[1] > 1e4 * central[2]  # as h²
    assert central[4] > 100 * central[3] > 100 * central[2]  # as ε/h


def test_any_tree_of_parameters_and_any_strides() -> None:
    tree = {"a": [drawn(3, 4).T, drawn()], "b": (drawn(2, seed=1).expand(3, 2), torch.zeros(0, dtype=torch.float64))}

    def f(p: Any) -> Tensor:
        return (p["a"][0].sin() * p["a"][1]).sum() + p["b"][0].exp().sum() + p["b"][1].sum()

    found = numerical_gradient(f, tree)
    expected = torch.func.grad(f)(tree)
    assert relative(found["a"][0], expected["a"][0]) < 1e-9
    assert relative(found["a"][1].reshape(1), expected["a"][1].reshape(1)) < 1e-9
    assert relative(found["b"][0], expected["b"][0]) < 1e-9
    assert found["b"][1].shape == (0,)


def test_large_and_small_parameters_have_steps_of_their_size() -> None:
    for value in (1e6, -3e9, 1.0, 1e-3):
        x = torch.tensor([value], dtype=torch.float64)
        assert relative(numerical_gradient(lambda x: (x * x).sum() / 2, x), x) < 1e-6 * 1e-3 / min(abs(value), 1)
    assert numerical_gradient(lambda x: x.sin().sum(), torch.zeros(2, dtype=torch.float64)).sub(1).abs().max() < 1e-10


def test_random_directions_are_right_on_average() -> None:
    x = drawn(6)
    truth = torch.func.grad(tanh_sums)(x)
    found = numerical_gradient(tanh_sums, x, directions=4000)
    assert relative(found, truth) < 5 * math.sqrt(6 / 4000)


def test_what_is_no_function_of_tensors_is_refused() -> None:
    with pytest.raises(ZooError, match="floating tensors"):
        numerical_gradient(lambda x: x.sum(), torch.arange(3))
    with pytest.raises(ZooError, match="must be a scalar"):
        numerical_gradient(lambda x: x, torch.ones(3))
    with pytest.raises(ZooError, match=r"takes no complex numbers .*pass method='central'"):
        numerical_gradient(lambda x: x.relu().sum(), torch.ones(3), method="complex")
    for options in ({"step": 0.0}, {"step": -1e-3}, {"directions": 0}):
        with pytest.raises(ZooError, match=r"must be (a number above 0|at least 1), not"):
            numerical_gradient(lambda x: x.sum(), torch.ones(3), **options)
    assert default_step(torch.float64, "complex") < 1e-15


def automatic(model: Any, batch: Any) -> dict[str, Tensor]:
    names = dict(model.named_parameters())
    found = torch.autograd.grad(model.training_step(model.as_batch(batch), 0), list(names.values()))
    return dict(zip(names, found, strict=True))


STATED: list[tuple[str, dict[str, Any]]] = [
    ("linear_regression", {"solver": "gradient"}),
    ("logistic_regression", {"solver": "gradient"}),
    ("logistic_regression", {"solver": "gradient", "fit_intercept": False}),
    *[("mlp", {"widths": [7, 6], "activation": name})
      for name in ("relu", "tanh", "sigmoid", "gelu", "silu", "leaky_relu", "elu", "identity")],
    ("mlp", {"widths": [], "loss": "poisson"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), STATED, ids=str)
@pytest.mark.parametrize("classes", [2, 3])
def test_gradients_by_formula_are_those_of_autograd(name: str, options: dict[str, Any], classes: int) -> None:
    values = name == "linear_regression" or "loss" in options
    x = drawn(11, 5)
    if values:
        spec = zoo.DataSpec(kind="tabular", shape=(5,), target="value", num_targets=classes)
        y: Tensor = drawn(11, classes, seed=1).abs()
    else:
        spec = zoo.DataSpec(kind="tabular", shape=(5,), target="class", num_classes=classes)
        y = torch.arange(11) % classes
        options = options | ({"binary_logit": True} if classes == 2 else {})
    torch.manual_seed(0)
    model = zoo.create_model(name, spec, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(drawn(*parameter.shape, seed=2))
    model.recipe = Recipe(l1=0.1, l2=0.3)
    batch = (x, y, drawn(11, seed=3).abs())
    found, expected = analytical_gradient(model, batch), automatic(model, batch)
    assert found.keys() == expected.keys()
    for key in found:
        assert relative(found[key], expected[key]) <= 1e-12, key


NETWORKS: list[tuple[str, dict[str, Any], str, tuple[int, ...]]] = [
    ("cnn", {"channels": [3, 4], "batch_norm": False}, "image", (2, 7, 6)),  # a row that fills no window
    ("cnn", {"channels": [3, 4, 2], "batch_norm": False, "pool": "avg", "layers": "zoo"}, "image", (1, 5, 8)),
    ("cnn", {"channels": [3], "batch_norm": False, "pool": "none", "kernel_size": 5}, "image", (1, 1, 6)),
    *[(name, {"hidden_size": 5, "num_layers": number, "layers": make}, "sequence", (6, 4))
      for name in ("rnn", "lstm", "gru") for number, make in ((1, "zoo"), (2, "torch"))],
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "kind", "shape"), NETWORKS, ids=str)
def test_networks_by_formula_are_those_of_autograd(
    name: str, options: dict[str, Any], kind: Any, shape: tuple[int, ...]
) -> None:
    for target in ("class", "value"):
        more = {"num_classes": 3} if target == "class" else {"num_targets": 2}
        model = create(name, zoo.DataSpec(kind=kind, shape=shape, target=target, **more), **options).double()
        model.recipe = Recipe(l1=0.1, l2=0.3)
        y = torch.arange(9) % 3 if target == "class" else drawn(9, 2, seed=1)
        batch = (drawn(9, *shape), y, drawn(9, seed=3).abs())
        found, expected = analytical_gradient(model, batch), automatic(model, batch)
        assert found.keys() == expected.keys()
        for key in found:
            assert relative(found[key], expected[key]) <= 1e-12, key


ENCODER: dict[str, Any] = {"hidden_size": 6, "num_heads": 2, "num_layers": 2, "feedforward_size": 5, "dropout": 0.0}
ATTENTION: list[tuple[str, dict[str, Any], str, tuple[int, ...]]] = [
    ("transformer_encoder", {"positions": "learned", "readout": "cls"}, "image", (2, 5, 3)),
    ("transformer_encoder", {"norm_first": False, "activation": "relu"}, "sequence", (4, 3)),
    ("transformer_encoder", {"activation": "gelu_tanh", "layers": "torch"}, "tokens", (5,)),
    ("gpt", {}, "tokens", (5,)),
    ("gpt", {"tie_embeddings": False, "bias": False, "activation": "gelu", "layers": "torch"}, "tokens", (5,)),
]


def of_attention(name: str, options: dict[str, Any], kind: Any, shape: tuple[int, ...]) -> tuple[Any, Batch]:
    """A model of attention in float64, whose parameters are all drawn, and rows with weights."""
    rows, said = 7, {"target": "tokens"} if name == "gpt" else {"target": "class", "num_classes": 3}
    known = {"vocab_size": 11} if kind == "tokens" else {}
    model = create(name, zoo.DataSpec(kind=kind, shape=shape, **said, **known), **ENCODER | options).double()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=number) / 2)
    y, weight = torch.arange(rows) % 3, drawn(rows, seed=3).abs()
    tokens = torch.randint(11, (rows, *shape), generator=torch.Generator().manual_seed(1))
    if name == "gpt":
        y = tokens.roll(-1, 1)
        y[:, -1], y[2, 1] = -100, -100  # which do not count
    return model, Batch(tokens=tokens, y=y, weight=weight) if kind == "tokens" else Batch(
        drawn(rows, *shape), y, weight
    )


@pytest.mark.parametrize("of", ATTENTION, ids=str)
def test_models_of_attention_by_formula_are_those_of_autograd(of: Any) -> None:
    model, batch = of_attention(*of)
    model.recipe = Recipe(l1=0.1, l2=0.3)
    found, expected = analytical_gradient(model, batch), automatic(model, batch)
    assert found.keys() == expected.keys()
    for key in found:
        if not key.endswith("in_proj_bias"):  # of which a part is 0: a key's bias shifts all scores of a query alike
            assert relative(found[key], expected[key]) <= 1e-12, key
        assert float((found[key] - expected[key]).abs().max()) <= 1e-13, key


def test_a_planted_sign_error_in_the_formula_of_attention_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name, options, *of = ATTENTION[3]
    model, batch = of_attention(name, {**options, "num_layers": 1}, *of)
    assert check_gradients(model, batch, most=1).passed
    for part in range(3):  # queries, keys and values

        def wrong(*arguments: Any, part: int = part) -> Any:
            return tuple(-each if k == part else each for k, each in enumerate(attention_backward(*arguments)))

        monkeypatch.setattr(backpropagation, "attention_backward", wrong)
        found = check_gradients(model, batch, most=1)
        named = "core.layers.0.self_attn.in_proj_weight: the analytical gradient has the opposite sign in 3"
        assert named in found.verdict  # of 36 places nearly all
        assert "core.layers.0.linear1" not in found.verdict  # which stands behind it


def test_layer_norm_backwards() -> None:
    x, weight = drawn(3, 4, 6).requires_grad_(), drawn(6, seed=1).requires_grad_()
    delta = drawn(3, 4, 6, seed=2)
    expected = torch.autograd.grad(nn.functional.layer_norm(x, (6,), weight, eps=0.1), (x, weight), delta)
    found = layer_norm_backward(x.detach(), weight.detach(), delta, 0.1)
    assert all(relative(ours, theirs) <= 1e-12 for ours, theirs in zip(found, expected, strict=True))


def test_a_planted_sign_error_in_a_recurrent_formula_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Tensor) -> Any:
        *others, by_d = gru_backward(*arguments)
        return (*others, -by_d)

    monkeypatch.setattr(backpropagation, "gru_backward", wrong)
    model = create("gru", zoo.DataSpec(kind="sequence", shape=(6, 4), target="value"), hidden_size=5)
    found = check_gradients(model, (drawn(4, 6, 4), drawn(4)))
    assert found.verdict == "core.bias_hh_l0: the analytical gradient has the opposite sign"


def test_what_has_no_formula_here_says_so() -> None:
    for name, options in (("gru", {"bidirectional": True}), ("lstm", {"peepholes": True}), ("gru", {"zoneout": 0.1})):
        spec = zoo.DataSpec(kind="sequence", shape=(6, 4), target="value")
        with pytest.raises(ZooError, match=f"No formula of the gradient of {name}"):
            analytical_gradient(create(name, spec, hidden_size=5, **options), (drawn(4, 6, 4), drawn(4)))
    with pytest.raises(ZooError, match="No formula of the gradient of mlp"):
        analytical_gradient(zoo.create_model("mlp", ROWS, dropout=0.2), (drawn(3, 5), torch.tensor([0, 1, 2])))


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (1, 2), (3, 0)])
def test_convolution_backwards(stride: int, padding: int) -> None:
    x, w, b = drawn(2, 3, 7, 8), drawn(4, 3, 3, 2, seed=1), drawn(4, seed=2)
    for parameter in (x, w, b):
        parameter.requires_grad_()
    layer = layers.Conv2d(3, 4, (3, 2), stride=stride, padding=padding).double()
    out = torch.func.functional_call(layer, {"weight": w, "bias": b}, (x,))
    delta = drawn(*out.shape, seed=3)
    expected = torch.autograd.grad(out, (x, w, b), delta)
    for ours, theirs in zip(
        convolution_backward(x.detach(), w.detach(), delta, stride, padding), expected, strict=True
    ):
        assert relative(ours, theirs) <= 1e-12


def test_attention_backwards() -> None:
    q, k, v = drawn(2, 3, 5, 4), drawn(2, 3, 6, 4, seed=1), drawn(2, 3, 6, 7, seed=2)
    mask = drawn(2, 1, 5, 6, seed=4) > -0.3
    mask[0, 0, 2] = False  # a query that sees nothing
    for parameter in (q, k, v):
        parameter.requires_grad_()
    out = layers.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    delta = drawn(*out.shape, seed=3)
    expected = torch.autograd.grad(out, (q, k, v), delta)
    found = attention_backward(q.detach(), k.detach(), v.detach(), delta, mask)
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) <= 1e-12


def test_recurrent_layers_backwards() -> None:
    x, h0, c0 = (part.requires_grad_() for part in (drawn(6, 3, 4), drawn(3, 5, seed=1), drawn(3, 5, seed=2)))
    delta = drawn(6, 3, 5, seed=3)
    for make in (layers.RNN, layers.LSTM):
        torch.manual_seed(0)
        layer = make(4, 5).double()
        state: Any = h0.unsqueeze(0) if make is layers.RNN else (h0.unsqueeze(0), c0.unsqueeze(0))
        out, _ = layer(x, state)
        inputs = [x, h0, *([c0] if make is layers.LSTM else [])]
        weights = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0]
        expected = torch.autograd.grad(out, [*inputs, *weights], delta)
        bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach()
        given = [part.detach() for part in (*inputs, *weights[:2])]
        found = (rnn_backward if make is layers.RNN else lstm_backward)(*given, bias, delta)
        for ours, theirs in zip(found, expected, strict=True):
            assert relative(ours, theirs) <= 1e-12


UNBUILT = {name: zoo.create_model(name) for name in zoo.list_models()}
CHECKED = [name for name, model in UNBUILT.items() if not model.streaming and model.automatic_optimization]


@pytest.mark.parametrize("name", [name for name in CHECKED if name in ("mlp", "cnn", "lstm", "gru")])
def test_models_of_the_zoo_pass(name: str) -> None:
    small = {"mlp": {"widths": [8]}, "cnn": {"channels": [3, 4]}, "lstm": {"hidden_size": 6}, "gru": {"hidden_size": 6}}
    model = create(name, **small[name])
    found = check_gradients(model, tiny_batch(default_data(name), 4), most=4)
    assert found.passed, found.table()
    assert len(found.rows) == len(list(model.parameters()))
    assert max(row.numerical for row in found.rows) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKED)
def test_every_model_that_takes_steps_passes(name: str) -> None:
    found = check_gradients(create(name), tiny_batch(default_data(name), 4), most=3)
    assert found.passed, found.table()


class Flipped(torch.autograd.Function):
    """The identity, whose backward pass is wrong by some factors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor) -> Tensor:
        ctx.factors = factors
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Any:  # type: ignore[override]
        return delta * ctx.factors, None


class Planted(nn.Linear):
    """An affine map with a mistake in the gradient of its bias."""

    factors = torch.tensor(-1.0)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + Flipped.apply(self.bias, self.factors.to(x.dtype))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        (torch.tensor(-1.0), "net.1.bias: the automatic gradient has the opposite sign"),
        (torch.tensor(0.5), "net.1.bias: the automatic gradient is 0.5 times the true one"),
        (torch.tensor(0.0), "net.1.bias: the automatic gradient is 0, and the loss changes"),
        (torch.tensor([1.0, -1.0, 1.0, 1.0]), "net.1.bias: the automatic gradient has the opposite sign in 1 of 4"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_planted_mistake_is_found_and_named(factors: Tensor, words: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model: Any = zoo.create_model("mlp", ROWS, widths=[4], activation="tanh")
    planted = Planted(5, 4)
    planted.load_state_dict(model.net[1].state_dict())
    planted.factors = factors
    model.net[1] = planted
    found = check_gradients(model, (drawn(9, 5).float(), torch.arange(9) % 3), dtype=dtype)
    assert not found.passed
    assert words in found.verdict, found.verdict
    assert [row.name for row in found.rows if row.verdict != "ok"] == ["net.1.bias"]


def test_a_mistake_in_the_formula_is_told_from_one_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backward.SLOPES, nn.Tanh, lambda z: torch.tanh(z).square() - 1)
    model = zoo.create_model("mlp", ROWS, widths=[4], activation="tanh")
    found = check_gradients(model, (drawn(9, 5).float(), torch.arange(9) % 3))
    assert "net.1.weight: the analytical gradient has the opposite sign" in found.verdict
    assert "net.3" not in found.verdict


def test_dropout_and_normalization_are_checked_as_they_train() -> None:
    model = zoo.create_model("mlp", ROWS, widths=[8, 8], dropout=0.5, batch_norm=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert check_gradients(model, (drawn(9, 5).float(), torch.arange(9) % 3)).passed
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_a_corner_of_the_loss_is_no_mistake() -> None:
    """All rows at 0 and no bias: each ReLU stands at its corner, where autograd says 0 and both sides differ."""
    model: Any = zoo.create_model("mlp", ROWS, widths=[6])
    with torch.no_grad():
        model.net[1].bias.zero_()
    assert check_gradients(model, (torch.zeros(4, 5), torch.tensor([0, 1, 2, 0]))).passed


def test_solved_models_have_nothing_to_check() -> None:
    model = zoo.create_model("kmeans", zoo.DataSpec(kind="tabular", shape=(2,)))
    with pytest.raises(ZooError, match="kmeans takes no steps"):
        check_gradients(model, torch.zeros(3, 2))


def test_the_command_line_checks_first_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["model=mlp", "data=iris", "model.widths=[4]", "trainer.max_epochs=1", "check_gradients=true", CPU]
    assert run_command([*command, f"run_dir={tmp_path / 'run'}"]) == 0
    out = capsys.readouterr().out
    assert "net.1.weight" in out
    assert out.index("verdict") < out.index("ended")
    assert run_command([f"run={tmp_path / 'run'}", "analysis=gradients", "accelerator=cpu"], "evaluate") == 0
    assert "all 4 gradients are right" in capsys.readouterr().out
    found = tmp_path / "run" / "evaluation" / "analysis"
    assert (found / "gradients.csv").read_text().startswith("name,shape,compared,numerical,analytical,verdict")
    assert (found / "gradients.png").exists()
    monkeypatch.setattr(torch.Tensor, "tanh", lambda x: Flipped.apply(x, torch.tensor(-1.0)))
    monkeypatch.setattr(nn.Tanh, "forward", lambda self, x: torch.tanh(x) * 0 + Flipped.apply(x, torch.tensor(-1.0)))
    assert run_command([*command, "model.activation=tanh", f"run_dir={tmp_path / 'wrong'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: Nothing was trained, as the gradients are wrong. net.1.weight: the ")
    assert not (tmp_path / "wrong").exists()
    assert run_command(["model=kmeans", "check_gradients=true", CPU, f"run_dir={tmp_path / 'no'}"]) == 1
    assert "does nothing for kmeans: it takes no steps" in capsys.readouterr().err


def test_the_error_along_the_gradient_of_a_model_draws_a_v() -> None:
    model = zoo.create_model("mlp", ROWS, widths=[4], activation="tanh")
    errors = directional_errors(model, (drawn(9, 5), torch.arange(9) % 3), [1e-2, 1e-5, 1e-12])
    assert errors["central"][1] < 1e-8 < errors["central"][0]
    assert errors["central"][1] < errors["central"][2]
    assert errors["forward"][1] > errors["central"][1]
