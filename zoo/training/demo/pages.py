"""Which page a model gets: by what its data are, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.models.base.forecasts import Forecasts
from zoo.models.base.generates import Generates
from zoo.models.base.translates import Translates
from zoo.training.demo import images, plane, sequences, tables, texts
from zoo.training.demo.subject import Subject

__all__ = ["make_page", "page_of"]


def page_of(model: ZooModel) -> Callable[[Subject], None]:
    """Return what builds the page of a model.

    Raises:
        ZooError: for a model with nothing to show, by its name.
    """
    spec, name = model.spec, model.entry.name
    assert spec is not None
    if model.preprocessing is None:
        raise ZooError(f"{name} comes without preprocessing, so that it takes no raw rows: train it again to show it.")
    if "precomputed" in (model.hparams.get("kernel"), model.hparams.get("metric")):
        raise ZooError(f"{name} of precomputed pairs has nothing to show: a new row is its pairs with all others.")
    of_texts, kind = bool(spec.tokenizer), spec.kind
    said = spec.target in ("class", "value")
    choices: tuple[tuple[bool, Callable[[Subject], None]], ...] = (
        (kind == "image", images.page),
        (kind == "tabular" and model.preprocessing.text is None, tabular),
        (of_texts and hasattr(model, "word_vectors"), texts.word_page),
        (of_texts and kind in ("tabular", "tokens") and said, texts.class_page),
        (of_texts and hasattr(model, "mask_token") and spec.target == "tokens", texts.gap_page),
        (of_texts and isinstance(model, Translates), texts.translation_page),
        (of_texts and isinstance(model, Generates) and spec.target == "tokens", texts.prompt_page),
        (kind == "series" and isinstance(model, Forecasts), sequences.series_page),
        (kind == "sequence", sequences.sequence_page),
        (kind == "transactions" and spec.feature_names is not None, sequences.basket_page),
    )
    for fits, page in choices:
        if fits:
            return page
    raise ZooError(f"{name} on {spec.describe()} has nothing to show in a page; zoo predict answers rows of it.")


def tabular(subject: Subject) -> None:
    """Add the plane, where a row has two features, and the form."""
    import gradio as gr

    if not plane.suits(subject):
        tables.page(subject)
        return
    with gr.Tabs():
        with gr.Tab("Click points"):
            plane.page(subject)
        with gr.Tab("Fill in a row, or drop a table"):
            tables.page(subject)


def make_page(subject: Subject) -> Any:
    """Return the whole page as Gradio's `Blocks`."""
    import gradio as gr

    page = page_of(subject.model)
    with gr.Blocks(title=subject.title, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {subject.title}\n{subject.model.entry.summary}", elem_id="title")
        page(subject)
    return blocks
