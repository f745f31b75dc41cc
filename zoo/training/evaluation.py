"""Evaluation of a finished run: metrics, predictions and pictures, written into its folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from zoo.data.array_data import check_weight
from zoo.data.arrays import to_tensor
from zoo.data.foreign import opened
from zoo.data.provenance import absolute, absolute_paths, digests, read_digests
from zoo.data.registry import create_data, data_entry
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.registry import create_model
from zoo.training.analyses import Subject, check_analyses, check_subject, run_analyses
from zoo.training.checkpoint import described, find_checkpoint, load_model, write_whole
from zoo.training.continuation import check_goes_on, go_on, read_asked
from zoo.training.logger import RunLogger
from zoo.training.pictures import draw
from zoo.training.plugins import confirm_plugins, import_plugins
from zoo.training.report import print_metrics
from zoo.training.run import device_of, named
from zoo.training.run_config import read_config
from zoo.training.trainer import make_trainer, seed_all
from zoo.training.word_questions import ask_words

__all__ = ["evaluate", "evaluate_run", "write_predictions"]

log = logging.getLogger(__name__)

LONGER = ("test_length", "test_repeats")  # options of tasks that are made to be tried on more than they were learnt on


def evaluate(
    model: ZooModel,
    data: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    split: str = "test",
    batch_size: int = 4096,
    device: str = "auto",
) -> dict[str, float]:
    """Return the metrics of a fitted model on rows that it may not have seen.

    Args:
        model: a fitted model.
        data: the user's rows, as `predict` takes them, or a DataModule of the zoo.
        y: targets of the rows, in the user's labels, or the name of the table's column of them; None for models that
            need none, and where the rows bring them.
        sample_weight: weights (N,) of the rows.
        split: which rows of a DataModule.
        batch_size: rows at a time.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ZooError: for rows or targets that the model was not made for.

    Example:
        >>> import zoo
        >>> model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), [[0.0], [1.0]], [1.0, 3.0])
        >>> zoo.evaluate(model, [[2.0], [3.0]], [5.0, 8.0])["mae"]
        0.5
    """
    model.check_fitted()
    if hasattr(data, "loader"):
        if y is not None or sample_weight is not None:
            raise ZooError("A DataModule brings its own targets and weights: pass y with arrays only.")
        loader = data.loader(split)
    else:
        data, y, _ = opened(data, y)
        batch = model.prepare(data)
        if y is not None:
            batch = batch._replace(y=model.encode_targets(y, batch.size))
        elif not model.entry.unsupervised and batch.y is None and model.spec and model.spec.target != "tokens":
            raise ZooError(f"{model.entry.name} is measured against targets: pass y.")
        if sample_weight is not None:
            batch = batch._replace(weight=check_weight(to_tensor(sample_weight, "weight"), batch.size))
        loader = DataLoader(list(batch.split(batch_size)), batch_size=None)  # type: ignore[arg-type]
    accelerator = "gpu" if device == "cuda" else device
    trainer = make_trainer(model, accelerator=accelerator, progress=False)
    tested = trainer.test(model, dataloaders=loader, verbose=False)
    model.eval()
    return {key.removeprefix("test/"): float(value) for result in tested for key, value in result.items()}


def evaluate_run(config: DictConfig) -> None:
    """Rebuild the model from its checkpoint and the data from the run's config; write `evaluation/` into the run."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    run = Path(options["run"])
    checkpoint = find_checkpoint(run, options["checkpoint"])
    if not (run / "config.yaml").is_file():
        raise ZooError(f"{run} is not a run folder: it has no config.yaml.")
    settings = read_config(run / "config.yaml")
    confirm_plugins(settings.get("plugins"), options["plugins"], run)
    import_plugins(options["plugins"])
    seed_all(settings["seed"])
    model = load_model(checkpoint)
    otherwise = adjust(model, options["model"]) + [
        f"{key}={options['data'][key]}" for key in LONGER if options["data"][key] is not None
    ]
    asked = read_asked(options)
    analyses = check_analyses(options["analysis"], options)
    name = settings["data"]["name"]
    data, is_new = data_of(run, settings["data"], options["data"], model)
    if asked is not None:
        check_goes_on(model, data, asked)
    split = options["split"] or ("test" if data.has("test") else "train")
    options["split"] = split
    if not data.has(split):
        raise ZooError(f"data '{name}' has no split '{split}': pass split=train, val or test.")
    given = {key: value for key, value in options["data"].items() if value is not None}
    settings["data"] = absolute_paths(settings["data"], run) | absolute_paths({"name": name, **given})
    subject = Subject(model, data, split, settings, options["accelerator"], run)
    check_subject(analyses, subject)
    trainer = make_trainer(model, accelerator=options["accelerator"], progress=False)
    testable = is_overridden("test_step", model)
    tested = trainer.test(model, dataloaders=data.loader(split), verbose=False) if testable else []
    metrics = {key: float(value) for result in tested for key, value in result.items()}
    said = "new" if is_new else split
    metrics = {f"{said}/{key.partition('/')[2]}": value for key, value in metrics.items()}
    usual = not is_new and split == ("test" if data.has("test") else "train")
    folder = run / "evaluation"
    for part in ([] if usual else [said]) + otherwise:  # what is said of other rows or answers overwrites nothing
        folder /= part
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"split": said, **metrics}, indent=2) + "\n"
    write_whole(folder / "metrics.json", lambda file: file.write(text.encode()))
    model.to(device_of(options["accelerator"]))
    write_predictions(model, data, split, folder / "predictions.parquet")
    logger = RunLogger(str(run))
    draw(model, data, split, folder / "pictures", logger.experiment, graph=False)  # the run has written it
    of = dict.fromkeys(metrics, described(checkpoint))
    predicts = model.preprocessing is not None and is_overridden("predict_batch", model, ZooModel)
    print_metrics(model.entry.name, name, metrics, run, of, ("predict",) if predicts else (), folder)
    if options["pairs"] or options["analogies"] or options["near"]:
        ask_words(model, options["pairs"], options["analogies"], options["near"], folder)
    run_analyses(analyses, subject, folder / "analysis", logger.experiment)
    logger.finalize("success")
    if asked is not None:
        go_on(model, data, asked, split, folder)


