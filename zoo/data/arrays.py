"""Arrays as data: what `zoo.fit(model, X, y)` and `model.predict(X)` take.

Legend: N rows, F features, T steps, K targets, C channels, H×W pixels.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.base import Rows
from zoo.data.spec import Batch, DataSpec, Kind
from zoo.data.splits import TabularData
from zoo.errors import ZooError

__all__ = [
    "ArrayData",
    "describe_arrays",
    "encode_targets",
    "inputs_from",
    "pad",
    "spec_from_arrays",
    "to_tensor",
    "to_tokens",
]

_KINDS: dict[int, Kind] = {2: "tabular", 3: "sequence", 4: "image"}
# Integers beyond this are measurements, not labels.
_MAX_CLASSES = 100_000


def to_tensor(x: Any, name: str = "X") -> Tensor:
    """Return inputs as a floating tensor: float64 and float32 are kept, everything else becomes float32.

    Args:
        x: a NumPy array, a tensor, a pandas DataFrame, a PyArrow table or nested lists, (N, *shape).
        name: what messages call it.

    Raises:
        ZooError: for text, complex numbers, NaN or infinity, with the column or the count.

    Example:
        >>> to_tensor([[1, 2], [3, 4]]).dtype
        torch.float32
    """
    tensor = _as_tensor(x, name)
    if tensor.is_complex():
        raise ZooError(f"{name} holds complex numbers: pass their real and imaginary parts as features.")
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    check_finite(tensor, name)
    return tensor


def check_finite(tensor: Tensor, name: str) -> None:
    """Raise one line with the number of NaN and infinite values, if there are any."""
    if bool(torch.isfinite(tensor.sum())):  # ten times cheaper than looking at each value
        return
    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    found = [f"{nan:,} NaN"] * bool(nan) + [f"{infinite:,} infinite"] * bool(infinite)
    if found:
        raise ZooError(f"{name} holds {' and '.join(found)} values: drop those rows or fill them in first.")


def _as_tensor(x: Any, name: str) -> Tensor:
    if isinstance(x, Tensor):
        if x.layout != torch.strided:
            raise ZooError(f"{name} is a sparse tensor: pass {name}.to_dense().")
        return x.detach()
    if hasattr(x, "toarray"):  # SciPy
        raise ZooError(f"{name} is a sparse matrix: pass {name}.toarray().")
    return _numpy_to_tensor(_as_numpy(x, name), name)


def _as_numpy(x: Any, name: str) -> np.ndarray:
    """Return an array of numbers or text from whatever holds them."""
    if isinstance(x, np.ndarray):
        return x
    columns = _columns(x)
    if columns is not None:
        for column, values in columns.items():
            if values.dtype.kind not in "biuf":
                found = _found(values)
                raise ZooError(f"Column '{column}' of {name} holds {found}: encode it as numbers or leave it out.")
        return np.stack(list(columns.values()), axis=1) if columns else np.empty((0, 0))
    if "pyarrow" in sys.modules and isinstance(x, sys.modules["pyarrow"].ChunkedArray):
        return x.to_numpy()
    try:
        if isinstance(x, list | tuple) and len(x) and isinstance(x[0], Tensor):
            return torch.stack(list(x)).detach().cpu().numpy()
        return np.asarray(x)
    except (ValueError, RuntimeError):
        raise ZooError(f"{name} is a list of rows of different lengths: all must have the same.") from None


def _columns(x: Any) -> dict[str, np.ndarray] | None:
    """Return the columns of a pandas DataFrame or a PyArrow table (without importing either), or None."""
    pandas, arrow = sys.modules.get("pandas"), sys.modules.get("pyarrow")
    if pandas is not None and isinstance(x, pandas.DataFrame):
        return {str(name): np.asarray(x[name]) for name in x.columns}
    if arrow is not None and isinstance(x, arrow.Table | arrow.RecordBatch):
        return {name: x.column(name).to_numpy(zero_copy_only=False) for name in x.schema.names}
    return None


def _found(values: np.ndarray) -> str:
    if values.dtype.kind in "mM":
        return "dates"
    return f"text (such as {str(values[0])!r})" if len(values) else "text"


def _numpy_to_tensor(array: np.ndarray, name: str) -> Tensor:
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise ZooError(f"{name} holds {_found(array.ravel())} where numbers are expected.") from None
    if array.dtype.kind not in "biufc":
        raise ZooError(f"{name} holds {_found(array.ravel())} where numbers are expected.")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    with warnings.catch_warnings():  # a read-only array will do: nothing here writes to it
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def pad(examples: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Stack examples of T_i steps each, (T_i, ...), padded with zeros behind their last one to the longest.

    Returns:
        The examples (N, T, ...), and which of their steps are there, (N, T), or None where all are.

    Example:
        >>> pad([torch.tensor([1, 2, 3]), torch.tensor([4])])[1]
        tensor([[ True,  True,  True],
                [ True, False, False]])
    """
    lengths = torch.tensor([len(example) for example in examples])
    if not int(lengths.min()):
        raise ZooError(f"Example {int(lengths.argmin())} of X has no step: leave empty examples out.")
    x = torch.nn.utils.rnn.pad_sequence(list(examples), batch_first=True)
    mask = torch.arange(x.shape[1]) < lengths.unsqueeze(1)
    return x, None if bool(mask.all()) else mask


