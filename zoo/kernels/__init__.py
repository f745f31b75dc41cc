"""Compiled kernels: one mechanism for the whole zoo.

A kernel is a C file in this folder, compiled **when the package is installed**, once for each instruction set
(`[[tool.setuptools.ext-modules]]` in pyproject.toml), and an operator of `torch.library` beside it, which checks what
comes in and has a form in torch operations too. Where there was no compiler, or on another processor, the torch form
is taken, and `status()` says why. Nothing of it is compiled at run time, nor loaded from outside of the package.

On a GPU torch operations are the path, but for attention, whose kernel is in Triton (`attention_triton.py`). Triton
does compile at run time: when the kernel is called first, and into its own cache.

`ZOO_KERNELS=0` in the environment leaves all kernels out, `ZOO_KERNELS=avx2` takes that variant on the CPU;
`use(False)` leaves all out from Python.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sysconfig
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch  # also brings the threads that the libraries are compiled for, and not linked with

from zoo.errors import ZooError

__all__ = ["Status", "again", "complete", "function", "on_gpu", "runnable", "status", "use"]

VARIANTS = ("avx512", "avx2", "baseline", "serial")
"""From the fastest to the one that every compiler can build."""

_FOLDER = Path(__file__).parent / "built"
_enabled = True
_asked: str | None = None  # what the environment asked for, when it was looked at last
_outdated: set[str] = set()
_refused: dict[int, str] = {}  # why a GPU runs no kernels, empty where it does


class Status(NamedTuple):
    """What is in use: the variant, None where torch operations stand in, the reason for what is not, and on a GPU."""

    variant: str | None
    reason: str = ""
    gpu: str = ""

    def __str__(self) -> str:
        cpu = " — ".join(filter(None, (f"kernels: {self.variant or 'none'}", self.reason)))
        return f"{cpu}; on a GPU: {self.gpu}" if self.gpu else cpu


def status() -> Status:
    """Return which kernels are in use, and why no others.

    Example:
        >>> isinstance(str(status()), str)
        True
    """
    if os.environ.get("ZOO_KERNELS") == "0":
        return Status(None, "left out by ZOO_KERNELS=0")
    if not _enabled:
        return Status(None, "left out by zoo.kernels.use(False)")
    _, variant, reason = _load(os.environ.get("ZOO_KERNELS"))
    if _outdated:
        reason = f"{', '.join(sorted(_outdated))} left out, built from other sources: install the package again"
    return Status(variant, reason, _gpu())


def use(enabled: bool) -> None:
    """Use the kernels from here on, or leave them out; `ZOO_KERNELS=0` has the last word.

    Example:
        >>> use(False)
        >>> status().variant is None
        True
        >>> use(True)
    """
    global _enabled
    _enabled = enabled


def function(name: str, task: type[ctypes.Structure]) -> Callable[[ctypes.Structure], None] | None:
    """Return the C function `int name(const Task *task)`, or None where the torch form is to be taken.

    Args:
        name: of the function.
        task: its struct, field by field as in C.

    Returns:
        a function of one such struct, which raises `MemoryError` where the C function returns other than 0.
    """
    global _asked
    wanted = _asked = os.environ.get("ZOO_KERNELS")
    return None if wanted == "0" or not _enabled else _find(name, task, wanted)


def complete(*wanted: tuple[str, type[ctypes.Structure]]) -> bool:
    """Return whether there are C functions of all these names and structs."""
    (name, task), *others = wanted
    return function(name, task) is not None and all(_find(name, task, _asked) is not None for name, task in others)


def again(name: str, task: type[ctypes.Structure]) -> Callable[[ctypes.Structure], None]:
    """Return a C function where `function` has found one a moment ago, in a fraction of its time.

    Most of that is for the environment, which a node of several steps asks once.

    Raises:
        RuntimeError: there are no kernels.
    """
    found = _find(name, task, _asked)
    if found is None:
        raise RuntimeError(f"there is no kernel {name}: {status()}")
    return found


@functools.cache
def _find(name: str, task: type[ctypes.Structure], wanted: str | None) -> Callable[[ctypes.Structure], None] | None:
    library, _, _ = _load(wanted)
    if library is None:
        return None
    try:
        size, call = library[f"{name}_size"], library[name]
    except AttributeError:
        _outdated.add(name)
        return None
    size.restype = ctypes.c_int64
    if size() != ctypes.sizeof(task):
        _outdated.add(name)
        return None

    def run(arguments: ctypes.Structure) -> None:
        if call(ctypes.byref(arguments)):
            raise MemoryError(f"the kernel {name} could not allocate its buffers")

    return run


@functools.cache
def _load(wanted: str | None) -> tuple[ctypes.CDLL | None, str | None, str]:
    """The library of the best variant, its name, and what is to be said about it."""
    variants = runnable()
    if wanted and wanted not in variants:
        raise ZooError(f"ZOO_KERNELS={wanted}: this machine runs {', '.join(variants)}, and 0 leaves the kernels out.")
    failures: list[str] = []
    for variant in (wanted,) if wanted else variants:
        path = _FOLDER / f"{variant}{sysconfig.get_config_var('EXT_SUFFIX')}"
        if not path.is_file():
            continue
        try:
            return ctypes.CDLL(str(path)), variant, "; ".join(failures)
        except OSError as error:
            failures.append(str(error))
    missing = "not built: install the package where there is a C compiler (gcc or clang)"
    return None, None, "; ".join(failures) or missing


def runnable() -> tuple[str, ...]:
    """The variants that this processor can run, the fastest first."""
    capability = torch.backends.cpu.get_cpu_capability()
    return VARIANTS[{"AVX512": 0, "AVX2": 1}.get(capability, 2) :]


# -- on a GPU ----------------------------------------------------------------------------------------------------------


def on_gpu(index: int) -> bool:
    """Return whether that GPU runs kernels in Triton; where not, `status()` says why.

    Args:
        index: of the device.
    """
    if os.environ.get("ZOO_KERNELS") == "0" or not _enabled:
        return False
    if index not in _refused:
        _refused[index] = _refusal(index)
    return not _refused[index]


# what `torch.compiler.assume_constant_result` says, which would import the whole compiler
on_gpu._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _refusal(index: int) -> str:
    """Why a GPU runs no kernels in Triton, empty where it does."""
    if _triton() is None:
        return "triton is not installed"
    if torch.cuda.get_device_capability(index) < (8, 0):
        return f"triton needs compute capability 8.0, {torch.cuda.get_device_name(index)} has less"
    try:
        from triton.runtime import driver

        driver.active.get_current_target()  # compiles what starts kernels: some machines have no compiler for it
    except Exception as error:
        return f"triton does not start ({type(error).__name__}: {error})"
    return ""


def _gpu() -> str:
    """What runs on a GPU, as far as is known."""
    version = _triton()
    reason = next(filter(None, _refused.values()), "") if version else "triton is not installed"
    return f"none — {reason}" if reason else f"triton {version}"


@functools.cache
def _triton() -> str | None:
    """The version of Triton, None where there is none; it is not imported."""
    try:
        return metadata.version("triton") if importlib.util.find_spec("triton") else None
    except metadata.PackageNotFoundError:  # under another name
        return "of unknown version"
