"""A training run from a composed config: build, fit (or go on), test, draw, report."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, OmegaConf

from zoo.checks import check_type
from zoo.data.provenance import absolute_paths, paths_from
from zoo.data.registry import create_data
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.optimizers import Recipe
from zoo.registry import create_model
from zoo.training.checkpoint import find_checkpoint, load_checkpoint, write_whole
from zoo.training.data_files import check_unchanged, keep_digests
from zoo.training.lock import run_lock
from zoo.training.pictures import draw
from zoo.training.plugins import import_plugins
from zoo.training.processes import agree, together
from zoo.training.tables import print_metrics
from zoo.training.trainer import make_trainer, seed_all

__all__ = ["build", "train_run"]

log = logging.getLogger("zoo")


def named(section: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split a config section into its name and its options."""
    options = dict(section)
    return options.pop("name"), options


def build(config: dict[str, Any]) -> tuple[ZooModel, Any]:
    """Return the model and the data of a resolved config, matched to each other."""
    model_name, hparams = named(config["model"])
    regularization = config["regularization"]
    if regularization["dropout"] is not None:
        if "dropout" not in hparams:
            raise ZooError(f"{model_name} has no dropout: leave regularization.dropout out.")
        hparams["dropout"] = regularization["dropout"]
    model = create_model(model_name, **hparams)
    optimizer, optimizer_options = named(config["optimizer"])
    scheduler, scheduler_options = named(config["scheduler"])
    recipe = Recipe(
        optimizer, optimizer_options, scheduler, scheduler_options, regularization["l1"], regularization["l2"]
    )
    model.train_by(recipe)
    data_name, data_options = named(config["data"])
    data = create_data(data_name, **data_options)
    model.build(data.spec)
    return model, data


def train_run(config: DictConfig) -> None:
    """Train as `config` says in Hydra's run folder, going on from its last checkpoint if there is one."""
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    import_plugins(settings["plugins"])
    settings["data"] = absolute_paths(settings["data"])
    settings = agree("settings", settings)
    check_settings(settings)
    run_dir = Path(agree("folder", str(Path(HydraConfig.get().runtime.output_dir).absolute())))
    check_unchanged(run_dir, settings["data"])
    seed_all(settings["seed"])
    model, data = build(settings)
    check_validation(settings, model, data)
    resume = agree("checkpoint", _resume_from(run_dir, settings))
    regularization = settings["regularization"]
    trainer = make_trainer(
        model,
        run_dir=run_dir,
        checkpoint_seconds=settings["checkpoint_seconds"],
        early_stopping=regularization["early_stopping"],
        gradient_clip_val=regularization["gradient_clip_val"],
        **settings["trainer"],
    )
    with run_lock(run_dir) if trainer.is_global_zero else contextlib.nullcontext():
        if trainer.is_global_zero:
            keep_digests(run_dir, data)
            text = OmegaConf.to_yaml(OmegaConf.create({**settings, "data": paths_from(settings["data"], run_dir)}))
            write_whole(run_dir / "config.yaml", lambda file: file.write(text.encode()))
        with together(trainer):
            trainer.fit(model, datamodule=data, ckpt_path=resume)
        _finish(trainer, model, data, settings, run_dir)


_TYPES: dict[str, Any] = {
    "seed": int,
    "checkpoint_seconds": float,
    "regularization.l1": float,
    "regularization.l2": float,
    "regularization.dropout": float | None,
    "regularization.gradient_clip_val": float | None,
    "trainer.max_epochs": int | None,
    "trainer.max_steps": int,
    "trainer.accumulate_grad_batches": int,
    "trainer.fast_dev_run": bool | int,
    "trainer.limit_train_batches": int | float,
    "trainer.limit_val_batches": int | float,
    "trainer.limit_test_batches": int | float,
    "trainer.check_val_every_n_epoch": int | None,
    "trainer.val_check_interval": int | float | None,
    "trainer.log_every_n_steps": int,
}


def check_settings(settings: dict[str, Any]) -> None:
    """Raise one line if a setting that neither a model nor a DataModule checks has the wrong type."""
    for key, annotation in _TYPES.items():
        section, _, name = key.rpartition(".")
        check_type(key, (settings[section] if section else settings)[name], annotation)


