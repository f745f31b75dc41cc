"""A sequence of numbers or bits with what the model makes of each step, a series with its forecast, and a basket.

Legend: T steps, F features, K targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo import visual
from zoo.data.series import read_column
from zoo.errors import ZooError
from zoo.training.demo.subject import Subject, say
from zoo.training.demo.widgets import as_table, drawn, drop_zone, explained, gallery, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["advice", "basket_page", "forecast_picture", "numbers_of", "sequence_page", "series_page", "typed"]


AHEAD = 30  # steps of a forecast at first
RULES = 50  # that are shown of a basket


def numbers_of(text: str, width: int) -> Tensor:
    """Return the sequence (T, F) that a text has: a line a step, numbers apart by blanks or commas.

    Args:
        text: the text.
        width: F.

    Raises:
        ZooError: for a line that is none, by its number.

    Example:
        >>> numbers_of("0 1\\n1, 0.5", 2)
        tensor([[0.0000, 1.0000],
                [1.0000, 0.5000]])
    """
    steps = []
    for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
        try:
            values = [float(word) for word in line.replace(",", " ").split()]
        except ValueError as error:
            raise ZooError(f"Line {number} holds more than numbers ({error}).") from None
        if len(values) != width:
            raise ZooError(f"Line {number} has {len(values)} numbers; a step of this model has {width}.")
        steps.append(values)
    if not steps:
        raise ZooError(f"There is no step yet: type lines of {width} numbers.")
    return torch.tensor(steps)


def typed(x: Tensor) -> str:
    """Return the text that `numbers_of` reads as a sequence (T, F)."""
    return "\n".join(" ".join(f"{value:.4g}" for value in step) for step in x.tolist())


def bits_picture(x: Tensor, said: Tensor) -> Figure:
    """Draw a sequence (T, F) over the bits (T, K) that a model says, a column a step."""
    with visual.new_figure(8.0, 3.6, 2, 1, sharex=True) as (figure, axes):
        for axis, values, name in zip(axes, (x, said), ("input", "output"), strict=True):
            axis.imshow(values.T.float().numpy(), cmap="viridis", aspect="auto", interpolation="nearest", vmin=0)
            axis.set_ylabel(name)
            axis.set_yticks([])
            axis.grid(False)
        axes[1].set_xlabel("step")
    return figure


def sequence_page(subject: Subject) -> None:
    """Add a sequence to type or to take from the data, what the model says of it, and its gates, heads or attention."""
    import gradio as gr

    model, spec = subject.model, subject.spec
    of_bits = spec.target == "bits"

    def example(number: float | None = 0) -> str:
        if subject.data is None or number is None:  # the field was emptied
            return ""
        rows = subject.data.rows("val" if subject.data.has("val") else "train")
        batch = rows[torch.tensor([int(number) % len(rows)])]
        x = batch.x[0] if batch.mask is None else batch.x[0, batch.mask[0]]
        scaling = model.preprocessing.scaling if model.preprocessing else None
        return typed(x if scaling is None else x * scaling.std + scaling.mean)

    with gr.Row():
        with gr.Column():
            names = f": {', '.join(spec.feature_names)}" if spec.feature_names and len(spec.feature_names) < 20 else ""
            text = gr.Textbox(
                example(), label=f"Sequence, a line a step{names}", lines=14, max_lines=14, elem_id="source"
            )
            with gr.Row():
                number = gr.Number(0, precision=0, minimum=0, label="Held-out row", visible=subject.data is not None)
                go = gr.Button("Answer", variant="primary", elem_id="go")
        with gr.Column():
            label = gr.Label(label="Answer", num_top_classes=5, elem_id="answer", visible=not of_bits)
            image = gr.Image(label="Answer", interactive=False, buttons=[], elem_id="bits", visible=of_bits)
    found = gallery("What it does")

    @explained
    def answer(text: str) -> tuple[Any, ...]:
        x = numbers_of(text, spec.shape[-1])
        batch = model.prepare(x[None])
        found = shown(model, batch)
        if of_bits:
            return None, drawn(bits_picture(x, model.predict_columns(batch)["prediction"][0])), found
        return say(model, batch).label, None, found

    number.change(example, number, text, show_progress="hidden")
    gr.on([go.click], answer, text, [label, image, found], show_progress="hidden")


def forecast_picture(history: Tensor, ahead: Tensor, name: str = "value") -> Figure:
    """Draw the end of a series (N,) and what is forecast of it (h,)."""
    blue, orange = visual.class_colors(2)
    first = max(0, len(history) - 6 * max(len(ahead), 20))
    with visual.new_figure(9.0, 3.2) as (figure, axes):
        axes.plot(range(first, len(history)), history[first:].tolist(), color=blue, label="series")
        steps = range(len(history) - 1, len(history) + len(ahead))
        axes.plot(steps, [float(history[-1]), *ahead.tolist()], color=orange, label="forecast")
        axes.set(xlabel="step", ylabel=name)
        axes.grid(True)
        axes.legend()
    return figure


def history_of(subject: Subject) -> Tensor | None:
    """Return the last part of the run's series, (N,), or None where its data are not there."""
    if subject.data is None:
        return None
    rows = subject.data.rows(next(split for split in ("test", "val", "train") if subject.data.has(split)))
    return rows.values


