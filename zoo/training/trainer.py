"""The one place where a Lightning Trainer is made, for the command line and for `zoo.fit` alike."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.profilers import AdvancedProfiler, PassThroughProfiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from zoo.checks import Range, check_type
from zoo.errors import ZooError
from zoo.optimizers import make_average
from zoo.training.averaging import Averaging
from zoo.training.best_weights import BestWeights
from zoo.training.callbacks import Checkpointer, RandomStates, SignalExit
from zoo.training.checkpoint import AtomicCheckpointIO
from zoo.training.cluster import environments
from zoo.training.convergence import Convergence
from zoo.training.execution import Compiled, Recomputed
from zoo.training.gauges import Gauges, Histograms, LossByRows
from zoo.training.history import History
from zoo.training.logger import make_loggers
from zoo.training.progress import Progress
from zoo.training.shares import ShareStrategy, check_shares
from zoo.training.steps import take_plain_steps
from zoo.training.strategy import StreamingDDPStrategy
from zoo.training.weight_path import WeightPath
from zoo.training.whole_set import NEVER, WholeSet, check_training

if TYPE_CHECKING:
    from zoo.models.base import ZooModel

__all__ = ["DEFAULT_EPOCHS", "make_trainer", "quiet"]

PROFILERS: dict[str, Any] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
OWN = {  # options of Lightning's that the zoo sets itself, or that do not fit its data, and what to do instead
    "plugins": "it brings a checkpoint's own reading and writing: leave it out",
    "use_distributed_sampler": "its own sampler repeats no row: leave it out",
    "enable_progress_bar": "pass progress=True",
    "enable_model_summary": "print(model) shows its layers: leave it out",
    "enable_checkpointing": "zoo.save_model(model, PATH) keeps a model: leave it out",
    "num_sanity_val_steps": "pass fast_dev_run=True in a run of its own",
    "overfit_batches": "pass a few rows, or limit_train_batches (of a DataModule with shuffle=False)",
}
DEFAULT_EPOCHS = 20  # of a gradient model; a streaming model says itself when it is done


class Unmeasured(PassThroughProfiler):
    """The profiler that measures nothing, without the generator that Lightning's makes for each of a step's hooks."""

    _nothing = contextlib.nullcontext()

    def profile(self, action_name: str) -> contextlib.AbstractContextManager:  # type: ignore[override]
        return self._nothing


def quiet() -> None:
    """Silence what Lightning says of every run; its real warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*configure_optimizers. returned .None.*",
        ".*defined a .validation_step. but have no.*",
        ".*GPU available but not used.*",
        ".*is not a writeable|.*Checkpoint directory .* exists.*",
        ".*weights_only.*",
        ".*TensorBoard support in.*",
        ".*Trying to infer the .batch_size.*",
        ".*Found .* module.* in eval mode.*",
        ".*resuming from a checkpoint that ended before the epoch ended.*",  # our sampler does resume
        ".*treespec.*LeafSpec.*",
        ".*You have overridden .(on_after_batch_transfer|transfer_batch_to_device).*",
        ".*torch.jit.trace.*",
        ".*across ranks is zero.*",
        ".*sync_dist=True.*",  # what the zoo logs is the same in all processes
        ".*barrier.. using the device under current context.*",
    ):
        warnings.filterwarnings("ignore", pattern)


