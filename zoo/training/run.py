"""A training run from a composed config: build, fit (or go on), test, draw, report."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from zoo import kernels
from zoo.data.preprocessing import Preprocessing
from zoo.data.provenance import absolute_paths, paths_from
from zoo.data.registry import create_data, data_options
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.optimizers import SCHEDULERS, Recipe
from zoo.optimizers.options import option_types
from zoo.optimizers.schedules import SPANS_THE_RUN
from zoo.registry import create_model
from zoo.tasks import find_task
from zoo.text.learning import KINDS
from zoo.training.callbacks import Checkpointer
from zoo.training.checkpoint import find_checkpoint, load_checkpoint, load_model, write_whole
from zoo.training.data_files import check_unchanged, keep_digests
from zoo.training.diagnosis import Diagnosis
from zoo.training.history import environment, write_json
from zoo.training.links import linked
from zoo.training.lock import run_lock
from zoo.training.logger import RunLogger, png_of, show_png
from zoo.training.pictures import draw, spread
from zoo.training.plugins import import_plugins
from zoo.training.processes import agree, file_of_first, gathered, in_world, meet_again, together
from zoo.training.rate_finder import RangeTest, range_test
from zoo.training.report import Course, print_end, print_metrics, print_row, print_start
from zoo.training.run_config import read_config
from zoo.training.schema import check_config, leave_out_unused
from zoo.training.shares import in_shares
from zoo.training.sweep import Outcome
from zoo.training.tokenizers import keep_tokenizer, share_tokenizer, tokenizer_of
from zoo.training.trainer import make_trainer, seed_all
from zoo.training.trials import current
from zoo.training.weights import begin_with, find_weights, trained_hyperparameters
from zoo.training.whole_set import check_training, learning_rate

__all__ = ["build", "train_run"]

log = logging.getLogger("zoo")


def named(section: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split a config section into its name and its options."""
    options = dict(section)
    return options.pop("name"), options


def build(config: dict[str, Any]) -> tuple[ZooModel, Any]:
    """Return the model and the data of a resolved config, matched to each other."""
    model = new_model(config)
    return model, prepare(model, leave_out_unused(config, model))


def new_model(config: dict[str, Any]) -> ZooModel:
    """Return the model that a resolved config names, with its hyperparameters."""
    name, hparams = named(config["model"])
    dropout = config["regularization"]["dropout"]
    if dropout is not None:
        if "dropout" not in hparams:
            raise ZooError(f"{name} has no dropout: leave regularization.dropout out.")
        hparams["dropout"] = dropout
    return create_model(name, **hparams)


def prepare(
    model: ZooModel,
    config: dict[str, Any],
    tokenizer: str | None = None,
    rows: dict[str, Tensor] | None = None,
    learnt: Preprocessing | None = None,
) -> Any:
    """Give a model its recipe and the shape of its data; return the data.

    Args:
        model: the created model.
        config: the resolved config.
        tokenizer: the JSON of the tokenizer that a run has learnt already.
        rows: row numbers of each split, in place of those that the data draw.
        learnt: what the rows go through, rather than what is learnt of these.
    """
    amounts = ("l1", "l2", "mixup", "label_noise", "weight_noise")
    penalties: dict[str, Any] = {key: config["regularization"].get(key, 0.0) for key in amounts}
    penalties["l1_steps"] = config["regularization"].get("l1_steps", "gradient")
    sections = {key: config[key] for key in ("optimizer", "scheduler") if key in config}
    parts: dict[str, Any] = {}
    for key, section in sections.items():
        parts[key], parts[f"{key}_options"] = named(section)
    model.train_by(Recipe(**parts, **penalties))
    data_name, data_options = named(config["data"])
    data = create_data(data_name, **data_options)
    if tokenizer is not None or learnt is not None:
        data.follow(learnt, tokenizer)
    if rows is not None:
        data.divide(rows)
    data.takes_missing, data.kinds = model.takes_missing, model.entry.kinds
    model.build(data.spec)
    return data


