"""Type a prompt and watch tokens come, a sentence and get its translation, a text and get its class, a word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.text import Tokenizer
from zoo.training.demo.subject import Subject, say
from zoo.training.demo.widgets import drop_zone, explained, gallery, shown

__all__ = ["class_page", "filled", "gap_page", "going_on", "prompt_page", "translated", "translation_page", "word_page"]

GAP = "___"


def going_on(
    model: Any, prompt: str, steps: float = 200, temperature: float = 0.8, top_k: float = 0, seed: float = 0
) -> Iterator[str]:
    """Yield a prompt and what a language model has made of it so far, longer by some letters each time.

    The last one is what `generate` answers.

    Args:
        model: a language model.
        prompt: the beginning, may be empty.
        steps: tokens to draw at most.
        temperature: 0 takes the likeliest token.
        top_k: draw from so many likeliest tokens; 0 from all.
        seed: seed of the draw.
    """
    text = model.shown(prompt)
    yield text
    pieces = model.stream(prompt, steps=int(steps), temperature=temperature, top_k=int(top_k) or None, seed=int(seed))
    for piece in pieces:
        text += piece
        yield text


@torch.inference_mode()
def translated(model: Any, text: str) -> tuple[str, Batch]:
    """Return the greedy translation of a text, and the pair of both as a batch, of which the alignment is drawn.

    Raises:
        ZooError: for an empty text.
    """
    if not text.strip():
        raise ZooError("There is nothing to translate: type a sentence.")
    batch = model.as_batch(model.prepare([text]))
    columns = model.predict_columns(batch)
    said = columns["prediction"][0]
    said = said[said >= 0]
    first, end = model.begin([text]).ids[0].to(said), torch.tensor([model.end]).to(said)
    pair = batch._replace(target=torch.cat([first, said])[None], y=torch.cat([said, end])[None])
    return model.answers(columns).column("prediction")[0].as_py(), pair


@torch.inference_mode()
def filled(model: Any, text: str, count: int = 10) -> dict[str, float]:
    """Return the likeliest tokens for the gap of a text, each with its probability.

    Args:
        model: a model that was trained to guess hidden tokens.
        text: with a gap, three underscores.
        count: how many tokens.

    Raises:
        ZooError: for a text without a gap, or with several.
    """
    parts = text.split(GAP)
    if len(parts) != 2:
        raise ZooError(f"A text has one gap, {GAP}, and this one has {len(parts) - 1}: type it where a token is to be.")
    tokenizer = Tokenizer.from_json(model.spec.tokenizer)
    before, after = map(tokenizer.encode, parts)
    tokens = torch.cat([before, torch.tensor([model.mask_token]), after]).to(model.device)
    share, number = model(tokens[None])[0, len(before)].softmax(-1).topk(count)
    names = [name for name, _ in tokenizer.shown(number.tolist())]
    return dict(zip(names, share.tolist(), strict=True))


def prompt_page(subject: Subject) -> None:
    """Add a prompt, how it is gone on with, and the text as it comes."""
    import gradio as gr

    with gr.Row():
        with gr.Column(scale=2):
            prompt = gr.Textbox(label="Prompt", lines=3, value="", elem_id="prompt", placeholder="may be empty")
            with gr.Row():
                go = gr.Button("Go on", variant="primary", elem_id="go", min_width=80)
                stop = gr.Button("Stop", elem_id="stop", min_width=80)
            steps = gr.Slider(1, 1000, value=200, step=1, label="tokens", elem_id="steps")
            temperature = gr.Slider(0, 2, value=0.8, step=0.05, label="temperature")
            top_k = gr.Slider(0, 200, value=0, step=1, label="top k (0: all)")
            seed = gr.Number(0, precision=0, minimum=0, label="seed")
        with gr.Column(scale=3):
            text = gr.Textbox(label="Text", lines=22, max_lines=22, elem_id="text", buttons=["copy"])

    @explained
    def answer(*options: Any) -> Iterator[str]:
        yield from going_on(subject.model, *options)

    inputs = [prompt, steps, temperature, top_k, seed]
    running = gr.on([go.click, prompt.submit], answer, inputs, text, show_progress="hidden")
    stop.click(None, cancels=[running])


def translation_page(subject: Subject) -> None:
    """Add a sentence, its translation, and what of it each word looked at."""
    import gradio as gr

    with gr.Row():
        source = gr.Textbox(label="Sentence", lines=3, elem_id="source")
        target = gr.Textbox(label="Translation", lines=3, elem_id="target")
    go = gr.Button("Translate", variant="primary", elem_id="go")
    found = gallery("What it looked at")

    @explained
    def answer(text: str) -> tuple[Any, ...]:
        said, pair = translated(subject.model, text)
        return said, shown(subject.model, pair)

    gr.on([go.click, source.submit], answer, source, [target, found], show_progress="hidden")
    with gr.Accordion("Many sentences at once", open=False):
        drop_zone(subject, (".txt",))


def gap_page(subject: Subject) -> None:
    """Add a text with a gap, and what may stand there."""
    import gradio as gr

    text = gr.Textbox(label=f"Text with a gap, {GAP}", lines=4, elem_id="source")
    go = gr.Button("Fill it", variant="primary", elem_id="go")
    label = gr.Label(label="Likeliest tokens", elem_id="answer")
    answer = explained(lambda text: filled(subject.model, text))
    gr.on([go.click, text.submit], answer, text, label, show_progress="hidden")


def class_page(subject: Subject) -> None:
    """Add a text, its class or value, and where the model looked."""
    import gradio as gr

    model = subject.model
    with gr.Row():
        with gr.Column():
            text = gr.Textbox(label="Text", lines=6, elem_id="source")
            go = gr.Button("Answer", variant="primary", elem_id="go")
        with gr.Column():
            label = gr.Label(label="Answer", num_top_classes=5, elem_id="answer")
    found = gallery("Where it looks")

    @explained
    def answer(text: str) -> tuple[Any, ...]:
        if not text.strip():
            raise ZooError("There is nothing to read: type a text.")
        batch = model.prepare([text])
        return say(model, batch).label, shown(model, batch)

    gr.on([go.click, text.submit], answer, text, [label, found], show_progress="hidden")
    with gr.Accordion("Many texts at once", open=False):
        drop_zone(subject, (".txt", ".csv", ".tsv", ".parquet") if model.preprocessing.text else (".txt",))  # type: ignore[union-attr]


def word_page(subject: Subject) -> None:
    """Add a word, or a sum of words, and those whose vectors lie nearest."""
    import gradio as gr

    word = gr.Textbox(label="A word, or a sum such as king - man + woman", elem_id="source")
    go = gr.Button("Nearest words", variant="primary", elem_id="go")
    table = gr.Dataframe(headers=["word", "cosine"], label="Nearest words", interactive=False, elem_id="answers")

    @explained
    def answer(expression: str) -> list[list[Any]]:
        words = subject.model.word_vectors
        return [[word, round(cosine, 4)] for word, cosine in words.near(expression.strip())]

    gr.on([go.click, word.submit], answer, word, table, show_progress="hidden")
