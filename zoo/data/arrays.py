"""Arrays and tables of numbers as tensors: what `zoo.fit(model, X, y)` and `model.predict(X)` take.

Legend: N rows, F features, T steps, K targets, C channels, H×W pixels.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.spec import Batch, DataSpec, Kind
from zoo.errors import ZooError

__all__ = [
    "code_targets",
    "column_names",
    "describe_arrays",
    "describe_inputs",
    "encode_targets",
    "has_gaps",
    "inputs_from",
    "labels_of",
    "needs_coding",
    "pad",
    "scored",
    "spec_from_arrays",
    "targets_for",
    "to_tensor",
    "to_tokens",
    "whole_numbers",
]

_KINDS: dict[int, Kind] = {2: "tabular", 3: "sequence", 4: "image"}
# Integers beyond this are measurements, not labels.
_MAX_CLASSES = 100_000
_MAX_NAMED = 1_000  # so many of them at most where they are negative or huge


def to_tensor(x: Any, name: str = "X", *, missing: bool = False) -> Tensor:
    """Return inputs as a floating tensor: float64 and float32 are kept, everything else becomes float32.

    Args:
        x: a NumPy array, a tensor, a pandas DataFrame, a PyArrow table or nested lists, (N, *shape).
        name: what messages call it.
        missing: whether NaN, which stands for a missing value, may be among them.

    Raises:
        ZooError: for text, complex numbers, NaN (unless `missing`) or infinity, with the column or the count.

    Example:
        >>> to_tensor([[1, 2], [3, 4]]).dtype
        torch.float32
    """
    tensor = _as_tensor(x, name)
    if tensor.is_complex():
        raise ZooError(f"{name} holds complex numbers: pass their real and imaginary parts as features.")
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    check_finite(tensor, name, missing=missing)
    return tensor


def check_finite(tensor: Tensor, name: str, *, missing: bool = False) -> None:
    """Raise one line with the number of NaN (unless they may be `missing`) and infinite values, if there are any."""
    if math.isfinite(tensor.sum()):  # ten times cheaper than looking at each value
        return
    nan, infinite = 0 if missing else int(tensor.isnan().sum()), int(tensor.isinf().sum())
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
    if x is None:
        raise ZooError(f"{name} is None: pass an array, a tensor or a table.")
    if np.ma.is_masked(x) and x.dtype.kind in "biuf":
        return x.astype(np.result_type(x.dtype, np.float32)).filled(np.nan)  # what is masked is missing
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


def column_names(x: Any) -> list[str] | None:
    """Return the names of the columns of a pandas, polars or PyArrow table, or a dict; None for anything else.

    Raises:
        ZooError: for a dict of single values.
    """
    if isinstance(x, dict):
        single = next((name for name, v in x.items() if isinstance(v, str) or not np.ndim(v)), None)
        if single is not None:
            raise ZooError(
                f"A dict holds columns, and '{single}' of this one is a single value: pass a list for each, as in "
                f"{{{str(single)!r}: [{_short(x[single])}]}}."
            )
        return [str(name) for name in x]
    if not hasattr(x, "columns") or not (hasattr(x, "__arrow_c_stream__") or hasattr(x, "__arrow_c_array__")):
        return None
    return list(x.schema.names) if hasattr(x, "itercolumns") else [str(name) for name in x.columns]


def _short(value: Any) -> str:
    shown = repr(value.item() if hasattr(value, "item") else value)
    return shown if len(shown) < 30 and "\n" not in shown else "..."


def _columns(x: Any) -> dict[str, np.ndarray] | None:
    """Return the columns of a table (without importing a library that may not be there), or None."""
    names = column_names(x)
    if names is None:
        return None
    if isinstance(x, dict):
        return {str(name): np.asarray(values) for name, values in x.items()}
    if hasattr(x, "itercolumns"):  # PyArrow
        return {n: values.to_numpy(zero_copy_only=False) for n, values in zip(names, x.itercolumns(), strict=True)}
    return {str(name): np.asarray(x[name]) for name in x.columns}


def needs_coding(x: Any) -> bool:
    """Whether a table holds more than numbers: text, categories or missing values."""
    columns = _columns(x) or {}
    if any(values.dtype.kind not in "biuf" for values in columns.values()):
        return True
    return any(bool(np.isnan(values.sum())) for values in columns.values() if values.dtype.kind == "f")


def has_gaps(x: Any) -> bool:
    """Whether rows of numbers (N, F) hold missing values (NaN)."""
    tensor = _as_tensor(x, "X")
    return tensor.ndim == 2 and tensor.is_floating_point() and bool(tensor.isnan().any())


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
        array = array.copy()  # an axis of one number is contiguous in NumPy whatever its stride is
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.flags.writeable:
        return torch.from_numpy(array)
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


def to_inputs(x: Any, kind: str | None = None, name: str = "X", *, missing: bool = False) -> Batch:
    """Return inputs under the name that data of their kind have, with a mask where examples differ in length.

    Args:
        x: what `to_tensor` or `to_tokens` takes.
        kind: `tokens` for ids; for all others the number of axes decides.
        name: what messages call it.
        missing: whether NaN may stand for missing values.
    """
    if kind == "tokens":
        tokens, mask = to_tokens(x, name)
        return Batch(tokens=tokens, mask=mask)
    if is_ragged(x):
        rows, mask = pad([to_tensor(row, name) for row in x])
        if rows.ndim == 2:
            raise ZooError(f"{name} is a list of rows of different lengths: all must have the same.")
        return Batch(rows, mask=mask)
    return Batch(to_tensor(x, name, missing=missing))


def inputs_from(x: Any, spec: DataSpec, *, missing: bool = False) -> Batch:
    """Return inputs for a model that was built for `spec`; NaN only where `missing` values are something to it.

    Raises:
        ZooError: for inputs of another shape, or tokens that the vocabulary does not have.
    """
    batch = to_inputs(x, spec.kind, missing=missing)
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

    Text becomes classes in sorted order, and so do integers and booleans, unless they are 0 … C-1 already; floats are
    values, (N,) or (N, K).

    Raises:
        ZooError: for NaN, integers that are rather measurements, or a single class.

    Example:
        >>> encode_targets(["b", "a", "b"])
        (tensor([1, 0, 1]), {'target': 'class', 'num_classes': 2, 'class_names': ('a', 'b')})
        >>> encode_targets([-1, 1, 1])
        (tensor([0, 1, 1]), {'target': 'class', 'num_classes': 2, 'class_names': ('-1', '1')})
    """
    array = _target_array(y, name)
    if isinstance(array, np.ndarray) and array.dtype.kind in "OUST" and _is_text(array):
        objects = array.ravel().tolist() if array.dtype.kind == "O" else []  # an array of texts lacks none
        missing = sum(label is None or label != label for label in objects)
        if missing:
            raise ZooError(f"{name} has {missing:,} missing labels (None or NaN): drop those rows or name them.")
        names, codes = np.unique(array.astype(str), return_inverse=True)
        return _classes(torch.from_numpy(codes).long(), name, tuple(map(str, names)))
    tensor = _as_tensor(array, name)
    if tensor.is_floating_point():
        tensor = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
        check_finite(tensor, name)
        if tensor.ndim > 2:
            raise ZooError(f"{name} must have shape (N,) or (N, K), not {tuple(tensor.shape)}.")
        return tensor, {"target": "value", "num_targets": 1 if tensor.ndim == 1 else tensor.shape[1]}
    return _classes(tensor.long(), name, ("False", "True") if tensor.dtype == torch.bool else None)


