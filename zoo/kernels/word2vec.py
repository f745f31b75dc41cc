"""The steps of Word2Vec with drawn words: an operator of `torch.library` over `word2vec.c`, for float32 on a CPU.

`zoo::word2vec_steps` takes the steps that `zoo.models.word_vectors` takes in torch operations, which is done where
there is no kernel (`available(table)`). Both give the same but for rounding, and the kernel gives the same bits for any
number of threads.

Letters: N blocks, C = 16 centres of each, R the largest window, K' drawn words of each, V words, D numbers of a vector.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["available", "word2vec_steps"]

_CENTRES = 16
_BLOCKS_OF_THREAD = 64  # that are worth another thread


class _Word2Vec(ctypes.Structure):
    """The struct of word2vec.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("blocks", "radius", "drawn", "size", "words", "blocks_per_step", "cbow", "threads")
        ),
        *((name, ctypes.c_double) for name in ("negatives", "rate", "bound")),
        *((name, ctypes.c_void_p) for name in ("text", "there", "window", "noise", "embedding", "context", "found")),
    ]


def available(table: Tensor) -> bool:
    """Return whether the kernel takes steps on such a table."""
    return table.dtype == torch.float32 and table.device.type == "cpu" and function("word2vec", _Word2Vec) is not None


def _fake_steps(embedding, context, text, there, window, noise, negatives, cbow, rate, bound, blocks_per_step):  # type: ignore[no-untyped-def]
    return embedding.new_empty(2, dtype=torch.float64)


@operator(_fake_steps, mutates_args=("embedding", "context"))
def word2vec_steps(
    embedding: Tensor, context: Tensor, text: Tensor, there: Tensor, window: Tensor, noise: Tensor, negatives: float,
    cbow: bool, rate: float, bound: float, blocks_per_step: int,
) -> Tensor:  # fmt: skip
    """Take the steps of a text, in place, until one's loss is not finite; that one is not taken.

    Args:
        embedding: vectors of words, (V, D), float32.
        context: vectors of words as context, (V, D), float32.
        text: the words, R of them before the first centre and behind the last, (N C + 2R,), int64.
        there: whether there is a word, (N C + 2R,), bool.
        window: how far that of each centre reaches, (N, C), int64; 0 where there is no centre.
        noise: drawn words, (N, K'), int64.
        negatives: K, which the drawn words stand for in each pair.
        cbow: predict the centre from its window, rather than each word of the window from the centre.
        rate: η.
        bound: c, the longest step of a row in units of the inverse of its curvature's bound.
        blocks_per_step: blocks whose gradients are taken at once.

    Returns:
        The sum of the losses, each before its step, and the number of predicted words, (2,), float64.

    Raises:
        RuntimeError: for tensors of other types or shapes, words that are not in the tables,
            or where there is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    kernel = function("word2vec", _Word2Vec)
    _check(kernel is not None, "needs the compiled kernels: zoo.kernels.status() says why there are none")
    radius = _check_inputs(embedding, context, text, there, window, noise, blocks_per_step)
    found = torch.zeros(2, dtype=torch.float64)
    if not len(window) or not embedding.numel():
        return found
    tables = [table.contiguous() for table in (embedding, context)]
    rest = [tensor.contiguous() for tensor in (text, there, window, noise)]
    names = ("embedding", "context", "text", "there", "window", "noise")
    assert kernel is not None
    kernel(
        _Word2Vec(
            blocks=len(window), radius=radius, drawn=noise.shape[1], size=embedding.shape[1], words=len(embedding),
            blocks_per_step=blocks_per_step, cbow=int(cbow), negatives=negatives, rate=rate, bound=bound,
            threads=max(1, min(torch.get_num_threads(), len(window) // _BLOCKS_OF_THREAD)), found=found.data_ptr(),
            **{name: tensor.data_ptr() for name, tensor in zip(names, [*tables, *rest], strict=True)},
        )
    )  # fmt: skip
    for table, moved in zip((embedding, context), tables, strict=True):
        if moved.data_ptr() != table.data_ptr():
            table.copy_(moved)
    return found


def _check_inputs(
    embedding: Tensor, context: Tensor, text: Tensor, there: Tensor, window: Tensor, noise: Tensor, blocks: int
) -> int:
    """Refuse what does not fit together, since the kernel would read whatever lies there; return R."""
    for name, table in (("embedding", embedding), ("context", context)):
        fits = table.ndim == 2 and table.shape == embedding.shape
        _check(fits and table.dtype == torch.float32 and table.device.type == "cpu", f"{name} must be (V, D), float32")
    for name, tensor, dtype, ndim in (
        ("text", text, torch.int64, 1), ("there", there, torch.bool, 1), ("window", window, torch.int64, 2),
        ("noise", noise, torch.int64, 2),
    ):  # fmt: skip
        fits = tensor.dtype == dtype and tensor.ndim == ndim and tensor.device.type == "cpu"
        _check(fits, f"{name} must have {ndim} dimensions, {dtype}, on the CPU")
    around = len(text) - _CENTRES * len(window)
    _check(around >= 0 and around % 2 == 0, f"text must be (N C + 2R,), not {tuple(text.shape)}")
    _check(there.shape == text.shape, "there must be (N C + 2R,) as the text is")
    _check(window.shape[1] == _CENTRES, f"window must be (N, {_CENTRES}), not {tuple(window.shape)}")
    _check(len(noise) == len(window) and noise.shape[1] > 0, f"noise must be (N, K'), not {tuple(noise.shape)}")
    _check(blocks > 0, "blocks_per_step must be at least 1")
    if len(window):
        _check(_within(text, len(embedding) - 1), "text has words that are not in the tables")
        _check(_within(noise, len(embedding) - 1), "noise has words that are not in the tables")
        _check(_within(window, around // 2), "window must be 0 to R")
    return around // 2


def _within(numbers: Tensor, largest: int) -> bool:
    low, high = numbers.aminmax()
    return int(low) >= 0 and int(high) <= largest


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise RuntimeError(f"zoo::word2vec_steps: {message}")
