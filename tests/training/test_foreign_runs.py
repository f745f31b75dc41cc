"""Run folders from elsewhere: nothing in them is executed, and nothing that was altered is loaded."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import CPU, run_command

from zoo.training.checkpoint import save_checkpoint

PLUGIN = "from pathlib import Path\nPath({mark!r}).touch()\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, as someone might send it."""
    folder = tmp_path_factory.mktemp("foreign") / "run"
    assert run_command(["model=mlp", "data=iris", "trainer.max_epochs=1", CPU, f"run_dir={folder}"]) == 0
    return folder


class Payload:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, mark: Path, call: int) -> None:
        self.mark, self.call = mark, call

    def __reduce__(self) -> Any:
        return [
            (os.system, (f"touch {self.mark}",)),
            (exec, (f"open({str(self.mark)!r}, 'w')",)),
            (eval, (f"__import__('pathlib').Path({str(self.mark)!r}).touch()",)),
            (os.mkdir, (str(self.mark),)),
        ][self.call]


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("*.ckpt"))


def forget_sidecars(folder: Path) -> None:
    for path in checkpoints(folder):
        path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)


def plugin_in_config(folder: Path, mark: Path, rng: random.Random) -> None:
    """A module in the folder, named in its config; the folder is on Python's path already, at worst."""
    name = f"plugin_{rng.randrange(10**9)}"
    (folder / f"{name}.py").write_text(PLUGIN.format(mark=str(mark)))
    sys.path.insert(0, str(folder))
    config = folder / "config.yaml"
    named = rng.choice([f"[{name}]", name, f"[os, {name}]", f"\n- {name}"])
    config.write_text(config.read_text().replace("plugins: []", f"plugins: {named}"))


def object_in_config(folder: Path, mark: Path, rng: random.Random) -> None:
    """A config that YAML could make an object of."""
    config = folder / "config.yaml"
    tag = rng.choice(["!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system"])
    config.write_text(config.read_text() + f"extra: {tag} ['touch {mark}']\n")


def target_in_config(folder: Path, mark: Path, rng: random.Random) -> None:
    """A config that Hydra could call."""
    config = folder / "config.yaml"
    config.write_text(
        config.read_text().replace("\ndata:\n", f"\ndata:\n  _target_: os.system\n  _args_: ['touch {mark}']\n")
    )


def pickle_in_checkpoint(folder: Path, mark: Path, rng: random.Random) -> None:
    """The whole of a checkpoint is an enemy's, in one of the forms that torch reads."""
    forget_sidecars(folder)
    content = {"state_dict": {}, "zoo": {"model": "mlp"}, "payload": Payload(mark, rng.randrange(4))}
    how = rng.randrange(3)
    for path in checkpoints(folder):
        if how == 0:
            torch.save(content, path)
        elif how == 1:
            torch.save(content, path, _use_new_zipfile_serialization=False)
        else:
            path.write_bytes(pickle.dumps(content))


def pickle_in_archive(folder: Path, mark: Path, rng: random.Random) -> None:
    """A true checkpoint whose table of contents is an enemy's."""
    forget_sidecars(folder)
    for path in checkpoints(folder):
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                changed = pickle.dumps(Payload(mark, rng.randrange(4)), protocol=rng.choice([0, 2, 4]))
                archive.writestr(name, changed if name.endswith("data.pkl") else data)


def broken_config(folder: Path, mark: Path, rng: random.Random) -> None:
    """A config that is cut off, empty, or no table."""
    config = folder / "config.yaml"
    text = config.read_text()
    config.write_text(rng.choice(["", "[1, 2]", "data: {", text[: text.index("data:")], "\t" + text, "data: 3\n"]))


def altered_tensor(folder: Path, mark: Path, rng: random.Random) -> None:
    """Weights that were read, changed and written again."""
    forget_sidecars(folder)
    for path in checkpoints(folder):
        content = torch.load(path, weights_only=True)
        name = rng.choice(sorted(content["state_dict"]))
        content["state_dict"][name] = content["state_dict"][name] + 1
        torch.save(content, path)


def huge_model(folder: Path, mark: Path, rng: random.Random) -> None:
    """A model of terabytes, with digests that are right."""
    for path in checkpoints(folder):
        content = torch.load(path, weights_only=True)
        content["hyper_parameters"]["widths"] = [10 ** rng.randrange(8, 14)]
        save_checkpoint(content, path)


FOREIGN: list[Callable[[Path, Path, random.Random], None]] = [
    plugin_in_config, object_in_config, target_in_config, pickle_in_checkpoint, pickle_in_archive, altered_tensor,
    huge_model, broken_config,
]  # fmt: skip


def try_foreign(run: Path, folder: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Open a spoilt copy of a run with every command; each refuses it in one line."""
    rng, spoil = random.Random(seed), FOREIGN[seed % len(FOREIGN)]
    here, mark, path = Path(shutil.copytree(run, folder / f"{seed}")), folder / f"executed{seed}", list(sys.path)
    spoil(here, mark, rng)
    resume = ["model=mlp", "data=iris", "trainer.max_epochs=2", CPU, f"run_dir={here}"]
    commands = [([f"run={here}", "accelerator=cpu"], "evaluate"), (resume, "train")]
    try:
        for arguments, command in commands[: 1 if spoil in (plugin_in_config, huge_model) else 2]:
            code = run_command(arguments, command)
            error = capsys.readouterr().err
            assert not mark.exists(), f"{spoil.__name__}: {command} executed it"
            assert code == 1, f"{spoil.__name__}: {command} took it"
            assert error.startswith("error: "), error
            assert error.count("\n") == 1, error
    finally:
        sys.path[:] = path
    assert not (here / "evaluation").exists()


@pytest.mark.parametrize("seed", range(len(FOREIGN)), ids=[spoil.__name__ for spoil in FOREIGN])
def test_a_run_folder_from_elsewhere_executes_nothing_and_loads_nothing_altered(
    seed: int, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try_foreign(run, tmp_path, seed, capsys)


@pytest.mark.slow
def test_of_eighty_run_folders_from_elsewhere_none_is_executed_or_loaded_altered(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(80):
        try_foreign(run, tmp_path, seed, capsys)
    with capsys.disabled():
        print("80 run folders from elsewhere: 0 executed, 0 loaded altered")


def test_a_plugin_that_is_confirmed_is_imported(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tests above would prove nothing."""
    here, mark = Path(shutil.copytree(run, tmp_path / "run")), tmp_path / "executed"
    (tmp_path / "my_plugin.py").write_text(PLUGIN.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    config = here / "config.yaml"
    config.write_text(config.read_text().replace("plugins: []", "plugins: [my_plugin]"))
    assert run_command([f"run={here}", "accelerator=cpu"], "evaluate") == 1
    assert not mark.exists()
    assert run_command([f"run={here}", "accelerator=cpu", "plugins=[my_plugin]"], "evaluate") == 0
    assert mark.exists()