def _target_array(y: Any, name: str) -> Tensor | np.ndarray:
    """Return targets (N,) or (N, K), also of a table with one column, as an array or a tensor."""
    names = None if isinstance(y, Tensor | np.ndarray) else column_names(y)
    if names is not None and len(names) == 1:
        y = next(iter((_columns(y) or {}).values()))
    array = y if isinstance(y, Tensor) else _as_numpy(y, name)
    if array.dtype == object and array.size and all(isinstance(v, bool | np.bool_) for v in array.ravel().tolist()):
        array = array.astype(bool)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _is_text(array: np.ndarray) -> bool:
    return array.dtype.kind != "O" or any(isinstance(value, str) for value in array.ravel()[:100])


def _classes(y: Tensor, name: str, class_names: tuple[str, ...] | None) -> tuple[Tensor, dict[str, Any]]:
    if y.ndim != 1:
        raise ZooError(f"Class targets must have shape (N,), not {tuple(y.shape)}: pass one class a row.")
    low, high = (int(bound) for bound in y.aminmax()) if len(y) else (0, 0)
    if class_names is None and len(y) and not _are_codes(y, low, high):
        labels, codes = _distinct(y, low, high)
        unusual = not 0 <= low <= high < _MAX_CLASSES
        if unusual and (len(labels) > _MAX_NAMED or 2 * len(labels) > len(y) > 20):
            raise ZooError(
                f"{name} holds {len(labels):,} different integers from {low} to {high}, which are rather values than "
                "classes: pass floats for values."
            )
        if len(labels) > 1:
            y, class_names = codes, tuple(str(label) for label in labels.tolist())
            low, high = 0, len(labels) - 1
    if low == high and len(y):
        label = class_names[low] if class_names else low
        raise ZooError(f"{name} holds a single class ({label}): at least two are needed to tell them apart.")
    return y, {"target": "class", "num_classes": high + 1, "class_names": class_names}