def is_ragged(x: Any) -> bool:
    """Whether `x` is a list of examples that differ in their number of steps."""
    if not isinstance(x, list | tuple) or not len(x) or not all(hasattr(row, "__len__") for row in x):
        return False
    return not any(isinstance(row, str) for row in x) and len({len(row) for row in x}) > 1


def to_tokens(x: Any, name: str = "X") -> tuple[Tensor, Tensor | None]:
    """Return token ids (N, T) and their mask (N, T), or None, of an array of integers or of lists of any lengths.

    Raises:
        ZooError: for anything but integers of 0 or more.

    Example:
        >>> to_tokens([[5, 2, 7], [3]])[0]
        tensor([[5, 2, 7],
                [3, 0, 0]])
    """
    tokens, mask = pad([_as_tensor(row, name) for row in x]) if is_ragged(x) else (_as_tensor(x, name), None)
    if tokens.ndim != 2:
        raise ZooError(f"{name} has shape {tuple(tokens.shape)}: tokens have shape (N, T), ids of T steps a row.")
    if tokens.is_floating_point() and bool((tokens != tokens.round()).any()):
        raise ZooError(f"{name} holds fractions where token ids are expected: pass integers, (N, T).")
    tokens = tokens.long()
    if tokens.numel() and int(tokens.min()) < 0:
        raise ZooError(f"{name} holds the token {int(tokens.min())}: ids are 0 or more.")
    return tokens, mask


def to_inputs(x: Any, kind: str | None = None, name: str = "X") -> Batch:
    """Return inputs under the name that data of their kind have, with a mask where examples differ in length.

    Args:
        x: what `to_tensor` or `to_tokens` takes.
        kind: `tokens` for ids; for all others the number of axes decides.
        name: what messages call it.
    """
    if kind == "tokens":
        tokens, mask = to_tokens(x, name)
        return Batch(tokens=tokens, mask=mask)
    if is_ragged(x):
        rows, mask = pad([to_tensor(row, name) for row in x])
        return Batch(rows, mask=mask)
    return Batch(to_tensor(x, name))


def inputs_from(x: Any, spec: DataSpec) -> Batch:
    """Return inputs for a model that was built for `spec`.

    Raises:
        ZooError: for inputs of another shape, or tokens that the vocabulary does not have.
    """
    batch = to_inputs(x, spec.kind)
    shape, wanted = tuple(batch.inputs.shape), spec.example_shape
    if len(shape) != 1 + len(wanted) or any(w not in (None, n) for w, n in zip(wanted, shape[1:], strict=True)):
        expected = ", ".join("T" if size is None else str(size) for size in wanted)
        raise ZooError(f"Expected inputs of shape (N, {expected}), got {shape}.")
    if spec.kind == "tokens" and spec.vocab_size and batch.tokens.numel():
        largest = int(batch.tokens.max())
        if largest >= spec.vocab_size:
            raise ZooError(f"X holds the token {largest}; those of the vocabulary are 0 to {spec.vocab_size - 1}.")
    return batch


