"""Evaluation of a finished run: metrics, predictions and pictures, written into its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, OmegaConf

from zoo.data.registry import create_data
from zoo.data.spec import DataSpec
from zoo.errors import ZooError
from zoo.models.base import Generates, ZooModel
from zoo.training.checkpoint import find_checkpoint, load_checkpoint, load_model
from zoo.training.logger import RunLogger
from zoo.training.pictures import draw, held_out
from zoo.training.plugins import confirm_plugins, import_plugins
from zoo.training.run import device_of, named
from zoo.training.tables import print_metrics
from zoo.training.trainer import make_trainer, seed_all

__all__ = ["evaluate_run", "write_predictions"]


def evaluate_run(config: DictConfig) -> None:
    """Rebuild the model from its checkpoint and the data from the run's config; write `evaluation/` into the run."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    run = Path(options["run"])
    checkpoint = find_checkpoint(run, options["checkpoint"])
    if not (run / "config.yaml").is_file():
        raise ZooError(f"{run} is not a run folder: it has no config.yaml.")
    settings: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    confirm_plugins(settings.get("plugins"), options["plugins"], run)
    import_plugins(options["plugins"])
    seed_all(settings["seed"])
    model = load_model(checkpoint)
    name, data_options = named(settings["data"])
    data = create_data(name, **data_options)
    # The scale that the model learnt, should the files have changed since.
    data.load_state_dict(load_checkpoint(checkpoint).get(type(data).__qualname__, {}))
    split = options["split"] or ("test" if data.has("test") else "train")
    options["split"] = split
    if not data.has(split):
        raise ZooError(f"data '{name}' has no split '{split}': pass split=train, val or test.")
    trainer = make_trainer(model, accelerator=options["accelerator"], progress=False)
    testable = is_overridden("test_step", model)
    tested = trainer.test(model, dataloaders=data.loader(split), verbose=False) if testable else []
    metrics = {key: float(value) for result in tested for key, value in result.items()}
    folder = run / "evaluation"
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({"split": split, **metrics}, indent=2) + "\n")
    model.to(device_of(options["accelerator"]))
    write_predictions(model, data, split, folder / "predictions.parquet")
    logger = RunLogger(str(run))
    draw(model, data, split, folder / "pictures", logger.experiment)
    logger.finalize("success")
    print_metrics(model.entry.name, name, metrics, run)
    if options["prompt"] is not None or options["steps"] is not None:
        _go_on(model, data, options, folder)


def _go_on(model: ZooModel, data: Any, options: dict[str, Any], folder: Path) -> None:
    """Continue a prompt or a series, print it and write it beside the metrics."""
    steps, spec = options["steps"] or 200, data.spec
    if isinstance(model, Generates) and spec.target == "tokens":
        text = model.generate(options["prompt"] or "\n", steps)
    elif spec.target == "series":
        ahead = model.forecast(held_out(model, data, options["split"]).x[-1, :, 0], steps)
        text = "\n".join(f"{value:.6g}" for value in ahead.tolist())
    else:
        raise ZooError(f"{model.entry.name} has nothing to go on with: leave prompt and steps out.")
    (folder / "continuation.txt").write_text(text + "\n", encoding="utf-8")
    print(text)


def write_predictions(model: ZooModel, data: Any, split: str, path: Path) -> None:
    """Write a row for each row of the split, in its order: target, prediction, and what else the model says of it.

    Batches are written as they are computed, so that memory does not grow with the data.
    """
    import pyarrow.parquet as pq

    writer = None
    try:
        for table in prediction_tables(model, data, split):
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


@torch.inference_mode()
def prediction_tables(model: ZooModel, data: Any, split: str) -> Iterator[Any]:
    """Yield an Arrow table for each batch of the split."""
    import pyarrow as pa

    model.eval()
    spec = model.spec
    assert spec is not None
    for batch in data.loader(split):
        batch = model.as_batch(batch)
        columns = {} if batch.y is None else {"target": batch.y}
        columns |= model.predict_batch(batch)
        arrays: dict[str, Any] = {}
        for name, values in columns.items():
            arrays |= _arrow_columns(name, values.cpu(), spec)
        yield pa.table(arrays)


def _arrow_columns(name: str, values: torch.Tensor, spec: DataSpec) -> dict[str, Any]:
    """One column for a vector, one for each class of class probabilities, a list column for anything else."""
    if values.ndim == 1:
        columns: dict[str, Any] = {name: values.numpy()}
        if spec.class_names and spec.target == "class" and name in ("target", "prediction"):
            columns[f"{name}_name"] = [spec.class_names[i] for i in values.tolist()]
        return columns
    if name == "probability":
        names = spec.class_names or [str(i) for i in range(values.shape[1])]
        return {f"probability_{names[i]}": values[:, i].numpy() for i in range(values.shape[1])}
    return {name: values.flatten(1).tolist()}
