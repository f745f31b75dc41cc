"""Digests of all that a checkpoint holds, which travel inside it and outlive a copy, a rename or another writer.

They tell damage and careless edits from what was saved. They are no signature: who recomputes them can say anything.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError

__all__ = ["check_digests", "digests_of"]


def digests_of(content: Any, most_values: float = float("inf")) -> dict[str, str]:
    """Return the SHA-256 of each tensor under its path, and under `""` that of the whole: structure, values, tensors.

    Args:
        content: tensors and plain values in dictionaries, lists and tuples.
        most_values: number of values above which the content is refused; a few bytes of a pickle can name billions.

    Raises:
        ZooError: for more values than that, or a tensor of more elements than its memory holds.

    Example:
        >>> first = digests_of({"state_dict": {"w": torch.ones(2)}})
        >>> list(first)
        ['state_dict.w', '']
        >>> first[""] == digests_of({"state_dict": {"w": torch.ones(2, dtype=torch.int32)}})[""]
        False
    """
    tensors: dict[str, str] = {}
    whole, count = hashlib.sha256(), 0

    def add(value: Any, path: str) -> None:
        nonlocal count
        count += 1
        if count > most_values:
            raise ZooError("it names more values than it can hold")
        if isinstance(value, Tensor):
            digest = tensors[path] = _tensor_digest(value, path)
            whole.update(f"tensor {digest}\n".encode())
        elif isinstance(value, dict):
            whole.update(f"dict {len(value)}\n".encode())
            for key, item in value.items():
                whole.update(f"{key!r}\n".encode(errors="surrogatepass"))
                add(item, f"{path}.{key}" if path else str(key))
        elif isinstance(value, list | tuple):
            whole.update(f"{'list' if isinstance(value, list) else 'tuple'} {len(value)}\n".encode())
            for index, item in enumerate(value):
                add(item, f"{path}.{index}")
        else:
            whole.update(f"{type(value).__name__} {value!r}\n".encode(errors="surrogatepass"))

    add(content, "")
    return {**tensors, "": whole.hexdigest()}


def check_digests(content: Any, saved: Any, most_values: float) -> None:
    """Raise one line that names what differs from the digests that were saved.

    Raises:
        ZooError: if a tensor or a plain value is not what it was, or one of them was added or is missing.
    """
    found = digests_of(content, most_values)
    if found == saved:
        return
    if not isinstance(saved, dict):
        raise ZooError("it holds no digests of its tensors, which the zoo writes into each")
    changed = [name for name in {**found, **saved} if name and found.get(name) != saved.get(name)]
    what = f"{changed[0]} is" if len(changed) == 1 else f"{changed[0]} and others are" if changed else "some values are"
    raise ZooError(f"{what} not what was saved")


def _tensor_digest(tensor: Tensor, path: str) -> str:
    """The digest of a tensor's type, shape and bits, whatever its strides."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        raise ZooError(f"{path} is a {tensor.layout} tensor; only dense ones are kept")
    if tensor.nbytes > tensor.untyped_storage().nbytes():  # expanded: a few bytes that claim to be terabytes
        raise ZooError(f"{path} has more elements than its memory holds")
    flat = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(flat.numpy().data)
    return digest.hexdigest()
