"""Rows in the hands of other libraries, as `zoo.fit` and `model.predict` take them.

Hugging Face's datasets and whatever speaks Arrow become tables, and torch's `Dataset` and `DataLoader` arrays: they are
read once, in their order, and held. An image of PIL becomes numbers from 0 to 1, (C, H, W), as torchvision's `ToTensor`
makes them.

Legend: N rows, C channels, H×W pixels.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from zoo.data.arrays import column_names
from zoo.data.preprocessing import as_table
from zoo.data.spec import Batch
from zoo.errors import ZooError, nearest

__all__ = ["Given", "opened"]

log = logging.getLogger(__name__)

_LIMIT = 1 << 33  # bytes of rows that are held
_CHUNK = 4096  # rows that are joined at a time, as each costs a kilobyte until then
_TABLES = ("pandas", "polars", "pyarrow")  # whose tables are taken as they are


class Given(NamedTuple):
    """What the user gave.

    Attributes:
        x: inputs: an array, a table, or a list.
        y: targets (N,), or None.
        batch_size: that of a `DataLoader`, or None.
    """

    x: Any
    y: Any = None
    batch_size: int | None = None


def opened(x: Any, y: Any = None, *, name: str = "X", seed: int = 0) -> Given:
    """Return rows that another library holds as arrays and tables; all others as they are.

    Args:
        x: rows, with their targets where they come in pairs.
        y: targets, or the name of the table's column that holds them.
        name: what messages call the rows.
        seed: of what a loader or a dataset draws while it is read.

    Raises:
        ZooError: for rows that cannot be told from their targets, or that are too many to hold.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> opened(TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]))).y
        tensor([0, 1, 1])
    """
    x, y = _whole_column(x), _whole_column(y)
    if isinstance(x, list) and x and _is_image(x[0]):
        return Given(_pixels(x, name), y)
    if isinstance(x, Tensor | np.ndarray | list | tuple | Batch | str) or x is None:
        return Given(x, _no_name(y, name))
    if isinstance(x, Dataset | DataLoader) and not hasattr(x, "column_names"):
        return _of_torch(x, y, name, seed)
    if isinstance(x, Iterator) and not hasattr(x, "__arrow_c_stream__"):
        raise ZooError(f"{name} is read once and then gone ({type(x).__name__}): pass list({name}), or an array.")
    return _of_table(_whole_table(x, name), y, name)


def _whole_column(values: Any) -> Any:
    """Return a column of Hugging Face's, which is read when it is asked for, as a list; anything else as it is."""
    lazy = type(values).__name__ == "Column" and type(values).__module__.startswith("datasets.")
    return values[:] if lazy else values


# -- tables ------------------------------------------------------------------------------------------------------------


def _whole_table(x: Any, name: str) -> Any:
    """Return what is read when it is asked for as a table; anything else as it is."""
    library = type(x).__module__.partition(".")[0]
    if hasattr(x, "with_format") and hasattr(x, "column_names"):
        if isinstance(x, Mapping):
            split = next(iter(x), "train")
            raise ZooError(
                f"{name} has the splits {', '.join(map(str, x))}: pass one of them, as in {name}['{split}']."
            )
        if not hasattr(x, "__len__"):
            raise ZooError(
                f"{name} is a stream of Hugging Face's: pass rows that are there, as in "
                f"datasets.Dataset.from_list(list({name}.take(10_000)))."
            )
        return x.with_format("arrow")[:]
    if library == "polars" and hasattr(x, "collect"):  # a LazyFrame
        return x.collect()
    arrow = sys.modules.get("pyarrow.dataset")
    if arrow is not None and isinstance(x, arrow.Dataset | arrow.Scanner):
        return x.to_table()
    if hasattr(x, "__arrow_c_stream__") and (library not in _TABLES or hasattr(x, "read_next_batch")):
        return as_table(x, name)
    return x


def _of_table(x: Any, y: Any, name: str) -> Given:
    """Return a table without the column of the targets, where `y` names it."""
    names = column_names(x)
    if names is None:
        return Given(x, _no_name(y, name))
    if isinstance(y, str):
        if y not in names:
            raise ZooError(f"{name} has no column '{y}'.{nearest(y, names)} Its columns: {', '.join(names[:30])}.")
        table = as_table(x, name)
        x, y, names = table.drop_columns([y]), table.column(y), [other for other in names if other != y]
        if not names:
            raise ZooError(
                f"{name} has no column beside its target '{table.schema.names[0]}': there is nothing to learn."
            )
    if not type(x).__module__.startswith("pyarrow."):
        return Given(x, y)
    return _of_arrow(x, y, name)


