"""MNIST, Fashion-MNIST and CIFAR-10 from their files: the right pixels, checked, augmented reproducibly."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from zoo.data import create_data
from zoo.data.images import read_batch
from zoo.data.pixels import Augment, ImageRows, channel_moments
from zoo.data.scaling import Standardize
from zoo.errors import ZooError


def everything(data: Any, split: str) -> Any:
    return data.rows(split)[torch.arange(len(data.rows(split)))]


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(head + array.tobytes())


@pytest.fixture
def tiny_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Small random files in the place and the format of Fashion-MNIST, with their sums known to torchvision."""
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte.gz": rng.integers(0, 256, (50, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte.gz": rng.permutation(np.arange(50, dtype=np.uint8) % 10),
        "t10k-images-idx3-ubyte.gz": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte.gz": np.arange(20, dtype=np.uint8) % 10,
    }
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    resources = []
    for name, array in arrays.items():
        (folder / name).write_bytes(idx(array))
        resources.append((name, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    return arrays


def test_pixels_and_labels(tmp_path: Path, tiny_mnist: dict[str, np.ndarray]) -> None:
    data = create_data("fashion_mnist", root=str(tmp_path), normalize=False, val_fraction=0.0)
    batch = everything(data, "train")
    assert torch.equal(batch.x.squeeze(1), torch.from_numpy(tiny_mnist["train-images-idx3-ubyte.gz"]) / 255)
    assert batch.y.tolist() == tiny_mnist["train-labels-idx1-ubyte.gz"].tolist()
    assert everything(data, "test").y.tolist() == tiny_mnist["t10k-labels-idx1-ubyte.gz"].tolist()
    assert (data.spec.shape, data.spec.class_names[-1]) == ((1, 28, 28), "ankle boot")
    assert batch.x.dtype == torch.float32


def test_validation_is_held_out_of_the_training_images(tmp_path: Path, tiny_mnist: dict[str, np.ndarray]) -> None:
    data = create_data("fashion_mnist", root=str(tmp_path), normalize=False, val_fraction=0.2)
    parts = [everything(data, name).x.flatten(1) for name in ("train", "val")]
    assert [len(part) for part in parts] == [40, 10]
    found = {tuple(row.tolist()) for part in parts for row in part}
    assert len(found) == 50
    assert everything(data, "val").y.bincount().tolist() == [1] * 10, "each class has its share"


def test_normalized_by_the_training_images(tmp_path: Path, tiny_mnist: dict[str, np.ndarray]) -> None:
    data = create_data("fashion_mnist", root=str(tmp_path))
    x = everything(data, "train").x.double()
    assert abs(x.mean()) < 1e-6
    assert abs(x.std(correction=0) - 1) < 1e-6
    assert abs(everything(data, "test").x.double().mean()) > 1e-6


def test_an_altered_file_is_named(tmp_path: Path, tiny_mnist: dict[str, np.ndarray]) -> None:
    path = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ZooError, match=rf"{path} is damaged .* delete it and pass data\.download=true"):
        _ = create_data("fashion_mnist", root=str(tmp_path)).spec


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_a_missing_file_says_what_to_pass(tmp_path: Path, name: str) -> None:
    with pytest.raises(ZooError, match=r"is missing: pass data\.download=true, or data\.root=FOLDER"):
        _ = create_data(name, root=str(tmp_path)).spec


def test_a_download_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", refuse)
    with pytest.raises(ZooError, match=r"could not be downloaded \(no route to host\): put it into"):
        _ = create_data("mnist", root=str(tmp_path), download=True).spec


def test_a_download_is_checked_and_used(tmp_path: Path, tiny_mnist: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(url: str, root: str, filename: str, md5: str) -> None:
        Path(root).mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "FashionMNIST" / "raw" / filename, root)

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", copy)
    data = create_data("fashion_mnist", root=str(tmp_path / "new"), download=True)
    assert len(data.rows("test")) == 20


def test_mnist_equals_torchvision(shared_data: Path, tmp_path: Path) -> None:
    """The real test images from the archives, against torchvision's reader of the extracted files."""
    data = create_data("mnist", root=str(shared_data), normalize=False)
    name = "t10k-{}-ubyte"
    for part in ("images-idx3", "labels-idx1"):
        packed = shared_data / "MNIST" / "raw" / (name.format(part) + ".gz")
        (tmp_path / name.format(part)).write_bytes(gzip.decompress(packed.read_bytes()))
    images = torchvision.datasets.mnist.read_image_file(str(tmp_path / name.format("images-idx3")))
    labels = torchvision.datasets.mnist.read_label_file(str(tmp_path / name.format("labels-idx1")))
    batch = everything(data, "test")
    assert torch.equal(batch.x.squeeze(1), images / 255)
    assert torch.equal(batch.y, labels)
    assert [len(data.rows(split)) for split in ("train", "val", "test")] == [54_000, 6_000, 10_000]


def cifar_batch(rng: np.random.Generator, size: int) -> dict[str, Any]:
    return {"data": rng.integers(0, 256, (size, 3072), dtype=np.uint8), "labels": rng.integers(0, 10, size).tolist()}


def python2_pickle(batch: dict[str, Any]) -> bytes:
    """Pickle as Python 2 did: protocol 2, the array's bytes as a plain string, NumPy's old module name."""
    data: np.ndarray = batch["data"]

    class Array:
        def __reduce__(self) -> tuple:
            raw = data.tobytes().decode("latin1")
            return data.__reduce__()[0], (np.ndarray, (0,), "b"), (1, data.shape, data.dtype, False, raw)

    content = pickle.dumps({"data": Array(), "labels": batch["labels"]}, protocol=2)
    return content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.fixture
def tiny_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    source = torchvision.datasets.CIFAR10
    rng = np.random.default_rng(1)
    names = [name for name, _ in source.train_list + source.test_list]
    batches = {name: cifar_batch(rng, 10) for name in names}
    folder = tmp_path / source.base_folder
    folder.mkdir()
    sums = {}
    for name, batch in batches.items():
        (folder / name).write_bytes(python2_pickle(batch))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(source, "train_list", [[name, sums[name]] for name in names[:-1]])
    monkeypatch.setattr(source, "test_list", [[names[-1], sums[names[-1]]]])
    return batches


def test_cifar(tmp_path: Path, tiny_cifar: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    data = create_data("cifar10", root=str(tmp_path), normalize=False, val_fraction=0.0)
    expected = np.concatenate([batch["data"] for batch in list(tiny_cifar.values())[:-1]])
    batch = everything(data, "train")
    assert torch.equal(batch.x, torch.from_numpy(expected).view(-1, 3, 32, 32) / 255)
    assert everything(data, "test").y.tolist() == tiny_cifar["test_batch"]["labels"]
    source: Any = torchvision.datasets.CIFAR10
    with tarfile.open(tmp_path / source.filename, "w:gz") as archive:
        archive.add(tmp_path / source.base_folder, source.base_folder)
    shutil.rmtree(tmp_path / source.base_folder)
    with pytest.raises(ZooError, match="is damaged"):
        _ = create_data("cifar10", root=str(tmp_path)).spec
    md5 = hashlib.md5((tmp_path / source.filename).read_bytes()).hexdigest()
    monkeypatch.setattr(source, "tgz_md5", md5)
    packed = create_data("cifar10", root=str(tmp_path), normalize=False, val_fraction=0.0)
    assert torch.equal(everything(packed, "train").x, batch.x)


def test_an_altered_cifar_batch_is_named(tmp_path: Path, tiny_cifar: Any) -> None:
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ZooError, match="data_batch_3 is damaged"):
        _ = create_data("cifar10", root=str(tmp_path)).spec


def test_a_pickle_cannot_call_anything() -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return print, ("executed",)

    with pytest.raises(ZooError, match=r"wants to call builtins\.print"):
        read_batch(pickle.dumps({"data": Evil()}))
    with pytest.raises(ZooError, match="wants to call"):
        read_batch(b"cnumpy.testing\nmeasure\n(S'1'\ntR.")


def test_channel_moments_equal_numpy() -> None:
    pixels = torch.randint(0, 256, (300, 3, 5, 4), dtype=torch.uint8)
    pixels[:, 2] = 77
    mean, std = channel_moments(pixels, 300, chunk=7)
    array = pixels.numpy().astype(np.float64)
    np.testing.assert_allclose(mean, array.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], array.std((0, 2, 3))[:2], rtol=1e-12)
    assert std[2] == 1, "a constant channel divides by nothing"


