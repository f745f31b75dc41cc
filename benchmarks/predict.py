"""What predict.py costs: a million rows of a CSV to answers in Parquet, beside PyArrow's reading of the file alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from benchmarks import Job
from zoo.training import main

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


def command(name: str, *arguments: str) -> None:
    """Run a command of the zoo in this process."""
    argv = mock.patch.object(sys, "argv", [f"{name}.py", *arguments])
    with argv, open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        code = getattr(main, name)()
    if code:
        raise RuntimeError(f"{name} ended with {code}")


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
        command("train", "model=logistic_regression", *data, "trainer.accelerator=cpu", f"run_dir={run}")
        arguments = [f"run={run}", f"data.path={new}", f"output={work}/answers.parquet", "accelerator=cpu"]
        alone = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True)
        peak = int(alone.stderr.split()[-1]) * 1024 / 1e6
        yield Job(
            f"logistic_regression, {ROWS:,} × {FEATURES} rows of a CSV, memory of the process {peak:.0f} MB",
            lambda: command("predict", *arguments),
            lambda: pacsv.read_csv(new),
            "PyArrow's read_csv", pairs=9, bound=1.5,
        )  # fmt: skip
