"""Checkpoints that are damaged, or read, changed and written again: none loads as anything but what was saved."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import create, default_data, tiny_batch

from zoo.errors import ZooError
from zoo.training.bounds import BoundedBuild
from zoo.training.checkpoint import load_checkpoint, load_model, save_checkpoint, save_model
from zoo.training.digests import check_digests, digests_of

MODELS = ("mlp", "kmeans", "linear_regression", "lstm", "cnn")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small checkpoints of several families."""
    folder = tmp_path_factory.mktemp("saved")
    for name in MODELS:
        model = create(name)
        if model.streaming:
            model.fit_batches(lambda name=name: [tiny_batch(default_data(name))], max_passes=2)
        save_model(model, folder / f"{name}.ckpt")
    return {name: folder / f"{name}.ckpt" for name in MODELS}


def same(a: Any, b: Any) -> bool:
    """Whether two contents are equal to the bit."""
    return digests_of(a) == digests_of(b)


# -- damage to the bytes --------------------------------------------------------------------------------------


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def blank(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    data[start : start + rng.choice([1, 64, 4096])] = bytes(len(data[start : start + rng.choice([1, 64, 4096])]))


def cut_out(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice([1, 64, 4096])]


def append(data: bytearray, rng: random.Random) -> None:
    data += rng.randbytes(rng.choice([1, 64, 4096]))


def swap_spans(data: bytearray, rng: random.Random) -> None:
    size = rng.choice([4, 64, 512])
    a, b = sorted(rng.randrange(max(1, len(data) - size)) for _ in range(2))
    first, second = bytes(data[a : a + size]), bytes(data[b : b + size])
    data[b : b + size], data[a : a + size] = first, second


BYTES: list[Callable[[bytearray, random.Random], None]] = [flip, truncate, blank, cut_out, append, swap_spans]


# -- changes of the content, written again by torch itself ----------------------------------------------------


def tensors(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in content["state_dict"].items() if value.numel()}


def pick(content: dict[str, Any], rng: random.Random) -> str:
    return rng.choice(sorted(tensors(content)))


def one_element(content: dict[str, Any], rng: random.Random) -> None:
    """The least change of one number: its lowest bit."""
    name = pick(content, rng)
    changed = content["state_dict"][name].clone().contiguous()
    raw = changed.reshape(-1).view(torch.uint8)
    raw[rng.randrange(changed.numel()) * changed.element_size()] ^= 1
    content["state_dict"][name] = changed


def another_type(content: dict[str, Any], rng: random.Random) -> None:
    name = pick(content, rng)
    tensor = content["state_dict"][name]
    content["state_dict"][name] = tensor.to(torch.float16 if tensor.dtype != torch.float16 else torch.float32)


def another_shape(content: dict[str, Any], rng: random.Random) -> None:
    name = pick(content, rng)
    content["state_dict"][name] = content["state_dict"][name].unsqueeze(0)


def swapped_tensors(content: dict[str, Any], rng: random.Random) -> None:
    state = content["state_dict"]
    names = sorted(state)
    rng.shuffle(names)
    a = names[0]
    b = next(name for name in names[1:] if not torch.equal(state[name], state[a]))  # ones for ones would change nothing
    state[a], state[b] = state[b], state[a]


def transposed(content: dict[str, Any], rng: random.Random) -> None:
    square = [n for n, t in content["state_dict"].items() if t.ndim == 2]
    name = rng.choice(square or [pick(content, rng)])
    tensor = content["state_dict"][name]
    content["state_dict"][name] = tensor.T.contiguous() if tensor.ndim == 2 else tensor.flatten().unsqueeze(0)


def dropped_tensor(content: dict[str, Any], rng: random.Random) -> None:
    del content["state_dict"][rng.choice(sorted(content["state_dict"]))]


def added_tensor(content: dict[str, Any], rng: random.Random) -> None:
    content["state_dict"]["more"] = torch.zeros(rng.randrange(1, 5))


def another_hyperparameter(content: dict[str, Any], rng: random.Random) -> None:
    hparams = content["hyper_parameters"]
    hparams[rng.choice(sorted(hparams))] = rng.choice([0, 1, 17, "zoo", None, 1e-3, [3]])
    hparams["seen"] = rng.random()


def another_spec(content: dict[str, Any], rng: random.Random) -> None:
    content["zoo"]["spec"]["feature_names"] = [str(rng.random())]


def another_model(content: dict[str, Any], rng: random.Random) -> None:
    content["zoo"]["model"] = rng.choice(["rnn", "gru", "pca", "bisecting_kmeans"])


def no_digests(content: dict[str, Any], rng: random.Random) -> None:
    one_element(content, rng)
    del content["digests"]


def another_digest(content: dict[str, Any], rng: random.Random) -> None:
    """Changed together with the digest of the tensor alone."""
    name = pick(content, rng)
    content["state_dict"][name] = content["state_dict"][name] + 1
    content["digests"][f"state_dict.{name}"] = digests_of({"state_dict": content["state_dict"]})[f"state_dict.{name}"]


CONTENT = [one_element, another_type, another_shape, swapped_tensors, transposed, dropped_tensor, added_tensor,
           another_hyperparameter, another_spec, another_model, no_digests, another_digest]  # fmt: skip


def spoil(path: Path, target: Path, rng: random.Random) -> str:
    """Write a spoilt copy of a checkpoint, with or without its sidecar; return what was done."""
    sidecar = target.with_name(f"{target.name}.sha256")
    sidecar.unlink(missing_ok=True)
    with_sidecar = rng.random() < 0.3
    if with_sidecar:
        sidecar.write_bytes(path.with_name(f"{path.name}.sha256").read_bytes())
    if rng.random() < 0.5:
        how: Any = rng.choice(BYTES)
        data = bytearray(path.read_bytes())
        how(data, rng)
        target.write_bytes(data)
    else:
        how = rng.choice(CONTENT)
        content = copy.deepcopy(torch.load(path, weights_only=True))
        how(content, rng)
        torch.save(content, target)
    return f"{path.name}: {how.__name__}{' beside its sidecar' if with_sidecar else ''}"


def count_damage(saved: dict[str, Path], folder: Path, times: int) -> tuple[int, int]:
    """Spoil checkpoints and load them; return how many were refused and how many loaded as if nothing had been done."""
    rng, refused, harmless = random.Random(5), 0, 0
    whole = {name: load_checkpoint(path) for name, path in saved.items()}
    for _ in range(times):
        name = rng.choice(MODELS)
        what = spoil(saved[name], folder / "spoilt.ckpt", rng)
        try:
            loaded = load_checkpoint(folder / "spoilt.ckpt")
        except ZooError as error:
            assert "spoilt.ckpt" in str(error), what  # noqa: PT017
            assert "\n" not in str(error), what  # noqa: PT017
            refused += 1
        else:  # a bit of the archive that means nothing, such as a date
            assert same(loaded, whole[name]), f"{what} loaded altered"
            assert not any(how.__name__ in what for how in CONTENT), what
            harmless += 1
    return refused, harmless


def test_a_damaged_or_changed_checkpoint_never_loads_altered(saved: dict[str, Path], tmp_path: Path) -> None:
    refused, harmless = count_damage(saved, tmp_path, 150)
    assert refused > 100
    assert refused + harmless == 150


@pytest.mark.slow
def test_of_two_thousand_damaged_or_changed_checkpoints_none_loads_altered(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    refused, harmless = count_damage(saved, tmp_path, 2000)
    print(f"2000 damaged or changed checkpoints: {refused} refused, {harmless} loaded equal to the bit, 0 altered")
    assert refused + harmless == 2000


@pytest.mark.parametrize("how", CONTENT)
def test_each_change_of_the_content_is_refused_without_the_sidecar(
    how: Any, saved: dict[str, Path], tmp_path: Path
) -> None:
    content = torch.load(saved["mlp"], weights_only=True)
    how(content, random.Random(1))
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ZooError, match=r"a\.ckpt was refused: .*(not what was saved|holds no digests)"):
        load_model(tmp_path / "a.ckpt")


def test_what_another_writer_saves_unchanged_loads_and_the_missing_sidecar_is_said(
    saved: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(torch.load(saved["lstm"], weights_only=True), tmp_path / "a.ckpt")
    assert same(load_checkpoint(tmp_path / "a.ckpt"), load_checkpoint(saved["lstm"]))
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'a.ckpt'} has no a.ckpt.sha256 beside it: its inner digests are checked alone."
    ]


