"""Draw a digit, or drop an image.

A drawing is brought to the size, the polarity and the channels of the training images.

Legend: N images, C channels, H×W pixels.
"""

from __future__ import annotations

import base64
import binascii
import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.new_rows import read_images
from zoo.errors import ZooError
from zoo.training.demo import widgets
from zoo.training.demo.subject import Subject, say
from zoo.training.demo.widgets import explained

__all__ = ["Sheet", "as_bytes", "fitted", "ink_of", "shown"]

INK = 0.1  # what is fainter is no ink
PEN = 0.7  # how much of the canvas people fill: what they draw is enlarged as much as its ink falls short
SIDE = 280  # of the canvas and of what is shown, in pixels of the screen


@dataclass(frozen=True)
class Sheet:
    """What training images look like.

    Attributes:
        shape: (C, H, W).
        white: the brightest pixel.
        dark: whether light ink stands on dark ground.
        share: how much of the image's longer side the ink takes.
        middle: where its centre of mass lies, in pixels from above and from the left; None takes the image's middle.
        pen: how wide a stroke is, in pixels.
    """

    shape: tuple[int, int, int]
    white: float = 255.0
    dark: bool = True
    share: float = 0.75
    middle: tuple[float, float] | None = None
    pen: float = 2.0

    @classmethod
    def of(cls, shape: tuple[int, ...], white: float, images: Tensor) -> Sheet:
        """Measure training images (N, C, H, W): their ground is what the median pixel of their borders is.

        >>> images = torch.zeros(1, 1, 8, 8)
        >>> images[0, 0, 2:6, 3:5] = 16
        >>> Sheet.of((1, 8, 8), 16.0, images)
        Sheet(shape=(1, 8, 8), white=16.0, dark=True, share=0.5, middle=(4.0, 4.0), pen=1.402)
        """
        grey = images.float().mean(1) / white  # (N, H, W)
        border = torch.cat([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], dim=1)
        dark = bool(border.median() < 0.5)
        strength = grey if dark else 1 - grey
        there = strength > 2 * INK
        sides = torch.maximum(_extent(there.any(2)), _extent(there.any(1)))  # (N,)
        strength, sides = strength[sides > 0], sides[sides > 0]
        if not len(sides):
            return cls(shape, white, dark)  # type: ignore[arg-type]
        middle = tuple(float(_centre(strength.sum(axis)).mean()) for axis in (2, 1))
        share = float(sides.median()) / max(shape[1:])
        return cls(shape, white, dark, share, middle, round(_stroke(strength), 3))  # type: ignore[arg-type]


def _stroke(ink: Tensor) -> float:
    """Return how wide strokes (N, H, W) are in pixels: of length l and width w they have mass l·w and edges of 2·l."""
    framed = F.pad(ink, (1, 1, 1, 1))
    down, across = framed[:, 1:, :-1] - framed[:, :-1, :-1], framed[:, :-1, 1:] - framed[:, :-1, :-1]
    return float(2 * ink.sum() / torch.hypot(down, across).sum())


def _extent(there: Tensor) -> Tensor:
    """Return how far it is from the first to the last True of each row (N, T), both included; 0 where there is none."""
    steps = torch.arange(1, there.shape[1] + 1)
    last = (there * steps).amax(1)
    first = torch.where(there, steps, there.shape[1] + 1).amin(1)
    return (last - first + 1).clamp_min(0).float()


def ink_of(drawing: str) -> Tensor:
    """Return how strong the ink of a drawing is, (H, W) from 0 to 1: the opacity of a PNG in a data URL.

    Raises:
        ZooError: for what is no such drawing.
    """
    from PIL import Image

    try:
        content = base64.b64decode(drawing.partition(",")[2], validate=True)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            opacity = np.array(image.convert("RGBA").getchannel("A"))
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise ZooError("The drawing did not arrive as a PNG image: reload the page.") from None
    return torch.from_numpy(opacity) / 255


