"""Fill in a row, a field a column, or drop a table.

Legend: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.data.spec import DataSpec
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.training.demo.subject import Subject, say
from zoo.training.demo.widgets import drop_zone, explained

__all__ = ["Field", "fields_of", "row_of"]

MOST_FIELDS = 64  # more are no form that anyone fills in
ACROSS = 4  # fields side by side


@dataclass(frozen=True)
class Field:
    """A column of the form.

    Attributes:
        name: the column's name.
        default: the median of the training rows, or the most frequent category.
        choices: the categories; none where the column holds numbers.
    """

    name: str
    default: float | str | None
    choices: tuple[str, ...] = ()


def fields_of(model: ZooModel, rows: Tensor | None) -> list[Field]:
    """Return a field for each column that the model reads.

    Args:
        model: a model of rows with its preprocessing.
        rows: training rows in the user's units, with coded categories, (N, F); None where they are not there, so that
            their mean, if the model scales by it, stands in for the median.

    Example:
        >>> import zoo
        >>> frame = {"colour": ["red", "blue", "red", "red"], "size": [1.0, 2.0, 3.0, 8.0]}
        >>> model = zoo.fit(zoo.create_model("decision_tree"), frame, ["a", "b", "a", "a"])
        >>> fields_of(model, torch.tensor([[0.0, 1, 1], [1, 0, 2], [0, 1, 3], [0, 1, 8]]))
        [Field(name='colour', default='red', choices=('blue', 'red')), Field(name='size', default=2.5, choices=())]
    """
    assert model.spec is not None
    assert model.preprocessing is not None
    typical = _typical(model, rows)  # (F,)
    encoder = model.preprocessing.encoder
    if encoder is None:
        names = model.spec.feature_names or tuple(f"feature {number}" for number in range(len(typical)))
        return [Field(name, _number(value)) for name, value in zip(names, typical, strict=True)]
    found = []
    parts = typical.split([column.width for column in encoder.features])
    shares = None if rows is None else rows.double().nanmean(0).split([len(part) for part in parts])
    for number, (column, part) in enumerate(zip(encoder.features, parts, strict=True)):
        if column.kind == "number":
            found.append(Field(column.name, _number(part[0])))
            continue
        names = tuple(map(str, column.categories or ()))
        if column.coding == "onehot":
            place = int(shares[number].argmax()) if shares else 0
        else:
            place = int(part[0].nan_to_num(0).clamp_min(0))
        found.append(Field(column.name, names[place] if names else None, names))
    return found


def _typical(model: ZooModel, rows: Tensor | None) -> Tensor:
    """Return the median of each feature, or the best that is known without training rows, (F,)."""
    assert model.spec is not None
    assert model.preprocessing is not None
    if rows is not None and len(rows):
        codes = torch.tensor([bool(names) for names in model.spec.categories or [()] * rows.shape[1]])
        return torch.where(codes, rows.double().mode(0).values, rows.double().nanquantile(0.5, dim=0))
    scaling = model.preprocessing.scaling
    mean = torch.zeros(()) if scaling is None else scaling.mean.double()
    return mean.expand(model.spec.num_features)


def _number(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else float(f"{float(value):.6g}")


def row_of(model: ZooModel, fields: Sequence[Field], values: Sequence[Any]) -> Any:
    """Return what stands in the fields as a table of one row, or as an array where the columns have no rules.

    An empty field is a missing value.

    Raises:
        ZooError: for an empty field, by its name, where the model knows nothing that stands for it.
    """
    assert model.preprocessing is not None
    if model.preprocessing.encoder is not None:
        return {field.name: [value] for field, value in zip(fields, values, strict=True)}
    empty = [field.name for field, value in zip(fields, values, strict=True) if value is None]
    if empty and not model.preprocessing.missing:
        raise ZooError(f"'{empty[0]}' is empty: fill it in.")
    return torch.tensor([[torch.nan if value is None else float(value) for value in values]], dtype=torch.float64)


def page(subject: Subject) -> None:
    """Add a form, what the model says of it as it is filled in, and a place to drop a table."""
    import gradio as gr

    model, spec = subject.model, subject.spec
    fields = fields_of(model, subject.raw)
    few = len(fields) <= MOST_FIELDS
    with gr.Tabs():
        if few:
            with gr.Tab("Fill in a row"), gr.Row():
                with gr.Column(scale=3):
                    boxes = _form(fields)
                with gr.Column(scale=2):
                    label = gr.Label(label=_asked(spec), num_top_classes=10, elem_id="answer")
        with gr.Tab("Drop a table"):
            drop_zone(subject, (".csv", ".tsv", ".parquet", ".npy"))
    if not few:
        return

    @explained
    def answer(*values: Any) -> Any:
        return say(model, row_of(model, fields, values)).label

    gr.on([box.change for box in boxes], answer, boxes, label, show_progress="hidden", trigger_mode="always_last")
    gr.context.Context.root_block.load(answer, boxes, label, show_progress="hidden")  # type: ignore[union-attr]


def _form(fields: Sequence[Field]) -> list[Any]:
    """Add a number or a choice for each field, some side by side."""
    import gradio as gr

    boxes = []
    for start in range(0, len(fields), ACROSS):
        with gr.Row():
            for number, field in enumerate(fields[start : start + ACROSS], start):
                options = {"label": field.name, "elem_id": f"field_{number}", "min_width": 120}
                if field.choices:
                    boxes.append(gr.Dropdown(list(field.choices), value=field.default, **options))
                else:
                    boxes.append(gr.Number(field.default, **options))
    return boxes


def _asked(spec: DataSpec) -> str:
    if spec.target == "value" and spec.target_names:
        return ", ".join(spec.target_names)
    return {"class": "Class", "value": "Value"}.get(spec.target or "", "Answer")
