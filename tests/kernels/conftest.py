"""What the tests of every kernel use."""

from __future__ import annotations

import pytest

import zoo.kernels

BEST, *OTHERS = zoo.kernels.runnable()


@pytest.fixture(params=["0", BEST, *(pytest.param(variant, marks=pytest.mark.slow) for variant in OTHERS)])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The torch form ("0") and the best variant that this processor can run; the other variants are slow tests."""
    monkeypatch.setenv("ZOO_KERNELS", request.param)
    if request.param != "0" and zoo.kernels.status().variant is None:
        pytest.skip(str(zoo.kernels.status()))
    return request.param
