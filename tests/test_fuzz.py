"""Any value for any hyperparameter of any model: taken and of use, or refused in one line."""

from __future__ import annotations

import math
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support import default_data, fit_tiny, model_config, tiny_batch

import zoo
from zoo.errors import ZooError
from zoo.models.base import ZooModel

VALUES: list[Any] = [
    -1, 0, 1, 10**12, 10**25, -0.5, 0.0, 1e-300, 1e300, math.nan, math.inf, True, None, "abc", "", [], [1], [-1], {},
]  # fmt: skip
SAMPLE: list[Any] = [10**25, math.nan, "", [-1], {}]  # which no constructor builds much for
SECONDS = 20
BESIDE: dict[tuple[str, str], dict[str, Any]] = {  # what would take long else, and rightly
    ("apriori", "min_support"): {"max_length": 2},
    ("glove", "entries_per_step"): {"num_epochs": 1},
    ("glove", "memory_limit"): {"num_epochs": 1},
}


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def late(*args: Any) -> None:
        raise TimeoutError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(name: str, parameter: str, value: Any) -> str | None:
    """What is wrong with what came of a value, or None."""
    batch = tiny_batch(default_data(name), 24)
    try:
        with at_most(SECONDS):
            torch.manual_seed(0)
            options = {**BESIDE.get((name, parameter), {}), parameter: value}
            model = zoo.create_model(name, spec=default_data(name).spec, **options)
            fit_tiny(model, batch, steps=2)
            if model.predict_batch.__func__ is not ZooModel.predict_batch:  # type: ignore[attr-defined]
                with torch.inference_mode():
                    model.eval().predict_batch(model.as_batch(batch))
    except ZooError as error:
        return f"several lines: {error}" if "\n" in str(error) else None
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if isinstance(value, float) and not math.isfinite(value):
        return "a number that is not finite was taken"
    return None


def defects(name: str, values: list[Any]) -> dict[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {
            f"{parameter}={value!r}": outcome(name, parameter, value)
            for parameter in model_config(name)["model"]
            if parameter != "name"
            for value in values
        }
    return {case: wrong for case, wrong in found.items() if wrong}


@pytest.mark.parametrize("name", zoo.list_models())
def test_a_few_values_for_each_hyperparameter(name: str) -> None:
    assert not defects(name, SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list_models())
def test_any_value_for_each_hyperparameter(name: str) -> None:
    torch.set_num_threads(1)
    assert not defects(name, VALUES)