def adjust(model: ZooModel, given: dict[str, Any]) -> list[str]:
    """Give a trained model other values of hyperparameters that its weights do not hang on; return what was given."""
    given = {key: value for key, value in given.items() if value is not None}
    for key in given:
        if key not in model.adjustable:
            raise ZooError(f"A trained {model.entry.name} has no model.{key} to be given anew: leave it out.")
    for key in given:
        model.hparams[key] = create_model(model.entry.name, **given).hparams[key]  # which checks it
    return [f"{key}={value}" for key, value in given.items()]


def data_of(run: Path, trained: dict[str, Any], given: dict[str, Any], model: ZooModel) -> tuple[Any, bool]:
    """Return the data to evaluate on, coded and scaled as the model learnt it, and whether all of its rows are new."""
    section = absolute_paths(trained, run)
    given = {key: value for key, value in given.items() if value is not None}
    target = given.get("target")
    entry = data_entry(section["name"])
    names_a_file = "target" in getattr(entry and entry.cls, "path_options", ())
    if target is not None and target != trained.get("target") and not names_a_file:
        raise ZooError(
            f"data.target={target} is not what the model learnt to say, {trained.get('target')!r}: leave it out, and "
            "give the column that name."
        )
    section |= absolute_paths({"name": section["name"], **given})
    name, options = named(section)
    data = create_data(name, **options)
    data.takes_missing, data.kinds = model.takes_missing, model.entry.kinds
    if not data.files():
        data.follow(model.preprocessing, model.spec.tokenizer if model.spec else None)
        return data, False
    known = read_digests(run)
    found = digests(data.files())
    is_new = "path" in given and not set(found.values()) <= set((known or {}).values())
    if is_new:  # none of its rows was there in training: no split is held out
        unsplit = {"val_fraction": 0.0, "test_fraction": 0.0, "val_path": None, "test_path": None}
        options |= {key: value for key, value in unsplit.items() if key in options}
        data = create_data(name, **options)
        data.takes_missing, data.kinds = model.takes_missing, model.entry.kinds
    elif known is not None and "path" not in given:
        changed = [file for file in found if known.get(absolute(file)) != found[file]]
        if changed:
            log.info("%s has changed since training: rows held out now may be rows that it was trained on.", changed[0])
    data.follow(model.preprocessing, model.spec.tokenizer if model.spec else None)
    return data, is_new


def write_predictions(model: ZooModel, data: Any, split: str, path: Path) -> None:
    """Write a row for each row of the split, in its order: target, prediction, and what else the model says of it.

    Batches are written as they are computed, so that memory does not grow with the data.
    """
    import pyarrow.parquet as pq

    def write(file: Any) -> None:
        writer = None
        for table in prediction_tables(model, data, split):
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()

    write_whole(path, write)


@torch.inference_mode()
def prediction_tables(model: ZooModel, data: Any, split: str) -> Iterator[Any]:
    """Yield an Arrow table for each batch of the split."""
    model.eval()
    for batch in data.loader(split):
        batch = model.as_batch(batch)
        columns = {} if batch.y is None else {"target": batch.y}
        yield model.answers(columns | model.predict_batch(batch))
