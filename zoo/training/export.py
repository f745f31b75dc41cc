"""A finished run as one file for programs without the zoo, compared with `predict` before it is written."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from zoo.checks import check_type
from zoo.errors import ZooError, unknown_name
from zoo.models.base import StreamingModel, ZooModel
from zoo.training.checkpoint import find_checkpoint, load_model
from zoo.training.digests import digests_of
from zoo.training.evaluation import data_of
from zoo.training.plugins import import_plugins
from zoo.training.portable import Portable
from zoo.training.run_config import read_config
from zoo.training.weight_files import read_weights, write_weights

__all__ = ["FORMATS", "difference", "export_model", "export_run"]

log = logging.getLogger("zoo")

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
LARGEST = 1e-5  # difference of an answer, as a share of the largest one where that is above 1
SIZES = (1, 7)  # rows at a time that are tried
MOST_ONNX = 2_000_000_000  # bytes
_METADATA = "zoo"  # the name under which a file says what it is

Runner = Callable[[Tensor], list[Tensor]]


def export_run(config: DictConfig) -> None:
    """Load the run's model, write it as one file, and print what the file takes and gives."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    kind = check_type("format", options["format"], str)
    if kind not in FORMATS:
        raise unknown_name("format", kind, FORMATS)
    import_plugins(options["plugins"])
    run = Path(options["run"])
    checkpoint = find_checkpoint(run, options["checkpoint"])
    model = load_model(checkpoint)
    folder = run / "export" if run.is_dir() else run.parent
    path = Path(options["output"]) if options["output"] else folder / f"model{FORMATS[kind]}"
    found = export_model(model, path, format=kind, prepared=_held_out(run, model))
    print(f"{path} ({path.stat().st_size:,} bytes) answers as predict does, to {found:.1e}")


def export_model(model: ZooModel, path: str | Path, *, format: str = "onnx", prepared: Any = None) -> float:
    """Write a fitted model with its preprocessing as one file, unless it answers otherwise than `predict`.

    Args:
        model: a fitted model.
        path: the file to write.
        format: `onnx`, `torch` (for `torch.export.load`) or `safetensors` (for `zoo.load_pretrained`).
        prepared: a batch of rows to compare on; by default they are drawn at random.

    Returns:
        The largest difference of an answer, over several numbers of rows and of steps.

    Raises:
        ZooError: for a model that no such file holds, a package that is missing, and answers that differ by more than
            1e-5.

    Example:
        >>> import tempfile, zoo
        >>> model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), [[0.0], [1.0]], [1.0, 3.0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_model(model, f"{folder}/model.safetensors", format="safetensors")
        0.0
    """
    check_type("model", model, ZooModel)
    path = Path(path)
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if path.suffix != FORMATS[format]:
        raise ZooError(f"output={path}: a file of format {format} ends in {FORMATS[format]}.")
    if path.is_dir():
        raise ZooError(f"output={path} is a folder: name the file to write in it.")
    write = {"onnx": _write_onnx, "torch": _write_torch, "safetensors": _write_safetensors}[format]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        found = write(model, partial, prepared)
        if not found <= LARGEST:
            raise ZooError(
                f"{path} was not written: what the exported {model.entry.name} says differs from predict by "
                f"{found:.1e}, more than {LARGEST:.0e}."
            )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return found


def difference(said: Iterable[Tensor], wanted: Iterable[Tensor]) -> float:
    """Return by how much answers differ from those of `predict`; infinity where a class, or what is missing, does.

    Example:
        >>> difference([torch.tensor([1.0, 100.0])], [torch.tensor([1.0, 101.0])])
        0.009900990099009901
    """
    found = 0.0
    for ours, theirs in zip(said, wanted, strict=True):
        if ours.shape != theirs.shape or ours.is_floating_point() != theirs.is_floating_point():
            return torch.inf
        ours, theirs = ours.double(), theirs.double()
        there = theirs.isfinite()
        if not torch.equal(ours[~there].nan_to_num(), theirs[~there].nan_to_num()):
            return torch.inf
        if bool(there.any()):
            apart = float((ours[there] - theirs[there]).abs().max() / theirs[there].abs().max().clamp_min(1))
            found = max(found, apart) if apart == apart else torch.inf
    return found


def largest_difference(portable: Portable, model: ZooModel, run: Runner, prepared: Any = None) -> float:
    """Return the largest difference of what a file says and what the model predicts of the same raw rows.

    Args:
        portable: what was exported.
        model: the model, which is asked as its user would ask it.
        run: asks the file.
        prepared: a batch to take the rows from; by default they are drawn at random.
    """
    found = []
    for raw in _cases(portable, prepared):
        wanted = model.predict_columns(portable.rows(raw))
        said = run(raw)
        exact = all(torch.equal(ours, wanted[name]) for ours, name in zip(said, portable.outputs, strict=True)
                    if not ours.is_floating_point())  # fmt: skip
        found.append(difference(said, [wanted[name] for name in portable.outputs]) if exact else torch.inf)
    return max(found)


