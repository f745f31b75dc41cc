"""Options and fixtures of all tests: `--device cuda`, `--dtype float32`, the shared data, seeds and threads."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import zoo  # before Lightning, of which it leaves out what takes seconds (zoo/lean.py)
from zoo.registry import _REGISTRY

CHECKOUT = Path(__file__).resolve().parents[1]

# Small tensors gain nothing from threads, and several test processes share the cores.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of the tests that take one: cpu or cuda")
    parser.addoption("--dtype", default="float64", help="floating type of the tests that take one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first: of several processes none is left with a long file when the others are done."""
    items.sort(key=lambda item: "training" not in item.path.parts)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of `--device`."""
    device = torch.device(request.config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("--device cuda was asked for, and there is no GPU")
    return device


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The floating type of `--dtype`."""
    return getattr(torch, request.config.getoption("--dtype"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of larger data sets beside the checkout, which the project does not carry."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data is not there")
    return folder


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """Forget what an example registers, and undo what it sets."""
    zoo.list_models()  # ours are registered
    before, precision = dict(_REGISTRY), torch.get_float32_matmul_precision()
    yield
    _REGISTRY.clear()
    _REGISTRY.update(before)
    torch.set_float32_matmul_precision(precision)


@pytest.fixture(scope="module", autouse=True)
def _libraries_are_walked_once() -> None:
    """Of half a million objects that stay, each full garbage collection would look at all: a sixth of the time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """What is frozen would be told as leaked by some libraries when Python ends."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _nothing_waits_for_the_disk() -> Iterator[None]:
    """Checkpoints are synced to outlive a loss of power, which no test brings about; to wait takes half of a run."""
    before = os.fsync
    os.fsync = lambda descriptor: None
    yield
    os.fsync = before


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Every test starts from the same seed and leaves torch's defaults as they were."""
    torch.manual_seed(0)
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
