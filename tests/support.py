"""What several test modules share: composing configs, running the commands in this process, tiny data for each kind."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import hydra
import sklearn.datasets
import torch
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import zoo
from zoo.data.base import Rows, TensorRows, ZooDataModule
from zoo.data.registry import _options, create_data, data_entries, list_data
from zoo.data.spec import Batch, DataSpec
from zoo.data.transactions import BasketRows
from zoo.models.base import StreamingModel, ZooModel
from zoo.registry import model_entry
from zoo.training.main import config_dir
from zoo.training.trainer import make_trainer

CHECKOUT = Path(__file__).resolve().parents[1]
CPU = "trainer.accelerator=cpu"


def compose(*overrides: str, name: str = "train") -> dict[str, Any]:
    """The config that a command line would give, as plain values."""
    return copy.deepcopy(_composed(name, overrides))  # what composing it takes is paid once


# Few short sequences, for machines that walk slowly; little text to validate and to test on.
SHORT = ["data.max_length=3", "data.val_length=4", "data.test_length=5", "data.num_rows=64", "data.val_rows=16",
         "data.test_rows=16"]  # fmt: skip
_LITTLE = ["data.val_fraction=0.01", "data.test_fraction=0.01"]
# What the tests over all models set, where a model's own data and hyperparameters would take long.
_SMALL = ["model.hidden_size=16", "model.num_heads=2"]
TINY: dict[str, list[str]] = {
    "cnn": ["model.channels=[8,8]"],
    "random_forest": ["model.num_trees=10"],
    "gradient_boosting": ["model.num_trees=20"],
    "tsne": ["data=iris", "model.num_steps=300"],
    "lstm": ["model.hidden_size=16"],
    "gru": ["model.hidden_size=16"],
    "rnn": ["model.hidden_size=16"],
    "bert": [*_SMALL, "model.num_layers=1", "data.sequence_length=16", *_LITTLE],
    "dnc": ["model.hidden_size=8", "model.num_slots=6", "model.slot_size=5", *SHORT],
    "gpt": [*_SMALL, "model.num_layers=2", "data.sequence_length=16", *_LITTLE],
    "transformer": [*_SMALL, "model.num_encoder_layers=1", "model.num_decoder_layers=1", "data.num_pairs=400"],
    "transformer_encoder": [*_SMALL, "model.num_layers=1"],
    "word2vec": ["model.embedding_size=16", "data.sequence_length=100", *_LITTLE],
    "draw": ["model.num_glimpses=3", "model.hidden_size=16"],
    "glove": ["data.sequence_length=30", "model.embedding_size=8", "model.window=4", "model.num_epochs=3"],
    "ntm": ["model.hidden_size=8", "model.num_slots=6", "model.slot_size=5", *SHORT],
    "ram": ["model.num_glimpses=3", "model.hidden_size=16", "model.glimpse_hidden_size=8"],
    "seq2seq": ["data.num_pairs=400", "model.hidden_size=16"],
}


class _ReadOnce:
    """In place of OmegaConf where Hydra reads files: to parse them takes a fourth of what composing does."""

    @staticmethod
    def load(file: Any) -> Any:
        return copy.deepcopy(_content(file.name, os.fstat(file.fileno()).st_mtime_ns))


@functools.cache
def _content(path: str, changed: int) -> Any:
    return OmegaConf.load(path)


def _files_read_once() -> Any:
    return mock.patch("hydra._internal.core_plugins.file_config_source.OmegaConf", _ReadOnce)


@functools.cache
def _composed(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"), _files_read_once():
        config = hydra.compose(name, list(overrides), return_hydra_config=False)
    if name == "train":
        config.run_dir = "runs/test"  # its time is known to Hydra's jobs only
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


@functools.cache
def model_config(name: str) -> dict[str, Any]:
    """The composed config of `model=NAME`, as the tests take it: its hyperparameters, its data, its optimizer."""
    return compose(f"model={name}", *TINY.get(name, []))


def _unseen(figure: Figure, file: Any, **options: Any) -> None:
    """In place of `Figure.savefig`: the head of a PNG file of no pixels."""
    head = b"\x89PNG\r\n\x1a\n" + bytes(16)
    file.write(head) if hasattr(file, "write") else Path(file).write_bytes(head)


_save_figure = Figure.savefig


def _roughly(figure: Figure, file: Any, **options: Any) -> None:
    """In place of `Figure.savefig`: all is drawn, once and with few pixels."""
    _save_figure(figure, file, format="png", dpi=50)


@contextlib.contextmanager
def _briefly(pictures: bool) -> Iterator[None]:
    """Leave out what takes three quarters of a tiny run and changes nothing of it.

    Hydra composes a config twice, first to find out whether `hydra.mode` is set in it. Pictures of the model are not
    drawn, and others not turned into pixels, unless `pictures`; test_evaluation.py draws those of every model, roughly.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Hydra, "get_mode", return_value=None))
        stack.enter_context(_files_read_once())
        if pictures:
            stack.enter_context(mock.patch.object(Figure, "savefig", _roughly))
        else:
            stack.enter_context(mock.patch("zoo.training.pictures.keep_pictures", return_value=[]))
            stack.enter_context(mock.patch.object(Figure, "savefig", _unseen))
            stack.enter_context(mock.patch.object(SummaryWriter, "add_figure"))
        yield


