"""The user's own NumPy files: read whole, or mapped into memory and read slice by slice beyond `in_memory_limit`.

Files are opened with `allow_pickle=False`: an array of Python objects is refused, and nothing in it is run.

Legend: N rows, F features, T steps, C channels, H×W pixels.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from torch import Tensor

from zoo.data.arrays import describe_arrays, labels_of, to_tensor
from zoo.data.base import Rows
from zoo.data.groups import GroupRows, GroupSplit
from zoo.data.layout import Layout, layout_of, with_channels
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.data.splits import TabularData
from zoo.data.tables import find_files
from zoo.errors import ZooError

__all__ = ["NumpyData", "open_npy"]

_SLICE_BYTES = 1 << 25


def open_npy(path: str, mapped: bool = True) -> np.ndarray:
    """Return the array of a .npy file, mapped read-only unless told to read it.

    Raises:
        ZooError: for a file that is no such array, is cut off, or holds Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        if "pickle" in reason or "Python objects" in reason:
            reason = "it holds Python objects" if _is_npy(path) else "it is no .npy file, as numpy.save writes them"
        raise ZooError(f"{path} cannot be read as a NumPy array: {reason}.") from None
    if not isinstance(array, np.ndarray):
        raise ZooError(f"{path} is an archive of several arrays: save each with numpy.save and pass those.")
    return array


def _is_npy(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(6) == b"\x93NUMPY"


@register_data("npy", kind="tabular", target="any")
class NumpyData(TabularData):
    """Your own NumPy files: one of inputs, and one of targets where there are any.

    Args:
        path: .npy file of inputs, (N, F), (N, T, F), (N, H, W), (N, C, H, W) or (N, H, W, C).
        layout: what its axes are; `auto` as they look, see `zoo.data.layout`.
        target: .npy file of targets: integers and text are classes, floats are values; None without.
        task: `classification` or `regression`, where the type of the targets says otherwise.
        in_memory_limit: bytes beyond which the arrays are mapped and read slice by slice.
        **options: those of `TabularData`; only inputs (N, F) are standardized.
    """

    path_options = ("path", "target")

    def __init__(
        self,
        *,
        path: str | None = None,
        layout: Layout = "auto",
        target: str | None = None,
        task: Literal["classification", "regression"] | None = None,
        in_memory_limit: int = 1 << 30,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path, self.layout, self.target, self.task = path, layout, target, task
        self.in_memory_limit = in_memory_limit

    def files(self) -> list[str]:
        given = {"path": self.path, "target": self.target}
        return [find_files(path, (".npy",), name)[0] for name, path in given.items() if path]

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        file = find_files(self.path, (".npy",))[0]
        x = open_npy(file)
        if x.ndim and x.nbytes <= self.in_memory_limit:
            x = open_npy(file, mapped=False)
        axes = layout_of(x.shape, self.layout, self.kinds, "data.layout")
        x = with_channels(x, axes)
        self.applied.layout = axes
        missing = self.applied.missing = self.takes_missing
        targets = self._targets()
        spec, codes = describe_arrays(_head(x, file), targets, len(x) if x.ndim else 0)
        self.applied.labels = labels_of(targets, spec.class_names)
        if isinstance(x, np.memmap):
            source = _Slices(x, codes, file, axes, missing)
            split = GroupSplit(source.sizes, (self.val_fraction, self.test_fraction), self.seed)
            splits: dict[str, Rows | None] = {name: GroupRows(source, split, name) for name in split.counts}
        else:
            splits = self.split_tensors(Batch(to_tensor(x, file, missing=missing), codes), spec)
        return spec, self.scale(splits) if spec.kind == "tabular" else splits

    def _targets(self) -> Tensor | np.ndarray | None:
        """Return the targets, of the type that `task` asks for."""
        if self.target is None:
            return None
        file = find_files(self.target, (".npy",), "target")[0]
        y = open_npy(file, mapped=False)
        if self.task == "regression":
            return to_tensor(y.astype(np.float64) if y.dtype.kind in "biu" else y, file)
        if self.task == "classification" and y.dtype.kind == "f":
            labels = np.unique(to_tensor(y, file).numpy(), return_inverse=True)[1]
            return labels.astype(np.int64).reshape(y.shape)
        return y


def _head(x: np.ndarray, file: str) -> Tensor:
    """Return a first row, of which the kind, the shape and the type follow, without reading the rest."""
    return to_tensor(np.array(x[:1]) if x.ndim else x, file, missing=True)


class _Slices:
    """A mapped array in slices of some megabytes."""

    def __init__(self, x: np.memmap, y: Tensor | None, file: str, layout: str, missing: bool) -> None:
        self.y, self.file, self.layout, self.missing = y, file, layout, missing
        self.rows = max(1, _SLICE_BYTES // max(1, x[0].nbytes))
        self.sizes = [min(self.rows, len(x) - start) for start in range(0, len(x), self.rows)]
        self.x: np.ndarray | None = x

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "x": None}  # a worker process maps the file for itself

    def read(self, group: int) -> tuple[Tensor, Tensor | None]:
        if self.x is None:
            self.x = with_channels(open_npy(self.file), self.layout)
        rows = slice(group * self.rows, group * self.rows + self.sizes[group])
        where = f"{self.file}, rows {rows.start}-{rows.stop - 1},"
        x = to_tensor(np.array(self.x[rows]), where, missing=self.missing)
        return x, None if self.y is None else self.y[rows]
