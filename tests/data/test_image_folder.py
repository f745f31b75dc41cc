"""Folders of images: classes from names, sizes, grey and colour, splits, and what is refused by the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from zoo.data import create_data
from zoo.errors import ZooError


def fill(root: Path, classes: str = "ab", count: int = 10, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Path:
    """Write `count` random images of (height, width) into a folder for each class."""
    rng = np.random.default_rng(len(root.name))
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shape = size if mode == "L" else (*size, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(root / name / f"{number}.png")
    return root


def everything(data: Any, split: str = "train") -> Any:
    return data.rows(split)[torch.arange(len(data.rows(split)))]


def refusal(**options: Any) -> str:
    with pytest.raises(ZooError) as error:
        _ = create_data("image_folder", **options).spec
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_same_pixels_and_classes_as_torchvision(tmp_path: Path, limit: int) -> None:
    fill(tmp_path)
    options: dict = {"val_fraction": 0.0, "test_fraction": 0.0, "normalize": False, "in_memory_limit": limit}
    data = create_data("image_folder", path=str(tmp_path), **options)
    source = torchvision.datasets.ImageFolder(str(tmp_path), torchvision.transforms.PILToTensor())
    batch = everything(data)
    assert torch.equal(batch.x, torch.stack([image for image, _ in source]) / 255)
    assert batch.y.tolist() == source.targets
    assert (data.spec.shape, data.spec.class_names) == ((3, 6, 4), ("a", "b"))


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_normalization_and_splits(tmp_path: Path, limit: int) -> None:
    data = create_data("image_folder", path=str(fill(tmp_path)), in_memory_limit=limit)
    parts = [everything(data, name) for name in ("train", "val", "test")]
    assert [len(part.y) for part in parts] == [14, 2, 4]
    assert [part.y.bincount().tolist() for part in parts] == [[7, 7], [1, 1], [2, 2]]
    x = parts[0].x.double()
    assert x.mean((0, 2, 3)).abs().max() < 1e-6
    assert (x.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6
    rows = torch.cat([part.x for part in parts]).flatten(1)
    assert len(rows.unique(dim=0)) == 20


def test_given_splits(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        fill(tmp_path / split, count=count)
    data = create_data("image_folder", path=str(tmp_path))
    assert [len(data.rows(split)) for split in ("train", "val", "test")] == [10, 4, 6]
    fill(tmp_path / "test", classes="z")
    assert "has the class folder 'z', which the training images lack" in refusal(path=str(tmp_path))


def test_grey_images_have_one_channel_unless_mixed(tmp_path: Path) -> None:
    fill(tmp_path, mode="L")
    assert create_data("image_folder", path=str(tmp_path)).spec.shape == (1, 6, 4)
    assert create_data("image_folder", path=str(tmp_path), channels=3).spec.shape == (3, 6, 4)
    fill(tmp_path, classes="c")
    assert create_data("image_folder", path=str(tmp_path)).spec.shape == (3, 6, 4)
    assert create_data("image_folder", path=str(tmp_path), channels=1).spec.shape == (1, 6, 4)


def test_mixed_sizes_need_a_size(tmp_path: Path) -> None:
    fill(tmp_path, classes="a", size=(6, 4))
    fill(tmp_path, classes="b", size=(5, 5))
    message = refusal(path=str(tmp_path))
    assert "a/0.png is 6×4" in message
    assert "b/0.png is 5×5: pass data.size=[6,4]" in message
    assert create_data("image_folder", path=str(tmp_path), size=[8, 7]).spec.shape == (3, 8, 7)
    data = create_data("image_folder", path=str(tmp_path), size=8, batch_size=3)
    assert next(iter(data.train_dataloader())).x.shape == (3, 3, 8, 8)


def test_mistakes(tmp_path: Path) -> None:
    assert "data.path must be a folder" in refusal()
    assert "data.path must be a folder" in refusal(path=str(tmp_path / "nowhere"))
    assert "one folder for each of at least two classes; it has 0" in refusal(path=str(tmp_path))
    fill(tmp_path, classes="a")
    assert "at least two classes; it has 1" in refusal(path=str(tmp_path))
    (tmp_path / "b").mkdir()
    assert "b holds no image (.png" in refusal(path=str(tmp_path))
    assert "data.size must be" in refusal(path=str(tmp_path), size=0)
    assert "data.channels must be 1, 3 or null, not 2" in refusal(path=str(tmp_path), channels=2)
    assert "below 1 together" in refusal(path=str(tmp_path), val_fraction=0.5, test_fraction=0.5)


def test_damaged_images_are_named(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "a" / "bad.png").write_text("no image")
    assert "bad.png cannot be read (it is no image)" in refusal(path=str(tmp_path))
    content = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "bad.png").write_bytes(content[: len(content) // 2])
    assert "bad.png cannot be decoded" in refusal(path=str(tmp_path))
