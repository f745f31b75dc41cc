"""Documents as one text: every cut joins to the whole, at any byte."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma

import pytest

import zoo
from zoo.data import corpus as module
from zoo.data.corpus import Corpus


def read(corpus: Corpus, start: int, stop: int) -> list[str]:
    return ["".join(pieces) for _, pieces in corpus.read(start, stop)]


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_documents_are_read_as_they_are(tmp_path, monkeypatch, block) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)  # characters and line ends are broken between blocks
    (tmp_path / "a.txt").write_bytes("\ufeffüber\r\nden Wolken – 漢字\r😀\n".encode())
    (tmp_path / "b.txt").write_bytes(b"")
    corpus = Corpus([tmp_path / "a.txt", tmp_path / "b.txt", "third\n"])
    assert read(corpus, 0, corpus.size) == ["über\nden Wolken – 漢字\n😀\n", "third\n"]


@pytest.mark.parametrize("text", ["línea une\nzwei drei\nvier 漢字\n" * 9, "ein 漢字 😀 wört " * 20, "漢字😀é" * 30])
def test_parts_join_to_the_whole_wherever_they_are_cut(text: str) -> None:
    corpus = Corpus([text, text])
    whole = text + text
    for percent in range(1, 100):
        place = corpus.cut(percent / 100)
        assert abs(place - corpus.size * percent / 100) <= 40
        assert "".join(read(corpus, 0, place) + read(corpus, place, corpus.size)) == whole
        if "\n" in text:
            assert "".join(read(corpus, 0, place)).endswith("\n")


def test_spans_make_up_a_part(tmp_path) -> None:
    corpus = Corpus(["eins zwei\n" * 50, "", "drei\n" * 30])
    spans = corpus.spans(100, corpus.size, 64)
    assert spans[0][0] == 100
    assert spans[-1][1] == corpus.size
    assert all(a[1] == b[0] and a[0] < a[1] for a, b in itertools.pairwise(spans))
    assert "".join("".join(read(corpus, *span)) for span in spans) == "".join(read(corpus, 100, corpus.size))
    assert [follows for span in spans for follows, _ in corpus.read(*span)].count(True) == 1


def test_what_is_no_text_is_one_line(tmp_path, monkeypatch) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("gut – ".encode() + b"\xff\xfe")
    for block in (1 << 20, 4):
        monkeypatch.setattr(module, "_BLOCK", block)
        with pytest.raises(zoo.ZooError, match=r"not UTF-8 text .* at byte 8"):
            read(Corpus([file]), 0, 10)
    file.write_bytes("abc–".encode()[:-1])  # broken off in a character
    with pytest.raises(zoo.ZooError, match=r"not UTF-8 text .* at byte 3"):
        read(Corpus([file]), 0, 5)
    file.write_bytes(b"")
    with pytest.raises(zoo.ZooError, match=r"a\.txt is empty: there is nothing to learn from"):
        Corpus([file])
    with pytest.raises(zoo.ZooError, match="No such file"):
        Corpus([tmp_path / "b.txt"])


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_packed_files_are_read_as_what_is_in_them(tmp_path, suffix, pack) -> None:
    text = "línea une\nzwei drei\nvier 漢字\n" * 9
    plain, packed = tmp_path / "a.txt", tmp_path / f"a.txt{suffix}"
    plain.write_text(text, encoding="utf8")
    packed.write_bytes(pack(text.encode()))
    one, other = Corpus([plain, "end"]), Corpus([packed, "end"])
    assert one.cut(0.3) == other.cut(0.3)
    assert read(one, 7, one.size) == read(other, 7, other.size)
    for damaged in (packed.read_bytes()[:-5], b"no such format at all"):
        packed.write_bytes(damaged)
        with pytest.raises(zoo.ZooError, match=r"is truncated or damaged .*: fetch it again") as caught:
            Corpus([packed])
        assert "\n" not in str(caught.value)