def test_the_altered_tensor_is_named(saved: dict[str, Path], tmp_path: Path) -> None:
    content = torch.load(saved["mlp"], weights_only=True)
    name = sorted(content["state_dict"])[0]
    content["state_dict"][name] = content["state_dict"][name] + 1
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ZooError, match=rf"a\.ckpt was refused: state_dict\.{name} is not what was saved"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.bool, torch.complex64, torch.int8, torch.uint8])
def test_digests_know_every_type_and_no_strides(dtype: torch.dtype) -> None:
    tensor = torch.arange(24).reshape(4, 6).to(dtype)
    for view in (tensor, tensor.T, tensor[::2, 1::3], tensor[:0], tensor[1, 1], tensor.mT.contiguous().mT):
        assert digests_of({"t": view}) == digests_of({"t": view.clone(memory_format=torch.contiguous_format)})
    assert digests_of({"t": tensor}) != digests_of({"t": tensor.T})


def test_names_that_look_alike_are_told_apart() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert digests_of({"a": {"b": one}, "a.b": two})[""] != digests_of({"a": {"b": two}, "a.b": one})[""]
    assert digests_of({"a": [1, 2]}) != digests_of({"a": (1, 2)})
    assert digests_of({"a": 1}) != digests_of({"a": True})
    assert digests_of({"a": 0.0}) != digests_of({"a": -0.0})


