"""From a user's rows to what a model takes, and to the user's labels: learnt from the training rows, part of the model.

A DataModule makes it, a model keeps it, a checkpoint carries it as plain values and tensors. The rules for a table are
in `zoo.data.columns`; the tokenizer and the names of items, classes and features are in the `DataSpec`.

Legend: N rows, F features, T steps, C channels, H×W pixels.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.data.arrays import column_names, inputs_from, pad, to_tensor
from zoo.data.layout import with_channels
from zoo.data.names import check_columns
from zoo.data.scaling import Standardize
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError

if TYPE_CHECKING:
    import pyarrow as pa

    from zoo.data.encoder import TableEncoder
    from zoo.data.text_view import TextView

__all__ = ["Preprocessing", "as_table", "numbered"]

log = logging.getLogger(__name__)


class Preprocessing:
    """What was learnt of the training rows before a model saw them.

    Args:
        encoder: for tables: which columns are read, and how text and missing values become numbers.
        scaling: what is subtracted from the inputs, and what the difference is divided by.
        labels: what the user calls the classes 0 … C-1, where the user's targets were not these numbers.
        missing: whether missing values (NaN) among arrays of numbers are left for the model to deal with.
        text: for texts of a table: how they are seen.
        layout: what the axes of the training rows were, where these were arrays (see `zoo.data.layout`).

    Example:
        >>> scaling = Standardize(torch.tensor([10.0]), torch.tensor([2.0]))
        >>> Preprocessing(scaling=scaling)([[14.0]], DataSpec("tabular", (1,))).x
        tensor([[2.]])
    """

    def __init__(
        self,
        encoder: TableEncoder | None = None,
        scaling: Standardize | None = None,
        labels: Sequence[str | int | float] | None = None,
        missing: bool = False,
        text: TextView | None = None,
        layout: str | None = None,
    ) -> None:
        self.encoder, self.scaling, self.missing = encoder, scaling, missing
        self.labels = None if labels is None else list(labels)
        self.text, self.layout = text, layout

    def __call__(self, x: Any, spec: DataSpec, where: str = "X") -> Batch:
        """Return the batch that a model built for `spec` takes.

        Args:
            x: the user's rows: a table, whose columns are found by name, an array (N, *shape), images as they are in
                their files, a list of texts, or a list of baskets.
            spec: what the model was built for.
            where: what messages call the rows.

        Raises:
            ZooError: for rows that the training data do not explain, in one line.
        """
        if x is None:
            raise ZooError(f"{where} is None: pass an array, a tensor or a table.")
        if self.text is not None:
            return _seen(x, self.text, spec, where)
        if self.encoder is not None:
            table = as_table(x, where) if column_names(x) is not None else _columns_in_order(x, self.encoder, where)
            return self.scaled(Batch(self.encoder.encode_inputs(table, where)))
        if spec.kind == "transactions":
            return _baskets(x, spec)
        if spec.kind == "pairs":
            return _sources(x, spec, where)
        if spec.kind == "tokens" and spec.tokenizer and (isinstance(x, str) or _are_texts(x)):
            return _texts(x, spec)
        x = by_name(x, spec, where)
        if spec.kind == "tokens":
            return inputs_from(x, spec)
        if isinstance(x, list | tuple) and spec.kind == "sequence":
            return self.scaled(inputs_from(x, spec))  # of different lengths, perhaps
        tensor = to_tensor(x, where, missing=self.missing).to(spec.torch_dtype)
        return self.scaled(inputs_from(_in_shape(tensor, spec, self.layout), spec, missing=self.missing))

    @property
    def white(self) -> float:
        """The brightest pixel of images: 255 of bytes, or what images that begin at 0 are divided by, as digits are."""
        if self.scaling is None or bool(self.scaling.mean.any()):
            return 255.0
        return float(self.scaling.std.max())

    def scaled(self, batch: Batch) -> Batch:
        """Return the batch with its inputs scaled."""
        return batch if self.scaling is None else self.scaling(batch)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values and tensors, fit for a checkpoint."""
        return {
            "encoder": None if self.encoder is None else self.encoder.to_dict(),
            "scaling": None if self.scaling is None else {"mean": self.scaling.mean, "std": self.scaling.std},
            "labels": self.labels,
            "missing": self.missing,
            "text": None if self.text is None else self.text.to_dict(),
            "layout": self.layout,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """Rebuild what `to_dict` wrote."""
        encoder, scaling, text = fields["encoder"], fields["scaling"], fields.get("text")
        if text is not None:
            from zoo.data.text_view import TextView

            text = TextView.from_dict(text)
        if encoder is not None:  # imports pyarrow
            from zoo.data.encoder import TableEncoder

            encoder = TableEncoder.from_dict(encoder)
        scaling = None if scaling is None else Standardize(**scaling)
        missing, layout = fields.get("missing", False), fields.get("layout")  # which older ones lack
        return cls(encoder, scaling, fields["labels"], missing, text, layout)


def as_table(x: Any, where: str = "X") -> pa.Table:
    """Return a pandas, polars or PyArrow table (or whatever speaks Arrow's protocol) as a PyArrow table."""
    import pyarrow as pa

    pandas = sys.modules.get("pandas")
    try:
        if pandas is not None and isinstance(x, pandas.DataFrame):
            return pa.Table.from_pandas(x.rename(columns=str), preserve_index=False)
        if isinstance(x, dict):
            return pa.table({str(name): _column(values) for name, values in x.items()})
        table = pa.table(x) if not isinstance(x, pa.RecordBatch) else pa.Table.from_batches([x])
        return pa.Table.from_arrays([_decoded(column) for column in table.columns], names=table.schema.names)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise ZooError(f"{where} cannot be read as a table: {str(error).splitlines()[0]}") from None


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return categories of polars, whose text few functions of Arrow know, as text."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type) or not pa.types.is_string_view(column.type.value_type):
        return column
    return pa.chunked_array([c.dictionary.cast(pa.string()).take(c.indices) for c in column.chunks], pa.string())


def numbered(x: Any) -> pa.Table:
    """Return rows (N, F) as a table of columns named 0 … F-1."""
    import pyarrow as pa

    return pa.table({str(i): column.numpy() for i, column in enumerate(to_tensor(x, missing=True).double().T)})


def _column(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _columns_in_order(x: Any, encoder: TableEncoder, where: str) -> pa.Table:
    """Take an array's columns for the feature columns of the training table, in their order."""
    import pyarrow as pa

    names = [column.name for column in encoder.features]
    text = [column.name for column in encoder.features if column.kind == "text"]
    if text:
        raise ZooError(f"{where} must be a table: column '{text[0]}' of the training table holds text.")
    tensor = to_tensor(x, where, missing=True).double()  # what becomes of missing values the encoder says
    if tensor.ndim != 2 or tensor.shape[1] != len(names):
        raise ZooError(f"Expected inputs of shape (N, {len(names)}) or a table, got {tuple(tensor.shape)}.")
    return pa.table({name: column.numpy() for name, column in zip(names, tensor.T, strict=True)})


def by_name(x: Any, spec: DataSpec, where: str = "X") -> Any:
    """Return a table's columns in the order in which the model knows them; anything else as it is.

    Columns that are only numbered, as those of a DataFrame made of an array, are taken as they stand.
    """
    columns, names = column_names(x), spec.feature_names
    if columns is None or names is None or len(names) != spec.num_features:
        return x
    if columns == list(names) or columns == [str(i) for i in range(len(names))]:
        return x
    check_columns(columns, list(names), [], where)
    return as_table(x, where).select(list(names))


def _in_shape(x: Tensor, spec: DataSpec, layout: str | None) -> Tensor:
    """Return images (N, C, H, W) that came flat, without a channel, or with the channels last.

    Where both would fit, they are as the training rows were.
    """
    shape = tuple(spec.shape)
    if spec.kind == "image" and layout == "NHWC" and x.ndim == 4 and (*x.shape[3:], *x.shape[1:3]) == shape:
        return with_channels(x, layout)
    if spec.kind == "image" and x.ndim > 1 and tuple(x.shape[1:]) != shape:
        if x.ndim == 4 and (*x.shape[3:], *x.shape[1:3]) == shape:
            return x.permute(0, 3, 1, 2)
        if x.shape[1:].numel() == spec.num_features and (x.ndim == 2 or tuple(x.shape[1:]) == shape[1:]):
            return x.reshape(len(x), *shape)
    return x


def _are_texts(x: Any) -> bool:
    return hasattr(x, "__len__") and not hasattr(x, "columns") and all(isinstance(text, str) for text in x)


def _texts(x: Any, spec: DataSpec) -> Batch:
    from zoo.text import Tokenizer

    tokenizer = Tokenizer.from_json(spec.tokenizer)
    tokens, mask = pad([tokenizer.encode(text) for text in ([x] if isinstance(x, str) else x)])
    return Batch(tokens=tokens, mask=mask)


def _sources(x: Any, spec: DataSpec, where: str) -> Batch:
    """Texts to be translated, each with the token that ends it."""
    from zoo.text.tokenizer import Tokenizer, special_of

    texts = [x] if isinstance(x, str) else x
    if not spec.tokenizer or not _are_texts(texts):
        raise ZooError(f"{where} must be texts to translate, a list of them.")
    tokenizer = Tokenizer.from_json(spec.tokenizer)
    end = torch.tensor([special_of(tokenizer, "end", "sep")])
    rows = [torch.cat([tokenizer.encode(text), end]) for text in texts]
    tokens, mask = pad(rows) if rows else (torch.zeros(0, 1, dtype=torch.long), None)
    return Batch(source=tokens, source_mask=mask)


def _seen(x: Any, view: TextView, spec: DataSpec, where: str) -> Batch:
    """Texts, or the table's column of them, as the model saw those that it was trained on."""
    from zoo.text import Tokenizer

    if column_names(x) is not None:
        table = as_table(x, where)
        check_columns(table.schema.names, [view.column], table.schema.names, where)
        x = [text or "" for text in table.column(view.column).to_pylist()]
    texts = [x] if isinstance(x, str) else list(x) if hasattr(x, "__len__") else x
    if not _are_texts(texts):
        raise ZooError(f"{where} must be texts (a list of them, or a table with the column '{view.column}').")
    return view.batch(view.encode(texts, Tokenizer.from_json(spec.tokenizer))[0])


def _baskets(x: Any, spec: DataSpec) -> Batch:
    """Baskets of item names, or a matrix of zeros and ones with a column an item; items never met are left out."""
    if column_names(x) is not None:
        x = by_name(x, spec)
    if hasattr(x, "shape") or column_names(x) is not None:
        matrix = to_tensor(x)
        if matrix.ndim != 2 or matrix.shape[1] != spec.vocab_size:
            raise ZooError(
                f"A matrix of baskets has {spec.vocab_size} columns, one an item; got {tuple(matrix.shape)}."
            )
        chosen = matrix != 0
        return Batch(items=chosen.nonzero()[:, 1], lengths=chosen.sum(1))
    numbers = {name: number for number, name in enumerate(spec.feature_names or ())}
    baskets = [sorted({numbers[str(item)] for item in basket if str(item) in numbers}) for basket in x]
    unknown = {str(item) for basket in x for item in basket} - numbers.keys()
    if unknown:
        log.info("%d items that the training baskets lack are left out, such as '%s'.", len(unknown), min(unknown))
    items = [item for basket in baskets for item in basket]
    return Batch(items=torch.tensor(items, dtype=torch.long), lengths=torch.tensor([len(b) for b in baskets]))