def run_command(
    arguments: Sequence[str], command: str = "train", *, pictures: bool = False, script: str | None = None
) -> int:
    """Run `train.py`, `evaluate.py` or `predict.py` in this process; return the exit code."""
    from zoo.training import main

    before, environment = sys.argv, dict(os.environ)
    sys.argv = [script or f"{command}.py", *arguments]
    GlobalHydra.instance().clear()
    try:
        with _briefly(pictures):
            return getattr(main, command)()
    finally:
        sys.argv = before
        os.environ.clear()
        os.environ.update(environment)
        GlobalHydra.instance().clear()


def run_forked(arguments: Sequence[str], cwd: Path, command: str = "train", *, path: str | None = None) -> list[str]:
    """Run a command in a fork of this process, which has imported all, and in its folder; return what it printed.

    The fork forgets nothing of this process and leaves nothing in it. `path` is a folder to import from before others.
    """
    printed = cwd / "printed.txt"

    def work() -> None:
        sys.stdout.flush(), sys.stderr.flush()
        file = os.open(printed, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, 1), os.dup2(file, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        os.chdir(cwd)
        sys.path[:0] = [path] if path else []
        sys.modules["__main__"].__spec__ = None  # what starts other processes takes sys.argv[0]
        code = run_command(arguments, command, script=str(CHECKOUT / f"{command}.py"))
        sys.stdout.flush()
        os._exit(code)

    process = torch.multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(300)
    process.kill()
    assert process.exitcode == 0, printed.read_text()
    return printed.read_text().splitlines()


def spawn(arguments: Sequence[str], cwd: Path, command: str = "train", **options: Any) -> subprocess.Popen:
    """Start `train.py` or `evaluate.py` as a user would, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, str(CHECKOUT / f"{command}.py"), *arguments],
        cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def bits(state: dict[str, Tensor]) -> str:
    """A digest of every bit of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + str(tensor.dtype).encode() + str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def checkpoint_bits(path: Path) -> str:
    """A digest of the model in a checkpoint."""
    return bits(torch.load(path, weights_only=True)["state_dict"])


def needs_files(data: str) -> bool:
    """Whether a DataModule reads the user's files, so that it has nothing to yield by itself."""
    return bool({"path", "root"} & set(_options(data_entries()[data].cls)))


def fitting_data(name: str) -> list[str]:
    """The embedded data that a model accepts."""
    found = {data for kind, target in model_entry(name).accepts for data in list_data(kind, target)}
    return sorted(data for data in found if not needs_files(data))


@functools.cache
def default_data(name: str) -> ZooDataModule:
    """The data that `model=NAME` trains on."""
    options = dict(model_config(name)["data"])
    return create_data(options.pop("name"), **options)


@functools.cache
def counts_folder() -> tempfile.TemporaryDirectory:
    """A folder, gone at the end, with a table of whole numbers from 0: iris in millimetres, and the species."""
    iris, folder = sklearn.datasets.load_iris(), tempfile.TemporaryDirectory()
    rows = zip((10 * iris.data).round().astype(int), iris.target_names[iris.target], strict=True)
    lines = ["a,b,c,d,species", *(",".join([*map(str, row), name]) for row, name in rows)]
    Path(folder.name, "counts.csv").write_text("\n".join(lines))
    return folder


def variant_options(name: str, hparams: dict[str, Any]) -> dict[str, Any]:
    """The data of a model with one of its solvers or likelihoods: its own, or whole numbers for counts."""
    if hparams.get("likelihood", "gaussian") == "gaussian":
        return dict(model_config(name)["data"])
    return {"name": "csv", "path": f"{counts_folder().name}/counts.csv", "target": "species", "standardize": False}


def variant_data(name: str, hparams: dict[str, Any]) -> ZooDataModule:
    """The data that a model with these hyperparameters takes."""
    options = variant_options(name, hparams)
    return create_data(options.pop("name"), **options)


def tiny_batch(data: ZooDataModule, num_rows: int = 48) -> Batch:
    """Some training rows, spread over the data so that every class is there."""
    rows = data.rows("train")
    return rows[torch.linspace(0, len(rows) - 1, min(num_rows, len(rows))).long()]


def create(name: str, data: ZooDataModule | DataSpec | None = None, seed: int = 0, **hparams: Any) -> ZooModel:
    """A model built for `data` (its own by default) with the hyperparameters of its config."""
    spec = data if isinstance(data, DataSpec) else (data or default_data(name)).spec
    torch.manual_seed(seed)
    options = {**model_config(name)["model"], **hparams}
    options.pop("name")
    return zoo.create_model(name, spec=spec, **options)


def fit_tiny(model: ZooModel, batch: Batch, steps: int = 30, lr: float = 3e-3) -> list[float]:
    """Fit a built model to one batch, without a trainer; return the loss before each step (none for streaming)."""
    if model.streaming:
        model.fit_batches(lambda: [batch], max_passes=200)  # type: ignore[operator]
        return []
    batch, losses = model.as_batch(batch), []
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        loss = model.training_loss(batch)  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def has_module(name: str) -> bool:
    """Whether a module can be imported here."""
    return importlib.util.find_spec(name) is not None


# What a solver or a likelihood asks for beside its name.
NEEDED: dict[str, dict[str, Any]] = {"randomized": {"num_components": 2}, "bernoulli": {"threshold": 30.0}}


def label(hparams: Any) -> str:
    return "-".join(map(str, hparams.values())) if isinstance(hparams, dict) else str(hparams)


def streaming_variants() -> list[tuple[str, dict[str, Any]]]:
    """Every streaming model with each of its likelihoods, and those that stream with one of their solvers."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name in zoo.list_models():
        hints = typing.get_type_hints(model_entry(name).cls.__init__)
        option = next((option for option in ("solver", "likelihood") if option in hints), "solver")
        choices = typing.get_args(hints.get(option)) if typing.get_origin(hints.get(option)) is Literal else ()
        variants = [{option: choice, **NEEDED.get(choice, {})} for choice in choices] or [{}]
        found += [(name, hparams) for hparams in variants if zoo.create_model(name, **hparams).streaming]
    return found


VARIANTS = streaming_variants()


def result(model: StreamingModel, batch: Batch, values: dict[str, Any]) -> dict[str, Tensor]:
    """What a user sees of a fitted model: its predictions and what it logged."""
    found = {f"logged {key}": torch.as_tensor(value, dtype=torch.float64) for key, value in values.items()}
    if type(model).predict_batch is not ZooModel.predict_batch:
        with torch.inference_mode():
            found |= model.eval().predict_batch(model.as_batch(batch))
    return found


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], bound: float, what: str) -> None:
    assert set(ours) == set(theirs), what
    for key, value in ours.items():
        if value.is_floating_point():
            scale = max(1.0, float(theirs[key].abs().max())) if value.numel() else 1.0
            assert torch.allclose(value, theirs[key], rtol=bound, atol=bound * scale, equal_nan=True), f"{what}: {key}"
        else:
            assert torch.equal(value, theirs[key]), f"{what}: {key}"


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def piece_of(batch: Batch, index: Tensor) -> Batch:
    """Some rows; of baskets, whose items lie one after the other, those of the rows."""
    if batch.items is None:
        return batch.rows(index)
    baskets = batch.items.split(batch.lengths.tolist())
    return Batch(items=torch.cat([baskets[i] for i in index]), lengths=batch.lengths[index])


def shuffled_halves(batch: Batch) -> tuple[Batch, Batch]:
    """Every second example and the others."""
    index = torch.arange(batch.size)
    return piece_of(batch, index[::2]), piece_of(batch, index[1::2])


class Held(ZooDataModule):
    """Some rows as data: to train, to validate and to test on."""

    name = "held"

    def __init__(self, spec: DataSpec, batch: Batch, batch_size: int = 16) -> None:
        super().__init__(batch_size=batch_size)
        self.held = spec, batch

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        spec, batch = self.held
        rows: Rows = TensorRows(batch) if batch.items is None else BasketRows(batch.items, batch.lengths)
        return spec, {"train": rows, "val": rows, "test": rows}


def in_two_processes(
    work: Callable[..., None], *arguments: Any, codes: tuple[int, int] | None = (0, 0)
) -> list[int | None]:
    """Call a function in two processes that find each other as under torchrun; return their exit codes.

    These must be `codes`, unless that is None. The processes are forks of this one, which has imported all that they
    need: that takes a fresh process longer than its work.
    """
    fork, port = torch.multiprocessing.get_context("fork"), str(free_port())
    processes = [fork.Process(target=_work_of, args=(rank, port, work, *arguments), daemon=True) for rank in (0, 1)]
    for process in processes:
        process.start()
    until = time.monotonic() + 400
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.kill()  # where the other has failed, it would be waited for
    for process in processes:
        process.join()
    found = [process.exitcode for process in processes]
    assert codes is None or found == list(codes), "what they said stands in the captured output"
    return found


def _work_of(rank: int, port: str, work: Callable[..., None], *arguments: Any) -> None:
    """One process of two."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", GROUP_RANK="0", LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=port, TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    work(*arguments)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # neither leaves before the other is done


def metrics_of(model: ZooModel, spec: DataSpec, batch: Batch, **options: Any) -> dict[str, float]:
    """The test metrics of some rows, five at a time."""
    trainer = make_trainer(model, accelerator="cpu", progress=False, **options)
    found = trainer.test(model, datamodule=Held(spec, batch, batch_size=5), verbose=False)
    return {key: float(value) for part in found for key, value in part.items()}
