"""Tokenizers: what goes in comes out, published vocabularies give published ids, and mistakes are one line."""

from __future__ import annotations

import gzip
import json
from pydoc_data.topics import topics

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.text import Tokenizer
from zoo.text.learning import KINDS, ROLES
from zoo.text.pieces import pieces_of

TEXT = "To be, or not to be:\nthat is the question – “Whether”\r\n\n  'tis nobler\tin the mind. " * 400
BYTES = Tokenizer.train([TEXT], "bpe", 300)
SIZES = {"char": 100, "word": 30, "bpe": 300, "wordpiece": 120, "unigram": 60}


# -- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_what_goes_in_comes_out(kind: str) -> None:
    tokenizer = Tokenizer.train([TEXT], kind, SIZES[kind])
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_gives_one_vocabulary(kind: str) -> None:
    """The library counts words in tables whose order is drawn anew for each, which must not be seen.

    WordPiece broke ties by it, and Unigram's rare characters, here the ideographs, changed places.
    """
    texts = [*sorted(topics.values())[:10], "".join(f"{chr(0x4E00 + i)} " for i in range(200))]
    size = {"char": 400, "bpe": 800}.get(kind, 1500)
    first, *others = (Tokenizer.train(iter(texts), kind, size, special_tokens=["pad"]).to_json() for _ in range(3))
    assert all(other == first for other in others)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_bytes_give_back_any_text(text: str) -> None:
    assert BYTES.decode(BYTES.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="[]PADUNK</s>mask <|endoftx>", max_size=40))
def test_special_tokens_are_not_found_in_a_text(text: str) -> None:
    tokenizer = special_bytes()
    ids = tokenizer.encode(text + "[MASK][PAD]<|endoftext|>")
    assert int(ids.min()) >= len(ROLES)
    assert tokenizer.decode(ids) == text + "[MASK][PAD]<|endoftext|>"


_SPECIAL: list[Tokenizer] = []


def special_bytes() -> Tokenizer:
    if not _SPECIAL:
        _SPECIAL.append(Tokenizer.train([TEXT], "bpe", 300, special_tokens=list(ROLES)))
    return _SPECIAL[0]


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_are_cut_without_trace(kind: str) -> None:
    """The same ids as of the whole text at once, of lines, of one long line, and of many blanks."""
    tokenizer = Tokenizer.train([TEXT], kind, SIZES[kind])
    for text in (TEXT, TEXT.replace("\n", " "), "a  b   c d" * 5000):
        assert "".join(pieces_of([text])) == text
        assert len(list(pieces_of([text]))) > 1
        whole = tokenizer.backend.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text).tolist() == whole


@pytest.mark.parametrize("size", [1, 999, 30_000])
def test_blocks_that_are_cut_anywhere_make_up_the_same_pieces_of_tokens(size: int) -> None:
    text = TEXT * 3
    pieces = list(pieces_of(text[i : i + size] for i in range(0, len(text), size)))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 40_000
    assert [i for part in BYTES.stream(pieces) for i in part.tolist()] == BYTES.encode(text).tolist()


def test_a_text_without_any_blank_is_cut_too() -> None:
    text = "ab" * 50_000
    assert max(len(piece) for piece in pieces_of([text])) <= 40_000
    assert "".join(pieces_of([text])) == text
    assert BYTES.decode(BYTES.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_json_and_file_are_the_whole_tokenizer(kind: str, tmp_path) -> None:
    tokenizer = Tokenizer.train([TEXT], kind, SIZES[kind], special_tokens={"pad": 3, "unknown": 7})
    tokenizer.save(tmp_path / "tokenizer.json")
    ids = tokenizer.encode(TEXT)
    for again in (Tokenizer.from_json(tokenizer.to_json()), Tokenizer.load(tmp_path)):
        assert torch.equal(again.encode(TEXT), ids)
        assert again.vocabulary == tokenizer.vocabulary
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode(TEXT, add_special_tokens=False).ids == ids.tolist()


def test_many_texts_and_their_offsets() -> None:
    texts = ["to be", "", "that is [PAD] new\n"]
    flat, lengths = BYTES.encode_all(texts)
    for text, ids in zip(texts, flat.split(lengths.tolist()), strict=True):
        assert BYTES.decode(ids) == text
    found = BYTES.tokenize("to be\n")
    assert "".join("to be\n"[a:b] for a, b in found.offsets) == "to be\n"
    assert found.ids == BYTES.encode("to be\n").tolist()


# -- vocabularies ----------------------------------------------------------------------------------------------------


def test_characters_are_the_sorted_alphabet() -> None:
    tokenizer = Tokenizer.train(["cab"], "char")
    assert tokenizer.encode("abc").tolist() == [1, 2, 3]
    assert tokenizer.encode("abz").tolist() == [1, 2, 0]  # unknown
    assert tokenizer.vocabulary == ["[UNK]", "a", "b", "c"]
    assert Tokenizer.train(["aabbc"], "char", 3).vocabulary == ["[UNK]", "a", "b"]  # the most frequent
    assert Tokenizer.train(["aabbc"], "char", min_count=2).vocabulary == ["[UNK]", "a", "b"]


def test_words_by_frequency_and_in_small_letters() -> None:
    tokenizer = Tokenizer.train(["To be or", " not to be"], "word", 4, lowercase=True)
    assert tokenizer.vocabulary == ["[UNK]", "be", "to", "not"]
    assert tokenizer.encode("TO zebra").tolist() == [2, 0]
    assert Tokenizer.train(["a a b"], "word", min_count=2).vocabulary == ["[UNK]", "a"]


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_the_ids_that_are_asked_for(kind: str) -> None:
    in_order = Tokenizer.train([TEXT], kind, SIZES[kind] + 8, special_tokens=list(ROLES))
    assert [in_order.special(role) for role in ROLES] == list(range(len(ROLES)))
    asked = {"mask": 11, "pad": 2, "unknown": 5}
    tokenizer = Tokenizer.train([TEXT], kind, SIZES[kind] + 8, special_tokens=asked)
    assert {role: tokenizer.special(role) for role in asked} == asked
    assert sorted(set(tokenizer.vocabulary)) == sorted(tokenizer.vocabulary)
    assert tokenizer.special("cls") is None
    if kind in ("char", "bpe", "unigram"):
        assert tokenizer.decode(tokenizer.encode(TEXT[:500])) == TEXT[:500]
    if kind != "bpe":
        assert 5 in tokenizer.encode("漢").tolist()


def test_the_text_is_read_once_and_some_at_a_time() -> None:
    pulled = []

    def lines():
        for number in range(50):
            pulled.append(number)
            yield f"line {number}\n"

    assert Tokenizer.train(lines(), "bpe", 300).vocab_size == 300
    assert pulled == list(range(50))


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {"kind": "bpe"}, "The text is empty"),
        ([""], {"kind": "char"}, "The text is empty"),
        (["  \n"], {"kind": "word"}, "no token that is met 1 times"),
        (["abc"], {"kind": "caracter"}, "There is no tokenizer 'caracter'"),
        (["abc"], {"kind": "bpe", "vocab_size": 100}, "too small: 0 special tokens and the 256 bytes take 256"),
        (
            ["abc"],
            {"kind": "word", "vocab_size": 2, "special_tokens": ["pad"]},
            "2 special tokens and one token take 3",
        ),
        (["abcdefgh"], {"kind": "wordpiece", "vocab_size": 5}, "too small"),
        (["abcdefgh"], {"kind": "unigram", "vocab_size": 5}, "No vocabulary of data.vocab_size=5"),
        (["abc"], {"special_tokens": ["padd"]}, "There is no special token 'padd'. Did you mean"),
        (["abc"], {"special_tokens": {"pad": 1, "mask": 1}}, "an id twice"),
        (["abc"], {"kind": "char", "special_tokens": {"pad": 90}}, "id 90 is beyond the vocabulary of 5 tokens"),
        (["abc"], {"min_count": 0}, "min_count must be at least 1"),
    ],
)
def test_what_cannot_be_learned_is_one_line(texts, options, message) -> None:
    with pytest.raises(zoo.ZooError, match=message) as error:
        Tokenizer.train(texts, **options)
    assert "\n" not in str(error.value)


