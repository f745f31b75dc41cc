"""Weights in folders and files: those of Hugging Face, and the zoo's own, which are a file with a card beside it.

The zoo's own folders hold model.safetensors (`zoo.training.weight_files`) and README.md. `gpt` and `bert` of tokens are
written as Hugging Face has them, so that `transformers` loads them too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.checks import check_type
from zoo.errors import ZooError, nearest
from zoo.models.base import ZooModel
from zoo.training.cards import card, facts_of_run
from zoo.training.checkpoint import load_model, write_whole
from zoo.training.hugging_face import from_hub, has_form, read_folder, write_folder
from zoo.training.shipped import check_digest, index, read_shipped
from zoo.training.weight_files import SUFFIX, read_weights, write_weights

__all__ = ["load_pretrained", "save_pretrained"]

_WEIGHTS = "model.safetensors"


def load_pretrained(path: str | Path) -> ZooModel:
    """Read a model from a folder that `save_pretrained` or `transformers` wrote, or that people published.

    Args:
        path: a folder with config.json, model.safetensors (one file or several) and a vocabulary; or the name of one on
            Hugging Face's hub, where there is a network; a folder or a .safetensors file of the zoo's own; or a name of
            `zoo.list_pretrained()`.

    Returns:
        The model, ready to predict and to go on with texts (`model.generate`), or to be trained further.

    Raises:
        ZooError: for a folder that lacks a file or a tensor, or holds one of another shape; for a kind of model that
            the zoo does not read.

    Example:
        >>> import zoo
        >>> model = zoo.create_model("gpt", zoo.DataSpec("tokens", (8,), "tokens", vocab_size=11), hidden_size=8)
        >>> zoo.save_pretrained(model, "folder")
        >>> zoo.load_pretrained("folder").entry.name
        'gpt'
    """
    check_type("path", path, str | Path)
    text, folder = str(path), Path(path)
    if not text:
        raise ZooError("An empty name was given: pass a name of zoo.list_pretrained(), a file or a folder.")
    if text in index():
        return read_shipped(text)
    if re.match(r"https?://", text):
        return _from_address(text)
    if "://" in text:
        raise ZooError(f"{text} is not read from there: pass a file, a folder or an address of https.")
    if folder.suffix == SUFFIX and not folder.is_dir():
        return read_weights(folder)
    if folder.is_file() or (folder / "checkpoints").is_dir():
        return load_model(folder)
    if not folder.is_dir():
        if text.count("/") == 1 and text.partition("/")[0] in {key.partition("/")[0] for key in index()}:
            raise ZooError(f"There are no weights '{text}'.{nearest(text, index())}")
        if whole := [key for key in index() if key.partition("/")[2] == text]:
            raise ZooError(f"There are no weights '{text}' without the name of a model: pass {' or '.join(whole)}.")
        folder = from_hub(text)
    if not (folder / "config.json").is_file() and (folder / _WEIGHTS).is_file():
        return read_weights(folder / _WEIGHTS)
    return read_folder(folder)


def save_pretrained(model: ZooModel | str | Path, path: str | Path, *, licence: str | None = None) -> None:
    """Write a model as a folder that `load_pretrained` reads: model.safetensors, and README.md, its card.

    A `gpt`, or a `bert` that guesses tokens, becomes a folder that `transformers` loads: config.json, model.safetensors
    and tokenizer.json.

    Args:
        model: a fitted model, or the folder of a finished run, whose card has its metrics and the command that made it.
        path: the folder; made where it is not there.
        licence: of the weights, for the card, such as `cc-by-4.0`.

    Raises:
        ZooError: for a model that has not been fitted, a run that is not finished, a path that is a file, or a folder
            of other things, whose README.md or config.json would be lost.
    """
    check_type("model", model, ZooModel | str | Path)
    check_type("path", path, str | Path)
    folder = _folder_for_weights(str(path))
    check_type("licence", licence, str | None)
    facts: dict[str, Any] = {"licence": licence, "place": Path(path).name}
    if not isinstance(model, ZooModel):
        facts |= facts_of_run(Path(model))
        model = load_model(model)
    model.check_fitted()
    assert model.spec is not None
    folder.mkdir(parents=True, exist_ok=True)
    if has_form(model):
        write_folder(model, folder)
    else:
        write_weights(model, folder / _WEIGHTS)
        (folder / "config.json").unlink(missing_ok=True)  # another model may have stood there
    text = card(model, facts, (folder / _WEIGHTS).stat().st_size)
    write_whole(folder / "README.md", lambda file: file.write(text.encode()))


def _folder_for_weights(path: str) -> Path:
    """Return the folder to write, unless it is none, or holds what was not written here."""
    folder = Path(path)
    if not path or (folder.exists() and not folder.is_dir()):
        raise ZooError(f"{path or 'An empty path'} is {'a file' if path else 'no folder'}: pass the folder to write.")
    if folder.suffix == SUFFIX and not folder.is_dir():
        raise ZooError(f"{path} names a file: pass a folder, or zoo.export_model(model, PATH, format='safetensors').")
    other = [name for name in ("README.md", "config.json") if (folder / name).exists()]
    if other and not (folder / _WEIGHTS).exists():
        raise ZooError(f"{path} holds {other[0]} and no weights: pass a folder of its own, as it would be overwritten.")
    return folder


def _from_address(address: str) -> ZooModel:
    """Fetch a file, once, and check it against the digest behind its address."""
    import torch

    place, _, digest = address.partition("#sha256=")
    digest = digest.lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ZooError(f"{place} is not fetched unchecked: pass its digest too, as in {place}#sha256=<64 hex digits>.")
    path = Path(torch.hub.get_dir(), "zoo", f"{digest}.safetensors")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(place, str(path), hash_prefix=digest, progress=False)
        except RuntimeError as error:
            raise ZooError(f"{place} was refused: its SHA-256 is not {digest}. Use another.") from error
        except OSError as error:
            raise ZooError(f"{place} cannot be fetched: {error}.") from None
    check_digest(path, digest, "its address")
    return read_weights(path)
