"""The configs say what the code takes: every key, every default, and what the command line may join or replace."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from support import compose, needs_files

import zoo
from zoo.data.registry import _options, create_data, data_entries
from zoo.optimizers import AVERAGES, OPTIMIZERS, SCHEDULERS, Recipe
from zoo.training.main import config_dir
from zoo.training.run import build

GROUPS = sorted(folder.name for folder in config_dir().iterdir() if folder.is_dir() and not folder.name.startswith("_"))
CHOICES = [(group, file.stem) for group in GROUPS for file in sorted((config_dir() / group).glob("*.yaml"))]
OVER_OTHERS = ("model", "experiment")
OF_THE_MACHINE = {"foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"}


def load(group: str, name: str) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(config_dir() / group / f"{name}.yaml"))  # type: ignore[return-value]


def defaults(function: Any, but: set[str]) -> dict[str, Any]:
    """The keyword arguments of a callable with their defaults, tuples as lists."""
    found = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.name not in but}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def abreast(number: int) -> tuple[str, ...]:
    """The choice of that number in each group but those that choose for others: a composition for all takes as long."""
    of_groups = {group: [name for g, name in CHOICES if g == group] for group in GROUPS if group not in OVER_OTHERS}
    return tuple(f"{group}={names[number]}" for group, names in of_groups.items() if number < len(names))


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes(group: str, name: str) -> None:
    number = [n for g, n in CHOICES if g == group].index(name)
    composed = compose(f"{group}={name}") if group in OVER_OTHERS else compose(*abreast(number))
    if group in ("model", "data", "optimizer", "scheduler"):
        assert composed[group]["name"] == name


def test_the_default_is_cnn_on_digits_and_builds() -> None:
    settings = compose()
    model, data = build(settings)
    assert (model.entry.name, data.name) == ("cnn", "digits")


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_optimizer_lists_all_its_parameters_which_are_those_of_torch(name: str) -> None:
    skip = {"params", "self", *OF_THE_MACHINE}
    theirs, ours = defaults(OPTIMIZERS[name], skip), load("optimizer", name)
    assert ours.pop("name") == name
    if built_in := getattr(OPTIMIZERS[name], "built_in", None):
        assert ours.pop("source") == "zoo"
        more = {"fused"} - defaults(built_in, set()).keys()  # a form that torch's RMSprop and Adafactor lack
        assert defaults(built_in, {"self"}) == defaults(OPTIMIZERS[name], {"self", *more})
    assert set(ours) == set(theirs)
    own_choice = {"lr", "line_search_fn"}
    assert {k: v for k, v in ours.items() if k not in own_choice} == {
        k: v for k, v in theirs.items() if k not in own_choice
    }


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_scheduler_lists_all_parameters_with_their_defaults(name: str) -> None:
    assert load("scheduler", name) == {"name": name, **defaults(SCHEDULERS[name], {"optimizer", "total_steps"})}


@pytest.mark.parametrize("name", sorted(AVERAGES))
def test_an_average_lists_all_its_options_with_their_defaults(name: str) -> None:
    assert load("averaging", name) == {"name": name, **defaults(AVERAGES[name], set())}


def test_every_optimizer_and_scheduler_has_a_config_and_every_config_one_of_them() -> None:
    assert {name for group, name in CHOICES if group == "optimizer"} == set(OPTIMIZERS)
    assert {name for group, name in CHOICES if group == "scheduler"} == {*SCHEDULERS, "none"}
    assert {name for group, name in CHOICES if group == "averaging"} == {*AVERAGES, "none"}
    assert {name for group, name in CHOICES if group == "model"} == set(zoo.list_models())
    assert {name for group, name in CHOICES if group == "data"} == set(data_entries())


def default_options(cls: type) -> dict[str, Any]:
    """The options of a DataModule with their defaults, its own before those of its bases."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in base.__dict__:
            for parameter in inspect.signature(base.__init__).parameters.values():  # type: ignore[misc]
                if parameter.kind is parameter.KEYWORD_ONLY:
                    found.setdefault(parameter.name, parameter.default)
    return {key: found[key] for key in _options(cls)}