def make_trainer(
    model: ZooModel,
    *,
    run_dir: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    early_stopping: dict[str, Any] | None = None,
    gradient_clip_val: float | None = None,
    gradient_clip_algorithm: str | None = None,
    callbacks: list[Callback] | Callback | None = None,
    max_epochs: int | None = None,
    strategy: str = "auto",
    devices: Any = 1,
    progress: bool = True,
    logger: Any = ("tensorboard",),
    histograms: bool = False,
    whole_set: bool = False,
    compile: bool = False,
    activation_checkpointing: bool = False,
    averaging: dict[str, Any] | str | None = None,
    keep_best: bool | None = None,
    **options: Any,
) -> pl.Trainer:
    """Return the Trainer for a model.

    Args:
        model: the model, which decides how many epochs are needed and what stops them.
        run_dir: where checkpoints and TensorBoard's events go; None keeps nothing.
        checkpoint_seconds: the most work, in seconds, that a killed run loses.
        early_stopping: `patience` (epochs) and `min_delta` of the monitored validation value.
        keep_best: without a folder, end with the weights of the best validation; None: where it may stop early.
        gradient_clip_val: largest norm of the gradient, or the largest entry.
        gradient_clip_algorithm: which of the two: `norm` or `value`; None for the norm.
        callbacks: further callbacks.
        max_epochs: None for the model's own choice.
        strategy: Lightning's; `ddp` works for streaming models too, and `fsdp` shares out the layers of a transformer.
        devices: Lightning's.
        progress: show how far it has come: a line on a terminal, plain lines elsewhere.
        histograms: write a histogram of each parameter and gradient after every epoch, and how far a step moves each.
        whole_set: take one step an epoch, over all of its rows.
        compile: have `torch.compile` make code of the network.
        activation_checkpointing: keep of each transformer layer its input alone, and compute the rest again.
        averaging: of the weights: `ema`, `swa`, or a mapping of its `name` and options.
        logger: names of `zoo.training.logger.LOGGERS` for a run that has a folder, or what Lightning takes.
        **options: all else that Lightning's Trainer takes.

    Raises:
        ZooError: for a combination that Lightning refuses, in one line.
    """
    _check_options(options, gradient_clip_val)
    quiet()
    if not torch.cuda.is_available():
        # Lightning has torch ask the driver, as Adam does in every step: 0.1 ms to hear again that there is none.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    checkpointer = None
    limit = "max_epochs" if run_dir is None else "trainer.max_epochs"
    average = make_average(**({"name": averaging or "none"} if not isinstance(averaging, dict) else averaging))
    if average is not None and "steps" not in model.heeds:
        raise ZooError(f"averaging does nothing for {model.entry.name}: it takes no steps. Leave it out.")
    averages = [] if average is None else [Averaging(average)]  # before all who look at the weights
    best = [BestWeights()] if run_dir is None and (early_stopping if keep_best is None else keep_best) else []
    ways = [WeightPath()] if run_dir is not None and model.convex and not model.streaming else []
    callbacks = [RandomStates(), *best, *ways, *averages, *_listed(callbacks), Convergence(limit)]
    if whole_set:
        check_training("batch", model, model.recipe.optimizer)
        callbacks.append(WholeSet())
        options["accumulate_grad_batches"] = NEVER
    if run_dir is not None and not options.get("fast_dev_run"):
        checkpointer = Checkpointer(Path(run_dir) / "checkpoints", checkpoint_seconds)
        callbacks.append(checkpointer)
        callbacks.append(History(Path(run_dir) / "history.csv"))
        logger = make_loggers(logger, Path(run_dir)) if isinstance(logger, list | tuple) else logger
    elif isinstance(logger, list | tuple):
        logger = False
    if run_dir is not None and not model.streaming:
        callbacks += [Gauges(), LossByRows()]
    if run_dir is not None:
        callbacks.append(SignalExit(checkpointer))  # after what counts rows: it saves the batch that is done
    callbacks += [Compiled()] * compile + [Recomputed()] * activation_checkpointing
    if histograms:
        callbacks.append(Histograms())
    if early_stopping:
        callbacks.append(_early_stopping(model, early_stopping))
    if progress:
        callbacks.append(Progress())
    if max_epochs is None and options.get("max_steps", -1) == -1:
        max_epochs = -1 if model.streaming else DEFAULT_EPOCHS
    options["profiler"] = options.get("profiler") or Unmeasured()
    if options.get("deterministic") is False and not torch.are_deterministic_algorithms_enabled():
        del options["deterministic"]  # there is nothing to turn off, for which torch would import its compiler
    chosen: Any = strategy
    if model.streaming:
        gradient_clip_val = None
        if strategy == "ddp" or (strategy == "auto" and devices not in (1, "auto", "1")):
            chosen = StreamingDDPStrategy()
    if strategy == "fsdp":
        check_shares(model, bool(averages))
        chosen = ShareStrategy()
        options["inference_mode"] = False  # what is gathered in it could not be used in the next step
    if run_dir is not None and isinstance(options.get("profiler"), str):
        options["profiler"] = PROFILERS[options["profiler"]](dirpath=run_dir, filename="profile")
    try:
        trainer = pl.Trainer(
            callbacks=callbacks,
            max_epochs=max_epochs,
            strategy=chosen,
            devices=devices,
            plugins=[AtomicCheckpointIO(), *environments()],
            use_distributed_sampler=False,  # ours repeats no row and shuffles only where told to
            enable_checkpointing=checkpointer is not None,
            enable_model_summary=False,
            enable_progress_bar=False,
            gradient_clip_val=gradient_clip_val,
            gradient_clip_algorithm=gradient_clip_algorithm,
            num_sanity_val_steps=0,
            logger=logger,
            **options,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise ZooError(f"trainer: {' '.join(str(error).split())}") from error
    take_plain_steps(trainer)
    return trainer


def _check_options(options: dict[str, Any], gradient_clip_val: Any) -> None:
    """Raise one line for an option of Lightning's that the zoo sets itself, or at which a step would fail."""
    for name in OWN.keys() & options.keys():
        raise ZooError(f"{name} of Lightning's Trainer is set by the zoo; {OWN[name]}.")
    check_type("gradient_clip_val", gradient_clip_val, Annotated[float, Range(0)] | None)
    check_type("accumulate_grad_batches", options.get("accumulate_grad_batches", 1), Annotated[int, Range(1)])


def _listed(callbacks: Any) -> list[Callback]:
    """Return the user's callbacks, one or several, as a list; raise one line for what is none."""
    found: list[Any] = [callbacks] if isinstance(callbacks, Callback | str | type) else list(callbacks or ())
    for one in found:
        if not isinstance(one, Callback):
            shown = f"the class {one.__name__}: pass {one.__name__}()" if isinstance(one, type) else repr(one)
            raise ZooError(f"callbacks must be a list of Lightning's Callbacks, not {shown}.")
    return found


def _early_stopping(model: ZooModel, options: dict[str, Any]) -> EarlyStopping:
    if model.monitor is None:
        raise ZooError(f"{model.entry.name} has no validation value to stop early by: it stops by itself.")
    return EarlyStopping(model.monitor, mode=model.monitor_mode, check_finite=False, **options)


def seed_all(seed: int) -> None:
    """Seed every generator of every process, and let matrix products of float32 use the fast units of a GPU."""
    pl.seed_everything(seed, workers=True, verbose=False)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