def shifted(image: torch.Tensor, down: int, right: int, padding: int) -> torch.Tensor:
    height, width = image.shape[-2:]
    padded = torch.nn.functional.pad(image, [padding] * 4)
    return padded[:, down : down + height, right : right + width]


def test_augmentation_is_a_shift_and_a_mirror() -> None:
    images = torch.arange(1, 200 * 6 * 5 + 1, dtype=torch.int32).view(200, 1, 6, 5)
    found = Augment(2, True, seed=0)(images, torch.arange(200), epoch=3)
    seen = set()
    for image, result in zip(images, found, strict=True):
        candidates = {
            (down, right, flip): shifted(image.flip(-1) if flip else image, down, right, 2)
            for down in range(5)
            for right in range(5)
            for flip in (False, True)
        }
        ways = [way for way, candidate in candidates.items() if torch.equal(candidate, result)]
        assert len(ways) == 1
        seen.add(ways[0])
    assert len(seen) > 45, "all 50 ways occur"


def test_augmentation_is_a_function_of_seed_epoch_and_row() -> None:
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    rows = ImageRows(
        images, torch.arange(64), Standardize(torch.zeros(3, 1, 1), torch.ones(3, 1, 1)), Augment(2, True, seed=5)
    )
    plain = rows[torch.arange(64)].x
    assert torch.equal(plain, images.float()), "no epoch, no augmentation"
    rows.set_epoch(1)
    whole = rows[torch.arange(64)].x
    index = torch.randperm(64)[:10]
    torch.manual_seed(99)
    assert torch.equal(rows[index].x, whole[index])
    rows.set_epoch(2)
    assert not torch.equal(rows[torch.arange(64)].x, whole)


def test_only_training_batches_are_augmented(tmp_path: Path, tiny_mnist: Any) -> None:
    data = create_data("fashion_mnist", root=str(tmp_path), flip=True, crop_padding=2, shuffle=False, val_fraction=0.0)
    plain = everything(data, "train").x
    assert not torch.equal(next(iter(data.train_dataloader())).x, plain[:64])
    assert torch.equal(next(iter(data.loader("train"))).x, plain[:64])
    assert torch.equal(everything(data, "train").x, plain)


def test_options() -> None:
    with pytest.raises(ZooError, match=r"data\.crop_padding must be 0 or more"):
        create_data("mnist", crop_padding=-1)
    with pytest.raises(ZooError, match=r"data\.val_fraction"):
        create_data("mnist", val_fraction=1.0)


def test_bytes_of_a_batch_survive_the_round_trip() -> None:
    batch = cifar_batch(np.random.default_rng(2), 3)
    images, labels = read_batch(python2_pickle(batch))
    assert torch.equal(images.flatten(1), torch.from_numpy(batch["data"]))
    assert labels.tolist() == batch["labels"]
    assert pickle.load(io.BytesIO(python2_pickle(batch)), encoding="latin1")["labels"] == batch["labels"]