@linked()
def train_run(config: DictConfig) -> Outcome:
    """Train as `config` says, going on from the last checkpoint in its folder if there is one.

    Returns:
        what the run ended with; its value is for those who search.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    check_config(settings)
    import_plugins(settings["plugins"])
    settings = _without_others_options(settings, HydraConfig.get().overrides.task)
    settings["data"] = absolute_paths(settings["data"])
    settings["trainer"], folder = in_world(settings["trainer"]), run_folder(settings)
    settings = agree("settings", settings)
    check_restarts(HydraConfig.get().overrides.task)
    kernels.use(settings["kernels"])
    run_dir = Path(agree("folder", folder))
    check_places(run_dir, gathered("there", (Path(folder) / "checkpoints" / "last.ckpt").is_file()))
    check_unchanged(run_dir, settings["data"])
    seed_all(settings["seed"])
    settings, source = _with_pretrained(settings, HydraConfig.get().overrides.task)
    model = new_model(settings)
    settings = leave_out_unused(settings, model, HydraConfig.get().overrides.task)
    settings, data = _prepared(model, settings, tokenizer_of(run_dir), HydraConfig.get().overrides.task, source)
    if source is not None:
        begin_with(model, source, settings["pretrained"])
    share_tokenizer(data.spec.tokenizer)
    check_validation(settings, model, data)
    settings, found = _with_found_rate(model, data, settings, run_dir, HydraConfig.get().overrides.task)
    going_on = agree("checkpoint", _resume_from(run_dir, settings))
    resume = file_of_first("resume", None if going_on is None else Path(going_on))
    regularization = settings["regularization"]
    course, diagnosis, trial = Course(), Diagnosis(), current()
    trainer = make_trainer(
        model,
        run_dir=run_dir,
        callbacks=[
            course,
            *([diagnosis] if settings.get("diagnosis", True) else []),
            *([trial.watch()] if trial else []),
        ],
        checkpoint_seconds=settings["checkpoint_seconds"],
        early_stopping=regularization["early_stopping"],
        gradient_clip_val=regularization.get("gradient_clip_val"),
        gradient_clip_algorithm=regularization.get("gradient_clip_algorithm"),
        logger=settings["logger"],
        histograms=settings.get("histograms", False),
        whole_set=_method(settings) == "batch",
        averaging=settings.get("averaging"),
        **settings["trainer"],
    )
    last = run_dir / "checkpoints" / "last.ckpt"
    with contextlib.ExitStack() as stack:
        if trainer.is_global_zero:
            stack.enter_context(new_folder(run_dir, keep=lambda: model.global_step > 0 or last.exists()))
            stack.enter_context(run_lock(run_dir))
            keep_digests(run_dir, data)
            keep_tokenizer(run_dir, data.spec.tokenizer)
            text = OmegaConf.to_yaml(OmegaConf.create({**settings, "data": paths_from(settings["data"], run_dir)}))
            write_whole(run_dir / "config.yaml", lambda file: file.write(text.encode()))
            write_environment(run_dir / "environment.json")
            if (writer := run_logger(trainer)) is not None:
                writer.log_config(text)
            print_start(trainer, model, data, settings["data"]["name"], run_dir)
        if found is not None:
            found.write(run_dir / "pictures")
            print_row(course.console, "find_lr", f"{found}: pictures/learning_rate.png")
            if writer is not None:
                show_png(writer.experiment, "learning_rate_range_test", png_of(found.picture()), 0)
        if settings.get("check_gradients") and trainer.is_global_zero:
            check_first(model, data)
        meet_again(trainer.strategy.root_device)
        with together(trainer):
            trainer.fit(model, datamodule=data, ckpt_path=resume)
        return _finish(trainer, model, data, settings, run_dir, course, diagnosis)


def _method(settings: dict[str, Any]) -> str:
    """What a step sees: all rows, one, or some; the last also stands for models that take no steps."""
    return settings.get("training", {}).get("name", "minibatch")


def _with_pretrained(settings: dict[str, Any], given: Iterable[str]) -> tuple[dict[str, Any], ZooModel | None]:
    """Return the settings with the hyperparameters of the trained weights to begin with, but for those given, and the
    trained model; None where nothing is asked for."""
    name = settings.get("pretrained")
    if name is None:
        return {key: value for key, value in settings.items() if key != "pretrained"}, None
    source = find_weights(settings["model"]["name"], name)
    asked = {override.lstrip("+~").partition("=")[0] for override in given}
    trained = trained_hyperparameters(source)
    kept = {key: value for key, value in trained.items() if key in settings["model"] and f"model.{key}" not in asked}
    return settings | {"model": settings["model"] | kept}, source


def _prepared(
    model: ZooModel,
    settings: dict[str, Any],
    tokenizer: str | None,
    given: Iterable[str],
    source: ZooModel | None = None,
) -> tuple[dict[str, Any], Any]:
    """Return the settings that a method of training asks for, and the data, seen as by the weights to begin with."""
    learnt = None
    if source is not None and source.spec is not None:
        tokenizer = tokenizer or source.spec.tokenizer
        learnt = source.preprocessing if source.spec.kind == "image" else None
    method, usual = _method(settings), settings["data"]["batch_size"]
    if method == "minibatch":
        return settings, prepare(model, settings, tokenizer, learnt=learnt)
    check_training(method, model, settings["optimizer"]["name"])
    if method == "stochastic":
        if any(override.startswith("data.batch_size=") for override in given) and usual != 1:
            raise ZooError("training=stochastic takes one row a step: leave data.batch_size out.")
        settings = settings | {"data": settings["data"] | {"batch_size": 1}}
    data = prepare(model, settings, tokenizer, learnt=learnt)
    rate = settings["optimizer"].get("lr")
    chosen = settings.get("find_lr") or any(override.startswith("optimizer.lr=") for override in given)
    if rate is None or settings["optimizer"]["name"] == "lbfgs" or chosen:
        return settings, data
    rows = 1 if method == "stochastic" else len(data.rows("train"))
    rate = learning_rate(rate, rows, usual or rows)
    log.info("training=%s: optimizer.lr=%.3g, for %s row%s a step.", method, rate, f"{rows:,}", "s" * (rows != 1))
    return _with_rate(model, settings, rate), data


def _with_rate(model: ZooModel, settings: dict[str, Any], rate: float) -> dict[str, Any]:
    """Return the settings with a learning rate, which the model takes, too."""
    settings = settings | {"optimizer": settings["optimizer"] | {"lr": rate}}
    model.train_by(replace(model.recipe, optimizer_options=named(settings["optimizer"])[1]))
    return settings


def _with_found_rate(
    model: ZooModel, data: Any, settings: dict[str, Any], run_dir: Path, given: Iterable[str]
) -> tuple[dict[str, Any], RangeTest | None]:
    """Return the settings with the learning rate that a range test found, where it is asked for, and the test."""
    if not settings.get("find_lr"):
        return settings, None
    options = settings["trainer"]
    if (chosen := next((o for o in given if o.startswith("optimizer.lr=")), None)) is not None:
        raise ZooError(f"find_lr=true finds the learning rate, and {chosen} says it: leave one of the two out.")
    if settings["scheduler"]["name"] == "one_cycle":
        raise ZooError("find_lr=true finds optimizer.lr, and scheduler=one_cycle takes scheduler.max_lr: choose one.")
    if options["devices"] not in (1, "1", "auto") or options.get("num_nodes", 1) != 1:
        raise ZooError("find_lr=true runs in one process: find it with trainer.devices=1, then pass optimizer.lr.")
    saved = run_dir / "config.yaml"
    if (run_dir / "checkpoints" / "last.ckpt").exists() and saved.exists():  # going on: it was found then
        return _with_rate(model, settings, read_config(saved)["optimizer"]["lr"]), None
    regularization, kept = settings["regularization"], ("accelerator", "precision", "accumulate_grad_batches")
    found = range_test(
        model, data, whole_set=_method(settings) == "batch",
        gradient_clip_val=regularization.get("gradient_clip_val"),
        gradient_clip_algorithm=regularization.get("gradient_clip_algorithm"),
        **{key: options[key] for key in kept},
    )  # fmt: skip
    return settings if found.suggestion is None else _with_rate(model, settings, found.suggestion), found


def check_first(model: ZooModel, data: Any) -> None:
    """Print the check of the model's gradients on some training rows; raise one line if one of them is wrong."""
    gradients = importlib.import_module("zoo.analysis.gradients")  # it stands above training, as all analyses do
    rows = data.rows("train")
    found = gradients.check_gradients(model, rows[spread(len(rows), 8)])
    print(found.table())
    if not found.passed:
        raise ZooError(f"Nothing was trained, as the gradients are wrong. {found.verdict}.")