def _are_codes(y: Tensor, low: int, high: int) -> bool:
    """Whether integers (N,) from `low` to `high` are 0 … C-1, each of them at least once."""
    return low == 0 and high < min(len(y), _MAX_CLASSES) and bool(torch.bincount(y).all())


def _distinct(y: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """The different integers (C,) among those (N,) from `low` to `high`, ascending, and which of them each is, (N,)."""
    if high - low > len(y):
        return y.unique(return_inverse=True)
    there = torch.bincount(y - low) > 0  # counting them is quicker than sorting them
    return there.nonzero().flatten() + low, (there.cumsum(0) - 1)[y - low]


def whole_numbers(y: Any) -> Any:
    """Return targets that are whole numbers in floats, such as -1.0 and 1.0, as integers; all others as they are.

    >>> whole_numbers(np.array([-1.0, 1.0])).dtype.kind
    'i'
    """
    if isinstance(y, Tensor):
        return y.long() if y.is_floating_point() and bool((y == y.round()).all()) else y
    array = np.asarray(y) if hasattr(y, "dtype") else y
    if isinstance(array, np.ndarray) and array.dtype.kind == "f" and bool((array == np.round(array)).all()):
        return array.astype(np.int64)
    return y


def labels_of(y: Any, class_names: Sequence[str] | None) -> list[str | int | float] | None:
    """Return what a user who gave the targets `y` calls the classes 0 … C-1; None where these are these numbers.

    >>> labels_of([-1, 1], ("-1", "1")), labels_of(["no", "yes"], ("no", "yes")), labels_of([0, 1], None)
    ([-1, 1], ['no', 'yes'], None)
    >>> labels_of([True, False], ("False", "True"))
    [False, True]
    """
    if class_names is None:
        return None
    array = _target_array(y, "y")
    if array.dtype in (torch.bool, np.bool_):
        return [name == "True" for name in class_names]
    text = isinstance(array, np.ndarray) and array.dtype.kind in "OUST" and _is_text(array)
    return list(class_names) if text else [int(name) for name in class_names]


def targets_for(y: Any, spec: DataSpec, labels: Sequence[Any] | None, num_rows: int) -> Tensor:
    """Return targets of further rows as those of the training rows were coded.

    Args:
        y: targets in the user's labels.
        spec: what the model was built for.
        labels: what the user calls the classes 0 … C-1, or None for these numbers.
        num_rows: how many there must be.

    Raises:
        ZooError: for a class that the training rows lacked, or another number of targets.
    """
    array = _target_array(y, "y")
    if array.shape[:1] != (num_rows,):
        raise ZooError(f"X has {num_rows} rows and y has shape {tuple(array.shape)}: they must agree.")
    if spec.target != "class":
        numbers = _as_tensor(array, "y")
        return to_tensor(numbers if numbers.is_floating_point() else numbers.double(), "y")
    if array.ndim != 1:
        raise ZooError(f"Class targets must have shape (N,), not {tuple(array.shape)}: pass one class a row.")
    values = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
    return _places(values, np.asarray(labels if labels is not None else range(spec.num_classes or 0)))


def _places(values: np.ndarray, names: np.ndarray) -> Tensor:
    """Return where each value (N,) stands among the names (C,); raise one line for one that is not there."""
    if names.dtype.kind == "U":
        values = values.astype(str)
    elif values.dtype.kind == "O" and not _is_text(values):
        values = np.asarray(values.tolist())
    if values.dtype.kind not in "biufU" or (values.dtype.kind == "U") != (names.dtype.kind == "U"):
        stranger = next((v for v in values.tolist() if not isinstance(v, bool | int | float)), None)
        raise ZooError(f"y has the class {stranger!r}, which the training rows lack.")
    order = names.argsort()
    places = order[np.searchsorted(names, values, sorter=order).clip(max=len(names) - 1)]
    unknown = values[names[places] != values]
    if len(unknown):
        raise ZooError(f"y has the class {unknown[0].item()!r}, which the training rows lack.")
    return torch.from_numpy(places)


def scored(predicted: Any, y: Any, weight: Any = None, *, classes: bool) -> float:
    """Return the share of equal classes, or R² = 1 - Σ(y - ŷ)² / Σ(y - ȳ)², the mean over several targets.

    A constant target is 1 where it is met exactly, else 0.

    Args:
        predicted: classes, or values (N,) or (N, K).
        y: the true ones.
        weight: of each row, (N,).
        classes: whether they are classes.

    Example:
        >>> scored(torch.tensor([1, 0]), [1, 1], classes=True)
        0.5
    """
    truth, found = (a.detach().cpu().numpy() if isinstance(a, Tensor) else np.asarray(a) for a in (y, predicted))
    if truth.shape != found.shape:
        raise ZooError(f"X has answers of shape {found.shape} and y has shape {truth.shape}: they must agree.")
    if not len(truth):
        raise ZooError("X and y have no row: there is nothing to score.")
    weights = np.ones(len(truth)) if weight is None else to_tensor(weight, "weight").double().numpy()
    if weights.shape != truth.shape[:1]:
        raise ZooError(f"weight has shape {weights.shape}: one weight for each of the {len(truth)} rows is needed.")
    if classes:
        return float(np.average(truth == found, weights=weights))
    truth, found = truth.astype(np.float64), found.astype(np.float64)
    scale = np.abs(truth).max() or 1.0  # squares of tiny values would vanish
    truth, found = truth / scale, found / scale
    left = (weights @ (truth - found) ** 2).ravel()
    total = (weights @ (truth - np.average(truth, axis=0, weights=weights)) ** 2).ravel()
    constant = (truth == truth[:1]).reshape(len(truth), -1).all(0)
    return float(np.where(constant, left == 0, 1 - left / np.where(constant, 1.0, total)).mean())


def spec_from_arrays(x: Any, y: Any = None, kind: str | None = None) -> DataSpec:
    """Describe arrays: x (N, F) is tabular, (N, T, F) a sequence, (N, C, H, W) an image; y: `encode_targets`.

    Raises:
        ZooError: for any other number of axes, no rows, or x and y of different lengths.

    Example:
        >>> spec_from_arrays(torch.zeros(3, 5), [0, 2, 1]).num_classes
        3
    """
    return describe_inputs(to_inputs(x, kind), y, column_names(x))[0]


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
        targets, fields = code_targets(y, len(tokens))
        fields["feature_names"] = tuple(names) if names else None
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
    targets, fields = code_targets(y, num_rows)
    dtype = str(x.dtype).removeprefix("torch.")
    feature_names = tuple(names) if names else None
    kind: Kind = _KINDS[x.ndim]
    return DataSpec(kind, tuple(x.shape[1:]), feature_names=feature_names, dtype=dtype, **fields), targets


def code_targets(y: Any, num_rows: int) -> tuple[Tensor | None, dict[str, Any]]:
    """Return the coded targets of `num_rows` rows with the fields of the spec that they decide."""
    if y is None:
        return None, {}
    if hasattr(y, "__len__") and len(y) != num_rows:
        raise ZooError(f"X has {num_rows} rows and y has {len(y)}: they must agree.")
    targets, fields = encode_targets(y)
    return targets, fields
