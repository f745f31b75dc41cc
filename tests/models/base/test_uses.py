"""A hyperparameter that is given and does nothing is refused, for every model."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from support import assert_same, default_data, fit_tiny, tiny_batch

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.models.base.uses import GIVEN
from zoo.registry import make_model, model_entry

# For each hyperparameter that is not always of use another value than its default.
OTHER: dict[str, Any] = {
    "C": 5.0, "alpha": 5.0, "binary_logit": True, "break_ties": True, "class_weight": [1.0, 2.0], "coef0": 1.0,
    "decision": "ovo", "degree": 2, "embedding": "words.txt", "embedding_size": 3, "epsilon": 0.3, "gamma": 2.0,
    "gradient_tol": 0.5, "intercept_scaling": 3.0, "lora_alpha": 3.0, "lora_rank": 2, "loss": "poisson", "max_iter": 7,
    "max_samples": 0.5, "method": "newton", "min_categories": 4, "norm": True, "num_clusters": 4,
    "num_components": 7, "num_passes": 3, "oversampling": 3.0, "probability": True, "quantile": 0.3, "rounds": 4,
    "seed": 7, "span": 5.0, "threshold": 1.5, "tol": 0.01, "tolerance": 0.1, "validation_fraction": 0.3,
    "var_smoothing": 0.1, "warm_start": True,
}  # fmt: skip
WHOLE = {("pca", "oversampling"): 3}
# What hyperparameters are beside those that leave one without use.
BESIDE: dict[str, Any] = {
    "likelihood": ("bernoulli", "gaussian"), "solver": ("gradient", "covariance"), "fit_intercept": (False,),
    "features": ("none",), "kernel": ("linear",), "loss": ("squared_error",), "patience": (None,),
    "bootstrap": (False,), "init": ("random",), "distance_threshold": (5.0,), "target": ("class", "value"),
    "kind": ("tabular",), "pretrained": (None,), "lora_rank": (None,), "controller": ("feedforward",),
}  # fmt: skip
CASES = [
    (name, parameter, key)
    for name in zoo.list_models()
    for parameter, needs in model_entry(name).cls.needs.items()
    for key in needs
]


@functools.cache
def rows(target: str | None) -> tuple[DataSpec, Batch]:
    x = torch.rand(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (x[:, 0] + 0.2 * x[:, 1] > 0.5).long() if target == "class" else x[:, 0] + x[:, 1]
    fields: dict[str, Any] = {"target": target, "num_classes": 2 if target == "class" else None} if target else {}
    return DataSpec("tabular", (3,), dtype="float64", **fields), Batch(x, y if target else None)


def without_use(name: str, parameter: str, key: str) -> tuple[dict[str, Any], str | None]:
    """The other hyperparameters and the target with which the parameter does nothing, by this need of it."""
    entry, wanted = model_entry(name), model_entry(name).cls.needs[parameter][key]
    annotation = {value for value in BESIDE[key] if wanted is GIVEN or value not in wanted}
    options: dict[str, Any] = {}
    for other, values in entry.cls.needs[parameter].items():  # the other needs are met
        if other != key and other not in ("kind", "target") and values is not GIVEN:
            options[other] = values[0]
    targets = [target for kind, target in entry.accepts if kind == "tabular"]
    if key == "target":
        return options, next(value for value in BESIDE[key] if value in annotation)
    if key != "kind":
        for value in BESIDE[key]:
            if value in annotation:
                try:
                    make_model(name, **{key: value})
                except zoo.ZooError:
                    continue
                options[key] = value
                break
    return options, "value" if key == "loss" else targets[0] if targets else None


@pytest.mark.parametrize("name", zoo.list_models())
def test_needs_name_hyperparameters(name: str) -> None:
    known = model_entry(name).hyperparameters
    for parameter, needs in model_entry(name).cls.needs.items():
        assert parameter in known
        assert set(needs) <= {*known, "target", "kind"}


@pytest.mark.parametrize(("name", "parameter", "key"), CASES)
def test_what_does_nothing_is_refused_in_one_line(name: str, parameter: str, key: str) -> None:
    options, target = without_use(name, parameter, key)
    value = WHOLE.get((name, parameter), OTHER[parameter])
    late = key in ("target", "kind")
    try:
        model = zoo.create_model(name, **options, **{parameter: value})
        assert late
        if target is None or "tabular" not in model.entry.kinds:
            return
        model.build(rows(target)[0])
    except zoo.ZooError as error:
        message = str(error)
    assert message.startswith(f"model.{parameter}=")
    assert "needs" in message
    assert "\n" not in message
    default = model_entry(name).hyperparameters[parameter]
    zoo.create_model(name, **options, **{parameter: default})  # as a config lists it


@pytest.mark.parametrize(("name", "parameter", "key"), CASES)
def test_what_is_said_to_do_nothing_does_nothing(name: str, parameter: str, key: str) -> None:
    """Else the declaration would take something away from users."""
    options, target = without_use(name, parameter, key)
    value = WHOLE.get((name, parameter), OTHER[parameter])
    if key == "kind" or (target is None and not model_entry(name).unsupervised):
        spec, batch = default_data(name).spec, tiny_batch(default_data(name), 24)
        if spec.kind == "tokens":
            pytest.skip("its data are tokens")
    else:
        spec, batch = rows(target)
    found = []
    for given in ({}, {parameter: value}):
        torch.manual_seed(0)
        if given and parameter in ("probability", "span"):
            return  # it has a line of its own
        if given and parameter == "lora_rank":
            return  # a model that was saved has adapters, and asks for no pre-trained run any more
        model = make_model(name, **options, **given).build(spec)
        fit_tiny(model, batch, steps=2)
        found.append(model.eval().predict_batch(model.as_batch(batch)))
    assert_same(*found, 0.0, parameter)


def test_what_is_of_use_is_taken() -> None:
    spec, batch = rows("value")
    model = zoo.create_model("svm", epsilon=0.3).build(spec)
    fit_tiny(model, batch)
    zoo.create_model("naive_bayes", likelihood="multinomial", alpha=5)
    zoo.create_model("gradient_boosting", loss="quantile", quantile=0.3, patience=3, validation_fraction=0.2)
    zoo.create_model("agglomerative_clustering", num_clusters=None, distance_threshold=2.0)
    with pytest.raises(
        zoo.ZooError, match=r"^model.epsilon=0.3 does nothing for class targets: it needs value targets"
    ):
        zoo.fit(zoo.create_model("svm", epsilon=0.3), rows("class")[1].x, rows("class")[1].y)


def test_a_saved_model_keeps_what_does_nothing(tmp_path: Any) -> None:
    """As zoo.sklearn and models of before have it."""
    spec, batch = rows("class")
    model = make_model("svm", epsilon=0.3).build(spec)
    fit_tiny(model, batch)
    zoo.save_model(model, tmp_path / "model.ckpt")
    assert zoo.load_model(tmp_path / "model.ckpt").hparams.epsilon == 0.3