def _no_name(y: Any, name: str) -> Any:
    """Return the targets of rows that have no named columns."""
    if isinstance(y, str):
        raise ZooError(f"y='{y}' names a column, and {name} is no table: pass the targets themselves.")
    return y


def _of_arrow(x: Any, y: Any, name: str) -> Given:
    """Return an Arrow table, or what its one column of images or arrays holds."""
    import pyarrow as pa

    whole = [f.name for f in x.schema if pa.types.is_nested(f.type) or isinstance(f.type, pa.BaseExtensionType)]
    if not whole:
        return Given(x, y)
    if len(whole) > 1:
        raise ZooError(f"{name} has several columns of arrays ({', '.join(whole)}): select one of them.")
    if len(x.schema) > 1:
        others = [f"'{other}'" for other in x.schema.names if other != whole[0]]
        log.info("%s: '%s' is read, and %s ignored.", name, whole[0], ", ".join(others[:10]))
    return Given(_rows(_values(x.column(whole[0]), whole[0]), name), y)


def _values(column: Any, name: str) -> list[Any]:
    """Return the values of a column of arrays, or of images as Hugging Face keeps them: a file's bytes, or its path."""
    import io

    values = column.to_pylist()
    if not values or not isinstance(values[0], dict):
        return [np.asarray(value) for value in values]
    if not {"bytes", "path"} <= set(values[0]):
        raise ZooError(f"Column '{name}' holds fields ({', '.join(values[0])}): flatten the table first.")
    from PIL import Image

    return [Image.open(io.BytesIO(v["bytes"]) if v["bytes"] is not None else v["path"]) for v in values]


# -- torch -------------------------------------------------------------------------------------------------------------


def _of_torch(x: Any, y: Any, name: str, seed: int) -> Given:
    """Return the rows of a `Dataset` or a `DataLoader`, and the targets where it gives pairs."""
    size = x.batch_size if isinstance(x, DataLoader) else None
    inputs, targets = _in_memory(x, name) or _read(x, name, seed)
    if targets is None:
        return Given(inputs, y, size)
    if y is not None:
        raise ZooError(f"{name} gives pairs of inputs and targets: leave y out.")
    return Given(inputs, targets, size)


def _in_memory(x: Any, name: str) -> tuple[Any, Any] | None:
    """Return the tensors of a `TensorDataset`, or of a part of one, without a look at each row; None for all others."""
    if isinstance(x, TensorDataset):
        return _pair(x.tensors, name)
    if isinstance(x, Subset) and (whole := _in_memory(x.dataset, name)) is not None:
        chosen = torch.as_tensor(x.indices)
        return whole[0][chosen], None if whole[1] is None else whole[1][chosen]
    return None


def _read(x: Any, name: str, seed: int) -> tuple[Any, Any]:
    """Return all rows, and all targets or None."""
    held, inputs, targets = 0, [], []
    with torch.random.fork_rng(devices=[]):  # the caller's own stream goes on as if nothing had been drawn
        torch.manual_seed(seed)
        for rows, answers in _chunks(x, name):
            inputs.append(rows)
            targets.append(answers)
            held += getattr(rows, "nbytes", 0)
            if held > _LIMIT:
                raise ZooError(
                    f"{name} holds more than {_LIMIT >> 30} GiB: write its rows to Parquet or NumPy files, which are "
                    "streamed (data=parquet, data=npy), or pass a LightningDataModule."
                )
    if not inputs:
        raise ZooError(f"{name} has no row: there is nothing to learn from.")
    return _joined(inputs, name), None if targets[0] is None else _joined(targets, "y")


