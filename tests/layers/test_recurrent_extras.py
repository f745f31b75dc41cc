"""What our recurrent layers have beyond torch's, each against its formula or an independent implementation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import zoo.layers

KINDS = ("RNN", "LSTM", "GRU")
DOUBLE = torch.float64


def layer(kind: str, *sizes: object, **options: object) -> nn.Module:
    """One of our layers in double precision."""
    torch.manual_seed(0)
    return getattr(zoo.layers, kind)(*sizes, dtype=DOUBLE, **options)


def close(ours: Tensor, oracle: Tensor, bound: float = 1e-10) -> bool:
    """Whether the relative error is within a bound."""
    return bool((ours - oracle).norm() <= bound * oracle.norm())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_gru_with_reset_before_equals_onnx_runtimes(bias: bool, bidirectional: bool) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx describes the oracle")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle")
    steps, rows, inputs, hidden, directions = 7, 3, 4, 5, 1 + bidirectional
    ours = zoo.layers.GRU(inputs, hidden, bias=bias, bidirectional=bidirectional, reset_after=False)
    x, h0 = torch.randn(steps, rows, inputs), torch.randn(directions, rows, hidden)

    def stacked(name: str) -> Tensor:  # ONNX orders the gates z, r, n
        names = [f"{name}_l0", f"{name}_l0_reverse"][:directions]
        parts = [getattr(ours, n).detach().chunk(3) for n in names]
        return torch.stack([torch.cat([z, r, n]) for r, z, n in parts])

    feeds = {"X": x, "W": stacked("weight_ih"), "R": stacked("weight_hh"), "h": h0}
    if bias:
        feeds["B"] = torch.cat([stacked("bias_ih"), stacked("bias_hh")], 1)
    node = onnx.helper.make_node(
        "GRU", ["X", "W", "R", "B" if bias else "", "", "h"], ["Y", "Yh"], hidden_size=hidden,
        linear_before_reset=0, direction="bidirectional" if bidirectional else "forward",
    )  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    declared = [value(name, onnx.TensorProto.FLOAT, list(v.shape)) for name, v in feeds.items()]
    results = [value(name, onnx.TensorProto.FLOAT, None) for name in ("Y", "Yh")]
    graph = onnx.helper.make_graph([node], "gru", declared, results)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, yh = session.run(None, {name: v.numpy() for name, v in feeds.items()})
    with torch.no_grad():
        output, state = ours(x, h0)
    assert close(output.unflatten(2, (directions, hidden)), torch.from_numpy(y).transpose(1, 2), 1e-5)
    assert close(state, torch.from_numpy(yh), 1e-5)


def test_gru_as_the_seeds_write_it() -> None:
    """r_t, z_t, h~_t = tanh(W_h [r_t * h, x_t]), h_t = (1 - z_t) h + z_t h~_t, written out."""
    ours = layer("GRU", 3, 4, bias=False, reset_after=False, update_gate="new")
    (w_r, w_z, w_h), (u_r, u_z, u_h) = ours.weight_ih_l0.chunk(3), ours.weight_hh_l0.chunk(3)
    x, h = torch.randn(6, 2, 3, dtype=DOUBLE), torch.zeros(2, 4, dtype=DOUBLE)
    expected = []
    for x_t in x:
        joined = torch.cat([h, x_t], 1)
        r, z = (torch.sigmoid(joined @ torch.cat([u, w], 1).T) for u, w in ((u_r, w_r), (u_z, w_z)))
        candidate = torch.tanh(torch.cat([r * h, x_t], 1) @ torch.cat([u_h, w_h], 1).T)
        h = (1 - z) * h + z * candidate
        expected.append(h)
    assert close(ours(x)[0], torch.stack(expected))


def test_update_gate_only_turns_the_gates_sense() -> None:
    """With the weights of z negated both senses are the same function, since σ(-a) = 1 - σ(a)."""
    old, new = layer("GRU", 3, 4), layer("GRU", 3, 4, update_gate="new")
    with torch.no_grad():
        for parameter in new.parameters():
            parameter[4:8] *= -1
    x = torch.randn(5, 2, 3, dtype=DOUBLE)
    assert close(new(x)[0], old(x)[0])
    cells = [zoo.layers.GRUCell(3, 4, dtype=DOUBLE, update_gate=gate) for gate in ("old", "new")]
    cells[1].load_state_dict(cells[0].state_dict())
    with torch.no_grad():
        for parameter in cells[1].parameters():
            parameter[4:8] *= -1
    h = torch.randn(2, 4, dtype=DOUBLE)
    assert close(cells[1](x[0], h), cells[0](x[0], h))


def test_lstm_as_the_seeds_write_it() -> None:
    """Both notations: gates of [h, x] with one bias, and i, j, f, o with c = σ(f)c + σ(i)tanh(j)."""
    ours = layer("LSTM", 3, 4)
    w = torch.cat([ours.weight_hh_l0, ours.weight_ih_l0], 1)  # of [h_{t-1}, x_t]
    b = ours.bias_ih_l0 + ours.bias_hh_l0
    (w_i, w_f, w_c, w_o), (b_i, b_f, b_c, b_o) = w.chunk(4), b.chunk(4)
    x, h, c = torch.randn(6, 2, 3, dtype=DOUBLE), torch.zeros(2, 4, dtype=DOUBLE), torch.zeros(2, 4, dtype=DOUBLE)
    expected = []
    for x_t in x:
        joined = torch.cat([h, x_t], 1)
        f, i, o = (torch.sigmoid(joined @ w.T + b) for w, b in ((w_f, b_f), (w_i, b_i), (w_o, b_o)))
        c = f * c + i * torch.tanh(joined @ w_c.T + b_c)
        h = o * torch.tanh(c)
        expected.append(h)
    assert close(ours(x)[0], torch.stack(expected))


def test_peepholes() -> None:
    """Gers et al. 2002: i and f see c_{t-1}, o sees c_t; with zeros nothing changes."""
    ours, plain = layer("LSTM", 3, 4, peepholes=True), layer("LSTM", 3, 4)
    assert list(ours.state_dict()) == [*plain.state_dict(), "weight_peephole_l0"]
    x, c0 = torch.randn(1, 2, 3, dtype=DOUBLE), torch.randn(1, 2, 4, dtype=DOUBLE)
    _, (h, c) = ours(x, (torch.zeros_like(c0), c0))
    a = x[0] @ ours.weight_ih_l0.T + ours.bias_ih_l0 + ours.bias_hh_l0
    (i, f, g, o), (p_i, p_f, p_o) = a.chunk(4, 1), ours.weight_peephole_l0.chunk(3)
    cell = torch.sigmoid(f + p_f * c0[0]) * c0[0] + torch.sigmoid(i + p_i * c0[0]) * torch.tanh(g)
    assert close(c[0], cell)
    assert close(h[0], torch.sigmoid(o + p_o * cell) * torch.tanh(cell))
    nn.init.zeros_(ours.weight_peephole_l0)
    assert close(ours(x)[0], plain(x)[0])


def test_layer_norm_in_the_lstm() -> None:
    """Each gate of each product has mean 0 and variance 1 before gains and biases, c before the output."""
    ours = layer("LSTM", 3, 8, layer_norm=True)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.uniform_(-1, 1)
    x, h0, c0 = (torch.randn(1, 2, n, dtype=DOUBLE) for n in (3, 8, 8))
    _, (h, c) = ours(x, (h0, c0))

    def normal(v: Tensor) -> Tensor:
        return (v - v.mean(-1, keepdim=True)) / (v.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    gates = []
    for k in range(4):
        rows = slice(8 * k, 8 * k + 8)
        by_x = normal(x[0] @ ours.weight_ih_l0[rows].T) * ours.norm_gain_ih_l0[k]
        by_h = normal(h0[0] @ ours.weight_hh_l0[rows].T) * ours.norm_gain_hh_l0[k]
        gates.append(by_x + by_h + ours.bias_ih_l0[rows] + ours.bias_hh_l0[rows])
    i, f, g, o = gates
    cell = torch.sigmoid(f) * c0[0] + torch.sigmoid(i) * torch.tanh(g)
    assert close(c[0], cell)
    assert close(h[0], torch.sigmoid(o) * torch.tanh(normal(cell) * ours.norm_gain_c_l0 + ours.norm_shift_c_l0))


@pytest.mark.parametrize("kind", KINDS)
def test_layer_norm_does_not_see_the_scale_of_the_input(kind: str) -> None:
    """What the normalization is for; exact only as far as its ε = 1e-5 is small beside the variance."""
    ours = layer(kind, 3, 8, layer_norm=True)
    x = 1e3 * torch.randn(5, 2, 3, dtype=DOUBLE)
    assert close(ours(7 * x)[0], ours(x)[0], 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_sizes_per_layer(kind: str) -> None:
    """A stack of layers of different sizes is the layers one after the other."""
    ours = layer(kind, 3, [5, 4], bidirectional=True)
    first, second = layer(kind, 3, 5, bidirectional=True), layer(kind, 10, 4, bidirectional=True)
    first.load_state_dict({k: v for k, v in ours.state_dict().items() if "_l0" in k})
    second.load_state_dict({k.replace("_l1", "_l0"): v for k, v in ours.state_dict().items() if "_l1" in k})
    x = torch.randn(6, 2, 3, dtype=DOUBLE)
    output, state = ours(x)
    between, state_first = first(x)
    expected, state_second = second(between)
    assert close(output, expected)
    pairs = zip(state, zip(state_first, state_second, strict=True), strict=True) if kind == "LSTM" else None
    pairs = pairs or [(state, (state_first, state_second))]
    for ours_kind, by_layer in pairs:
        assert all(close(a, b) for a, b in zip(ours_kind, by_layer, strict=True))
    again, _ = ours(x, state)  # states go back in as they come out
    assert not close(again, output)
    with pytest.raises(RuntimeError, match="sequence of 2 tensors"):
        ours(x, (torch.zeros(4, 2, 5),) * 2 if kind == "LSTM" else torch.zeros(4, 2, 5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["variational_dropout", "recurrent_dropout", "zoneout"])
def test_noise_is_off_outside_of_training(kind: str, name: str) -> None:
    if kind == "RNN" and name == "recurrent_dropout":
        pytest.skip("the plain RNN has no candidate to drop")
    plain, noisy = layer(kind, 3, 4), layer(kind, 3, 4, **{name: 0.5})
    x = torch.randn(6, 2, 3, dtype=DOUBLE)
    assert not close(noisy(x)[0], plain(x)[0])
    torch.manual_seed(1)
    once = noisy(x)[0]
    torch.manual_seed(1)
    assert torch.equal(noisy(x)[0], once)
    if name != "zoneout":  # zoneout takes the expectation instead
        assert close(noisy.eval()(x)[0], plain(x)[0])


def test_variational_dropout_drops_the_same_units_at_all_steps() -> None:
    """An RNN that copies its input shows the mask: each input is zero at all steps or at none."""
    ours = zoo.layers.RNN(50, 50, nonlinearity="relu", bias=False, variational_dropout=0.4)
    with torch.no_grad():
        ours.weight_ih_l0.copy_(torch.eye(50))
        ours.weight_hh_l0.zero_()
    output, _ = ours(torch.ones(7, 20, 50))
    assert torch.equal(output, output[:1].expand_as(output))
    assert output.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert abs((output[0] == 0).float().mean().item() - 0.4) < 0.06  # 1000 draws, four standard deviations


def test_recurrent_dropout_forgets_nothing() -> None:
    """With every candidate dropped the cell only fades by its forget gate (Semeniuta et al. 2016)."""
    ours = layer("LSTM", 3, 4, recurrent_dropout=1.0)
    x, c0 = torch.randn(1, 2, 3, dtype=DOUBLE), torch.randn(1, 2, 4, dtype=DOUBLE)
    _, (_, c) = ours(x, (torch.zeros_like(c0), c0))
    f = torch.sigmoid((x[0] @ ours.weight_ih_l0.T + ours.bias_ih_l0 + ours.bias_hh_l0).chunk(4, 1)[1])
    assert close(c[0], f * c0[0])


@pytest.mark.parametrize("kind", KINDS)
def test_zoneout_of_one_keeps_the_state(kind: str) -> None:
    ours = layer(kind, 3, 4, zoneout=1.0)
    h0 = torch.randn(1, 2, 4, dtype=DOUBLE)
    hx = (h0, 2 * h0) if kind == "LSTM" else h0
    x = torch.randn(6, 2, 3, dtype=DOUBLE)
    for mode in (True, False):
        output, state = ours.train(mode)(x, hx)
        assert close(output, h0.expand(6, 2, 4))
        assert close(state[1] if kind == "LSTM" else state, hx[1] if kind == "LSTM" else hx)


def test_zoneout_takes_the_expectation_outside_of_training() -> None:
    ours, plain = layer("GRU", 3, 4, zoneout=0.3).eval(), layer("GRU", 3, 4)
    x, h0 = torch.randn(1, 2, 3, dtype=DOUBLE), torch.randn(1, 2, 4, dtype=DOUBLE)
    assert close(ours(x, h0)[0], 0.3 * h0 + 0.7 * plain(x, h0)[0])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"layer_norm": True, "peepholes": True, "zoneout": (0.1, 0.2)}),
        ("GRU", {"reset_after": False, "layer_norm": True, "zoneout": 0.2}),
        ("RNN", {"layer_norm": True}),
    ],
)
def test_packed_sequences_equal_single_ones(kind: str, options: dict) -> None:
    """Extras on a packed batch: each sequence as if it were alone."""
    ours = layer(kind, 3, 4, bidirectional=True, **options).eval()
    lengths = [3, 6, 1]
    x = torch.randn(6, 3, 3, dtype=DOUBLE)
    output, _ = nn.utils.rnn.pad_packed_sequence(
        ours(pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False))[0]
    )
    for row, length in enumerate(lengths):
        assert close(output[:length, row], ours(x[:length, row])[0])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("LSTM", {"zoneout": 1.5}, "zoneout should be a number in range"),
        ("LSTM", {"zoneout": (0.1, 0.2, 0.3)}, "zoneout takes one probability or 2, got 3"),
        ("GRU", {"variational_dropout": -1}, "variational_dropout should be a number in range"),
        ("GRU", {"update_gate": "both"}, "'old' or 'new', got 'both'"),
        ("GRU", {"num_layers": 3, "hidden_size": [4, 5]}, "names 2 layers; leave num_layers out"),
        ("GRU", {"hidden_size": []}, "at least one layer"),
        ("RNN", {"proj_size": 2}, "only supported for LSTM"),
    ],
)
def test_refuses_options_in_one_line(kind: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        getattr(zoo.layers, kind)(**({"input_size": 3, "hidden_size": 4} | options))
    assert "\n" not in str(raised.value)
