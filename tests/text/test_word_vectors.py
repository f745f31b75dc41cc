"""Word vectors and their files, beside gensim."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo import ZooError
from zoo.text import WordVectors
from zoo.text.vector_files import _BLOCK, read_vectors, write_vectors

WORDS = ["the", "été", "_new_york", "北京", "a-b", "#", "3.5"]


@pytest.fixture
def vectors() -> Tensor:
    values = torch.randn(len(WORDS), 5)
    values[0] = torch.tensor([0.0, -0.0, 1e-38, 3.4e38, 1 / 3])
    values[1] = torch.tensor([1e-45, 16777217.0, -1.0, 0.1, 123456.789])
    return values


@pytest.mark.parametrize("binary", [True, False])
def test_gensim_reads_what_we_write_and_we_what_it_writes(vectors: Tensor, binary: bool, tmp_path: Path) -> None:
    models = pytest.importorskip("gensim.models")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_vectors(ours, WORDS, vectors, binary=binary)
    read = models.KeyedVectors.load_word2vec_format(ours, binary=binary)
    assert read.index_to_key == WORDS
    assert np.array_equal(read.vectors, vectors.numpy())
    read.save_word2vec_format(str(theirs), binary=binary)
    assert ours.read_bytes() == theirs.read_bytes()
    words, again = read_vectors(theirs)
    assert words == WORDS
    assert torch.equal(again, vectors)


def test_every_float32_comes_back_from_text(tmp_path: Path) -> None:
    bits = torch.randint(-(2**31), 2**31, (40, 50), dtype=torch.int64).to(torch.int32).view(torch.float32)
    values = torch.where(bits.isfinite(), bits, 0.0)
    write_vectors(tmp_path / "v.txt", [f"w{i}" for i in range(40)], values.T.contiguous().T, binary=False)  # strided
    assert torch.equal(read_vectors(tmp_path / "v.txt")[1], values)


@pytest.mark.parametrize("name", ["v.bin", "v.txt", "v.bin.gz", "v.txt.gz"])
def test_files_of_more_than_a_block_come_back(name: str, tmp_path: Path) -> None:
    count = _BLOCK + 3
    words, values = [f"wörd{i}" for i in range(count)], torch.randn(count, 2, dtype=torch.float64).float()
    WordVectors(words, values).save(tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    header = gzip.decompress(raw) if name.endswith("gz") else raw
    assert header.startswith(f"{count} 2\n".encode())
    again = WordVectors.load(tmp_path / name)
    assert again.words == words
    assert torch.equal(again.vectors, values)
    found, some = read_vectors(tmp_path / name, only={"wörd7", f"wörd{count - 1}", "none"})
    assert found == ["wörd7", f"wörd{count - 1}"]
    assert torch.equal(some, values[[7, count - 1]])


def test_gloves_files_have_no_first_line_and_words_with_blanks(tmp_path: Path) -> None:
    file = tmp_path / "glove.txt"
    file.write_text("the 0.1 -0.2 3e-1\n. . . 1 2 3\nthe 9 9 9\n", encoding="utf-8")
    words, vectors = read_vectors(file)
    assert words == ["the", ". . ."]  # the first of a word that is there twice
    assert torch.equal(vectors, torch.tensor([[0.1, -0.2, 0.3], [1, 2, 3]]))
    with pytest.raises(ZooError, match=r"no room for the word '\. \. \.'"):
        write_vectors(tmp_path / "again", words, vectors)


def test_vectors_with_a_lines_end_behind_each_are_read(tmp_path: Path) -> None:
    row = np.arange(3, dtype="<f4").tobytes()
    (tmp_path / "v.bin").write_bytes(b"2 3\na " + row + b"\nb " + row + b"\n")
    assert read_vectors(tmp_path / "v.bin")[0] == ["a", "b"]


@pytest.mark.parametrize("binary", [True, False])
def test_a_file_that_is_cut_anywhere_is_refused_in_one_line(vectors: Tensor, binary: bool, tmp_path: Path) -> None:
    file = tmp_path / "v"
    write_vectors(file, WORDS, vectors, binary=binary)
    whole = file.read_bytes()
    last = len(whole) - (1 if binary else len(whole.rstrip().rsplit(b" ")[-1]) + 1)  # of text, in its last number
    for length in [*range(0, last, 7), last]:
        file.write_bytes(whole[:length])
        with pytest.raises(ZooError) as caught:
            read_vectors(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    file.write_bytes(whole + b"more 1 2 3 4 5\n")
    with pytest.raises(ZooError, match="more than the 7 words"):
        read_vectors(file)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"0 5\n", "0 words of 5 numbers"),
        (b"9999999999999 9999999999\na 1 2\n", "for which it is too short"),
        (b"2 2\na 1 2\nb 1\n", "vector 2 is not a word and 2 numbers"),
        (b"2 2\na 1 2\nb 1 x\n", "vector 2 is not a word and 2 numbers"),
        (b"2 2\na 1 2\nb 1 nan\n", "the vector of 'b' is not finite"),
        (b"2 2\na 1 2\n\xff\xfe 1 2\n", "word 2 is not UTF-8"),
        (b"hello\n", "no word with numbers"),
        (b"hello world and all\n", "vector 1 is not a word and 3 numbers"),
    ],
)
def test_what_is_no_file_of_vectors_is_refused_in_one_line(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(ZooError, match=why) as caught:
        read_vectors(tmp_path / "v")
    assert "\n" not in str(caught.value)


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="holds no word vectors"):
        read_vectors(tmp_path)
    with pytest.raises(ZooError, match="There are no word vectors at"):
        read_vectors(tmp_path / "none.bin")
    with pytest.raises(ZooError, match="is empty or parted"):
        write_vectors(tmp_path / "v", ["a b"], torch.ones(1, 1))
    with pytest.raises(ZooError, match="2 words need as many vectors"):
        write_vectors(tmp_path / "v", ["a", "b"], torch.ones(1, 1))


# -- asking them -----------------------------------------------------------------------------------------------------


def some_words(count: int = 60, dim: int = 4, dtype: torch.dtype = torch.float32) -> WordVectors:
    """Words in small and capital letters, some of which are the same word."""
    words = [f"word{i // 2}" if i % 2 else f"Word{i // 2}" for i in range(count)]
    return WordVectors(words, torch.randn(count, dim, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_are_those_of_gensim(dtype: torch.dtype) -> None:
    models = pytest.importorskip("gensim.models")
    ours = some_words(dtype=dtype)
    theirs = models.KeyedVectors(4, dtype=ours.vectors.numpy().dtype)
    theirs.add_vectors(ours.words, ours.vectors.numpy())
    for plus, minus in ((["Word3"], []), (["Word3", "word4"], ["Word9"]), (["word1"], ["word1", "Word2"])):
        found, wanted = ours.most_similar(plus, minus, 7), theirs.most_similar(plus, minus, 7)
        assert [word for word, _ in found] == [word for word, _ in wanted]
        assert [value for _, value in found] == pytest.approx([value for _, value in wanted], abs=2e-6)
    assert ours.similarity("Word3", "word3") == pytest.approx(float(theirs.similarity("Word3", "word3")), abs=2e-6)
    assert ours.near("Word3 + word4 - Word9", 7) == ours.most_similar(["Word3", "word4"], "Word9", 7)
    assert ours.analogy("Word9", "Word3", "word4", 7) == ours.most_similar(["Word3", "word4"], ["Word9"], 7)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_length_of_vectors_does_not_matter(scale: float) -> None:
    ours = some_words()
    scaled = WordVectors(ours.words, ours.vectors * scale)
    assert scaled.most_similar("Word3", k=1)[0][1] == pytest.approx(ours.most_similar("Word3", k=1)[0][1], rel=1e-5)


def test_few_words_vectors_of_zeros_and_unknown_words() -> None:
    words = WordVectors(["one", "none"], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert words.most_similar("one", k=5) == [("none", 0.0)]
    assert WordVectors(["one"], torch.ones(1, 2)).most_similar("one") == []
    with pytest.raises(ZooError, match=r"'onne' is none of the 2 words\. Did you mean "):
        words.analogy("one", "onne", "none")
    with pytest.raises(ZooError, match="k must be at least 1"):
        words.most_similar("one", k=0)
    with pytest.raises(ZooError, match="no word"):
        words.near(" ")
    for expression in ("one -", "one + - two", "+", "one ++ two"):
        with pytest.raises(ZooError, match="is no sum of words: write it like"):
            words.near(expression)


def test_pairs_and_questions_are_judged_as_gensim_judges_them(tmp_path: Path) -> None:
    models = pytest.importorskip("gensim.models")
    ours = some_words(dim=3)
    theirs = models.KeyedVectors(3)
    theirs.add_vectors(ours.words, ours.vectors.numpy())
    draw = torch.Generator().manual_seed(1)
    chosen = torch.randint(33, (80, 2), generator=draw).tolist()  # of which word 30, 31 and 32 are not there
    chosen = [[a, b] for a, b in chosen if a != b]  # whose cosine with itself is not always the same to gensim
    pairs = [f"wORD{a}\tword{b}\t{(a * b) % 7}" for a, b in chosen]
    (tmp_path / "pairs.txt").write_text("# remark\n" + "\n".join(pairs) + "\n")
    _, (spearman, _), share = theirs.evaluate_word_pairs(str(tmp_path / "pairs.txt"))
    (found,) = ours.rate_pairs(tmp_path)
    assert (found.name, found.judged + found.left_out) == ("pairs", len(chosen))
    assert found.value == pytest.approx(float(spearman), abs=1e-6)
    assert 100 * found.left_out / len(chosen) == pytest.approx(share)

    # Questions of which many are answered rightly: the fourth word is what one of two vector files says.
    lines = [": first part"]
    for number, four in enumerate(torch.randint(31, (300, 3), generator=draw).tolist()):
        if number == 150:
            lines.append(": second")
        known = [f"Word{i}" for i in four if i < 30]
        given = {word.upper() for word in known}
        near = ours.most_similar([known[1], known[2]], known[0], 6) if len(known) == 3 else [("word0", 0.0)]
        guess = next(word for word, _ in [*near, ("none", 0.0)] if word.upper() not in given)
        lines.append(" ".join([*(f"Word{i}" for i in four), guess.capitalize() if number % 3 else "word5"]))
    (tmp_path / "questions").write_text("\n".join(lines) + "\n")
    score, sections = theirs.evaluate_word_analogies(str(tmp_path / "questions"))
    found_all = ours.answer_questions(tmp_path / "questions")
    assert [section.name for section in found_all] == ["first part", "second", "all"]
    for ours_, section in zip(found_all, sections, strict=True):
        right, wrong = len(section["correct"]), len(section["incorrect"])
        assert ours_.judged == right + wrong
        assert ours_.value == pytest.approx(right / (right + wrong), abs=0.02)  # equal cosines are told apart otherwise
    assert 0.2 < score < 0.9
    assert found_all[-1].left_out == 300 - found_all[-1].judged > 0


def test_files_of_something_else_are_refused_with_their_line(tmp_path: Path) -> None:
    words = some_words()
    (tmp_path / "pairs").write_text("word1 word2 3.0\nword1 word2\n")
    with pytest.raises(ZooError, match="line 2: two words and their score"):
        words.rate_pairs(tmp_path / "pairs")
    (tmp_path / "questions").write_text("a b c d\n")
    with pytest.raises(ZooError, match="line 1: four words, below a line ': SECTION'"):
        words.answer_questions(tmp_path / "questions")
    with pytest.raises(ZooError, match="no file of pairs or questions"):
        words.answer_questions(tmp_path / "none")
    (tmp_path / "pairs").write_text("x y 3.0\n")
    (found,) = words.rate_pairs(tmp_path / "pairs")
    assert (found.judged, found.left_out) == (0, 1)
    assert np.isnan(found.value)


def test_the_published_files_are_read(shared_data: Path) -> None:
    folder = shared_data / "wordvec"
    words = WordVectors(["king", "queen", "Athens", "greece", "oslo", "norway"], torch.randn(6, 8))
    rated = {name: judged + out for name, _, judged, out in words.rate_pairs(folder / "word-sim")}
    assert rated["EN-WS-353-ALL"] == 353
    assert rated["EN-SIMLEX-999"] == 999
    sections = words.answer_questions(folder / "questions-words.txt")
    assert len(sections) == 15
    assert sections[-1].judged + sections[-1].left_out == 19544
    assert sections[0].judged == 2  # Athens and Oslo, in both orders