# -- what a few bytes can ask for -----------------------------------------------------------------------------


def laughs() -> Iterator[Any]:
    """Lists of lists of the same lists: ten lines of pickle, ten billion values."""
    value: Any = "ha"
    for _ in range(10):
        value = [value] * 10
    yield value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {"state_dict": {}, "laughs": next(laughs())}, "more values than it can hold"),
        (lambda: {"state_dict": {"w": torch.zeros(1).expand(10**12)}}, "more elements than its memory holds"),
        (lambda: {"w": torch.zeros(9).as_strided((3, 9), (0, 1))}, "more elements than its memory holds"),
        (lambda: {"state_dict": {"w": torch.eye(3).to_sparse()}}, "only dense ones are kept"),
        (lambda: [1, 2], "it holds a list"),
    ],
)  # fmt: skip
def test_contents_that_grow_when_they_are_read_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "a.ckpt")
    with pytest.raises(ZooError, match=message) as caught:
        load_checkpoint(tmp_path / "a.ckpt")
    assert "a.ckpt" in str(caught.value)


def test_a_compressed_archive_that_unpacks_to_more_than_it_holds_is_refused(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    import zipfile

    with (
        zipfile.ZipFile(saved["mlp"]) as archive,
        zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in archive.namelist():
            bomb.writestr(name, archive.read(name))
        bomb.writestr("mlp/data/99", bytes(50_000_000))
    with pytest.raises(ZooError, match=r"a\.ckpt was refused: it unpacks to 50,"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mlp", {"widths": [10**9]}),
        ("mlp", {"widths": [4] * 3000}),
        ("lstm", {"hidden_size": 10**7}),
        ("lstm", {"num_layers": 999, "hidden_size": 10}),
        ("kmeans", {"num_clusters": 10**12}),
        ("cnn", {"channels": [10**8]}),
    ],
)
def test_sizes_that_the_tensors_do_not_have_are_refused_and_not_built(
    name: str, change: dict[str, Any], saved: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digests are right: the whole file was made by an enemy."""
    content = torch.load(saved[name], weights_only=True)
    assert set(change) <= set(content["hyper_parameters"])
    content["hyper_parameters"].update(change)
    save_checkpoint(content, tmp_path / "a.ckpt")
    with pytest.raises(ZooError, match=r"a\.ckpt: (lstm: )?its hyperparameters ask for .* it was not built"):
        load_model(tmp_path / "a.ckpt")


def test_the_bound_counts_what_grows_from_a_tensor_too() -> None:
    small = torch.zeros(2)
    for grow in (lambda: small.repeat(10**12), lambda: small.new_zeros(10**12), lambda: torch.zeros(10**12),
                 lambda: small.expand(10**12, 2).clone()):  # fmt: skip
        with pytest.raises(ZooError, match="it was not built"), BoundedBuild({}):
            grow()


def test_a_digest_in_the_wrong_form_is_refused() -> None:
    for wrong in (None, [], {}, {"": 3}, "0" * 64):
        with pytest.raises(ZooError, match=r"digests|not what was saved"):
            check_digests({"a": 1}, wrong, most_values=100)


def test_an_expanded_buffer_is_saved_with_memory_of_its_own(tmp_path: Path) -> None:
    content = {"state_dict": {"bounds": torch.ones(3, 1).expand(3, 5)}, "more": [(torch.zeros(1).expand(4), 1)]}
    save_checkpoint(content, tmp_path / "a.ckpt")
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(loaded["state_dict"]["bounds"], torch.ones(3, 5))
    assert torch.equal(loaded["more"][0][0], torch.zeros(4))