def _without_others_options(settings: dict[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Return the settings without what the model's config sets for its own data or schedule and the chosen one lacks.

    What was `given` on the command line stays, so that it is refused by name.
    """
    known = {"data": data_options(settings["data"]["name"])}
    schedule = settings.get("scheduler", {}).get("name")
    if schedule in SCHEDULERS:
        known["scheduler"] = option_types(SCHEDULERS[schedule])
    asked = {override.lstrip("+~").partition("=")[0] for override in given}
    kept = {
        group: {k: v for k, v in settings[group].items() if k in {"name", *options} or f"{group}.{k}" in asked}
        for group, options in known.items()
    }
    if kept["data"].get("tokenizer", KINDS[0]) not in KINDS and "data.special_tokens" not in asked:
        kept["data"].pop("special_tokens", None)  # a vocabulary that is there has its own
    return settings | kept


def run_logger(trainer: Any) -> RunLogger | None:
    """Return TensorBoard's logger, if the run has it."""
    return next((logger for logger in trainer.loggers if isinstance(logger, RunLogger)), None)


def write_environment(path: Path) -> None:
    """Record what runs here; where a resumed run takes other kernels than before, say so."""
    now = environment()
    if path.is_file():
        fields = ("variant", "gpu") if torch.cuda.is_available() else ("variant",)
        recorded = now["kernels"] | json.loads(path.read_text()).get("kernels", {"variant": None})
        before, goes_on = (" and ".join(k[field] or "none" for field in fields) for k in (recorded, now["kernels"]))
        if before != goes_on:
            log.warning(
                "This run began with kernels: %s and goes on with kernels: %s, so its last digits may differ.",
                before,
                goes_on,
            )
    write_json(path, now)


def run_folder(settings: dict[str, Any]) -> str:
    """Return where the run goes: `run_dir`, with the number of the job in a sweep."""
    hydra, folder = HydraConfig.get(), os.path.abspath(settings["run_dir"])
    if os.path.isfile(folder):
        raise ZooError(f"run_dir={settings['run_dir']} is a file: pass run_dir=FOLDER.")
    return f"{folder}_{hydra.job.num}" if hydra.mode == RunMode.MULTIRUN else folder


@contextlib.contextmanager
def new_folder(folder: Path, keep: Callable[[], bool]) -> Iterator[None]:
    """Make a folder for what is done within; if that fails and is not to be kept, take away what was made."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        if made and not keep():
            shutil.rmtree(folder, ignore_errors=True)
            for parent in made[1:]:
                with contextlib.suppress(OSError):  # another run's folder is there by now
                    parent.rmdir()
        raise


def check_validation(settings: dict[str, Any], model: ZooModel, data: Any) -> None:
    """Raise one line if something watches validation values and there are none."""
    plateau = settings.get("scheduler", {}).get("name") == "plateau"
    if plateau and settings["trainer"].get("check_val_every_n_epoch", 1) is None:
        raise ZooError(
            "scheduler=plateau looks at val/loss when an epoch ends, and validation goes by steps here: set "
            "trainer.check_val_every_n_epoch=1 trainer.val_check_interval=1.0."
        )
    if data.has("val") and settings["trainer"]["limit_val_batches"]:
        return
    if settings["regularization"]["early_stopping"]:
        what, value = "regularization=early_stopping", model.monitor
    elif plateau:
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
        before = read_config(saved)
        before["data"] = absolute_paths(before["data"], run_dir)
        chosen = settings["regularization"].items()
        since = {key: value for key, value in chosen if _SINCE.get(key) == value}
        before["regularization"] = since | (before.get("regularization") or {})
        sections = ("model", "data", "optimizer", "scheduler", "regularization", "seed")
        changed = [key for key in sections if before.get(key) != settings.get(key)]
        averages = [config.get("averaging", _NO_AVERAGE) for config in (before, settings)]
        changed += ["averaging"] if averages[0] != averages[1] else []
        changed += ["training"] if _method(before) != _method(settings) else []
        if changed:
            raise ZooError(
                f"{run_dir} holds a run with another {' and '.join(changed)}: choose another run_dir, "
                f"or repeat that run's command to go on with it."
            )
        check_trainer(run_dir, before.get("trainer") or {}, settings)
    return str(last)


# What a run may change when it goes on: where it ends, and what leaves its numbers alone.
_MAY_CHANGE = {"max_epochs", "max_steps", "accelerator", "log_every_n_steps", "limit_test_batches", "fast_dev_run"}


# What runs did before they could choose.
_TRAINER_SINCE = {"compile": False, "activation_checkpointing": False}
_NO_AVERAGE = {"name": "none"}
_SINCE = {
    "l1_steps": "gradient", "gradient_clip_algorithm": "norm", "mixup": 0.0, "label_noise": 0.0, "weight_noise": 0.0,
}  # fmt: skip


def check_trainer(run_dir: Path, before: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise one line if an option of the trainer changed on which the run's numbers depend; say the others."""
    now, scheduler = settings["trainer"], settings.get("scheduler", {}).get("name")
    before = {key: value for key, value in _TRAINER_SINCE.items() if key in now} | before
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if _processes(before) == _processes(now) is not None:  # however they are spread over machines
        changed = [key for key in changed if key not in ("devices", "num_nodes")]
    drawn = f"scheduler={scheduler}" if scheduler in SPANS_THE_RUN else ""
    if settings.get("averaging", _NO_AVERAGE)["name"] == "swa":
        drawn = drawn or "averaging=swa"
    spans_the_run = {"max_epochs", "max_steps"} if drawn else set()
    for key in changed:
        if key not in _MAY_CHANGE - spans_the_run:
            why = f", over which {drawn} is drawn" if key in spans_the_run else ""
            raise ZooError(
                f"{run_dir} holds a run with another trainer.{key} ({before.get(key)}, not {now.get(key)}){why}: "
                "choose another run_dir, or repeat that run's command to go on with it."
            )
        log.info("Going on with trainer.%s=%s, which was %s.", key, now.get(key), before.get(key))


def _processes(trainer: dict[str, Any]) -> int | None:
    """Over how many processes a run goes, where that is said."""
    devices = trainer.get("devices")
    return devices * (trainer.get("num_nodes") or 1) if isinstance(devices, int) else None


def check_places(run_dir: Path, there: list[bool]) -> None:
    """Raise one line where the run to go on with lies with another process than the first, which would begin anew.

    Args:
        run_dir: the folder that the first process takes.
        there: whether each process finds a checkpoint where the command says, the first one first.
    """
    if any(there) and not there[0]:
        raise ZooError(
            f"{run_dir} holds no run on the machine of the first process, and does on that of process "
            f"{there.index(True) + 1}: pass a run_dir that all machines see, or torchrun the same --node-rank again."
        )


def check_restarts(given: Iterable[str]) -> None:
    """Raise one line where torchrun would start a run again and it would not find what the first one did."""
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS") or 0) and not any(o.startswith("run_dir=") for o in given):
        raise ZooError("torchrun --max-restarts starts a run again, which goes on in its folder: pass run_dir=FOLDER.")


def _finish(
    trainer: Any,
    model: ZooModel,
    data: Any,
    settings: dict[str, Any],
    run_dir: Path,
    course: Course,
    diagnosis: Diagnosis,
) -> Outcome:
    """Test the best checkpoint, write what the run ends with, and print what to do next."""
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if not k.endswith("_step")}
    of = dict.fromkeys(metrics, f"last epoch, {trainer.current_epoch - 1}")
    tested_of = of_best = next(iter(of.values()), "last epoch")
    kept: tuple[str, int] | None = None
    kept_any = not settings["trainer"]["fast_dev_run"] and (run_dir / "checkpoints").is_dir()
    path = file_of_first("kept", find_checkpoint(run_dir) if kept_any else None)
    if path is not None:
        best = load_checkpoint(path)
        if in_shares(model):
            model = load_model(path)  # whole: one process draws it, and translations are of different lengths
        else:
            model.load_state_dict(best["state_dict"])
        # That of the end of a run counts the epochs, that of a validation has not finished its own.
        epoch = best["epoch"] if path.stem == "best" else trainer.current_epoch - 1
        tested_of = of_best = f"{path.stem} checkpoint, epoch {epoch}"
        kept = path.stem, epoch
    if trainer.is_global_zero:
        print_end(trainer, model, course, best=kept, value=_best_value(trainer), run_dir=run_dir)
        if diagnosis.finding is not None:
            print_row(course.console, "diagnosis", str(diagnosis.finding))
            if (shown := run_logger(trainer)) is not None:
                shown.log_diagnosis(str(diagnosis.finding), diagnosis.curves, trainer.global_step)
    testable = is_overridden("test_step", model) and not in_shares(model)  # which it still is where nothing was kept
    tested = trainer.test(model, datamodule=data, verbose=False) if testable else []
    split = "test" if data.has("test") else "train"
    for result in tested:
        for key, value in of_split(result, split).items():
            metrics[key], of[key] = value, tested_of
    if (chosen_by := _best_value(trainer)) is not None and model.monitor in metrics:
        metrics[model.monitor], of[model.monitor] = chosen_by, of_best
    outcome = Outcome(*_compared(model, metrics, chosen_by), metrics, str(run_dir))
    if not trainer.is_global_zero:
        return outcome
    if run_dir.is_dir():
        write_json(run_dir / "metrics.json", {"metrics": metrics, "of": of})
    writer = run_logger(trainer)
    if writer is not None:
        writer.log_run(flatten(settings), metrics)
    if run_dir.is_dir():
        for name, write in model.exports():
            write_whole(run_dir / name, write)
        draw(model, data, split, run_dir / "pictures", writer and writer.experiment)
    predicts = model.preprocessing is not None and is_overridden("predict_batch", model, ZooModel)
    hints: tuple[str, ...] = ("evaluate", "predict", "look") if predicts else ("evaluate", "look")
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        hints = ()
    print_metrics(model.entry.name, settings["data"]["name"], metrics, run_dir, of, hints)
    return outcome


def of_split(metrics: Mapping[str, float], split: str) -> dict[str, float]:
    """Return the metrics of a test loop under the name of the split whose rows it was given."""
    return {f"{split}/{key.removeprefix('test/')}": float(value) for key, value in metrics.items()}


def _compared(model: ZooModel, metrics: dict[str, float], chosen_by: float | None) -> tuple[float | None, str, str]:
    """The value, name and direction of what runs are compared by.

    It is what chose the best checkpoint, or would have, had a solved model several: the monitor of the task. Without
    targets it is the first metric of held-out rows, or of training, which are distances and errors.
    """
    if chosen_by is not None and model.monitor:
        return chosen_by, model.monitor, model.monitor_mode
    assert model.spec is not None
    task = None if model.entry.unsupervised else find_task(model.spec.kind, model.spec.target)
    if task is not None and task.monitor in metrics:
        return metrics[task.monitor], task.monitor, task.mode
    names = sorted(metrics, key=lambda name: not name.startswith("val/"))
    name = next((name for name in names if not name.startswith("test/")), "")
    return metrics.get(name), name, "min"


def _best_value(trainer: Any) -> float | None:
    """The value that chose the best checkpoint."""
    checkpointer = next((c for c in trainer.callbacks if isinstance(c, Checkpointer)), None)
    return None if checkpointer is None or checkpointer.best is None else float(checkpointer.best)


def flatten(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that tell runs apart, as one flat mapping."""
    flat: dict[str, Any] = {"seed": settings["seed"], "data": settings["data"]["name"]}
    flat["data.batch_size"] = settings["data"]["batch_size"]
    for section in ("model", "optimizer", "scheduler", "regularization", "averaging"):
        for key, value in settings.get(section, {}).items():
            flat[section if key == "name" else f"{section}.{key}"] = value
    return flat


def device_of(accelerator: str) -> torch.device:
    """Return the device that Lightning's `accelerator` means for one process."""
    use_cuda = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    return torch.device("cuda" if use_cuda else "cpu")