def series_page(subject: Subject) -> None:
    """Add the run's series or one that is dropped, how far to look ahead, and the curve."""
    import gradio as gr

    model: Any = subject.model
    column = subject.settings.get("data", {}).get("column")
    name = (subject.spec.feature_names or ("value",))[0]

    def answer(path: str | None, steps: float) -> tuple[Any, ...]:
        history = history_of(subject) if path is None else read_column(Path(path), column)[1]
        if history is None:
            return None, None
        ahead = model.forecast(history, int(steps))
        output = subject.folder / "forecast.csv"
        output.write_text("\n".join([name, *map(str, ahead.tolist())]) + "\n", encoding="utf8")
        return drawn(forecast_picture(history, ahead, name)), str(output)

    picture, output = answer(None, AHEAD)
    with gr.Row():
        with gr.Column(scale=1):
            steps = gr.Slider(1, 365, value=AHEAD, step=1, label="steps ahead", elem_id="steps")
            file = gr.File(label="Another series (.csv)", type="filepath", elem_id="rows", height=120)
        with gr.Column(scale=3):
            image = gr.Image(picture, label="Forecast", interactive=False, buttons=[], elem_id="forecast", format="png")
            download = gr.File(output, label="Forecast as CSV", interactive=False, elem_id="download")
    changes = [file.change, steps.release]
    gr.on(changes, explained(answer), [file, steps], [image, download], show_progress="hidden")


def advice(model: Any, basket: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the item that the rules add to a basket, and the rules that add some, the first ones.

    Raises:
        ZooError: for an empty basket.
    """
    if not basket:
        raise ZooError("The basket is empty: choose an item.")
    table = model.predict_table([list(basket)])
    item, confidence = (table.column(name)[0].as_py() for name in ("prediction", "confidence"))
    names = model.spec.feature_names
    own = torch.tensor([-1, *(number for number, name in enumerate(names) if name in basket)])
    rules = model.rules
    fire = torch.isin(rules.antecedents, own).all(1) & ~torch.isin(rules.consequents, own).all(1)
    said = "nothing: no rule speaks of it" if item is None else f"{item} (confidence {confidence:.3f})"
    return said, rules[fire][:RULES].table(names)


def basket_page(subject: Subject) -> None:
    """Add a basket to fill, what the rules add to it, and which of them."""
    import gradio as gr

    names = list(subject.spec.feature_names or ())
    basket = gr.Dropdown(names, multiselect=True, label=f"Basket, of {len(names):,} items", elem_id="basket")
    label = gr.Label(label="Add to it", elem_id="answer")
    table = gr.Dataframe(label="Rules that add an item", interactive=False, elem_id="answers", visible=False)

    @explained
    def answer(items: list[str]) -> tuple[Any, ...]:
        if not items:
            return None, gr.update(visible=False)
        said, rules = advice(subject.model, items)
        return said, gr.update(value=as_table(rules), visible=bool(rules))

    basket.change(answer, basket, [label, table], show_progress="hidden")
    with gr.Accordion("Many baskets at once", open=False):
        drop_zone(subject, (".csv", ".txt", ".dat"))
