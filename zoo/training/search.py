"""Searching hyperparameters with Optuna: `hydra/sweeper=optuna` chooses each run by those that have ended.

The study is kept in the sweep's folder (`optuna.log`), so that the same command with that `hydra.sweep.dir` goes on. A
run that is worse than the median of the others at the same validation is pruned. What each parameter counts for
(fANOVA: Hutter, Hoos & Leyton-Brown 2014) is drawn at the end.

Source: Akiba, Sano, Yanase, Ohta & Koyama 2019 (Optuna); Bergstra, Bardenet, Bengio & Kégl 2011 (TPE).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from zoo.errors import ZooError, unknown_name
from zoo.training.sweep import Outcome, Run
from zoo.training.trials import Trial, search_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["importance_picture", "search", "space_of"]

log = logging.getLogger("zoo")
SAMPLERS = ("tpe", "random")


def search(sweeper: Any, arguments: list[str], *, num_trials: int, sampler: str, prune: bool, seed: int) -> list[Any]:
    """Run trials until there are `num_trials`, counting those that an earlier command has run.

    Args:
        sweeper: Hydra's, with its launcher and config.
        arguments: overrides, of which some are sets or intervals to search.
        num_trials: runs in all.
        sampler: `tpe` or `random`.
        prune: whether hopeless runs are stopped.
        seed: of the sampler.

    Raises:
        ZooError: without Optuna, or for options and overrides that say nothing to search.
    """
    try:
        import optuna
    except ImportError:
        raise ZooError("hydra/sweeper=optuna needs the package optuna: pip install 'refzoo[optuna]'.") from None
    if sampler not in SAMPLERS:
        raise unknown_name("hydra.sweeper.sampler", sampler, SAMPLERS)
    if num_trials < 1:
        raise ZooError(f"hydra.sweeper.num_trials must be at least 1, not {num_trials}.")
    fixed, space = space_of(arguments, sweeper.hydra_context.config_loader)
    folder = Path(sweeper.config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(sweeper.config, folder / "multirun.yaml")
    study = _study(optuna, folder, sampler, prune, seed)
    done = _earlier(study, optuna, fixed)
    results = []
    for _ in range(num_trials - done):
        trial = study.ask(space)
        overrides = [*fixed, *(f"{key}={value}" for key, value in trial.params.items())]
        search_of.trial = Trial(lambda value, step, trial=trial: _reported(trial, value, step))  # type: ignore[misc]
        try:
            results += sweeper.launcher.launch([overrides], initial_job_idx=trial.number)
            _ = results[-1].return_value  # raises what the job raised
            _tell(study, optuna, trial, search_of.trial)
        finally:
            search_of.trial = None
    _draw_importances(study, optuna, folder)
    return results


def _study(optuna: Any, folder: Path, sampler: str, prune: bool, seed: int) -> Any:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.log"))
    samplers = optuna.samplers
    pruners = optuna.pruners
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="zoo",
        load_if_exists=True,
        direction="minimize",
        pruner=pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1) if prune else pruners.NopPruner(),
    )
    drawn = seed + len(study.trials)  # that a search that goes on does not draw the same again
    study.sampler = samplers.TPESampler(seed=drawn) if sampler == "tpe" else samplers.RandomSampler(seed=drawn)
    return study


def _earlier(study: Any, optuna: Any, fixed: list[str]) -> int:
    """Take over the trials of an earlier command; return how many have ended."""
    done = 0
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:  # of a command that was killed
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            continue
        done += trial.state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        kept = trial.user_attrs
        outcome = Outcome(**kept["outcome"]) if kept.get("outcome") else None
        if search_of.sweep is not None and kept:
            search_of.sweep.add(
                Run(trial.number, {k: str(v) for k, v in trial.params.items()}, outcome, kept["failure"])
            )
    if done:
        log.info("The search goes on after %d run%s.", done, "s" * (done != 1))
    return done


def _reported(trial: Any, value: float, step: int) -> bool:
    trial.report(value, step)
    return trial.should_prune()


def _tell(study: Any, optuna: Any, trial: Any, run: Trial) -> None:
    """Tell the study what a run ended with."""
    outcome = run.outcome
    trial.set_user_attr("outcome", outcome._asdict() if outcome else None)
    trial.set_user_attr("failure", "" if outcome else "pruned" if run.pruned else "failed")
    if outcome is not None and outcome.value is not None:
        study.tell(trial, -outcome.value if outcome.mode == "max" else outcome.value)
    else:
        states = optuna.trial.TrialState
        study.tell(trial, state=states.PRUNED if run.pruned else states.FAIL)


def space_of(arguments: list[str], config_loader: Any = None) -> tuple[list[str], dict[str, Any]]:
    """Return the overrides that are the same in all runs, and what is searched of the others.

    Args:
        arguments: such as `model=mlp`, `optimizer.lr=tag(log, interval(1e-4, 1e-1))`, `model.widths=[8],[16,16]` or
            `data.batch_size=range(16, 129, 16)`.
        config_loader: Hydra's, where groups are swept.

    Raises:
        ZooError: if nothing is to be searched, or an interval is no interval.

    Example:
        >>> fixed, space = space_of(["model=mlp", "optimizer.lr=tag(log, interval(1e-4, 1e-1))", "seed=1,2"])
        >>> fixed, space["optimizer.lr"].log, space["seed"].choices
        (['model=mlp'], True, ('1', '2'))
    """
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

    fixed: list[str] = []
    space: dict[str, BaseDistribution] = {}
    for override in OverridesParser.create(config_loader=config_loader).parse_overrides(arguments):
        key, value = override.get_key_element(), _value_of(override)
        if not override.is_sweep_override():
            fixed.append(str(override.input_line))
        elif override.is_interval_sweep():
            whole = all(isinstance(end, int) for end in (value.start, value.end))
            kind: Any = IntDistribution if whole else FloatDistribution
            try:
                space[key] = kind(value.start, value.end, log="log" in value.tags)
            except ValueError as error:
                raise ZooError(f"{override.input_line}: {error}") from None
        elif override.is_range_sweep() and all(isinstance(v, int) for v in (value.start, value.stop, value.step)):
            last = range(value.start, value.stop, value.step)[-1]
            space[key] = IntDistribution(value.start, last, step=value.step)
        else:
            space[key] = CategoricalDistribution(list(override.sweep_string_iterator()))
    if not space:
        raise ZooError(
            "hydra/sweeper=optuna finds nothing to search: pass sets or intervals, such as "
            "optimizer.lr='tag(log, interval(1e-4, 1e-1))'."
        )
    return fixed, space


def _value_of(override: Any) -> Any:
    """What Hydra reads an override as: a set, a range or an interval where it is swept."""
    return override.value()


def _draw_importances(study: Any, optuna: Any, folder: Path) -> None:
    """Write how much each parameter counts for, as numbers and as a picture, where the runs can tell it."""
    try:
        found: Mapping[str, float] = optuna.importance.get_param_importances(study)
    except (RuntimeError, ValueError):  # too few runs, or all the same
        return
    from zoo import visual

    visual.save(importance_picture(found), folder / "importance.png")
    told = ", ".join(f"{key} {share:.0%}" for key, share in found.items())
    log.info("importance of the parameters: %s (%s)", told, folder / "importance.png")


def importance_picture(shares: Mapping[str, float]) -> Figure:
    """Draw what each parameter counts for, the largest on top.

    >>> len(importance_picture({"optimizer.lr": 0.8, "seed": 0.2}).axes[0].patches)
    2
    """
    from zoo.visual import class_colors, new_figure

    ranked = sorted(shares.items(), key=lambda item: item[1])
    with new_figure(5.2, 1.0 + 0.35 * len(ranked)) as (figure, axes):
        axes.barh([name for name, _ in ranked], [share for _, share in ranked], color=class_colors(1)[0])
        axes.set(xlabel="share of the variation of the results that it explains", xlim=(0, 1))
        axes.set_title("importance of the parameters")
    return figure
