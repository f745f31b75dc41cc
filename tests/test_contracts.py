"""What the bases promise of every model: a second fit forgets the first, processes and weights give the same metrics,
padding changes nothing. A new model is covered the moment it is registered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import (
    VARIANTS,
    Held,
    assert_same,
    create,
    default_data,
    fit_tiny,
    in_two_processes,
    label,
    metrics_of,
    result,
    shuffled_halves,
    tiny_batch,
    variant_data,
)
from torch import Tensor

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.models.base.translates import Translates
from zoo.registry import model_entry
from zoo.training.trainer import make_trainer

MODELS = zoo.list_models()


# -- a second fit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("face", ["arrays", "trainer"])
@pytest.mark.parametrize(("name", "hparams"), VARIANTS, ids=label)
def test_a_second_fit_forgets_the_first(name: str, hparams: dict[str, Any], face: str) -> None:
    """Fitted on A and then on B, a streaming model is the one that was fitted on B alone."""
    data = variant_data(name, hparams)
    first, second = shuffled_halves(tiny_batch(data, 120))
    if name == "bisecting_kmeans":
        hparams = {**hparams, "num_clusters": 3}  # a pass an iteration of each split

    def fit(model: Any, batch: Batch) -> None:
        if face == "arrays":
            model.fit_batches(lambda: [batch])
        else:
            make_trainer(model, accelerator="cpu", progress=False).fit(model, datamodule=Held(data.spec, batch))

    again, fresh = create(name, data, **hparams), create(name, data, **hparams)
    fit(again, first)
    fit(again, second)
    fit(fresh, second)
    assert_same(result(again, second, {}), result(fresh, second, {}), 1e-9, "predictions")
    states = [{k: v for k, v in m.state_dict().items() if v.is_floating_point()} for m in (again, fresh)]
    assert_same(states[0], states[1], 1e-9, "state")


@pytest.mark.parametrize(("name", "hparams"), VARIANTS, ids=label)
def test_a_run_that_goes_on_within_a_pass_ends_it(name: str, hparams: dict[str, Any]) -> None:
    """Nothing begins such a pass anew: what is summed comes from the checkpoint alone, and may lack no part."""
    model = create(name, variant_data(name, hparams), **hparams)
    other = create(name, variant_data(name, hparams), **hparams)
    other.load_state_dict(model.state_dict())
    states = model._state(), other._state()  # type: ignore[operator]
    assert states[0].keys() == states[1].keys()


# -- metrics of several processes ------------------------------------------------------------------------------------


def metrics_by_two(fitted: dict[str, tuple[Any, ...]], file: Path) -> None:
    """What one of two processes does; the first writes what both have found."""
    found = {name: metrics_of(*parts, devices=2, strategy="ddp") for name, parts in fitted.items()}
    if torch.distributed.get_rank() == 0:
        file.write_text(json.dumps(found))


@pytest.fixture(scope="module")
def metrics_of_one_and_two(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, dict[str, float]]]:
    """The test metrics of every model, by one process and by two; fitted once, so that these have little to do."""
    folder, fitted = tmp_path_factory.mktemp("metrics"), {}
    for name in MODELS:
        data = default_data(name)
        batch = tiny_batch(data, 37)
        model = create(name, data)
        fit_tiny(model, batch, steps=3)
        if batch.items is None:  # 37 rows in batches of 5: of two processes one gets fewer of the last
            batch = batch._replace(weight=torch.rand(37, generator=torch.Generator().manual_seed(1)))
        fitted[name] = model, data.spec, batch
    in_two_processes(metrics_by_two, fitted, folder / "two.json")
    one = {name: metrics_of(*parts) for name, parts in fitted.items()}
    return {1: one, 2: json.loads((folder / "two.json").read_text())}


@pytest.mark.parametrize("name", MODELS)
def test_one_process_and_two_report_the_same_metrics(
    name: str, metrics_of_one_and_two: dict[int, dict[str, dict[str, float]]]
) -> None:
    one, two = metrics_of_one_and_two[1][name], metrics_of_one_and_two[2][name]
    assert one
    assert two == pytest.approx(one, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in MODELS if not model_entry(name).unsupervised])
def test_metrics_weigh_rows_and_not_batches(name: str) -> None:
    """A row of weight 2 counts as two rows, and one of weight 0 as none, whatever batch it is in."""
    data = default_data(name)
    batch = tiny_batch(data, 23)
    if batch.items is not None:
        pytest.skip("baskets have no weights")
    model = create(name, data).eval()
    weight = torch.arange(23) % 3
    repeated = batch.rows(torch.arange(23).repeat_interleave(weight))

    def metrics(batch: Batch, batch_size: int) -> dict[str, float]:
        trainer = make_trainer(model, accelerator="cpu", progress=False)
        found = trainer.test(model, datamodule=Held(data.spec, batch, batch_size=batch_size), verbose=False)
        return {key: float(value) for part in found for key, value in part.items()}

    weighted = metrics(batch._replace(weight=weight.float()), 7)
    assert weighted == pytest.approx(metrics(repeated, repeated.size), rel=1e-5, abs=1e-7)


# -- padding ---------------------------------------------------------------------------------------------------------

PAIRS = [
    (name, kind, target)
    for name in MODELS
    for kind, target in model_entry(name).accepts
    if kind in ("sequence", "tokens") and target is not None
]
LENGTHS = (6, 2, 5, 1)


def ragged(kind: str, target: str) -> tuple[DataSpec, list[Batch]]:
    """Four examples of different lengths, each by itself."""
    spec = DataSpec(kind, (6, 3) if kind == "sequence" else (6,), target, dtype="float64")  # type: ignore[arg-type]
    fields: dict[str, Any] = {"class": {"num_classes": 3}, "bits": {"num_targets": 2}}.get(target, {})
    spec = DataSpec(**{**spec.to_dict(), **fields, "shape": spec.shape, "vocab_size": 7 if kind == "tokens" else None})
    examples = []
    for number, length in enumerate(LENGTHS):
        x = torch.randn(1, length, 3, dtype=torch.float64) if kind == "sequence" else torch.randint(7, (1, length))
        targets = {"class": torch.tensor([number % 3]), "value": torch.randn(1, dtype=torch.float64)}
        targets |= {"tokens": torch.randint(7, (1, length)), "bits": torch.randint(2, (1, length, 2)).double()}
        y = targets[target]
        examples.append(Batch.of(kind, x, y))
    return spec, examples


def padded(kind: str, examples: list[Batch], steps: int, fill: float) -> Batch:
    """One batch of the examples, padded to `steps` with `fill`."""
    rows, ys, mask = [], [], torch.zeros(len(examples), steps, dtype=torch.bool)
    for number, example in enumerate(examples):
        x, y = example.inputs[0], example.y
        assert y is not None
        row = torch.full((steps, *x.shape[1:]), fill, dtype=torch.float64).to(x.dtype)
        row[: len(x)], mask[number, : len(x)] = x, True
        rows.append(row)
        ys.append(torch.cat([y[0], y.new_full((steps - len(x), *y.shape[2:]), -100)]) if y.ndim > 1 else y[0])
    return Batch.of(kind, torch.stack(rows), torch.stack(ys), mask)


def answers(model: Any, batch: Batch) -> dict[str, Tensor]:
    """All that a model says of a batch: output, predictions, loss, metrics and gradients."""
    model.zero_grad()
    loss = model.objective.loss(model.output(batch), batch)
    loss.backward()
    gradients = {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        return {"loss": loss.detach(), **gradients, **model.predict_batch(batch), **model.evaluate(batch)}


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"layers": "torch"}], ids=label)
@pytest.mark.parametrize(("name", "kind", "target"), PAIRS)
def test_padding_changes_nothing(name: str, kind: str, target: str, options: dict[str, Any]) -> None:
    if not set(options) <= set(model_entry(name).hyperparameters):
        pytest.skip(f"{name} has no {', '.join(options)}")
    if options.get("bidirectional") and target == "tokens":
        pytest.skip("a language model reads in one direction")
    spec, examples = ragged(kind, target)
    model = create(name, spec, **options).double().eval()
    plain = answers(model, padded(kind, examples, 6, 0))
    for steps, fill in ((6, 5), (9, 0), (9, float("nan") if kind == "sequence" else 6)):
        found = answers(model, padded(kind, examples, steps, fill))
        for key, value in plain.items():
            ours = found[key] if found[key].shape == value.shape else found[key][:, : value.shape[1]]
            torch.testing.assert_close(ours, value, rtol=1e-9, atol=1e-12, msg=f"{key} with {steps} steps of {fill}")
    with torch.no_grad():
        outputs = [model.output(example) for example in examples]
        together = model.output(padded(kind, examples, 6, 0))
    for number, (alone, length) in enumerate(zip(outputs, LENGTHS, strict=True)):
        ours = together[number, :length] if target in ("tokens", "bits") else together[number]
        torch.testing.assert_close(ours, alone[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted({name for name, *_ in PAIRS}))
def test_lists_of_different_lengths_are_fitted_and_predicted(name: str) -> None:
    accepts, texts = model_entry(name).accepts, [[1, 2, 3], [4], [2, 2], [5, 1, 1, 1]] * 3
    if ("tokens", "class") in accepts:
        y = [0, 1, 0, 1] * 3
        model = zoo.fit(zoo.create_model(name), texts, y, max_epochs=1, device="cpu")
        assert model.spec is not None
        assert (model.spec.kind, model.spec.vocab_size) == ("tokens", 6)
        prediction = model.predict(texts)
        assert torch.equal(prediction[:1], model.predict([texts[0]]))
        with pytest.raises(zoo.ZooError, match="holds the token 6; those of the vocabulary are 0 to 5"):
            model.predict([[6]])
    if ("tokens", "tokens") in accepts:
        model = zoo.fit(zoo.create_model(name), texts[:2] * 4 + [[3, 3]], max_epochs=1, device="cpu")
        assert model.spec is not None
        assert model.spec.task == "language_modeling"


@pytest.mark.parametrize("name", MODELS)
def test_evaluate_gives_one_value_a_row(name: str) -> None:
    data = default_data(name)
    model, batch = create(name, data), tiny_batch(data, 40)
    fit_tiny(model, batch, steps=1)
    with torch.no_grad():
        values = model.eval().evaluate(model.as_batch(batch))
    assert values
    assert all(len(value) == batch.size for value in values.values())
    scored_in_tests = {"bleu"} if isinstance(model, Translates) else set()  # which takes a translation of each row
    assert set(model.pooling()) - scored_in_tests <= set(values)
