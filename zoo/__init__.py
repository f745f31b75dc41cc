"""zoo: every model of machine learning written once, rightly.

>>> import zoo
>>> model = zoo.create_model("kmeans", num_clusters=10)

Names are imported on first use, so that `import zoo` costs nothing, and Lightning without what the zoo does not use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zoo import lean

if TYPE_CHECKING:
    from zoo.data.registry import create_data, list_data, register_data
    from zoo.data.spec import Batch, DataSpec
    from zoo.errors import ZooError
    from zoo.registry import ModelEntry, list_models, model_entry, register_model
    from zoo.training.checkpoint import load_model, save_model
    from zoo.training.evaluation import evaluate
    from zoo.training.export import export_model
    from zoo.training.fit import fit
    from zoo.training.pretrained import load_pretrained, save_pretrained
    from zoo.training.shipped import list_pretrained
    from zoo.training.weights import create_model

__version__ = "0.1.0"

_HOMES = {
    "Batch": "zoo.data.spec",
    "DataSpec": "zoo.data.spec",
    "ModelEntry": "zoo.registry",
    "ZooError": "zoo.errors",
    "create_data": "zoo.data.registry",
    "create_model": "zoo.training.weights",
    "evaluate": "zoo.training.evaluation",
    "export_model": "zoo.training.export",
    "fit": "zoo.training.fit",
    "list_data": "zoo.data.registry",
    "list_models": "zoo.registry",
    "list_pretrained": "zoo.training.shipped",
    "load_model": "zoo.training.checkpoint",
    "load_pretrained": "zoo.training.pretrained",
    "model_entry": "zoo.registry",
    "register_data": "zoo.data.registry",
    "register_model": "zoo.registry",
    "save_model": "zoo.training.checkpoint",
    "save_pretrained": "zoo.training.pretrained",
}

_PACKAGES = ("analysis", "data", "kernels", "layers", "numerics", "optimizers", "text", "visual")

__all__ = [
    "Batch",
    "DataSpec",
    "ModelEntry",
    "ZooError",
    "create_data",
    "create_model",
    "evaluate",
    "export_model",
    "fit",
    "list_data",
    "list_models",
    "list_pretrained",
    "load_model",
    "load_pretrained",
    "model_entry",
    "register_data",
    "register_model",
    "save_model",
    "save_pretrained",
]


lean.install()


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"zoo.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
