"""MNIST, Fashion-MNIST and CIFAR-10 from the files that torchvision names, checked by MD5 at every load.

torchvision checks the archives alone and then reads what was extracted from them; here the checked bytes
themselves are read (`.gz` and `.tar.gz` without extraction), so that read-only folders work and an altered
file is noticed. CIFAR-10 comes as pickles: they are read after their check, by an unpickler that knows
arrays and nothing else.

Sources: LeCun, Cortes & Burges 1998; Xiao, Rasul & Vollgraf 2017; Krizhevsky 2009.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.base import Rows, split_rows
from zoo.data.pixels import ImageData
from zoo.data.registry import register_data
from zoo.data.spec import DataSpec
from zoo.errors import ZooError

__all__ = ["CIFAR10", "MNIST", "FashionMNIST", "TorchvisionImages"]


class TorchvisionImages(ImageData):
    """Images in the files of a torchvision data set.

    Args:
        root: folder that torchvision would be given.
        download: whether missing files may be downloaded.
        val_fraction: share of the training images held out for validation; 0 for none.
        **options: those of `ImageData`.
    """

    folder: str
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    path_options = ("root",)

    def __init__(
        self, *, root: str = "data", download: bool = False, val_fraction: float = 0.1, **options: Any
    ) -> None:
        super().__init__(**options)
        if not 0 <= val_fraction < 1:
            raise ZooError(f"data.val_fraction must be at least 0 and below 1, not {val_fraction}.")
        self.root, self.download, self.val_fraction = root, download, val_fraction

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the images (N, C, H, W) as bytes, and their classes (N,)."""
        raise NotImplementedError

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        images, labels = self.read(train=True)
        train, val, _ = split_rows(len(labels), (self.val_fraction, 0.0), self.seed, labels)
        splits = {"train": (images[train], labels[train]), "test": self.read(train=False)}
        if len(val):
            splits["val"] = (images[val], labels[val])
        spec = DataSpec("image", self.shape, "class", num_classes=len(self.class_names), class_names=self.class_names)
        return spec, self.image_rows(splits)

    def file(self, name: str, urls: list[str], md5: str) -> bytes:
        """Return the bytes of a file below the root after checking them."""
        target = Path(self.root) / self.folder / name
        path = next((p for p in (target, Path(self.root) / name) if p.is_file()), None)
        if path is None:
            if not self.download:
                raise ZooError(f"{target} is missing: pass data.download=true, or data.root=FOLDER that has it.")
            path = download(urls, target, md5)
        return checked(path.read_bytes(), md5, str(path))


def checked(content: bytes, md5: str, path: str) -> bytes:
    """Return `content` if it has the MD5 that it should have, or raise one line with the remedy."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ZooError(f"{path} is damaged (MD5 {found}, not {md5}): delete it and pass data.download=true.")
    return content


def download(urls: list[str], target: Path, md5: str) -> Path:
    """Fetch `target` from the first of `urls` that answers, and return its path."""
    from torchvision.datasets.utils import download_url

    reason: Exception | None = None
    for url in urls:
        try:
            download_url(url, str(target.parent), target.name, md5)
            return target
        except (OSError, RuntimeError) as error:
            reason = error
    raise ZooError(f"{target.name} could not be downloaded ({reason}): put it into {target.parent}.")


@register_data("mnist", kind="image", target="class")
class MNIST(TorchvisionImages):
    """MNIST: 60,000 + 10,000 handwritten digits, grey, 28×28.

    Args:
        **options: those of `TorchvisionImages`.
    """

    folder = "MNIST/raw"
    shape = (1, 28, 28)
    class_names = tuple("0123456789")
    source = "MNIST"

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        import torchvision

        source = getattr(torchvision.datasets, self.source)
        prefix = "train" if train else "t10k"
        arrays = []
        for name, md5 in source.resources:
            if name.startswith(prefix):
                content = self.file(name, [mirror + name for mirror in source.mirrors], md5)
                arrays.append(read_idx(gzip.decompress(content)))
        images, labels = arrays
        return images.unsqueeze(1), labels.long()


def read_idx(content: bytes) -> Tensor:
    """Return the uint8 tensor of a file in LeCun's IDX format: 0, 0, 8 (bytes), rank, sizes, values."""
    rank = content[3]
    sizes = np.frombuffer(content, ">i4", rank, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    return torch.from_numpy(values.reshape(sizes).copy())


@register_data("fashion_mnist", kind="image", target="class")
class FashionMNIST(MNIST):
    """Fashion-MNIST: 60,000 + 10,000 articles of clothing, grey, 28×28.

    Args:
        **options: those of `TorchvisionImages`.
    """

    folder = "FashionMNIST/raw"
    class_names = (
        *("t-shirt", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
    source = "FashionMNIST"


@register_data("cifar10", kind="image", target="class")
class CIFAR10(TorchvisionImages):
    """CIFAR-10: 50,000 + 10,000 colour photographs of animals and vehicles, 32×32.

    Args:
        **options: those of `TorchvisionImages`.
    """

    folder = ""
    shape = (3, 32, 32)
    class_names = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        from torchvision.datasets import CIFAR10 as Source

        batches = [
            read_batch(self.batch(Source, *entry)) for entry in (Source.train_list if train else Source.test_list)
        ]
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        return images, labels

    def batch(self, source: Any, name: str, md5: str) -> bytes:
        """Return the checked bytes of one batch, from the extracted folder or else from the archive."""
        path = Path(self.root) / source.base_folder / name
        if path.is_file():
            return checked(path.read_bytes(), md5, str(path))
        if not hasattr(self, "_archive"):
            self._archive = self.file(source.filename, [source.url], source.tgz_md5)
        with tarfile.open(fileobj=io.BytesIO(self._archive)) as archive:
            member = archive.extractfile(f"{source.base_folder}/{name}")
            assert member is not None
            return member.read()


class _ArrayUnpickler(pickle.Unpickler):
    """Knows NumPy arrays and nothing else, so that no pickle can call anything."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module.partition(".")[0] == "numpy" and name in known:
            return known[name]
        raise ZooError(f"A CIFAR-10 file wants to call {module}.{name}: it is no data file and was not read.")


def read_batch(content: bytes) -> tuple[Tensor, Tensor]:
    """Return the images (N, 3, 32, 32) and classes (N,) of a CIFAR-10 batch."""
    fields = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    images = torch.from_numpy(np.array(fields["data"], dtype=np.uint8)).view(-1, 3, 32, 32)
    return images, torch.tensor(fields["labels"])
