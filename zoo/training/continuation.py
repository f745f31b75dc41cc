"""Going on with a text or a series from the command line: `generate.*` of `evaluate.py`."""

from __future__ import annotations

import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from zoo.checks import check_type
from zoo.errors import ZooError
from zoo.models.base import Generates, ZooModel
from zoo.text import Decoding
from zoo.training.checkpoint import find_checkpoint, load_model, write_whole
from zoo.training.pictures import held_out

__all__ = ["GENERATE", "check_goes_on", "go_on", "read_asked"]

# What each key of `generate` may be.
GENERATE: dict[str, Any] = {
    "prompt": str | list[str] | None,
    "draft": str | None,
    **typing.get_type_hints(Decoding, include_extras=True),
}


def read_asked(options: dict[str, Any]) -> dict[str, Any] | None:
    """Return how to go on, as the config of `evaluate.py` says it; None where nothing was asked for.

    Raises:
        ZooError: for a value out of range.
    """
    section = dict(options["generate"])
    for key in ("prompt", "steps"):
        if options[key] is not None:
            section[key] = options[key]
    for key, value in section.items():
        check_type(f"generate.{key}", value, GENERATE[key])
    usual = {field.name: field.default for field in fields(Decoding)} | {"steps": 200, "prompt": None, "draft": None}
    Decoding.of({key: value for key, value in section.items() if key not in ("prompt", "draft")})
    if options["steps"] is None and section == usual:
        return None
    return section


@torch.inference_mode()
def check_goes_on(model: ZooModel, data: Any, asked: dict[str, Any]) -> None:
    """Raise one line for a model that neither says tokens nor forecasts, a prompt too long, or a draft not there."""
    if isinstance(model, Generates) and data.spec.target == "tokens":
        model.begin([asked["prompt"] or ""] if isinstance(asked["prompt"], str | None) else asked["prompt"])
        if asked["draft"] is not None:
            find_checkpoint(asked["draft"])
    elif data.spec.target != "series":
        raise ZooError(f"{model.entry.name} has nothing to go on with: leave prompt, steps and generate out.")


def go_on(model: ZooModel, data: Any, asked: dict[str, Any], split: str, folder: Path) -> None:
    """Continue a prompt or a series, print it as it comes and write it beside the metrics."""
    check_goes_on(model, data, asked)
    if isinstance(model, Generates) and data.spec.target == "tokens":
        text = _generated(model, asked)
    else:
        ahead = model.forecast(held_out(model, data, split).x[-1, :, 0], asked["steps"])
        text = "\n".join(f"{value:.6g}" for value in ahead.tolist())
        print(text)
    write_whole(folder / "continuation.txt", lambda file: file.write(f"{text}\n".encode()))


def _generated(model: Generates, asked: dict[str, Any]) -> str:
    """Return what the model makes of the prompts, printed piece by piece where it is one."""
    options = {key: value for key, value in asked.items() if key not in ("prompt", "draft")}
    prompt = "\n" if asked["prompt"] is None else asked["prompt"]
    draft: Any = None if asked["draft"] is None else load_model(find_checkpoint(Path(asked["draft"]), None))
    if isinstance(prompt, str) and options["decoding"] != "beam" and options["num_return"] == 1:
        pieces = [model.shown(prompt)]
        print(pieces[0], end="", flush=True)
        for piece in model.stream(prompt, draft=draft, **options):
            print(piece, end="", flush=True)
            pieces.append(piece)
        print()
        return "".join(pieces)
    found = model.generate(prompt, draft=draft, **options)
    texts = [found] if isinstance(found, str) else found
    flat = [text for each in texts for text in ([each] if isinstance(each, str) else each)]
    text = "\n\n".join(flat)
    print(text)
    return text
