"""Folders of Hugging Face: config.json, model.safetensors and tokenizer.json, as `transformers` has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from zoo.checks import Range, check_type
from zoo.data.spec import DataSpec
from zoo.errors import ZooError
from zoo.layers.lora import plain_state
from zoo.models.base import ZooModel
from zoo.models.transformer import bert_weights, gpt2_weights
from zoo.registry import create_model
from zoo.text import Tokenizer
from zoo.training.checkpoint import write_whole

__all__ = ["from_hub", "has_form", "read_folder", "write_folder"]

_WEIGHTS = "model.safetensors"
_FORMATS: dict[str, Any] = {"bert": bert_weights, "gpt2": gpt2_weights}  # by config.json's model_type
_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json", "vocab.json", "merges.txt"]


def read_folder(folder: Path) -> ZooModel:
    """Return the model of a folder.

    Raises:
        ZooError: for a folder that lacks a file or a tensor, or holds one of another shape; for a kind of model that
            the zoo does not read.
    """
    config = _read_config(folder)
    kind = config.get("model_type")
    form = _FORMATS.get(str(kind))
    if form is None:
        raise ZooError(f"{folder}/config.json is of model_type {kind!r}; the zoo reads {', '.join(_FORMATS)}.")
    hparams, vocab_size, context = form.from_config(config)
    check_type(f"vocab_size of {folder / 'config.json'}", vocab_size, Annotated[int, Range(1)])
    tokenizer = _read_tokenizer(folder, vocab_size)
    spec = DataSpec("tokens", (context,), "tokens", vocab_size=vocab_size, tokenizer=tokenizer)
    model = create_model(form.MODEL, spec=spec, **hparams)
    names = form.names(hparams["num_layers"], hparams.get("tie_embeddings", True))
    tensors = form.without_prefix(_read_tensors(folder))
    model.load_state_dict(_ours(folder, tensors, names, model, form), strict=False)
    return model.eval()


def has_form(model: ZooModel) -> bool:
    """Whether a fitted model becomes such a folder: `gpt`, and a `bert` that guesses tokens."""
    return _form_of(model) is not None and model.spec is not None and model.spec.target == "tokens"


def _form_of(model: ZooModel) -> Any:
    return next((form for form in _FORMATS.values() if model.entry.name == form.MODEL), None)


def write_folder(model: ZooModel, folder: Path) -> None:
    """Write a model that `has_form` as a folder that `transformers` loads."""
    from safetensors.torch import save

    form = _form_of(model)
    assert model.spec is not None
    context = int(model.context)
    config = form.to_config(model.hparams, model.spec.vocab_size, context)
    state, tensors = plain_state(model), {}
    tied = model.hparams.get("tie_embeddings", True)
    for theirs, (ours, turned) in form.names(model.hparams.num_layers, tied).items():
        if ours in state:
            value = state[ours].detach().cpu()
        else:  # theirs always have a bias
            value = torch.zeros(len(state[ours.replace("bias", "weight")]))
        tensors[theirs] = (value.T if turned else value).contiguous()
    if hasattr(form, "parted"):
        tensors = form.parted(tensors)
    if model.spec.tokenizer:
        tokenizer = Tokenizer.from_json(model.spec.tokenizer)
        tokenizer.save(folder / "tokenizer.json")
        end = tokenizer.special("end")
        config |= {"eos_token_id": end, "bos_token_id": end}
        about: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context}
        if end is not None:
            about["eos_token"] = tokenizer.vocabulary[end]
        _write_json(folder / "tokenizer_config.json", about)
    _write_json(folder / "config.json", config)
    write_whole(folder / _WEIGHTS, lambda file: file.write(save(tensors, {"format": "pt"})))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def from_hub(name: str) -> Path:
    """Fetch the folder of a name, by the library that the tokenizers bring along."""
    if "/" in name.strip("/") and (name.startswith((".", "/")) or name.count("/") > 1):
        raise ZooError(f"There is no file or folder {name}.")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise ZooError(f"There is no folder {name}, and it cannot be fetched under that name: {reason}") from None


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise ZooError(f"{folder} has no config.json: pass a folder that `save_pretrained` wrote.")
    return _read_json(file)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ZooError(f"{file} is no JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ZooError(f"{file} holds a {type(content).__name__}, not the settings of a model.")
    return content


def _read_tokenizer(folder: Path, vocab_size: int) -> str | None:
    """The tokenizer as JSON; None where the folder has no vocabulary."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt")):
        return None
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > vocab_size:
        raise ZooError(
            f"The vocabulary of {folder} has {tokenizer.vocab_size} tokens, and config.json says {vocab_size}."
        )
    return tokenizer.to_json()


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of model.safetensors, or of the parts that its index names."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = [folder / _WEIGHTS]
    index = folder / "model.safetensors.index.json"
    if not files[0].is_file() and index.is_file():
        parts = _read_json(index).get("weight_map")
        if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
            raise ZooError(f"{index} does not say in its weight_map which file holds which tensor.")
        files = [folder / name for name in sorted(set(parts.values()))]
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise ZooError(f"{folder} has no {file.name}: the zoo reads safetensors, and unpickles nothing.")
        try:
            tensors |= load_file(file)
        except SafetensorError as error:
            raise ZooError(f"{file} cannot be read: {error}.") from None
    return tensors


def _ours(
    folder: Path, tensors: dict[str, Tensor], names: dict[str, tuple[str, bool]], model: ZooModel, form: Any
) -> dict[str, Tensor]:
    """Return the tensors under our names, each of the shape that the model has."""
    shapes, found = model.state_dict(), {}
    for theirs, (ours, turned) in names.items():
        if theirs not in tensors:
            raise ZooError(f"{folder} lacks the tensor {theirs}, which its config.json asks for.")
        value = tensors[theirs].T if turned else tensors[theirs]
        if value.shape != shapes[ours].shape:
            wanted = tuple(reversed(shapes[ours].shape)) if turned else tuple(shapes[ours].shape)
            have = tuple(tensors[theirs].shape)
            raise ZooError(f"The tensor {theirs} of {folder} has shape {have}; its config.json asks for {wanted}.")
        if not value.is_floating_point():
            raise ZooError(
                f"The tensor {theirs} of {folder} holds {value.dtype}: the zoo reads floating-point weights."
            )
        found[ours] = value.to(shapes[ours].dtype)
    extra = next((name for name in tensors if name not in names and not form.is_buffer(name)), None)
    if extra is not None:
        raise ZooError(f"{folder} holds the tensor {extra}, of which its config.json knows nothing.")
    return found
