"""Model cards: what a file of weights is, what it reached on which rows, and how to take it, in Markdown.

The head is that of Hugging Face's hub, so that `huggingface_hub.ModelCard` reads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo.models.base import ZooModel

__all__ = ["card", "facts_of_run"]

_UNITS = ((1 << 20, "MB"), (1 << 10, "kB"))


def facts_of_run(run: Path) -> dict[str, Any]:
    """Return what a run folder says of its model: data, metrics, and the command that made it, as far as it does."""
    from zoo.training.run_config import read_config

    facts: dict[str, Any] = {}
    if (run / "config.yaml").is_file():
        facts["data"] = read_config(run / "config.yaml")["data"]
    if (run / "metrics.json").is_file():
        found = json.loads((run / "metrics.json").read_text()).get("metrics", {})
        facts["metrics"] = {key: value for key, value in found.items() if key.startswith(("test/", "val/"))}
    if (run / "environment.json").is_file():
        facts["command"] = json.loads((run / "environment.json").read_text()).get("command")
    return {key: value for key, value in facts.items() if value}


def card(model: ZooModel, facts: dict[str, Any], size: int) -> str:
    """Return the card of a model's weights.

    Args:
        model: the model.
        facts: what is known of it: `data`, `metrics`, `licence`, `command`; each may be absent.
        size: of the file, in bytes.
    """
    assert model.spec is not None
    name, data = model.entry.name, str(facts.get("data", {}).get("name", "")) or "data of one's own"
    metrics = facts.get("metrics", {})
    count = sum(parameter.numel() for parameter in model.parameters())
    head = ["---", "library_name: zoo", *([f"license: {facts['licence']}"] if facts.get("licence") else [])]
    head += [f"tags:\n- zoo\n- {name}", *([f"datasets:\n- {data}"] if facts.get("data") else [])]
    head += _results(name, data, metrics) if metrics else []
    lines = [*head, "---", "", f"# {name} trained on {data}", "", model.entry.summary, ""]
    lines += ["| | |", "|---|---|", f"| model | `{name}` ({model.entry.source}) |"]
    lines += [f"| built for | {_cell(model.spec.describe())} |"]
    lines += [f"| parameters | {count:,} |"] if count else []
    lines += [f"| file | {_size(size)} |"]
    if model.spec.class_names and model.spec.target == "class":
        names = ", ".join(model.spec.class_names[:20]) + (", …" if len(model.spec.class_names) > 20 else "")
        lines += [f"| classes | {_cell(names)} |"]
    lines += [f"| licence | {_cell(facts['licence'])} |"] if facts.get("licence") else []
    lines += [f"| source of the data | {_cell(facts['source'])} |"] if facts.get("source") else []
    if metrics:
        lines += ["", "## What it reached", "", "| metric | value |", "|---|---|"]
        lines += [f"| {key} | {value:.6g} |" for key, value in metrics.items()]
    if facts.get("command"):
        lines += ["", "## How it was made", "", "```bash", facts["command"], "```"]
    lines += ["", "Hyperparameters: " + ", ".join(f"`{key}={value}`" for key, value in model.hparams.items()) + "."]
    lines += ["", "## How to take it", "", "```python", "import zoo", ""]
    lines += [f'model = zoo.load_pretrained("{facts.get("place", "FOLDER")}")', "model.predict(rows)", "```", ""]
    return "\n".join(lines)


def _results(name: str, data: str, metrics: dict[str, float]) -> list[str]:
    """The metrics as the hub reads them."""
    lines = [f"model-index:\n- name: {name}\n  results:\n  - task:\n      type: {name}\n    dataset:"]
    lines += [f"      name: {data}\n      type: {data}\n    metrics:"]
    return lines + [f"    - type: {key}\n      value: {value!r}" for key, value in metrics.items()]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _size(size: int) -> str:
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"
