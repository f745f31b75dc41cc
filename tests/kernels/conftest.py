"""What the tests of every kernel use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from sanitizer import compile_sanitized, run_sanitized

import zoo.kernels

BEST, *OTHERS = zoo.kernels.runnable()


@pytest.fixture(params=["0", BEST, *(pytest.param(variant, marks=pytest.mark.slow) for variant in OTHERS)])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The torch form ("0") and the best variant that this processor can run; the other variants are slow tests."""
    monkeypatch.setenv("ZOO_KERNELS", request.param)
    if request.param != "0" and zoo.kernels.status().variant is None:
        pytest.skip(str(zoo.kernels.status()))
    return request.param


@pytest.fixture(params=[BEST, *(pytest.param(variant, marks=pytest.mark.slow) for variant in OTHERS)])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As `kernels`, without the torch form, which is what the kernel is compared with."""
    monkeypatch.setenv("ZOO_KERNELS", request.param)
    if zoo.kernels.status().variant is None:
        pytest.skip(str(zoo.kernels.status()))
    return request.param


@pytest.fixture(scope="session", params=[pytest.param(variant, marks=pytest.mark.slow) for variant in (BEST, *OTHERS)])
def sanitized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Return what runs a script with the kernels under the sanitizers: each variant, compiled once for all tests."""
    folder = tmp_path_factory.mktemp(f"sanitized-{request.param}")
    compile_sanitized(request.param, folder)
    return partial(run_sanitized, request.param, folder)