def _cases(portable: Portable, prepared: Any) -> Iterator[Tensor]:
    """Rows of several numbers, and of sequences of two lengths."""
    for count in SIZES:
        raw = portable.examples(count, prepared=prepared)
        yield raw
        if "steps" in portable.input.shape and raw.shape[1] > 1:
            yield raw[:, : max(1, raw.shape[1] // 2)]


def _held_out(run: Path, model: ZooModel) -> Any:
    """Some rows that the run was tested on; None where they are no longer there."""
    if not (run / "config.yaml").is_file():
        return None
    try:
        data = data_of(run, read_config(run / "config.yaml")["data"], {}, model)[0]
        rows = data.rows("test" if data.has("test") else "train")
        return rows[torch.linspace(0, len(rows) - 1, min(len(rows), max(SIZES))).long()]
    except (ZooError, OSError) as error:
        log.info("The rows of the run are not there (%s): it is compared on rows drawn at random.", error)
        return None


# -- formats -----------------------------------------------------------------------------------------------------------


def trace(portable: Portable) -> torch.export.ExportedProgram:
    """Return the module as a graph of torch's own operations, for any number of rows and of steps."""
    raw = portable.examples(3)
    shapes = {place: torch.export.Dim.DYNAMIC for place, size in enumerate(portable.input.shape) if size in _ANY}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            program = torch.export.export(portable, (raw,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:
        name = portable.model.entry.name
        raise ZooError(f"{name} cannot be traced with these options: {_first_line(error)}") from error
    own = {str(node.target) for node in program.graph.nodes if str(node.target).startswith("zoo.")}
    if own:
        raise ZooError(f"The trace holds {', '.join(sorted(own))}, which no other program knows.")
    return program


_ANY = ("rows", "steps")


def _write_torch(model: ZooModel, path: Path, prepared: Any) -> float:
    portable = Portable(model)
    torch.export.save(trace(portable), path, extra_files={f"{_METADATA}.json": json.dumps(portable.about())})
    module = torch.export.load(path).module()
    return largest_difference(portable, model, lambda raw: list(module(raw)), prepared)


def _write_onnx(model: ZooModel, path: Path, prepared: Any) -> float:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ZooError(
            f"format=onnx needs {' and '.join(missing)}: pip install 'refzoo[onnx]', or pass format=torch or "
            "format=safetensors."
        )
    portable = Portable(model)
    if sum(value.nbytes for value in portable.state_dict().values()) > MOST_ONNX:
        raise ZooError(f"{model.entry.name} is larger than the 2 GB that an ONNX file holds: pass format=torch.")
    program = trace(portable)
    shapes = {place: size for place, size in enumerate(portable.input.shape) if size in _ANY}
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript")
    levels = [logger.level for logger in quiet]
    try:
        for logger in quiet:
            logger.setLevel(logging.ERROR)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program, dynamo=True, input_names=[portable.input.name], output_names=list(portable.outputs),
                dynamic_shapes=(shapes,), verbose=False,
                custom_translation_table={torch.ops.prims.fma.default: _multiply_and_add},
            )  # fmt: skip
    except Exception as error:
        raise ZooError(f"{portable.model.entry.name} has no ONNX form: {_first_line(error)}") from error
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)
    assert made is not None
    made.model.metadata_props[_METADATA] = json.dumps(portable.about())
    made.save(path)
    try:
        run = onnx_runner(path)
    except Exception as error:  # a type that no kernel of onnxruntime takes, such as bfloat16
        raise ZooError(f"{model.entry.name} is not run by onnxruntime: {_first_line(error)}") from error
    return largest_difference(portable, model, run, prepared)


def _multiply_and_add(a: Any, b: Any, c: Any) -> Any:
    """The product a b + c in ONNX, which rounds twice; torch takes it apart from others and leaves it as one."""
    from onnxscript import opset18 as op

    return op.Add(op.Mul(a, b), c)


def onnx_runner(path: str | Path) -> Runner:
    """Return what asks an ONNX file by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda raw: [torch.from_numpy(found) for found in session.run(None, {name: raw.contiguous().numpy()})]


def _write_safetensors(model: ZooModel, path: Path, prepared: Any) -> float:
    write_weights(model, path)
    again = read_weights(path)
    ours, theirs = again.state_dict(), model.state_dict()
    idle = set(model.idle()) if isinstance(model, StreamingModel) else set()
    kept = sorted(set(theirs) - idle)
    # Bit for bit, as trees hold NaN where a leaf asks for nothing.
    if digests_of({name: ours.get(name) for name in kept}) != digests_of({name: theirs[name] for name in kept}):
        return torch.inf
    if prepared is None or type(model).predict_batch is ZooModel.predict_batch:
        return 0.0
    said, wanted = again.predict_columns(prepared), model.predict_columns(prepared)
    return difference(said.values(), [wanted[name] for name in said])


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:  # the exporter wraps what it met several times
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{lines[0][:200]}"
