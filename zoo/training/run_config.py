"""The config that a run folder keeps, read as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from zoo.errors import ZooError

__all__ = ["read_config"]

_BUILT_IN = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "lbfgs")


def read_config(file: Path) -> dict[str, Any]:
    """Return the config of a run; nothing in it is resolved, called or made an object of.

    Raises:
        ZooError: if it is no YAML, holds more than plain values, or lacks a section.
    """
    try:
        settings: Any = OmegaConf.to_container(OmegaConf.load(file))
    except OSError:
        raise
    except Exception as error:  # YAML's reader, and OmegaConf's, fail in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ZooError(f"{file} is not the config of a run: {reason}.") from error
    sections = ("model", "data", "seed", "trainer")
    missing = [key for key in sections if key not in settings] if isinstance(settings, dict) else list(sections)
    if missing or not all(isinstance(settings[key], dict) and settings[key] for key in sections if key != "seed"):
        raise ZooError(f"{file} is incomplete: it lacks {missing[0] if missing else 'a section'}. Use another run.")
    optimizer = settings.get("optimizer")
    if isinstance(optimizer, dict) and optimizer.get("name") in _BUILT_IN:
        optimizer.setdefault("source", "zoo")  # a run from before this was a choice goes on, to the same bits
    return settings