def fitted(ink: Tensor, sheet: Sheet) -> Tensor:
    """Return a drawing as a training image, (C, H, W): its ink as large as theirs, and where theirs is.

    Args:
        ink: how strong it is, (h, w) from 0 to 1.
        sheet: what training images look like.

    Raises:
        ZooError: if nothing is drawn.

    Example:
        >>> ink = torch.zeros(40, 40)
        >>> ink[5:25, 30:40] = 1
        >>> fitted(ink, Sheet((1, 4, 4), white=16, share=1.0)).round().int()
        tensor([[[ 0, 16, 16,  0],
                 [ 0, 16, 16,  0],
                 [ 0, 16, 16,  0],
                 [ 0, 16, 16,  0]]], dtype=torch.int32)
    """
    rows, columns = (side.nonzero().flatten() for side in ((ink > INK).any(1), (ink > INK).any(0)))
    if not len(rows):
        raise ZooError("Nothing is drawn yet.")
    ink = ink[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    channels, height, width = sheet.shape
    scale = sheet.share * max(height, width) / max(ink.shape)
    size = [max(1, min(side, round(scale * extent))) for side, extent in zip((height, width), ink.shape, strict=True)]
    ink = F.interpolate(ink[None, None], size, mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
    middle = sheet.middle or (height / 2, width / 2)
    top, left = (
        min(max(0, round(middle[axis] - float(_centre(ink.sum(1 - axis))))), side - size[axis])
        for axis, side in enumerate((height, width))
    )
    page = torch.zeros(height, width)
    page[top : top + size[0], left : left + size[1]] = ink
    return (sheet.white * (page if sheet.dark else 1 - page)).expand(channels, -1, -1)


def _centre(mass: Tensor) -> Tensor:
    """Return where the centres of mass of rows of pixels (..., T) lie, whose first pixel lies from 0 to 1."""
    return (mass * (torch.arange(mass.shape[-1]) + 0.5)).sum(-1) / mass.sum(-1)


def as_bytes(image: Tensor, white: float) -> Tensor:
    """Return an image as bytes, of which the brightest is white."""
    return image.float().div(white).clamp(0, 1).mul(255).round().byte()


def shown(image: Tensor, white: float) -> np.ndarray:
    """Return an image (C, H, W) as bytes (h, w, 3), each pixel a square that can be seen."""
    image = as_bytes(image, white)
    zoom = max(1, SIDE // max(image.shape[1:]))
    image = image[:3].expand(3, -1, -1) if len(image) in (1, 3) else image[:1].expand(3, -1, -1)
    return image.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2).permute(1, 2, 0).numpy()


# -- the page ---------------------------------------------------------------------------------------------------------

_CANVAS = """
<canvas width="${width}" height="${height}"></canvas>
<button type="button">Clear</button>
"""
_STYLE = """
canvas { display: block; width: ${width}px; height: ${height}px; max-width: 100%; background: ${ground};
         border: 1px solid #999; border-radius: 8px; cursor: crosshair; touch-action: none; }
button { margin-top: 8px; padding: 4px 14px; border: 1px solid #999; border-radius: 6px; }
"""
# A drawing is its opacity: ink on nothing. It goes to the server when the pen stays lifted: several at once would race.
_SCRIPT = """
const canvas = element.querySelector('canvas'), pen = canvas.getContext('2d');
const at = event => {
    const box = canvas.getBoundingClientRect();
    const zoom = canvas.width / box.width;
    return [(event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom];
};
let down = false;
pen.lineWidth = props.pen; pen.lineCap = pen.lineJoin = 'round'; pen.strokeStyle = props.ink;
canvas.onpointerdown = event => {
    down = true; canvas.setPointerCapture(event.pointerId);
    const [x, y] = at(event);
    pen.beginPath(); pen.moveTo(x, y); pen.lineTo(x + 0.01, y); pen.stroke();  // a dot, too, is ink
};
canvas.onpointermove = event => { if (down) { pen.lineTo(...at(event)); pen.stroke(); } };
let waiting;
const send = () => trigger('input', { drawing: canvas.toDataURL() });
canvas.onpointerup = () => { down = false; clearTimeout(waiting); waiting = setTimeout(send, 150); };
element.querySelector('button').onclick = () => { pen.clearRect(0, 0, canvas.width, canvas.height); trigger('clear'); };
"""


def page(subject: Subject) -> None:
    """Add a canvas for grey images, a place to drop one, what the model sees of it, and what it says."""
    import gradio as gr

    model, spec = subject.model, subject.spec
    assert model.preprocessing is not None
    white = model.preprocessing.white
    sheet = Sheet(spec.shape, white) if subject.raw is None else Sheet.of(spec.shape, white, subject.raw)  # type: ignore[arg-type]

    def answer(image: Tensor) -> tuple[Any, ...]:
        row = image.unsqueeze(0)
        return say(model, row).label, shown(image, white), widgets.shown(model, model.prepare(row))

    @functools.partial(explained, event=gr.EventData)
    def drawing(event: Any) -> tuple[Any, ...]:
        image = as_bytes(fitted(ink_of(str(event.drawing)), sheet), white)
        return answer(image * (white / 255))  # as `predict` reads the file of what is shown

    @explained
    def dropped(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return None, None, gr.update(visible=False)
        assert model.preprocessing is not None
        return answer(read_images([path], spec, model.preprocessing)[0])

    with gr.Row():
        with gr.Column():
            if spec.shape[0] == 1:
                _, height, width = spec.shape
                zoom = SIDE / max(height, width)
                ground, ink = ("black", "white") if sheet.dark else ("white", "black")
                sizes = {
                    "width": round(zoom * width),
                    "height": round(zoom * height),
                    "pen": round(PEN * zoom * sheet.pen / sheet.share),
                }
                canvas = gr.HTML(
                    html_template=_CANVAS, css_template=_STYLE, js_on_load=_SCRIPT, elem_id="canvas",
                    ground=ground, ink=ink, **sizes,
                )  # fmt: skip
            file = gr.File(label="Or drop an image", type="filepath", elem_id="image", height=120)
        with gr.Column():
            label = gr.Label(label="Answer", num_top_classes=5, elem_id="answer")
            gr.Markdown("What the model sees:")
            seen = gr.Image(show_label=False, interactive=False, height=200, buttons=[], elem_id="seen", format="png")
    found = widgets.gallery("Where it looks")
    outputs = [label, seen, found]
    if spec.shape[0] == 1:
        canvas.input(drawing, None, outputs, show_progress="hidden", trigger_mode="multiple")
        canvas.clear(lambda: (None, None, gr.update(visible=False)), None, outputs, show_progress="hidden")
    file.change(dropped, file, outputs, show_progress="hidden")
