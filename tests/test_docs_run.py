"""Every command and every Python block that README and docs show is run, in a folder with what a reader would have.

They are run as they stand: a run that a page calls `runs/cnn/digits/TIME` lies at that path. Behind a command that
trains stand overrides that keep it short (`SHORT`, `SMALL`); what is not run stands in `NOT_RUN` with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sklearn.datasets
import torch
from pages import PAGES, SHELL, combinations, ends_of_intervals, split_code
from reader import fill
from support import CHECKOUT, CPU, compose, run_command

import zoo
from zoo.training.cluster import asked
from zoo.training.main import _quoted

pytestmark = pytest.mark.slow

# What is not run here, by what a command looks like, and why.
NOT_RUN = {
    r"\bNAME\b|…|=\.\.\.|zoo \.\.\.": "stands for any",
    r"plugins=": "trains a model of the reader's own: docs/examples/own_model.py does",
    r"^pip install": "needs the package index",
    r"^make ": "makes an environment from the package index; what it runs there is this suite, or shown by itself",
    r"^\.venv/bin/": "works in the environment that make makes",
    r"^pytest": "is a part of this suite",
    r"^python -m benchmarks": "measures for minutes, by the clock",
    r"^zoo-export format=": "is of a run",
    r"^tensorboard": "serves until it is ended; test_pictures.py reads what it would show",
    r"^(python demo\.py|zoo-demo|zoo demo)": "serves until it is ended: test_demo_page.py opens it",
    r"^python tests/training/kills\.py": "kills runs for minutes: test_kills.py does so briefly",
    r"^python tests/attention_cases\.py": "is what test_attention_triton.py runs",
    r"data=cifar10": "downloads 170 MB",
    r"s3://|cluster=ray": "needs an object store: test_object_stores.py has one on the loopback",
    r"--nnodes=2": "needs two machines: test_torchrun.py has two agents",
    r"submitit_slurm|^#!/bin/bash": "needs SLURM",
    r"trainer\.devices=8": "needs eight GPUs",
}

# Behind what trains by steps.
_SPLITS = ("train", "val", "test")
SHORT = [
    "trainer.max_epochs=1",
    *(f"trainer.limit_{split}_batches=2" for split in _SPLITS),
]  # fmt: skip
# Behind a model, or data, with which a run takes long.
SMALL = {
    r"model=(gpt|bert) ": ["model.hidden_size=16", "model.num_heads=2", "model.num_layers=1"],
    r"model=transformer_encoder ": ["model.hidden_size=16", "model.num_heads=2", "model.num_layers=1"],
    r"model=transformer ": [
        "model.hidden_size=16", "model.num_heads=2", "model.num_encoder_layers=1", "model.num_decoder_layers=1",
    ],
    r"model=(lstm|gru|rnn|seq2seq) ": ["model.hidden_size=16"],
    r"model=draw ": ["model.num_glimpses=2", "model.hidden_size=16"],
    r"model=word2vec ": ["model.embedding_size=8"],
    r"model=glove ": ["model.embedding_size=8", "model.num_epochs=2"],
    r"model=ntm ": ["trainer.val_check_interval=1.0"],
    r"model=tsne ": ["model.num_steps=300"],
    r"model=tsne data=mnist": [f"trainer.limit_{split}_batches=2" for split in _SPLITS],
    r"data=dates": ["data.num_pairs=200"],
    r"data=(blobs|regression|adding)": ["data.num_rows=1000"],
    r"data=(copy|repeat_copy|associative_recall|priority_sort|ngram)": [
        "data.num_rows=32", "data.val_rows=16", "data.test_rows=16",
    ],
}  # fmt: skip

# What stands in a command in the place of a number with which it takes minutes.
FEWER = {
    "data.num_rows=10000000": "data.num_rows=20000",
    "data.num_rows=1000000": "data.num_rows=20000",
    "model.num_clusters=100": "model.num_clusters=8",
    "model.num_steps=750": "model.num_steps=300",
}
# Commands that show how they fail.
CODES = {"python train.py -m model=mlp,linear_regression,naive_bayes data=iris trainer.max_epochs=2": 1}

# What a run is trained on and with, where that is not what its model and data take by themselves.
OWN = {
    "logistic_regression/breast_cancer": ["model.solver=gradient"],
    "csv": ["data.path=table.csv", "data.target=y"],
    "text_file": ["data.path=input.txt"],
    "parallel_text": ["data.path=pairs.txt"],
    "series": ["data.path=sales.csv", "data.column=sales", "data.window=24", "data.horizon=7"],
}
# The run that a page calls RUN.
RUN_OF = {
    "data.md": "model=mlp data=csv data.path=table.csv data.target=y",
    "glimpse.md": "model=ram",
    "memory.md": "experiment=ntm_copy",
    "text.md": "model=svm data=csv data.path=sms.csv data.text=text data.target=type data.view=counts",
    "training.md": "model=mlp data=iris",
    "transformer.md": "model=transformer",
    "transformer.md model=bert": "model=bert",
    "transformer.md model=gpt": "model=gpt",
    "word_vectors.md": "model=word2vec data=text_file data.path=input.txt data.tokenizer=word",
}

COMMAND = re.compile(r"(python|python3|zoo|zoo-\w+|make|pip|pytest|torchrun|tensorboard|eval|\.venv/bin/\S+) \S")
IN_PROCESS = re.compile(
    r"(?:python (\w+)\.py|zoo-(\w+)|(?:python -m )?zoo (train|evaluate|predict|export|list|help))\b(?!.*[|<>;$&])"
)
PROCESSES = re.compile(r"trainer\.(devices|strategy)=")  # start this program again


def lines_of(page: Path) -> Iterator[str]:
    """The commands of a page, without comments: of shell blocks, at the prompts of others, and inline."""
    blocks, prose = split_code(page)
    for language, code in blocks:
        if code.startswith("#!"):
            yield code
        elif language in (*SHELL, "text", ""):
            for line in code.replace("\\\n", " ").splitlines():
                prompt, line = line.startswith("$ "), re.sub(r"(^|\s)#.*", "", line.removeprefix("$ ")).strip()
                if line and (prompt or language in SHELL):
                    yield line
    inline = re.findall(r"`([^`\n]+)`", prose)
    yield from (code for code in inline if COMMAND.match(code) and not re.fullmatch(r"python \w+\.py|zoo \w+", code))


COMMANDS = [(page.name, line) for page in PAGES for line in dict.fromkeys(lines_of(page))]


def reason(line: str) -> str | None:
    """Why a command is not run."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, line)), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder, in the checkout so to say."""
    folder = tmp_path_factory.mktemp("reader")
    fill(folder)
    for script in CHECKOUT.glob("*.py"):
        (folder / script.name).symlink_to(script)
    mnist = CHECKOUT.parent / "shared" / "data" / "MNIST"
    if mnist.is_dir():
        (folder / "data").mkdir()
        (folder / "data" / "MNIST").symlink_to(mnist)
    return folder


