"""The base of the zoo's DataModules: named splits of rows, served a whole batch at a time."""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.data.preprocessing import Preprocessing
from zoo.data.sampler import BatchSampler, Steps
from zoo.data.scaling import Standardize
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.numerics.devices import has_gpu
from zoo.numerics.hashing import epoch_generator

__all__ = ["Rows", "TensorRows", "ZooDataModule", "split_rows"]


_MEASURED = 1 << 16  # rows of a stream of any length that its targets' scale is measured on


class Rows(Dataset[Batch]):
    """Rows that answer an index tensor (B,) with a `Batch`: the one thing that a source of data implements.

    `block_size` is the number of neighbouring rows that are read together; None for rows in memory. `batch_size` is
    the number of rows, over all processes, that must come as one batch; None where the user chooses.
    """

    block_size: int | None = None
    batch_size: int | None = None
    num_steps: Steps | None = None  # of each row, where rows of similar length are to make up a batch
    epoch: int | None = None  # set while training, for rows that are augmented by (seed, epoch, index)

    def set_epoch(self, epoch: int) -> None:
        """Hear which epoch the training is in."""
        self.epoch = epoch

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: Tensor) -> Batch:
        raise NotImplementedError

    def whole(self) -> Batch:
        """All of them."""
        return self[torch.arange(len(self))]


class TensorRows(Rows):
    """Rows held in memory.

    Args:
        batch: all of them.
        transform: applied to each batch as it is taken, such as scaling bytes to [0, 1].
    """

    def __init__(self, batch: Batch, transform: Callable[[Batch], Batch] | None = None) -> None:
        self.batch, self.transform = batch, transform

    def __len__(self) -> int:
        return self.batch.size

    def __getitem__(self, index: Tensor | slice) -> Batch:
        batch = self.batch.rows(index)
        return self.transform(batch) if self.transform else batch

    def whole(self) -> Batch:
        return self.transform(self.batch) if self.transform else self.batch


class JoinedRows(Rows):
    """The rows of several sources one after the other, all of the same shapes.

    Args:
        parts: the sources.
    """

    def __init__(self, parts: list[Rows]) -> None:
        self.parts = parts
        self.ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def set_epoch(self, epoch: int) -> None:
        self.parts = [copy.copy(part) for part in self.parts]  # others who hold them hear of no epoch
        for part in self.parts:
            part.set_epoch(epoch)

    def __getitem__(self, index: Tensor) -> Batch:
        home = torch.searchsorted(self.ends, index, right=True)  # (B,)
        order = home.sort(stable=True).indices
        found = []
        for number, part in enumerate(self.parts):
            mine = index[home == number]
            if len(mine) or len(self.parts) == 1:
                found.append(part[mine - (int(self.ends[number - 1]) if number else 0)])
        columns = [None if group[0] is None else torch.cat(group) for group in zip(*found, strict=True)]
        return Batch(*columns).rows(order.argsort())  # type: ignore[arg-type]


class ChosenRows(Rows):
    """Some rows of others.

    Args:
        rows: the others.
        index: which of them, (N,).
    """

    def __init__(self, rows: Rows, index: Tensor) -> None:
        self.rows, self.index = rows, index

    def __len__(self) -> int:
        return len(self.index)

    def set_epoch(self, epoch: int) -> None:
        self.rows = copy.copy(self.rows)
        self.rows.set_epoch(epoch)

    def __getitem__(self, index: Tensor) -> Batch:
        return self.rows[self.index[index]]


def values_of(batch: Batch) -> Tensor:
    """Return the values of a batch's targets, (B, K), float64."""
    assert batch.y is not None
    return batch.y.view(len(batch.y), -1).double()


class BatchLoader(DataLoader):
    """A loader of whole batches, which in the training process itself does no more than to take them from the rows."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        if self.num_workers or self.pin_memory:
            return super().__iter__()
        return map(self.dataset.__getitem__, self.sampler)


def split_rows(
    num_rows: int, fractions: tuple[float, float], seed: int, strata: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sorted, disjoint row indices of training, validation and test, drawn from `seed`.

    The sizes are exact; of each stratum every split gets its share to within two rows.

    Args:
        num_rows: number of rows N.
        fractions: the shares of validation and test.
        seed: seed of the draw.
        strata: the class of each row (N,), of which every split gets its share; None to draw from all alike.
    """
    val, test = (round(num_rows * fraction) for fraction in fractions)
    order = torch.randperm(num_rows, generator=epoch_generator(seed, 0x5EED))
    if strata is None:
        return (
            order[val + test :].sort().values,
            order[:val].sort().values,
            order[val : val + test].sort().values,
        )
    order = order[strata[order].sort(stable=True).indices]  # class by class, shuffled within each
    held_out, train = _every(order, val + test)
    val_rows, test_rows = _every(held_out, val)
    return train.sort().values, val_rows.sort().values, test_rows.sort().values


