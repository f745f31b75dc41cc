"""What predict.py costs: a million rows of a CSV to answers in Parquet, beside PyArrow's reading of the file alone.

Start-up is left out: the libraries are loaded and Hydra has composed the settings, which takes some 0.15 s more.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from omegaconf import OmegaConf

from benchmarks import Job
from zoo.training import main
from zoo.training.predict import predict_run

ROWS, FEATURES = 1_000_000, 10
PEAK = """
import sys
from pathlib import Path
from zoo.training.main import predict
code = predict()
lines = Path("/proc/self/status").read_text().splitlines()  # getrusage counts the process that forked, too
print(next(line for line in lines if line.startswith("VmHWM")).split()[1], file=sys.stderr)
sys.exit(code)
"""


def quietly(job: Callable[..., Any], *arguments: Any) -> Any:
    """Do what prints, without a word."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return job(*arguments)


def train(*overrides: str) -> None:
    """Train in this process."""
    with mock.patch.object(sys, "argv", ["train.py", *overrides]):
        code = quietly(main.train)
    if code:
        raise RuntimeError(f"train.py ended with {code}")


def jobs() -> Iterator[Job]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, FEATURES)).round(6)
    table = pa.table({f"x{i}": x[:, i] for i in range(FEATURES)})
    classes = np.array(["no", "yes"])[(x[:2000] @ rng.standard_normal(FEATURES) > 0).astype(int)]
    with tempfile.TemporaryDirectory() as work:
        new, run = Path(work, "new.csv"), Path(work, "run")
        pacsv.write_csv(table, new)
        pacsv.write_csv(table.slice(0, 2000).append_column("y", pa.array(classes)), Path(work, "train.csv"))
        data = ["data=csv", f"data.path={work}/train.csv", "data.target=y"]
        train("model=logistic_regression", *data, "trainer.accelerator=cpu", f"run_dir={run}")
        arguments = [f"run={run}", f"data.path={new}", f"output={work}/answers.parquet", "accelerator=cpu"]
        alone = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True)
        peak = int(alone.stderr.split()[-1]) * 1024 / 1e6
        settings = OmegaConf.load(Path(__file__).parents[1] / "configs" / "predict.yaml")
        settings = OmegaConf.merge(settings, OmegaConf.from_dotlist(arguments))
        yield Job(
            f"logistic_regression, {ROWS:,} × {FEATURES} rows of a CSV, memory of the process {peak:.0f} MB",
            lambda: quietly(predict_run, settings),
            lambda: pacsv.read_csv(new),
            "PyArrow's read_csv", pairs=9, bound=1.5,
        )  # fmt: skip