def encode_targets(y: Any, name: str = "y") -> tuple[Tensor, dict[str, Any]]:
    """Return targets as a tensor with the fields of the `DataSpec` that they decide.

    Text becomes classes in sorted order; integers (and booleans) are classes 0 … C-1 with C = max + 1; floats
    are values, (N,) or (N, K).

    Raises:
        ZooError: for NaN, negative or huge integers, or a single class.

    Example:
        >>> encode_targets(["b", "a", "b"])
        (tensor([1, 0, 1]), {'target': 'class', 'num_classes': 2, 'class_names': ('a', 'b')})
    """
    array = y if isinstance(y, Tensor) else _as_numpy(y, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if isinstance(array, np.ndarray) and array.dtype.kind in "OUST" and _is_text(array):
        names, codes = np.unique(array.astype(str), return_inverse=True)
        return _classes(torch.from_numpy(codes).long(), name, tuple(map(str, names)))
    tensor = _as_tensor(array, name)
    if tensor.is_floating_point():
        tensor = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
        check_finite(tensor, name)
        if tensor.ndim > 2:
            raise ZooError(f"{name} must have shape (N,) or (N, K), not {tuple(tensor.shape)}.")
        return tensor, {"target": "value", "num_targets": 1 if tensor.ndim == 1 else tensor.shape[1]}
    return _classes(tensor.long(), name, None)


def _is_text(array: np.ndarray) -> bool:
    return array.dtype.kind != "O" or any(isinstance(value, str) for value in array.ravel()[:100])


def _classes(y: Tensor, name: str, class_names: tuple[str, ...] | None) -> tuple[Tensor, dict[str, Any]]:
    if y.ndim != 1:
        raise ZooError(f"Class targets must have shape (N,), not {tuple(y.shape)}: pass one class index a row.")
    low, high = (int(y.min()), int(y.max())) if len(y) else (0, 0)
    if low < 0 or high >= _MAX_CLASSES:
        outside = low if low < 0 else high
        raise ZooError(f"{name} holds the integer {outside}: class indices run from 0 to C-1; pass floats for values.")
    if low == high and len(y):
        label = class_names[low] if class_names else low
        raise ZooError(f"{name} holds a single class ({label}): at least two are needed to tell them apart.")
    return y, {"target": "class", "num_classes": high + 1, "class_names": class_names}


def spec_from_arrays(x: Any, y: Any = None, kind: str | None = None) -> DataSpec:
    """Describe arrays: x (N, F) is tabular, (N, T, F) a sequence, (N, C, H, W) an image; y: `encode_targets`.

    Raises:
        ZooError: for any other number of axes, no rows, or x and y of different lengths.

    Example:
        >>> spec_from_arrays(torch.zeros(3, 5), [0, 2, 1]).num_classes
        3
    """
    return describe_inputs(to_inputs(x, kind), y, _columns(x))[0]


def describe_inputs(batch: Batch, y: Any, names: Iterable[str] | None = None) -> tuple[DataSpec, Batch]:
    """Return the spec of inputs and targets, and a batch of both.

    Tokens without targets are texts to go on with: the target of each step is the token after it.
    """
    if batch.tokens is None:
        size = batch.size if batch.x.ndim else 0
        spec, targets = describe_arrays(batch.x, y, size, names)
        return spec, batch._replace(y=targets)
    tokens, mask = batch.tokens, batch.mask
    if not tokens.numel():
        raise ZooError(f"X of shape {tuple(tokens.shape)} is empty: there is nothing to learn from.")
    vocab_size = int(tokens.max()) + 1
    if y is not None:
        targets, fields = _targets(y, len(tokens))
        return DataSpec("tokens", tuple(tokens.shape[1:]), vocab_size=vocab_size, **fields), batch._replace(y=targets)
    if tokens.shape[1] < 2:
        raise ZooError("X has texts of one token each: there is no next token to learn.")
    following = tokens[:, 1:]
    if mask is not None:
        following, mask = following.masked_fill(~mask[:, 1:], -100), mask[:, :-1]
    spec = DataSpec("tokens", (tokens.shape[1] - 1,), "tokens", vocab_size=vocab_size)
    return spec, Batch(tokens=tokens[:, :-1], y=following, mask=mask)


def describe_arrays(
    x: Tensor, y: Any, num_rows: int, names: Iterable[str] | None = None
) -> tuple[DataSpec, Tensor | None]:
    """Return the spec and the coded targets of `num_rows` rows, of which `x` holds at least the first."""
    if x.ndim <= 1:
        raise ZooError(f"X has shape {tuple(x.shape)}: pass X[:, None] for one feature, or X[None, :] for one row.")
    if x.ndim not in _KINDS:
        raise ZooError(f"X has {x.ndim} axes: (N, F), (N, T, F) and (N, C, H, W) are understood.")
    if not x.numel():
        raise ZooError(f"X of shape {tuple(x.shape)} is empty: there is nothing to learn from.")
    targets, fields = _targets(y, num_rows)
    dtype = str(x.dtype).removeprefix("torch.")
    feature_names = tuple(names) if names else None
    kind: Kind = _KINDS[x.ndim]
    return DataSpec(kind, tuple(x.shape[1:]), feature_names=feature_names, dtype=dtype, **fields), targets


def _targets(y: Any, num_rows: int) -> tuple[Tensor | None, dict[str, Any]]:
    """Return the coded targets of `num_rows` rows with the fields of the spec that they decide."""
    if y is None:
        return None, {}
    targets, fields = encode_targets(y)
    if len(targets) != num_rows:
        raise ZooError(f"X has {num_rows} rows and y has {len(targets)}: they must agree.")
    return targets, fields


class ArrayData(TabularData):
    """Arrays as a DataModule.

    Args:
        x: inputs, (N, F), (N, T, F) or (N, C, H, W): anything that `to_tensor` takes, or a list of sequences (T_i, F).
        y: targets, see `encode_targets`; None without.
        weight: non-negative sample weights (N,); None for one each.
        kind: `tokens` where `x` holds the ids of tokens, (N, T) or lists of any lengths; None follows the axes.
        val_fraction: share of the rows held out for validation.
        test_fraction: share of the rows held out for the test.
        standardize: whether each feature is scaled by the training rows.
        **options: those of `ZooDataModule`.

    Raises:
        ZooError: for arrays that do not fit together, with what is wrong.

    Example:
        >>> ArrayData([[0.0], [1.0], [2.0]], ["no", "yes", "yes"]).spec.class_names
        ('no', 'yes')
    """

    name = "arrays"

    def __init__(
        self,
        x: Any,
        y: Any = None,
        weight: Any = None,
        *,
        kind: str | None = None,
        val_fraction: float = 0.0,
        test_fraction: float = 0.0,
        standardize: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(val_fraction=val_fraction, test_fraction=test_fraction, standardize=standardize, **options)
        self._spec, batch = describe_inputs(to_inputs(x, kind), y, _columns(x))
        weight = None if weight is None else check_weight(to_tensor(weight, "weight"), batch.size)
        self.batch = batch._replace(weight=weight)

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        return self._spec, self.scale(self.split_tensors(self.batch, self._spec))


def check_weight(weight: Tensor, num_rows: int) -> Tensor:
    """Return sample weights (N,); raise one line unless they are non-negative, one a row and not all zero."""
    if tuple(weight.shape) != (num_rows,):
        raise ZooError(f"weight has shape {tuple(weight.shape)}: one weight for each of the {num_rows} rows is needed.")
    if bool((weight < 0).any()) or not bool(weight.any()):
        raise ZooError("weight must be non-negative, and positive for at least one row.")
    return weight
