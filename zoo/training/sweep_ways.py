"""The ways of a sweep's runs on one surface: `loss_surface.png` in its folder, and the same in TensorBoard."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from zoo import visual
from zoo.training.report import print_row
from zoo.training.run_config import read_config
from zoo.training.sweep import Run, Sweep
from zoo.training.terminal import make_console, shown_path

__all__ = ["draw_ways"]

MOST = 7  # ways in a picture: the best ones
log = logging.getLogger("zoo")


def draw_ways(sweep: Sweep) -> None:
    """Draw the ways of the runs' weights, where they kept them and lower the same loss; else nothing is done."""
    ended = [run for run in sweep.ranked if run.outcome and (Path(run.outcome.folder) / "config.yaml").is_file()][:MOST]
    if sweep.folder is None or len(ended) < 2:
        return
    runs = {_name(run, sweep.keys): Path(run.outcome.folder) for run in ended if run.outcome}
    surfaces = importlib.import_module("zoo.analysis.loss_surface")  # it stands above training, as all analyses do
    try:
        found = surfaces.surface_of_runs(runs)
    except Exception as error:  # a picture less: the runs are whole
        log.warning("The ways of the runs could not be drawn (%s: %s).", type(error).__name__, error)
        return
    if found is None:
        return
    figure = found.figure()
    visual.save(figure, sweep.folder / "loss_surface.png")
    if "tensorboard" in read_config(next(iter(runs.values())) / "config.yaml").get("logger", []):
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(sweep.folder)) as writer:
            writer.add_figure("loss_surface", figure)
    print_row(make_console(), "ways", shown_path(sweep.folder / "loss_surface.png"))


def _name(run: Run, keys: list[str]) -> str:
    return ", ".join(f"{key}={run.overrides.get(key, '')}" for key in keys) or f"run {run.number}"