def _every(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Part `rows` into `count` that stand at even distances, and the rest."""
    position = torch.arange(len(rows) + 1) * count // max(len(rows), 1)
    chosen = position[1:] > position[:-1]
    return rows[chosen], rows[~chosen]


class ZooDataModule(pl.LightningDataModule):
    """Base of the zoo's DataModules: a subclass implements `load`, which returns the spec and the splits.

    `load` may return a split as None where there is none. Everything about batches, order, processes and
    resuming is here, so that all data behaves alike.

    Args:
        batch_size: rows a batch and process; 0 takes all rows at once.
        seed: seed of splits and order.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        shuffle: whether the training order changes with every epoch.
    """

    name: str = ""
    path_options: tuple[str, ...] = ("path",)  # the options that are paths
    of_python: bool = False  # whether it was made of rows that the user holds in Python, which need no loader
    takes_missing: bool = False  # whether the model learns from missing values (NaN); set before anything is loaded
    kinds: Collection[str] = ()  # of data that the model reads; set likewise

    def __init__(self, *, batch_size: int = 64, seed: int = 0, num_workers: int = 0, shuffle: bool = True) -> None:
        super().__init__()
        if batch_size < 0:
            raise ZooError(f"data.batch_size must be positive (or 0 for all rows at once), not {batch_size}.")
        if num_workers < 0:
            raise ZooError(f"data.num_workers must be 0 or more, not {num_workers}.")
        self.batch_size, self.seed, self.num_workers, self.shuffle = batch_size, seed, num_workers, shuffle
        self._loaded: tuple[DataSpec, dict[str, Rows | None]] | None = None
        self.parts: dict[str, Tensor] | None = None
        self.drawn: dict[str, Tensor] | None = None  # the rows of each split, of data that come in one piece
        self.applied = Preprocessing()
        self.learnt: Preprocessing | None = None
        self.known_tokenizer: str | None = None
        self._target_scaling: Standardize | None = None

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        """Return the spec and the splits `train`, `val` and `test`; called once."""
        raise NotImplementedError

    @property
    def spec(self) -> DataSpec:
        """What the batches hold."""
        return self._load()[0]

    @property
    def preprocessing(self) -> Preprocessing:
        """What makes batches of the user's rows, learnt from the training rows: it becomes part of the model."""
        self._load()
        return self.applied

    @property
    def target_scaling(self) -> Standardize | None:
        """What a network scales its targets by, measured on the training rows; None where these are no values."""
        if self.spec.target != "value":
            return None
        if self._target_scaling is None:
            rows = self.rows("train")
            spread = torch.linspace(0, len(rows) - 1, min(len(rows), _MEASURED), dtype=torch.float64).round().long()
            whole = [rows.batch] if isinstance(rows, TensorRows) else (rows[part] for part in spread.split(4096))
            self._target_scaling = Standardize.fit(values_of(batch) for batch in whole)
        return self._target_scaling

    def follow(self, preprocessing: Preprocessing | None, tokenizer: str | None = None) -> None:
        """Take over what a trained model has learnt, rather than learn it anew; called before anything is loaded.

        Args:
            preprocessing: what became of the training rows.
            tokenizer: the JSON of its tokenizer.
        """
        assert self._loaded is None
        self.learnt, self.known_tokenizer = preprocessing, tokenizer

    def divide(self, parts: dict[str, Tensor]) -> None:
        """Make splits of the rows that are said, in place of those drawn; called before anything is loaded.

        What is learnt from training rows, such as scaling and the coding of columns, is learnt from those of `parts`.

        Args:
            parts: row numbers of each split, `train` among them, as `members` has them.
        """
        assert self._loaded is None
        self.parts = dict(parts)

    def members(self) -> dict[str, Tensor]:
        """Return the row numbers of each split: of data that come in one piece, or of the splits one after another."""
        splits = self._load()[1]
        if self.drawn is not None:
            return self.drawn
        if self.parts is not None:
            return self.parts
        found, start = {}, 0
        for name, rows in splits.items():
            if rows is not None:
                found[name], start = torch.arange(start, start + len(rows)), start + len(rows)
        return found

    def redivided(self, splits: dict[str, Rows | None]) -> dict[str, Rows | None]:
        """Return the splits that `parts` asks for, of data that do not divide their rows themselves."""
        if self.parts is None or self.drawn is not None:
            return splits
        if self.applied.scaling is not None or self.applied.encoder is not None or self.applied.text is not None:
            raise ZooError(
                f"Rows of data '{self.name}' that are read from disk piece by piece are not divided anew, as what was "
                "learnt from the training rows is in all of them: raise data.in_memory_limit."
            )
        whole = JoinedRows([rows for rows in splits.values() if rows is not None])
        return {name: ChosenRows(whole, index) for name, index in self.parts.items()}

    @classmethod
    def is_path(cls, option: str, value: Any) -> bool:
        """Whether the value of an option is a path."""
        return option in cls.path_options

    def files(self) -> list[str]:
        """Return the files of the user that are read; none where the data come with the library."""
        return []

    def sample(self) -> list[tuple[str, int]]:
        """Return what the first training text became: its tokens with their ids; nothing where there are no texts."""
        return []

    def rows(self, split: str) -> Rows:
        """Return the rows of `train`, `val` or `test`; a split that does not exist raises in one line."""
        splits = self._load()[1]
        rows = splits.get(split)
        if rows is None:
            there = ", ".join(name for name, value in splits.items() if value is not None)
            raise ZooError(f"data '{self.name}' has no split '{split}'; it has {there}.")
        return rows

    def has(self, split: str) -> bool:
        """Whether the split exists and holds a row."""
        rows = self._load()[1].get(split)
        return rows is not None and len(rows) > 0

    def _load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        if self._loaded is None:
            spec, splits = self.load()
            self._loaded = spec, self.redivided(splits)
            if not self.has("train"):
                raise ZooError(f"data '{self.name}' has no rows to train on.")
        return self._loaded

    def setup(self, stage: str | None = None) -> None:
        self._load()

    def loader(
        self,
        split: str,
        *,
        shuffle: bool = False,
        drop_ragged: bool = False,
        training: bool = False,
        share: bool = False,
    ) -> DataLoader:
        """Return a loader over one split; each item is a whole `Batch`.

        Args:
            split: which rows.
            shuffle: whether their order changes with the epoch.
            drop_ragged: see `BatchSampler`.
            training: whether rows are augmented.
            share: whether each process reads its own part of rows that lie on disk, and no other; see `BatchSampler`.
        """
        rows = self.rows(split)
        if training:
            rows = copy.copy(rows)  # the test may fall back to the same rows, which must hear of no epoch
            rows.set_epoch(0)
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = BatchSampler(
            len(rows),
            rows.batch_size // world_size if rows.batch_size else self.batch_size or len(rows),
            shuffle=shuffle,
            seed=self.seed,
            block_size=rows.block_size,
            num_steps=rows.num_steps,
            rank=rank,
            world_size=world_size,
            drop_ragged=drop_ragged,
            share=share and rows.block_size is not None,
            on_epoch=rows.set_epoch if training else None,
        )
        return BatchLoader(
            rows,
            sampler=sampler,
            batch_size=None,  # the sampler's item is a batch already
            num_workers=self.num_workers,
            pin_memory=has_gpu(),
            # A generator of its own: the loader's draw must not move the stream that dropout uses.
            generator=epoch_generator(self.seed, 1),
            multiprocessing_context=worker_context() if self.num_workers and os.name == "posix" else None,
        )

    def train_dataloader(self) -> DataLoader:
        model = self.trainer.lightning_module if self.trainer else None
        streaming = getattr(model, "streaming", False)
        loader = self.loader("train", shuffle=self.shuffle, drop_ragged=not streaming, training=True, share=streaming)
        if self.trainer:
            fast_forward(loader.sampler, self.trainer)  # type: ignore[arg-type]
        return loader

    def val_dataloader(self) -> DataLoader | list:
        return self.loader("val", share=True) if self.has("val") else []

    def test_dataloader(self) -> DataLoader:
        return self.loader("test" if self.has("test") else "train", share=True)

    def predict_dataloader(self) -> DataLoader:
        return self.test_dataloader()


def worker_context() -> Any:
    """Return how workers are started: forked from a server that has imported torch once.

    Every epoch has workers of its own; ones that import everything anew would take seconds to start.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "zoo.data.base"])
    return context


def fast_forward(sampler: BatchSampler, trainer: pl.Trainer) -> None:
    """Set the sampler to the epoch and batch at which a resumed run goes on."""
    loop = trainer.fit_loop
    sampler.set_epoch(loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
    progress = loop.epoch_loop.batch_progress
    sampler.skip_batches = 0 if progress.is_last_batch else progress.current.ready
