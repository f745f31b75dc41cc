"""Sentence pairs: what is read, what is said after each token, and that no source is in two splits."""

from __future__ import annotations

import zipfile

import pytest
import torch

import zoo
from zoo.text import Tokenizer

PAIRS = [(f"go {i // 2} there", f"va {i} là-bas\u202f!") for i in range(60)]


@pytest.fixture
def file(tmp_path):
    lines = [f"{source}\t{target}\tthanks to {i}\n" for i, (source, target) in enumerate(PAIRS)]
    (tmp_path / "pairs.txt").write_text("".join(lines[:7]) + "\n" + "".join(lines[7:]), encoding="utf-8")
    return str(tmp_path / "pairs.txt")


def texts(tokens, mask, tokenizer, rows):
    return [tokenizer.decode(row[mask[i]] if mask is not None else row) for i, row in enumerate(tokens[:rows])]


def test_a_target_begins_with_one_token_and_ends_with_another(file) -> None:
    data = zoo.create_data("parallel_text", path=file, vocab_size=300)
    rows, tokenizer = data.rows("train"), Tokenizer.from_json(data.spec.tokenizer)
    batch = rows[torch.arange(len(rows))]
    expected = [PAIRS[i] for i in rows.index.tolist()]
    count = len(expected)
    assert texts(batch.source, batch.source_mask, tokenizer, count) == [s + "[EOS]" for s, _ in expected]
    assert texts(batch.target, batch.target_mask, tokenizer, count) == ["[BOS]" + t for _, t in expected]
    counted = batch.y != -100
    assert torch.equal(counted, batch.target_mask)
    assert texts(batch.y, counted, tokenizer, count) == [t + "[EOS]" for _, t in expected]
    assert torch.equal(batch.y[:, :-1][counted[:, 1:]], batch.target[:, 1:][counted[:, 1:]])
    assert (data.spec.kind, data.spec.task) == ("pairs", "translation")
    assert data.sample()[0] == (tokenizer.decode(batch.source[0, :1]), int(batch.source[0, 0]))


def test_no_source_is_in_two_splits(file) -> None:
    data = zoo.create_data("parallel_text", path=file, vocab_size=300, val_fraction=0.2, test_fraction=0.3)
    sources = {name: {PAIRS[i][0] for i in data.rows(name).index.tolist()} for name in ("train", "val", "test")}
    assert [len(found) for found in sources.values()] == [15, 6, 9]
    assert not sources["train"] & sources["test"]
    assert sum(len(data.rows(name)) for name in sources) == 60


def test_columns_and_length(file) -> None:
    data = zoo.create_data("parallel_text", path=file, source=1, target=0, max_length=2, vocab_size=300)
    batch = data.rows("train")[torch.arange(5)]
    assert batch.source.shape[1] == 3
    assert batch.target.shape[1] == 3
    loader = data.loader("train", shuffle=True)
    assert sum(batch.size for batch in loader) == len(data.rows("train"))


def test_pairs_with_a_longer_text_are_left_out(tmp_path) -> None:
    lines = ["a b c\tx", "a b\tx y z", "a  b\tx\u202f!", "c\tz y"]
    (tmp_path / "p.txt").write_text("\n".join(lines), encoding="utf-8")
    data = zoo.create_data("parallel_text", path=str(tmp_path / "p.txt"), max_words=2, vocab_size=300)
    assert list(data.pairs()) == [("a  b", "x\u202f!"), ("c", "z y")]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"a b\n", {}, "line 1 has 1 columns, and no column 1"),
        (b"a\tb\n\xff\tc\n", {}, "not UTF-8 text"),
        (b"", {}, "is empty"),
        (b"\n\n", {}, "has no pair"),
        (b"a\tb\n", {"special_tokens": ["pad"]}, "no token for the begin of a text"),
        (b"a b\tb c\n", {"max_words": 1}, r"no pair of at most data\.max_words=1 words"),
        (b"a\tb\n", {"max_words": 0}, r"data\.max_words must be at least 1"),
        (b"a\tb\n", {"source": -1}, r"data\.source must be at least 0"),
        (b"a\tb\n", {"vocab_size": 20}, r"data\.vocab_size=20 is too small"),
    ],
)
def test_mistakes_are_one_line(tmp_path, content, options, message) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(zoo.ZooError, match=message) as error:
        _ = zoo.create_data(
            "parallel_text", path=str(tmp_path / "p.txt"), val_fraction=0, test_fraction=0, **options
        ).spec
    assert "\n" not in str(error.value)
    with pytest.raises(zoo.ZooError, match="is no file"):
        _ = zoo.create_data("parallel_text").spec


@pytest.mark.slow
def test_the_pairs_of_tatoeba(shared_data, tmp_path) -> None:
    with zipfile.ZipFile(shared_data / "translation" / "tatoeba_fra_eng" / "fra-eng.zip") as archive:
        name = next(name for name in archive.namelist() if "readme" not in name.lower() and "about" not in name.lower())
        (tmp_path / "fra.txt").write_bytes(archive.read(name))
    data = zoo.create_data("parallel_text", path=str(tmp_path / "fra.txt"), vocab_size=8192)
    assert sum(len(data.rows(split)) for split in ("train", "val", "test")) == 142_787
    batch = data.rows("test")[torch.arange(100)]
    tokenizer = Tokenizer.from_json(data.spec.tokenizer)
    pair = (tmp_path / "fra.txt").read_text("utf-8").splitlines()[int(data.rows("test").index[99])].split("\t")
    assert tokenizer.decode(batch.source[99][batch.source_mask[99]]) == pair[0] + "[EOS]"
    assert tokenizer.decode(batch.target[99][batch.target_mask[99]]) == "[BOS]" + pair[1]
