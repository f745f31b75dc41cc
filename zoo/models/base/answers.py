"""Predictions in the user's words: labels for codes, and a table with a named column for each thing that is said.

Legend: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.data.spec import DataSpec

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["labelled", "to_arrow"]


def labelled(codes: Tensor, labels: Sequence[Any] | None) -> Any:
    """Return what the user calls each code (N,): text as a NumPy array, numbers as a tensor; -1 is None, no label.

    Example:
        >>> labelled(torch.tensor([1, 0]), ["no", "yes"]).tolist()
        ['yes', 'no']
    """
    if labels is None:
        return codes
    if all(isinstance(label, int | float) for label in labels):
        return torch.tensor(labels)[codes.cpu()]
    import numpy as np

    none = bool((codes < 0).any())
    return np.array([*labels, None] if none else labels, dtype=object if none else None)[codes.cpu().numpy()]


def to_arrow(columns: dict[str, Tensor], spec: DataSpec, labels: dict[str, Sequence[Any] | None]) -> pa.Table:
    """Return predicted columns as an Arrow table: labels for codes, and `probability_<class>` for each class.

    Where classes are the user's own numbers and have names too, `<column>_name` gives them.

    Args:
        columns: one value, or several, for each row.
        spec: what the model was built for.
        labels: for each column that holds codes: what the user calls them, or None where they are the user's own.
    """
    import pyarrow as pa

    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # which neither NumPy nor Arrow has
        if name in labels and values.ndim == 1:
            arrays |= _classes(name, values, spec, labels[name])
        elif name == "probability" and values.ndim == 2:
            names = spec.class_names or [str(i) for i in range(values.shape[1])]
            arrays |= {f"probability_{names[i]}": values[:, i].numpy() for i in range(values.shape[1])}
        elif values.ndim == 1:
            arrays[name] = values.numpy()
        else:
            rows = values.flatten(1)
            sizes = torch.full((len(rows) + 1,), rows.shape[1], dtype=torch.int64).cumsum(0) - rows.shape[1]
            flat = pa.array(rows.contiguous().flatten().numpy())
            arrays[name] = pa.LargeListArray.from_arrays(pa.array(sizes.numpy()), flat)
    return pa.table(arrays)


def _classes(name: str, codes: Tensor, spec: DataSpec, labels: Sequence[Any] | None) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    def taken(values: Sequence[Any]) -> Any:  # a code below 0 is nothing
        indices = pa.array(codes.numpy(), mask=(codes < 0).numpy())
        return pc.take(pa.array(list(values)), indices)

    if labels is not None:
        return {name: taken(labels)}
    return {name: codes.numpy(), **({f"{name}_name": taken(spec.class_names)} if spec.class_names else {})}
