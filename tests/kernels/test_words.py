"""The compiled search for words beside the `tokenizers` library: the same words, vocabularies and tokens."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import chain

import pytest
import torch
from tokenizers.pre_tokenizers import Whitespace

import zoo.kernels
from zoo.data.text_arrays import TextArrays
from zoo.kernels import words as compiled
from zoo.kernels.words import read_words
from zoo.numerics.sparse import dense_rows
from zoo.text import Tokenizer
from zoo.text.words import Words

COMPILED = zoo.kernels.runnable()
# letters and digits of one to four bytes, marks and joiners that go on with a word, blanks that are none to Python
SIGNS = "abcAB1_é½²ßΣİ漢字𝔘\u0301\u200d😀.,!'-\x00\x1f \n\t\x85\u2028\u3000\xa0"


def some_texts(seed: int) -> list[str]:
    """Texts of common and of rare signs, short and long, some empty; at times a word that is longer than the table."""
    draw = random.Random(seed)
    signs = SIGNS if seed % 3 else "ab c,\n"
    texts = ["".join(draw.choices(signs, k=draw.randrange(60))) for _ in range(draw.randrange(1, 40))]
    if seed % 5 == 0:
        starts = [0x0, 0x370, 0x600, 0x900, 0x1100, 0x2000, 0x3000, 0xAC00, 0xD700, 0xE000, 0xFF00, 0x1D400, 0x10FF00]
        texts.append("".join(chr(draw.choice(starts) + draw.randrange(256)) for _ in range(1000)))
    if seed % 7 == 0:
        texts += ["long" * 4_500, "".join(f"w{i} " for i in range(1500)), *([""] * 4100)]
    return texts


def test_words_are_those_of_the_library() -> None:
    if not compiled.available():
        pytest.skip("no kernel")
    for seed in range(22):
        texts = some_texts(seed)
        words, expected = Words(), [[piece for piece, _ in Whitespace().pre_tokenize_str(text)] for text in texts]
        numbers, lengths = words.read(texts)
        names, flat = words.names(), list(chain.from_iterable(expected))
        assert [names[i] for i in numbers.tolist()] == flat
        assert names == list(dict.fromkeys(flat))  # as they are met
        assert lengths.tolist() == list(map(len, expected))
        again, known = Words(names[::2]), {name: i for i, name in enumerate(names[::2])}
        assert again.read(texts, other=7)[0].tolist() == [known.get(word, 7) for word in flat]
        assert len(again) == len(known)


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("special", [None, {"pad": 3, "unknown": 1}])
def test_vocabulary_and_tokens_are_those_of_the_library(
    kernels: str, monkeypatch: pytest.MonkeyPatch, special: dict[str, int] | None, lowercase: bool
) -> None:
    for seed in (5, 7):
        texts = [*some_texts(seed), "[PAD] to be [UNK] to"]
        options = {"special_tokens": special, "lowercase": lowercase, "min_count": 1 + seed % 2}
        made = [Tokenizer.train(texts, "word", size, **options) for size in (10, 5000)]
        tokens = [[*one.encode_all(texts), one.encode("\n".join(texts))] for one in made]
        monkeypatch.setenv("ZOO_KERNELS", "0")
        for one, found, size in zip(made, tokens, (10, 5000), strict=True):
            assert Tokenizer.train(texts, "word", size, **options).to_json() == one.to_json()
            expected = [*one.encode_all(texts), one.encode("\n".join(texts))]
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        monkeypatch.setenv("ZOO_KERNELS", kernels)


@pytest.mark.parametrize("view", ["tokens", "counts", "binary", "tfidf"])
def test_texts_become_the_same_rows(kernels: str, monkeypatch: pytest.MonkeyPatch, view: str) -> None:
    """Learnt in one pass, of the training texts alone, as in two passes without the kernel."""
    for seed in (5, 7):
        texts = [*some_texts(seed), "to be", "or not"]
        labels = ["yes", "no"] * (len(texts) // 2) + ["no"] * (len(texts) % 2)
        options = {"view": view, "val_fraction": 0.3 * (seed % 2)}
        held = TextArrays(texts, labels, **options)
        monkeypatch.setenv("ZOO_KERNELS", kernels)
        found = held.spec, [dense(held, split) for split in ("train", "val")[: 1 + seed % 2]]
        monkeypatch.setenv("ZOO_KERNELS", "0")
        held = TextArrays(texts, labels, **options)
        assert held.spec == found[0]
        for split, rows in zip(("train", "val"), found[1], strict=False):
            assert all(torch.equal(a, b) for a, b in zip(dense(held, split), rows, strict=True))


def dense(data: TextArrays, split: str) -> list[torch.Tensor]:
    """All rows of a split, in order and in another one."""
    rows = data.rows(split)
    orders = torch.arange(len(rows)), torch.arange(len(rows)).flip(0), torch.arange(0, len(rows), 2)
    batches = [rows[order] for order in orders]
    return [dense_rows(batch.x if batch.x is not None else batch.tokens) for batch in batches]


def test_what_does_not_fit_is_named(kernels: str) -> None:
    rows = {name: torch.zeros(size, dtype=torch.long) for name, size in (("ends", 1), ("slots", 4), ("name_ends", 2))}
    good = {
        "text": torch.zeros(3, dtype=torch.uint8), **rows, "classes": torch.ones(0x110000, dtype=torch.uint8),
        "names": torch.zeros(9, dtype=torch.uint8), "found": torch.zeros(3, dtype=torch.int32),
        "found_ends": torch.zeros(1, dtype=torch.long), "state": torch.zeros(7, dtype=torch.long), "other": -1,
    }  # fmt: skip
    if kernels == "0":
        with pytest.raises(RuntimeError, match="needs the compiled kernels"):
            read_words(**good)
        return
    read_words(**good)
    for name, wrong, message in (
        ("text", torch.zeros(4, dtype=torch.uint8), "do not fit"), ("text", torch.zeros(3), "types"),
        ("slots", torch.zeros(3, dtype=torch.long), "do not fit"), ("slots", torch.zeros(2, dtype=torch.long), "fit"),
        ("ends", torch.full((1,), 4), "must ascend"), ("ends", torch.full((1,), -1), "must ascend"),
        ("state", torch.full((7,), 9), "beyond"), ("found", torch.zeros(6, dtype=torch.int32)[::2], "rows"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=f"zoo::read_words: .*{message}"):
            read_words(**{**good, name: wrong})
    torch.library.opcheck(
        torch.ops.zoo.read_words, tuple(read_order(good)), test_utils=("test_schema", "test_faketensor")
    )


def read_order(given: dict[str, object]) -> list[object]:
    names = "text ends classes slots names name_ends found found_ends state other"
    return [given[name] for name in names.split()]


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
from test_words import some_texts
from zoo.text.words import Words
for seed in range(200):
    texts = some_texts(seed)
    words = Words()
    words.read(texts)
    Words(words.names()[::3]).read(texts, other=0)
"""
    sanitized(script)
