"""What the tests of every kernel use."""

from __future__ import annotations

import pytest

import zoo.kernels


@pytest.fixture(params=("0", *zoo.kernels.runnable()))
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The torch form ("0"), and each variant that this processor can run."""
    monkeypatch.setenv("ZOO_KERNELS", request.param)
    if request.param != "0" and zoo.kernels.status().variant is None:
        pytest.skip(str(zoo.kernels.status()))
    return request.param