@pytest.fixture(autouse=True)
def _in_the_folder(folder: Path, as_it_was: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def shortened(arguments: list[str]) -> list[str]:
    """The overrides that keep a training short, but for keys that it sets."""
    overrides = [_quoted(argument) for argument in asked(arguments)[0] if not argument.startswith("-")]
    settings = compose(*next(combinations(ends_of_intervals(overrides))))
    options = dict(settings["model"])
    name, data = options.pop("name"), settings["data"]["name"]
    short = [] if zoo.create_model(name, **options).streaming else list(SHORT)
    for pattern, more in SMALL.items():
        short += more if re.search(pattern, f"model={name} data={data}") else []
    given = {argument.partition("=")[0] for argument in arguments}
    return [CPU, *(override for override in short if override.partition("=")[0] not in given)]


def make_runs(page: str, text: str) -> None:
    """Train the runs that a text reads, at the paths that it says."""
    for path, model, data in re.findall(r"(runs/(\w+)/(\w+)/(?:TIME\w*|RUN|\.\.\.))", text):
        own = [*OWN.get(data, []), *OWN.get(f"{model}/{data}", [])]
        train(path, [f"model={model}", f"data={data}", *own])
    if re.search(r"\bRUN\b(?<!/RUN)", text):
        model = re.search(r"model=\w+", text)
        command = RUN_OF.get(f"{page} {model and model[0]}") or RUN_OF[page]
        path = Path("runs", re.sub(r"\W+", "_", command))
        train(str(path), shlex.split(command))
        Path("RUN").unlink(missing_ok=True)
        Path("RUN").symlink_to(path)


def train(path: str, arguments: list[str]) -> None:
    if not Path(path).is_dir():
        assert run_command([*arguments, *shortened(arguments), f"run_dir={path}"]) == 0, path


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value[:90])
def test_commands_that_the_docs_show_run(page: str, line: str) -> None:
    if why := reason(line):
        pytest.skip(why)
    if "mnist" in line and not Path("data").is_dir():
        pytest.skip("MNIST is not there")
    make_runs(page, line)
    fewer = line
    for many, few in FEWER.items():
        fewer = fewer.replace(many, few)
    words = shlex.split(fewer) if IN_PROCESS.match(line) else []
    found = IN_PROCESS.match(line)
    command = next((part for part in found.groups() if part), "") if found else ""
    place = 2 if re.match(r"python \w+\.py|zoo ", line) else 4 if line.startswith("python -m zoo") else 1
    if found and not PROCESSES.search(line):
        if command in ("list", "help"):
            arguments = [f"list={word}" for word in words[place:]] if command == "list" else ["--help", *words[place:]]
            assert run_command(arguments) == 0
            return
        arguments = words[place:]
        trains = command == "train" and not any(re.match(r"--(help|shell)|list=", word) for word in arguments)
        expected = CODES.get(line, 0)
        assert run_command([*arguments, *(shortened(arguments) if trains else [])], command) == expected
        return
    if "train.py" in line and "--shell" not in line:
        line += " " + " ".join(shortened(shlex.split(line.partition("train.py")[2])))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
        "HOME": str(Path.cwd()),
    }
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_every_reason_is_of_a_command() -> None:
    idle = [pattern for pattern in NOT_RUN if not any(re.search(pattern, line) for _, line in COMMANDS)]
    assert not idle


