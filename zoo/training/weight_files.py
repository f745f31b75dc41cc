"""Weights in one file: safetensors, with model, hyperparameters, spec and preprocessing in its metadata.

Nothing in such a file is executed, and any program that knows safetensors reads its tensors. Statistics that a solved
model answers without stay out. SHA-256 digests of tensors and values travel inside (`zoo.training.digests`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.base import StreamingModel, ZooModel
from zoo.training.checkpoint import check_learnt, checkpoint_of, model_of, write_whole
from zoo.training.digests import check_digests, digests_of

__all__ = ["read_about", "read_weights", "write_weights"]

SUFFIX = ".safetensors"
_TENSOR = "tensor"  # the key of what stands in the place of a tensor among plain values


def write_weights(model: ZooModel, path: Path) -> None:
    """Write a fitted model, so that `read_weights` rebuilds it.

    Raises:
        ZooError: if it has not been fitted, or has a hyperparameter that no file holds.
    """
    from safetensors.torch import save

    check_learnt(model)
    checkpoint = checkpoint_of(model)
    idle = set(model.idle()) if isinstance(model, StreamingModel) else set()
    state = {name: value for name, value in checkpoint["state_dict"].items() if name not in idle}
    about = {key: value for key, value in checkpoint["zoo"].items() if key != "carried"}
    tensors: dict[str, Tensor] = {}
    values = _parted(about | {"hyper_parameters": checkpoint["hyper_parameters"]}, "zoo", tensors)
    try:
        text = json.dumps(values)
    except TypeError as error:
        raise ZooError(f"{model.entry.name} has an option that no file holds: {error}.") from None
    content = {"state_dict": dict(sorted(state.items())), "values": _joined(json.loads(text), tensors)}
    metadata = {"format": "pt", "zoo": text, "digests": json.dumps(digests_of(content))}
    # Memory of its own for each: tied weights share theirs, which the format has no word for.
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in {**state, **tensors}.items()}
    write_whole(path, lambda file: file.write(save(whole, metadata)))


def read_about(path: Path) -> dict[str, Any] | None:
    """Return the plain values in a file's metadata, with tensors by their names; None where they are not the zoo's.

    Raises:
        ZooError: for a file that is no safetensors.
    """
    return _opened(path)[0]


def read_weights(path: Path) -> ZooModel:
    """Rebuild the model that `write_weights` wrote.

    Raises:
        ZooError: for a file that is not the zoo's, was altered, or does not fit this version.
    """
    values, tensors, digests = _opened(path, whole=True)
    if values is None:
        raise ZooError(f"{path} is no file of the zoo's: its metadata names no model.")
    try:
        named = _names(values)
        state = {name: tensor for name, tensor in tensors.items() if name not in named}
        content = {"state_dict": dict(sorted(state.items())), "values": _joined(values, tensors)}
        check_digests(content, digests, most_values=path.stat().st_size)
    except ZooError as error:
        raise ZooError(f"{path} was refused: {error}. Use another.") from None
    except (KeyError, TypeError, RecursionError) as error:
        raise ZooError(f"{path} was refused: its metadata names {error}, which it does not hold.") from None
    about = content["values"]
    hparams = about.pop("hyper_parameters", {})
    return model_of({"state_dict": state, "hyper_parameters": hparams, "zoo": about}, path)


def _opened(path: Path, whole: bool = False) -> tuple[dict[str, Any] | None, dict[str, Tensor], Any]:
    """The metadata of a file, its tensors where they are asked for, and their digests."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ZooError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()} if whole else {}  # noqa: SIM118
        values = json.loads(metadata["zoo"]) if "zoo" in metadata else None
        digests = json.loads(metadata.get("digests", "null"))
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ZooError(f"{path} is no whole file of weights: {reason}.") from None
    if values is not None and not (isinstance(values, dict) and isinstance(values.get("model"), str)):
        raise ZooError(f"{path} is no file of the zoo's: its metadata names no model.")
    return values, tensors, digests


def _parted(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Plain values with the name of each tensor in its place; the tensors are added under these names."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu()
        return {_TENSOR: path}
    if isinstance(value, dict):
        return {key: _parted(item, f"{path}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_parted(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]
    return value


def _joined(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The values with their tensors."""
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _joined(item, tensors) for key, item in value.items()}
    return [_joined(item, tensors) for item in value] if isinstance(value, list) else value


def _names(value: Any) -> set[str]:
    """The tensors that the values name."""
    if isinstance(value, dict):
        return {value[_TENSOR]} if set(value) == {_TENSOR} else set().union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()
