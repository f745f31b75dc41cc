"""What several pages have: errors as one line, figures as pictures, and a place to drop files of new rows."""

from __future__ import annotations

import base64
import functools
import inspect
import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.training.demo.subject import Subject, pictures
from zoo.training.predict import predict_files, write_tables, written_forms

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["answer_file", "as_table", "drawn", "drop_zone", "explained", "gallery", "one_line", "shown"]

SHOWN = 200  # answers of a file that the page shows


def one_line(error: ZooError, arguments: Sequence[Any]) -> str:
    """Return what the page says of an error, without the folder of an uploaded file that is among the arguments.

    >>> one_line(ZooError("/tmp/7/new.csv has no column 'a'."), ["/tmp/7/new.csv"])
    "new.csv has no column 'a'."
    """
    line = str(error)
    for path in arguments:
        if isinstance(path, str) and Path(path).is_absolute():
            line = line.replace(f"{Path(path).parent}/", "")
    return line


def explained(function: Callable[..., Any], event: type | None = None) -> Callable[..., Any]:
    """Let a handler say in one line in the page what a user can get wrong; a defect keeps its traceback here.

    Args:
        function: the handler.
        event: Gradio's class of the handler's argument `event`, where it has one.
    """
    import gradio as gr

    def shown(error: ZooError, arguments: tuple[Any, ...]) -> Exception:
        return gr.Error(escape(one_line(error, arguments)), duration=None, print_exception=False)

    @functools.wraps(function)
    def answer(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ZooError as error:
            raise shown(error, arguments) from None

    @functools.wraps(function)
    def stream(*arguments: Any) -> Any:
        try:
            yield from function(*arguments)
        except ZooError as error:
            raise shown(error, arguments) from None

    handler = stream if inspect.isgeneratorfunction(function) else answer
    handler.__annotations__ = {} if event is None else {"event": event}  # by which Gradio passes it
    return handler


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    from zoo.visual import save

    file = io.BytesIO()
    save(figure, file)  # type: ignore[arg-type]
    return file.getvalue()


def drawn(figure: Figure) -> Any:
    """Return a figure as an image of Pillow."""
    from PIL import Image

    return Image.open(io.BytesIO(png(figure))).convert("RGB")


def gallery(title: str) -> Any:
    """Add a place for pictures under a title, hidden until there are some (`shown`)."""
    import gradio as gr

    return gr.HTML(label=title, show_label=True, container=True, visible=False, elem_id="pictures")


def shown(model: ZooModel, batch: Any) -> dict[str, Any]:
    """Return what fills a `gallery`: each picture that a model has of a row, as wide as the page lets it be."""
    import gradio as gr

    sources = [base64.b64encode(png(figure)).decode() for _, figure in pictures(model, batch)]
    style = "display: block; max-width: 100%; margin: 2.2em auto 0; background: white"
    images = "".join(f'<img style="{style}" src="data:image/png;base64,{source}">' for source in sources)
    return gr.update(value=images, visible=bool(images))


def as_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows as Gradio's `Dataframe` takes them, numbers with four digits.

    >>> as_table([{"word": "a", "cosine": 0.123456}])
    {'headers': ['word', 'cosine'], 'data': [['a', 0.1235]]}
    """
    cells = [[float(f"{v:.4g}") if isinstance(v, float) else v for v in row.values()] for row in rows]
    return {"headers": list(rows[0]) if rows else [], "data": cells}


def answer_file(path: str, subject: Subject) -> tuple[str, dict[str, Any], str]:
    """Write what `predict` says of each row of a file as CSV, into the subject's folder.

    Args:
        path: a file of new rows, as `predict` reads them.
        subject: the model.

    Returns:
        The file of answers, its first rows as `gr.Dataframe` takes them, and how many there are.
    """
    import pyarrow.csv as pacsv

    output = subject.folder / f"{Path(path).name.partition('.')[0]}_answers.csv"
    count = write_tables(predict_files(subject.model, path, written_forms(subject.settings)), str(output))
    head = pacsv.open_csv(output).read_next_batch().slice(0, SHOWN)
    more = f", the first {SHOWN} of them here" if count > SHOWN else ""
    return str(output), as_table(head.to_pylist()), f"{count:,} answer{'s' * (count != 1)}{more}."


def drop_zone(subject: Subject, suffixes: tuple[str, ...]) -> None:
    """Add a place to drop a file of new rows, and its answers as a table to download."""
    import gradio as gr

    file = gr.File(label=f"New rows ({', '.join(suffixes)}), as predict reads them", type="filepath", elem_id="rows")
    count = gr.Markdown(elem_id="count")
    table = gr.Dataframe(label="Answers", interactive=False, elem_id="answers", max_height=360, visible=False)
    download = gr.File(label="Answers as CSV", interactive=False, elem_id="download", visible=False)

    @explained
    def answer(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return "", gr.update(visible=False), gr.update(visible=False)
        output, head, said = answer_file(path, subject)
        return said, gr.update(value=head, visible=True), gr.update(value=output, visible=True)

    file.change(answer, file, [count, table, download], show_progress="hidden")
