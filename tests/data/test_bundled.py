"""The bundled data against scikit-learn's own loaders, and every data config against its constructor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from sklearn import datasets

from zoo.data import create_data, list_data
from zoo.data.registry import _options, data_entries
from zoo.errors import ZooError

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "data"


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_tables_equal_their_source(name: str) -> None:
    source: Any = getattr(datasets, f"load_{name}")()
    data = create_data(name, standardize=False, val_fraction=0.0, test_fraction=0.0)
    batch = data.rows("train")[torch.arange(len(source.data))]
    assert torch.equal(batch.x, torch.from_numpy(source.data))
    assert torch.equal(batch.y, torch.from_numpy(source.target))
    assert data.spec.feature_names == tuple(source.feature_names)
    assert data.spec.num_classes == (None if name == "diabetes" else len(source.target_names))
    assert batch.x.dtype == torch.float64


def test_digits_are_scaled_to_one() -> None:
    source: Any = datasets.load_digits()
    data = create_data("digits", val_fraction=0.0, test_fraction=0.0)
    batch = data.rows("train")[torch.arange(1797)]
    assert torch.equal(batch.x.squeeze(1) * 16, torch.from_numpy(source.images).float())
    assert torch.equal(batch.y, torch.from_numpy(source.target))
    assert data.spec.shape == (1, 8, 8)


def test_listing_by_kind_and_target() -> None:
    assert {"digits", "mnist", "cifar10", "fashion_mnist", "image_folder"} <= set(list_data("image", "class"))
    assert "diabetes" in list_data("tabular", "value")
    assert "diabetes" not in list_data("tabular", "class")
    assert {"csv", "parquet", "npy"} <= set(list_data("tabular", "class")) & set(list_data("tabular", "value"))


def test_unknown_data() -> None:
    with pytest.raises(ZooError, match=r"Unknown data 'digit'\. Did you mean digits"):
        create_data("digit")


@pytest.mark.parametrize("name", sorted(data_entries()))
def test_config_lists_every_option_with_its_default_and_a_comment(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    text = path.read_text()
    config = yaml.safe_load(text)
    assert config.pop("name") == name
    assert config.pop("seed") == "${seed}"
    data = create_data(name)
    valid = _options(data_entries()[name].cls)
    assert sorted(config) == sorted(set(valid) - {"seed"})
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "name:"))]
    assert all("  # " in line for line in lines), "each option has its comment"
    for key, default in defaults(type(data)).items():
        if key in config and default is not None:
            assert config[key] == (list(default) if isinstance(default, tuple) else default), key


def defaults(cls: type) -> dict[str, Any]:
    """The default of each option, that of the subclass first."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        for key, value in (getattr(init, "__kwdefaults__", None) or {}).items():
            found.setdefault(key, value)
    return found


@pytest.mark.parametrize("name", sorted(data_entries()))
def test_config_creates_the_data(name: str) -> None:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert create_data(config.pop("name"), **{**config, "seed": 1}).seed == 1


def test_the_page_lists_all_data() -> None:
    page = (CONFIGS.parents[1] / "docs" / "data.md").read_text()
    # Other test modules may have registered some of their own.
    assert [n for n, e in data_entries().items() if e.cls.__module__.startswith("zoo.") and f"`{n}`" not in page] == []