def check_validation(settings: dict[str, Any], model: ZooModel, data: Any) -> None:
    """Raise one line if something watches validation values and there are none."""
    if data.has("val") and settings["trainer"]["limit_val_batches"]:
        return
    if settings["regularization"]["early_stopping"]:
        what, value = "regularization=early_stopping", model.monitor
    elif settings["scheduler"]["name"] == "plateau" and not model.streaming:
        what, value = "scheduler=plateau", "val/loss"
    else:
        return
    raise ZooError(f"{what} watches {value}, and there are no validation rows: set data.val_fraction above 0.")


def _resume_from(run_dir: Path, settings: dict[str, Any]) -> str | None:
    """Return the checkpoint to go on from; a run of other settings in the same folder raises."""
    last, saved = run_dir / "checkpoints" / "last.ckpt", run_dir / "config.yaml"
    if not last.exists():
        return None
    if saved.exists():
        before: Any = OmegaConf.to_container(OmegaConf.load(saved))
        before["data"] = absolute_paths(before.get("data") or {}, run_dir)
        sections = ("model", "data", "optimizer", "scheduler", "regularization", "seed")
        changed = [key for key in sections if before.get(key) != settings[key]]
        if changed:
            raise ZooError(
                f"{run_dir} holds a run with another {' and '.join(changed)}: choose another run_dir, "
                f"or repeat that run's command to go on with it."
            )
        check_trainer(run_dir, before.get("trainer") or {}, settings)
    return str(last)


# What a run may change when it goes on: where it ends, and what leaves its numbers alone.
_MAY_CHANGE = {"max_epochs", "max_steps", "accelerator", "log_every_n_steps", "limit_test_batches", "fast_dev_run"}


def check_trainer(run_dir: Path, before: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise one line if an option of the trainer changed on which the run's numbers depend; say the others."""
    now, scheduler = settings["trainer"], settings.get("scheduler", {}).get("name")
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    spans_the_run = {"max_epochs", "max_steps"} if scheduler in ("cosine", "one_cycle") else set()
    for key in changed:
        if key not in _MAY_CHANGE - spans_the_run:
            why = f", over which scheduler={scheduler} is drawn" if key in spans_the_run else ""
            raise ZooError(
                f"{run_dir} holds a run with another trainer.{key} ({before.get(key)}, not {now.get(key)}){why}: "
                "choose another run_dir, or repeat that run's command to go on with it."
            )
        log.info("Going on with trainer.%s=%s, which was %s.", key, now.get(key), before.get(key))


def _finish(trainer: Any, model: ZooModel, data: Any, settings: dict[str, Any], run_dir: Path) -> None:
    """Test the best checkpoint, write the HParams summary and the pictures, and print what to do next."""
    if not settings["trainer"]["fast_dev_run"] and (run_dir / "checkpoints").is_dir():
        best = load_checkpoint(find_checkpoint(run_dir))
        model.load_state_dict(best["state_dict"])
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    tested = trainer.test(model, datamodule=data, verbose=False) if is_overridden("test_step", model) else []
    metrics |= {k: float(v) for result in tested for k, v in result.items()}
    if not trainer.is_global_zero:
        return
    if trainer.logger is not None and hasattr(trainer.logger, "log_run"):
        trainer.logger.log_run(flatten(settings), metrics)
        draw(
            model,
            data,
            "test" if data.has("test") else "train",
            run_dir / "pictures",
            trainer.logger.experiment,
        )
    print_metrics(model.entry.name, settings["data"]["name"], metrics, run_dir)


def flatten(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that tell runs apart, as one flat mapping."""
    flat: dict[str, Any] = {"seed": settings["seed"], "data": settings["data"]["name"]}
    flat["data.batch_size"] = settings["data"]["batch_size"]
    for section in ("model", "optimizer", "scheduler", "regularization"):
        for key, value in settings[section].items():
            flat[section if key == "name" else f"{section}.{key}"] = value
    return flat


def device_of(accelerator: str) -> torch.device:
    """Return the device that Lightning's `accelerator` means for one process."""
    use_cuda = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    return torch.device("cuda" if use_cuda else "cpu")