# -- published vocabularies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("lowercase", [True, False])
def test_half_of_a_character_is_one_line(kernels: bool, lowercase: bool) -> None:
    zoo.kernels.use(kernels)
    try:
        tokenizer = Tokenizer.train(["to be"], "word", lowercase=lowercase)
        for ask in (tokenizer.encode, lambda text: tokenizer.encode_all(["be", text]), tokenizer.tokenize):
            with pytest.raises(zoo.ZooError, match=r"half of a character, U\+D83D behind '[Oo]r ': read its file with"):
                ask("Or \ud83d not")
        with pytest.raises(zoo.ZooError, match=r"D83D|ud83d"):
            Tokenizer.train(["to \ud83d be"], "word", lowercase=lowercase)
    finally:
        zoo.kernels.use(True)


def test_bert_reads_all_questions_as_published(shared_data) -> None:
    folder = shared_data / "tokenizers" / "bert_uncased"
    tokenizer = Tokenizer.load(folder)
    with (
        gzip.open(folder / "squad_question_tokens.json.gz") as tokens,
        gzip.open(folder / "squad_question_ids.json.gz") as ids,
    ):
        questions, ids = json.load(tokens), json.load(ids)
    flat, lengths = tokenizer.encode_all([question["original"] for question in questions])
    assert [part.tolist() for part in flat.split(lengths.tolist())] == ids
    vocabulary = tokenizer.vocabulary
    assert [[vocabulary[i] for i in row] for row in ids] == [question["wordpiece"] for question in questions]
    assert len(questions) == 10_570
    assert [tokenizer.special(role) for role in ("pad", "unknown", "cls", "sep", "mask")] == [0, 100, 101, 102, 103]


def test_gpt2_reads_all_prompts_as_published(shared_data) -> None:
    folder = shared_data / "tokenizers" / "gpt2"
    tokenizer = Tokenizer.load(folder)
    lines = [line.rpartition(" => ") for line in (folder / "ggml_prompts_gpt-2.txt").read_text("utf-8").splitlines()]
    published = {text: [int(i) for i in ids.split(",")] for text, _, ids in lines if ids}
    assert len(published) > 90
    assert {text: tokenizer.encode(text).tolist() for text in published} == published
    one = json.loads((folder / "hf_encoded_tokens.json").read_text("utf-8"))
    found = tokenizer.tokenize(one["text"])
    assert (found.ids, found.tokens) == (one["token_ids"], one["bpe_tokens"])
    assert tokenizer.vocab_size == 50_257
    assert tokenizer.special("end") == 50_256
    assert tokenizer.decode(found.ids) == one["text"]


def test_vocabularies_that_cannot_be_read_are_one_line(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "vocab.txt").write_text("the\nof\n")
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "encoder.json").write_text("{}")
    for path, message in (
        ("nothing.json", "There is no tokenizer"),
        ("empty", "holds no vocabulary"),
        ("tokenizer.json", "cannot be read as a vocabulary"),
        ("vocab.txt", r"no line \[UNK\]"),
        ("gpt", "needs its merges beside it: vocab.bpe"),
    ):
        with pytest.raises(zoo.ZooError, match=message) as error:
            Tokenizer.load(tmp_path / path)
        assert "\n" not in str(error.value)
