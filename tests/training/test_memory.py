"""Memory does not grow with the number of rows that are streamed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
RUN = """
import json, resource, sys
from zoo.training.main import train
sys.argv = json.loads(sys.argv[1])
code = train()
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, code)
"""


def peak_memory(model: str, num_rows: int, folder: Path) -> int:
    """Peak resident memory, in MiB, of a model on streamed rows of 16 features."""
    overrides = f"model={model} data=blobs data.num_rows={num_rows} data.num_features=16 data.num_classes=8"
    overrides += (
        f" data.batch_size=65536 data.val_fraction=0 data.test_fraction=0 trainer.accelerator=cpu run_dir={folder}"
    )
    return peak_of(overrides.split())


def peak_of(overrides: list[str]) -> int:
    """Peak resident memory, in MiB, of `train.py` in a process of its own."""
    command = [sys.executable, "-c", RUN, json.dumps(["train.py", *overrides])]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    name, peak, code = done.stdout.splitlines()[-1].split()
    assert (name, code) == ("peak", "0")
    return int(peak)


@pytest.mark.slow
def test_ten_million_rows_take_no_more_than_a_hundred_thousand(tmp_path):
    model = "kmeans model.max_iter=3"
    few, many = (peak_memory(model, rows, tmp_path / str(rows)) for rows in (100_000, 10_000_000))
    assert many - few < 300


@pytest.mark.slow
def test_a_forest_on_twenty_million_rows_takes_no_more_than_on_two_hundred_thousand(tmp_path):
    """Measured: 974 MiB against 956, in 11 minutes on a core of a loaded machine."""
    model = "random_forest model.num_trees=4 model.max_depth=4 model.num_bins=64"
    few, many = (peak_memory(model, rows, tmp_path / str(rows)) for rows in (200_000, 20_000_000))
    assert many - few < 500


@pytest.mark.slow
def test_two_gigabytes_of_text_take_no_more_than_a_little(tmp_path):
    """Made by repetition, tokenized to a file and trained on for 100 steps, beyond the libraries and the model.

    Measured: see docs/text.md.
    """
    from pydoc_data.topics import topics

    block = "\n".join(topics[name] for name in sorted(topics)).encode()
    peaks = []
    for size in (len(block), 2 << 30):
        file, folder = tmp_path / f"{size}.txt", tmp_path / str(size)
        with open(file, "wb") as text:
            for _ in range(max(1, size // len(block))):
                text.write(block)
        overrides = f"model=lstm model.hidden_size=32 data=text_file data.path={file} data.tokenizer=bpe"
        overrides += f" data.vocab_size=4096 data.in_memory_limit=0 data.cache_dir={folder}"
        overrides += " data.batch_size=8 data.sequence_length=32"
        overrides += " data.val_fraction=0.0001 data.test_fraction=0.0001 trainer.max_steps=100 trainer.accelerator=cpu"
        peaks.append(peak_of([*overrides.split(), f"run_dir={folder / 'run'}"]))
        (tokens,) = (path for path in folder.glob("*.tokens") if path.stat().st_size > size // 100)
        tokens.unlink()
        file.unlink()
    assert peaks[1] - peaks[0] < 1000