def _chunks(x: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """Yield some rows with their targets at a time."""
    if isinstance(x, DataLoader) and x.batch_size is not None:
        for batch in x:
            rows, answers = _pair(batch, name)
            yield rows if isinstance(rows, Tensor) else _rows(list(rows), name), _answers(answers)
        return
    items: Iterable[Any] = x if isinstance(x, DataLoader | IterableDataset) else (x[i] for i in range(_length(x, name)))
    held: list[tuple[Any, Any]] = []
    for item in items:
        held.append(_pair(item, name))
        if len(held) == _CHUNK:
            yield _split(held, name)
            held = []
    if held:
        yield _split(held, name)


def _length(x: Any, name: str) -> int:
    try:
        return len(x)
    except TypeError:
        raise ZooError(
            f"{name} is a Dataset without a length: derive it from IterableDataset, or add __len__."
        ) from None


def _pair(item: Any, name: str) -> tuple[Any, Any]:
    """Return what a dataset or a loader gives as inputs and targets."""
    if isinstance(item, Batch):
        raise ZooError(f"{name} gives the batches of a DataModule: pass the DataModule itself.")
    if isinstance(item, Mapping):
        keys = ", ".join(map(str, item))
        raise ZooError(
            f"{name} gives dicts of {keys}: pass a Dataset of pairs (inputs, target), or a table with y='COLUMN'."
        )
    if isinstance(item, list) and all(isinstance(value, int | float) for value in item):
        return item, None  # a row of numbers
    if not isinstance(item, tuple | list):
        return item, None
    if len(item) not in (1, 2):
        raise ZooError(
            f"{name} gives {len(item)} values a row: pairs (inputs, target) are understood, and weights go in "
            "sample_weight."
        )
    return item[0], item[1] if len(item) == 2 else None


def _split(held: list[tuple[Any, Any]], name: str) -> tuple[Any, Any]:
    return _rows([row for row, _ in held], name), _answers([answer for _, answer in held])


def _answers(targets: Any) -> Any:
    """Return targets as one tensor, or as a list where they are no numbers; None where there are none."""
    if targets is None or isinstance(targets, Tensor):
        return targets
    if all(target is None for target in targets):
        return None
    if isinstance(targets[0], Tensor):
        return torch.stack(list(targets)) if len({t.shape for t in targets}) == 1 else list(targets)
    return list(targets)


def _joined(parts: Sequence[Any], name: str) -> Any:
    """Return what was read some at a time as one."""
    if all(isinstance(part, Tensor) for part in parts):
        if len({part.shape[1:] for part in parts}) == 1:
            return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
        return _alike([row for part in parts for row in part], name)
    return [row for part in parts for row in part]


# -- rows --------------------------------------------------------------------------------------------------------------


def _rows(rows: list[Any], name: str) -> Any:
    """Return rows of one kind as one tensor, or as a list where they are texts or differ in their number of steps."""
    first = rows[0]
    if isinstance(first, str):
        return rows
    if _is_image(first):
        return _pixels(rows, name)
    if isinstance(first, bool | int | float | np.number):
        return torch.as_tensor(np.asarray(rows)).unsqueeze(1)
    if isinstance(first, list | tuple | np.ndarray):
        rows = [torch.as_tensor(np.asarray(row)) for row in rows]
    if not isinstance(rows[0], Tensor):
        raise ZooError(
            f"{name} gives rows of type {type(first).__name__}: tensors, arrays, numbers, texts and images of PIL are "
            "understood, so turn them into tensors in the Dataset."
        )
    return _alike(rows, name)


def _alike(rows: list[Tensor], name: str) -> Any:
    """Return rows of one shape as one tensor, and sequences of different lengths as a list."""
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) == 1:
        stacked = torch.stack(rows)
        return stacked if stacked.ndim > 1 else stacked.unsqueeze(1)
    if len({shape[1:] for shape in shapes}) > 1 or len(next(iter(shapes))) > 2:
        one, other = sorted(shapes)[:2]
        raise ZooError(f"{name} has rows of different shapes, such as {one} and {other}: resize them in the Dataset.")
    return rows


def _is_image(value: Any) -> bool:
    """Whether it is an image of PIL, which need not be there."""
    return hasattr(value, "getbands") and hasattr(value, "convert")


def _pixels(images: Sequence[Any], name: str) -> Tensor:
    """Return images of PIL as numbers from 0 to 1, (N, C, H, W): grey where all of them are, else in colours."""
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        (w, h), (other_w, other_h) = sorted(sizes)[:2]
        raise ZooError(
            f"{name} has images of different sizes, such as {h}×{w} and {other_h}×{other_w}: resize them in the "
            "Dataset, or keep them in folders and pass data=image_folder data.size=[H,W]."
        )
    mode = "L" if all(image.mode in ("1", "L") for image in images) else "RGB"
    pixels = torch.from_numpy(np.stack([np.asarray(image.convert(mode)) for image in images]))
    return (pixels.unsqueeze(1) if mode == "L" else pixels.permute(0, 3, 1, 2)).float().div_(255)