# What the Python blocks of a page take as given, beside `torch`, `zoo`, rows X with classes y, and new rows.
GIVEN = {
    "README.md": """
        frame = {"size": [40.0, 90.0, 120.0] * 8, "city": ["Bern", "Chur", "Basel"] * 8}
        labels = ["cheap", "dear", "dear"] * 8
    """,
    "agglomerative_clustering.md": "x = torch.as_tensor(X); distances = torch.cdist(x, x)",
    "analysis.md": "table = X; runs = ['runs/rnn/adding/TIME', 'runs/lstm/adding/TIME', 'runs/gru/adding/TIME']",
    "cnn.md": "images, labels = torch.rand(24, 1, 12, 12), [0, 1, 2] * 8",
    "data.md": """
        import pyarrow
        from torch.utils.data import DataLoader, TensorDataset
        frame = pyarrow.table({**{name: column for name, column in zip("abcd", X.T)}, "label": y})
        dataset = {"train": frame}
        torch_dataset = TensorDataset(torch.as_tensor(X), torch.as_tensor(y))
    """,
    "export.md": """
        import numpy
        model, rows = zoo.fit(zoo.create_model("logistic_regression"), X, numpy.array(["a", "b", "c"])[y]), X
    """,
    "glimpse.md": """
        glimpses, logits, mask = torch.randn(2, 5, 3), torch.randn(2, 5), torch.ones(2, 5, dtype=torch.bool)
        task_loss, baseline = torch.rand(2), torch.rand(2)
    """,
    "gpt.md": "model = zoo.load_model('runs/gpt/text_file/TIME')",
    "gradient_boosting.md": """
        import lightgbm
        options = {"objective": "binary", "verbose": -1}
        lightgbm.train(options, lightgbm.Dataset(X, y == 1), 5).save_model("model.txt")
    """,
    "kernel_svm.md": "labels = y",
    "kmeans.md": """
        import numpy
        w, D = numpy.ones(len(X)), X.shape[1]
        spec, centroids = zoo.DataSpec(kind="tabular", shape=(D,)), torch.as_tensor(X[:10])
        batches = [zoo.data.Batch(x=torch.as_tensor(X))]
    """,
    "linear_regression.md": "y = X @ [1.0, -1.0, 2.0, 0.5] + 3",
    "naive_bayes.md": "counts, labels = (10 * abs(X)).round(), y",
    "pretrained.md": "images = torch.randint(0, 256, (3, 28, 28))",
    "recurrent.md": "forecaster, history = zoo.load_model('runs/gru/series/TIME'), torch.arange(100.0)",
    "svm.md": "labels = y",
    "text.md": "model = small = zoo.load_model('runs/gru/python_source/TIME')",
    "tsne.md": "X_new = X[:3] + 0.1",
    "word_vectors.md": "import shutil; shutil.copy('runs/glove/text_file/.../vectors.bin', 'vectors.bin')",
}
# Python blocks that are not run, by what they have, and why.
NOT_EXECUTED = {'strategy="fsdp"': "starts the program that it stands in once more: test_sharding.py has the command"}


def blocks_of(page: Path) -> list[str]:
    return [code for language, code in split_code(page)[0] if language == "python"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.name)
def test_python_blocks_run(page: Path) -> None:
    """The blocks of a page one after the other, as they are read."""
    iris = sklearn.datasets.load_iris()
    namespace: dict[str, Any] = {"torch": torch, "zoo": zoo, "X": iris.data, "y": iris.target, "new": iris.data[:5]}
    given = textwrap.dedent(GIVEN.get(page.name, ""))
    make_runs(page.name, given)
    exec(given, namespace)
    text = page.read_text()
    for code in blocks_of(page):
        if any(mark in code for mark in NOT_EXECUTED):
            continue
        make_runs(page.name, re.sub(r"#.*", "", code))
        first = text[: text.index(code)].count("\n")
        exec(compile("\n" * first + code, str(page), "exec"), namespace)  # its errors name the line of the page
