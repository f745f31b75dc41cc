"""The recurrent families: torch's layers swapped in, carried state, forecasts, generated text."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.data.spec import Batch
from zoo.models.recurrent.recurrent_model import detach

SEQUENCE = zoo.DataSpec(kind="sequence", shape=(6, 3), target="class", num_classes=4)
TOKENS = zoo.DataSpec(kind="tokens", shape=(7,), target="tokens", vocab_size=11)
SERIES = zoo.DataSpec(kind="series", shape=(12, 1), target="series", num_targets=3)
NAMES = ["rnn", "lstm", "gru"]


def pair(name: str, spec: zoo.DataSpec, **options):
    """The same model on our layers and on torch's, with the same seed."""
    models = []
    for layers in ("zoo", "torch"):
        torch.manual_seed(0)
        models.append(zoo.create_model(name, spec, hidden_size=5, layers=layers, **options).double())
    return models


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spec", [SEQUENCE, TOKENS, SERIES], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_same_seed_same_model_as_torch(name, spec, num_layers):
    ours, theirs = pair(name, spec, num_layers=num_layers)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randint(11, (3, 7)) if spec.kind == "tokens" else torch.randn(3, *spec.shape, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-12)


def test_two_hundred_steps_of_training_agree():
    """The loss curves of a language model on our layers and on torch's lie on each other."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(11, (16, 201 * 7 + 1), generator=generator)
    curves = []
    for layers in ("zoo", "torch"):
        torch.manual_seed(0)
        model = zoo.create_model("lstm", TOKENS, hidden_size=32, layers=layers)
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        losses, state = [], None
        for step in range(200):
            window = text[:, step * 7 : step * 7 + 8]
            output, state = model.run(window[:, :-1], state)
            state = detach(state)
            loss = model.objective.loss(output, Batch(tokens=window[:, :-1], y=window[:, 1:]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curves.append(torch.tensor(losses))
    torch.testing.assert_close(curves[0], curves[1], rtol=0, atol=1e-4)
    assert not torch.allclose(curves[0][0], curves[0][-1])  # it did train


def test_state_is_carried_between_batches_and_not_between_epochs(monkeypatch):
    stream = zoo.DataSpec(kind="tokens", shape=(7,), target="tokens", vocab_size=11, stream=True)
    model = zoo.create_model("lstm", stream, hidden_size=5).eval()
    x = torch.randint(11, (2, 14))
    whole = model(x)
    monkeypatch.setattr(type(model), "_stage", "validate")
    first, second = (model.output(Batch(tokens=part)) for part in x.split(7, dim=1))
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    model.on_validation_epoch_start()
    torch.testing.assert_close(model.output(Batch(tokens=x[:, :7])), first)


def test_no_state_is_carried_between_texts_that_are_not_one_stream(monkeypatch):
    model = zoo.create_model("lstm", TOKENS, hidden_size=5).eval()
    x = torch.randint(11, (2, 7))
    monkeypatch.setattr(type(model), "_stage", "train")
    assert torch.equal(model.output(Batch(tokens=x)), model.output(Batch(tokens=x)))


def test_carried_state_travels_in_the_checkpoint():
    model = zoo.create_model("lstm", TOKENS, hidden_size=5)
    model._carried["train"] = (torch.ones(1, 2, 5), torch.zeros(1, 2, 5))
    checkpoint: dict = {}
    model.on_save_checkpoint(checkpoint)
    again = zoo.create_model("lstm", TOKENS, hidden_size=5)
    again.on_load_checkpoint(checkpoint)
    assert torch.equal(again._carried["train"][0], torch.ones(1, 2, 5))


def test_forecast_follows_shift_and_scale():
    """A window shifted and scaled gives the forecast shifted and scaled."""
    model = zoo.create_model("gru", SERIES, hidden_size=5).double().eval()
    x = torch.randn(2, 12, 1, dtype=torch.float64)
    torch.testing.assert_close(model(100 * x + 7), 100 * model(x) + 7, rtol=1e-9, atol=1e-9)


def test_forecast_feeds_back():
    model = zoo.create_model("gru", SERIES, hidden_size=5).eval()
    history = torch.arange(20.0)
    first = model(history[-12:].view(1, 12, 1)).flatten()
    ahead = model.forecast(history, 5)
    torch.testing.assert_close(ahead[:3], first.detach())
    again = model(torch.cat([history, first.detach()])[-12:].view(1, 12, 1)).flatten()
    torch.testing.assert_close(ahead[3:], again[:2].detach())
    with pytest.raises(zoo.ZooError, match="needs 12 steps of history"):
        model.forecast(history[:5], 1)


def test_generate_is_greedy_argmax_at_temperature_zero():
    from zoo.text import Tokenizer

    tokenizer = Tokenizer.train(["abcdefgh"], "char")
    spec = zoo.DataSpec(kind="tokens", shape=(4,), target="tokens", vocab_size=9, tokenizer=tokenizer.to_json())
    model = zoo.create_model("gru", spec, hidden_size=6).eval()
    text = model.generate("abc", steps=5, temperature=0.0)
    assert text.startswith("abc")
    ids = tokenizer.encode("abc").unsqueeze(0)
    for _ in range(5):
        ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], 1)
    assert text == "".join(tokenizer.vocabulary[i] for i in ids[0].tolist())
    assert model.generate("abc", steps=5, seed=1) == model.generate("abc", steps=5, seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_gates_rebuild_the_hidden_states(name):
    model = zoo.create_model(name, SEQUENCE, hidden_size=5).double().eval()
    gates = model.gate_activations(torch.randn(1, 6, 3, dtype=torch.float64))
    hidden = gates["hidden"]
    before = torch.cat([torch.zeros_like(hidden[:1]), hidden[:-1]])
    if name == "gru":
        rebuilt = (1 - gates["update"]) * gates["candidate"] + gates["update"] * before
        torch.testing.assert_close(rebuilt, hidden)
    if name == "lstm":
        cell, rebuilt = torch.zeros(5, dtype=torch.float64), []
        for t in range(6):
            cell = gates["forget"][t] * cell + gates["input"][t] * gates["candidate"][t]
            rebuilt.append(gates["output"][t] * cell.tanh())
        torch.testing.assert_close(torch.stack(rebuilt), hidden)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gru", {"layers": "torch", "reset_after": False}, "torch's GRU has no reset_after"),
        ("lstm", {"layers": "torch", "peepholes": True}, "torch's LSTM has no peepholes"),
        ("lstm", {"hidden_size": 0}, "hidden_size must be at least 1"),
        ("rnn", {"bidirectional": True}, "must not see what comes next"),
    ],
)
def test_mistakes(name, options, message):
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create_model(name, TOKENS, **options)


def test_perplexity_is_exp_of_the_mean_loss_and_starts_anew():
    """Batches of different lengths weigh by their tokens, padding counts for nothing, and a reset forgets."""
    from zoo.models.base.evaluation import Evaluation
    from zoo.models.base.objectives import TokenPrediction

    objective = TokenPrediction(zoo.DataSpec("tokens", (5,), "tokens", vocab_size=8))
    evaluation = Evaluation(objective.pooling())

    def update(logits, y):
        batch = Batch(tokens=y, y=y)
        evaluation.update(objective.evaluate(logits, batch), y, objective.row_weight(batch))

    update(torch.zeros(1, 4, 8), torch.zeros(1, 4, dtype=torch.long))
    assert evaluation.compute()["perplexity"].item() == pytest.approx(8)
    logits, target = torch.randn(3, 5, 8, dtype=torch.float64), torch.randint(8, (3, 5))
    target[1, 3:] = -100
    for rows in ([0], [1, 2]):
        update(logits[rows], target[rows])
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100)
    found = evaluation.compute()
    assert found["loss"].item() == pytest.approx(nll.item(), rel=1e-12)
    assert found["perplexity"].item() == pytest.approx(nll.exp().item(), rel=1e-12)