@pytest.mark.parametrize("name", sorted(data_entries()))
def test_a_data_config_lists_every_option_with_its_default(name: str) -> None:
    listed = load("data", name)
    assert listed.pop("name") == name
    options = default_options(data_entries()[name].cls)
    assert set(listed) == set(options)
    assert listed.pop("seed") == "${seed}"
    for key, value in listed.items():
        default = options[key]
        if default is inspect.Parameter.empty:
            assert value == "???", f"{key} has no default"
        elif isinstance(value, list) and default is None:
            continue  # the config spells out what None stands for
        else:
            assert value == (list(default) if isinstance(default, tuple) else default), key
    for line in (config_dir() / "data" / f"{name}.yaml").read_text().splitlines():
        key = re.match(r"(\w+):(?! *$)", line)
        assert not key or key[1] == "name" or " # " in line, f"{key and key[1]} has no comment"


@pytest.mark.parametrize("name", zoo.list_models())
def test_a_model_chooses_its_data_and_the_command_line_wins(name: str) -> None:
    own = compose(f"model={name}")
    assert own["model"]["name"] == name
    other = next(data for data in ("iris", "wine") if data != own["data"]["name"])
    chosen = compose(f"model={name}", f"data={other}", "optimizer=sgd", "optimizer.lr=0.123", "trainer.max_epochs=7")
    assert chosen["data"]["name"] == other
    assert (chosen["optimizer"]["name"], chosen["optimizer"]["lr"]) == ("sgd", 0.123)
    assert chosen["trainer"]["max_epochs"] == 7
    assert chosen["model"] == own["model"]


@pytest.mark.parametrize("name", zoo.list_models())
def test_what_a_model_config_sets_elsewhere_holds_for_any_choice_there(name: str) -> None:
    """A key that one optimizer has and another lacks would make `model=X optimizer=Y` fail."""
    sets = load("model", name).get("optimizer", {})
    for optimizer in OPTIMIZERS:  # as Hydra joins them, which takes long
        options = {**load("optimizer", optimizer), **sets}
        Recipe(options.pop("name"), options)
    chosen = compose(f"model={name}", "optimizer=sgd")["optimizer"]
    assert chosen == {**load("optimizer", "sgd"), **sets}


def test_the_command_line_order_does_not_matter() -> None:
    assert compose("model=mlp", "data=iris", "optimizer=sgd") == compose("optimizer=sgd", "data=iris", "model=mlp")


def test_regularization_joins() -> None:
    joined = compose("regularization=[l2,dropout,early_stopping,gradient_clipping]")["regularization"]
    assert joined["l2"] == 1e-4
    assert joined["l1"] == 0.0
    assert joined["dropout"] == 0.5
    assert joined["early_stopping"]["patience"] == 5
    assert joined["gradient_clip_val"] == 1.0
    assert compose("regularization=elastic_net")["regularization"]["l1"] == 1e-4
    assert compose("regularization=l2", "regularization.l2=0.3")["regularization"]["l2"] == 0.3


def test_dropout_reaches_the_model_and_is_refused_where_there_is_none() -> None:
    model, _ = build(compose("model=mlp", "regularization=dropout", "regularization.dropout=0.2"))
    assert model.hparams["dropout"] == 0.2
    with pytest.raises(zoo.ZooError, match="linear_regression has no dropout"):
        build(compose("model=linear_regression", "regularization=dropout"))


def test_penalties_reach_the_recipe() -> None:
    model, _ = build(compose("model=mlp", "regularization=elastic_net", "regularization.l1=0.01", "scheduler=step"))
    assert (model.recipe.l1, model.recipe.l2, model.recipe.scheduler) == (0.01, 1e-4, "step")


def test_the_data_take_the_seed_of_the_run() -> None:
    assert compose("seed=3")["data"]["seed"] == 3
    assert compose("seed=3", "data.seed=4")["data"]["seed"] == 4


@pytest.mark.parametrize("name", [name for group, name in CHOICES if group == "experiment"])
def test_every_experiment_builds(name: str) -> None:
    settings = compose(f"experiment={name}")
    if needs_files(settings["data"]["name"]):  # of which the project carries none: names and options are checked
        options = dict(settings["data"])
        assert create_data(options.pop("name"), **options).name == settings["data"]["name"]
        options = dict(settings["model"])
        assert zoo.create_model(options.pop("name"), **options).entry.name == settings["model"]["name"]
        return
    model, data = build(settings)
    assert model.spec == data.spec


def test_defaults_of_data_create_them_as_the_registry_does() -> None:
    options = {k: v for k, v in compose("data=iris")["data"].items() if k != "name"}
    assert create_data("iris", **options).spec == create_data("iris").spec


def test_no_config_holds_a_target_and_none_a_tab() -> None:
    for file in Path(config_dir()).rglob("*.yaml"):
        text = file.read_text()
        assert "_target_" not in text, file
        assert "\t" not in text, file
