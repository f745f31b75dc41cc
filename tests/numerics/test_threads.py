"""Little work takes one thread of torch's, and what was set is set again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import zoo.sklearn as zs
from zoo.numerics.threads import LITTLE, few_threads, of_few_threads


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_come_back_whatever_happens() -> None:
    with few_threads(LITTLE + 1):
        assert torch.get_num_threads() == 3
    with few_threads(1), few_threads(LITTLE + 1), few_threads(1):
        assert torch.get_num_threads() == 1
    with pytest.raises(KeyError), few_threads(1):
        raise KeyError
    assert torch.get_num_threads() == 3


class Method:
    @of_few_threads
    def fit(self, X: object, y: object = None) -> int:
        """Return how many threads there are."""
        return torch.get_num_threads()


def test_a_method_takes_as_many_as_its_rows_are_worth() -> None:
    few, many = np.zeros((100, 3)), np.broadcast_to(0.0, (LITTLE, 2))
    assert Method().fit(few) == Method().fit(X=few) == Method().fit([[1.0]], y=2) == 1
    assert Method().fit(many) == 3
    assert "how many threads" in (Method.fit.__doc__ or "")


@pytest.mark.parametrize("estimator", [zs.PCA(), zs.Ridge(), zs.LogisticRegression(), zs.GaussianNB()], ids=str)
def test_small_data_are_fitted_by_one_thread(estimator: object, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    check = type(estimator)._check_parameters
    monkeypatch.setattr(
        type(estimator), "_check_parameters", lambda self: (seen.append(torch.get_num_threads()), check(self))
    )
    estimator.fit(np.random.default_rng(0).random((20, 3)), [0, 1] * 10)  # type: ignore[attr-defined]
    assert seen == [1]
    assert torch.get_num_threads() == 3
