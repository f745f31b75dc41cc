"""What holds for every registered model: a new one is covered the moment it is registered."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from support import (
    CHECKOUT,
    CPU,
    TINY,
    bits,
    compose,
    create,
    default_data,
    fit_tiny,
    fitting_data,
    model_config,
    run_command,
    tiny_batch,
)

import zoo
from zoo.data.base import ZooDataModule
from zoo.data.registry import create_data
from zoo.models.base import ZooModel
from zoo.registry import model_entry
from zoo.training.checkpoint import load_model, save_model
from zoo.training.main import config_dir

MODELS = zoo.list_models()
GRADIENT = [name for name in MODELS if not zoo.create_model(name).streaming]
LONG = {(name, data) for name in ("dnc", "ntm") for data in ("ngram", "repeat_copy")}  # hundreds of steps, one by one
PAIRS = [
    pytest.param(name, data, marks=[pytest.mark.slow] if (name, data) in LONG else [])
    for name in MODELS
    for data in fitting_data(name)
]


def primitives_only(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and primitives_only(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(map(primitives_only, value))
    return value is None or type(value) in (bool, int, float, str)


def lists(value: Any) -> Any:
    """Tuples as the lists that YAML knows."""
    if isinstance(value, dict):
        return {key: lists(item) for key, item in value.items()}
    return list(map(lists, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", MODELS)
def test_hyperparameters_are_all_kept_and_all_primitives(name: str) -> None:
    model = zoo.create_model(name)
    assert set(model.hparams) == set(model_entry(name).hyperparameters)
    assert primitives_only(dict(model.hparams))


@pytest.mark.parametrize("name", MODELS)
def test_the_config_lists_every_hyperparameter_with_its_default(name: str) -> None:
    file = config_dir() / "model" / f"{name}.yaml"
    assert file.is_file(), f"configs/model/{name}.yaml is missing"
    assert file.read_text().startswith("# @package _global_\n")
    listed = OmegaConf.to_container(OmegaConf.load(file).model)
    assert listed == {"name": name, **lists(model_entry(name).hyperparameters)}  # type: ignore[operator]
    section = re.split(r"\n(?=\S)", file.read_text().partition("\nmodel:\n")[2])[0]
    for key, rest in re.findall(r"^  (\w+): ?(.*)$", section, re.M):
        assert key == "name" or " # " in f" {rest}", f"{file.name}: {key} has no comment"


@pytest.mark.parametrize("name", MODELS)
def test_some_embedded_data_fit_each_model_and_its_config_chooses_such(name: str) -> None:
    assert model_config(name)["data"]["name"] in fitting_data(name)


@functools.cache
def data_of(name: str) -> ZooDataModule:
    """Data with their defaults, read once for all models."""
    return create_data(name)


@pytest.mark.parametrize(("name", "data"), PAIRS)
def test_each_model_fits_and_predicts_all_data_that_it_accepts(name: str, data: str) -> None:
    module = data_of(data)
    batch = tiny_batch(module)
    model = create(name, module)
    fit_tiny(model, batch, steps=2)
    model.eval()
    if type(model).predict_batch is ZooModel.predict_batch:
        pytest.skip(f"{name} predicts nothing of single rows")
    with torch.inference_mode():
        columns = model.predict_batch(model.as_batch(batch))
    assert next(iter(columns)) == "prediction"
    for column, values in columns.items():
        assert len(values) == batch.size, column
        assert not values.is_floating_point() or bool(torch.isfinite(values).all()), column
    spec = module.spec
    if spec.target == "class" and not model.entry.unsupervised:
        assert columns["prediction"].dtype == torch.int64
        if "probability" in columns:
            assert columns["probability"].shape == (batch.size, spec.num_classes)
            assert torch.allclose(columns["probability"].double().sum(1), torch.ones(batch.size).double(), atol=1e-5)
        else:  # a machine that knows of margins alone
            decision = columns["decision"]
            decided = (decision > 0).long() if decision.ndim == 1 else decision.argmax(1)
            assert float((columns["prediction"] == decided).double().mean()) > 0.9  # votes may be equal
    elif spec.target == "value" and not model.entry.unsupervised:
        assert columns["prediction"].shape == batch.y.shape  # type: ignore[union-attr]


@pytest.mark.parametrize("name", GRADIENT)
def test_the_output_has_the_shape_that_the_objective_asks_for(name: str) -> None:
    model = create(name)
    output = model.output(model.as_batch(tiny_batch(default_data(name), 5)))  # type: ignore[operator]
    assert output.shape[0] == 5
    assert output.shape[-1] == model.objective.num_outputs  # type: ignore[union-attr]
    assert bool(torch.isfinite(output).all())


@pytest.mark.parametrize("name", GRADIENT)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = create(name).train()
    batch = model.as_batch(tiny_batch(default_data(name)))
    model.training_loss(batch).backward()  # type: ignore[operator]
    for parameter, value in model.named_parameters():
        assert value.requires_grad, f"{parameter} is frozen"
        assert value.grad is not None, f"{parameter} takes no part"
        assert bool(torch.isfinite(value.grad).all()), parameter
        assert bool(value.grad.any()), f"the gradient of {parameter} is zero"


@pytest.mark.parametrize("name", GRADIENT)
def test_the_loss_falls_on_a_tiny_set(name: str) -> None:
    model = create(name)
    batch = model.as_batch(tiny_batch(default_data(name)))

    def loss() -> float:
        with torch.no_grad():
            return model.eval().objective.loss(model.output(batch), batch).item()  # type: ignore[operator, union-attr]

    before = loss()
    fit_tiny(model, batch)
    assert loss() < before


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(GRADIENT)))
def test_a_pass_changes_the_fitted_state(name: str) -> None:
    model = create(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fit_tiny(model, tiny_batch(default_data(name)))
    after = model.state_dict()
    changed = [key for key in after if key not in before or not torch.equal(after[key], before[key])]
    assert set(changed) - set(model._accumulators)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    batch, states = tiny_batch(default_data(name)), []
    for _ in range(2):
        model = create(name, seed=7)
        fit_tiny(model, batch, steps=3)
        states.append(bits(model.state_dict()))
    assert states[0] == states[1]


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, batch = create(name), tiny_batch(default_data(name))
    fit_tiny(model, batch, steps=3)
    save_model(model, tmp_path / "model.ckpt")
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert primitives_only(content["hyper_parameters"])
    assert primitives_only(content["zoo"])
    again = load_model(tmp_path / "model.ckpt")
    assert type(again) is type(model)
    assert dict(again.hparams) == dict(model.hparams)
    assert again.spec == model.spec
    assert not again.training
    assert bits(again.state_dict()) == bits(model.state_dict())
    if type(model).predict_batch is not ZooModel.predict_batch:
        ours, theirs = (m.eval().predict_batch(m.as_batch(batch)) for m in (model, again))
        assert bits(ours) == bits(theirs)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_copied_and_built_twice_without_harm(name: str) -> None:
    model, data = create(name), default_data(name)
    assert model.build(data.spec) is model
    other = zoo.DataSpec(data.spec.kind, (*data.spec.shape, 3), data.spec.target, num_classes=data.spec.num_classes)
    with pytest.raises(zoo.ZooError, match="The model was built for"):
        model.build(other)
    assert bits(copy.deepcopy(model).state_dict()) == bits(model.state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_one_batch_of_everything_runs_through_the_composed_config(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [option for option in TINY.get(name, []) if option.startswith("data.")]  # of a model as it is by default
    code = run_command([f"model={name}", *small, "trainer.fast_dev_run=true", CPU])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert f"{name} on {compose(f'model={name}')['data']['name']}" in printed.out
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_was_not_built_says_so(name: str) -> None:
    with pytest.raises(zoo.ZooError, match=r"call zoo\.fit\(model, X\) first"):
        zoo.create_model(name).predict(torch.zeros(1, 2))


@pytest.mark.parametrize("name", MODELS)
def test_data_of_another_kind_are_refused_with_those_that_fit(name: str) -> None:
    entry = model_entry(name)
    kinds = [kind for kind in ("transactions", "tabular") if kind not in entry.kinds]
    if not kinds:
        pytest.skip(f"{name} takes all kinds")
    with pytest.raises(zoo.ZooError) as caught:
        zoo.create_model(name, spec=zoo.DataSpec(kinds[0], (4,)))  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{name} takes ")
    assert "\n" not in str(caught.value)
    assert all(data in str(caught.value) for data in fitting_data(name))


@pytest.mark.parametrize("name", MODELS)
def test_the_docs_page_has_the_formula_and_the_source(name: str) -> None:
    entry = model_entry(name)
    page = CHECKOUT / "docs" / f"{entry.docs}.md"
    assert page.is_file(), f"docs/{entry.docs}.md is missing"
    text = page.read_text()
    assert "```math" in text or "$$" in text
    author = re.split(r"[\s,&]", entry.source)[0]
    year = re.search(r"\d{4}", entry.source)
    assert author in text
    assert year is None or year[0] in text
    assert f"`{name}`" in text or f"model={name}" in text
