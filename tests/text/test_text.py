"""Tokenization and sampling: what goes in comes out, and draws follow the probabilities."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.text import decode, encode, load_tokenizer, sample_token, train_tokenizer

TEXT = "To be, or not to be:\nthat is the question – “Whether”\r\n\n  'tis nobler\tin the mind. " * 400


@pytest.mark.parametrize("kind", ["character", "subword"])
def test_round_trip(kind):
    tokenizer = train_tokenizer(TEXT, kind, vocab_size=300)
    assert decode(tokenizer, encode(tokenizer, TEXT)) == TEXT


def test_characters_are_the_sorted_alphabet():
    tokenizer = train_tokenizer("cab")
    assert encode(tokenizer, "abc").tolist() == [1, 2, 3]
    assert encode(tokenizer, "abz").tolist() == [1, 2, 0]  # unknown
    assert tokenizer.get_vocab_size() == 4


def test_words_and_vocabulary_size():
    tokenizer = train_tokenizer(TEXT, "word", vocab_size=5)
    assert tokenizer.get_vocab_size() == 5
    ids = encode(tokenizer, "to be zebra")
    assert len(ids) == 3
    assert ids[2] == 0


def test_json_is_the_whole_tokenizer():
    tokenizer = train_tokenizer(TEXT, "subword", vocab_size=280)
    again = load_tokenizer(tokenizer.to_str())
    assert torch.equal(encode(again, TEXT), encode(tokenizer, TEXT))


def test_long_texts_are_cut_without_trace():
    text = "".join(f"line {i} of the text\n" for i in range(5000))
    tokenizer = train_tokenizer(text)
    assert len(encode(tokenizer, text)) == len(text)


def test_empty_text():
    with pytest.raises(zoo.ZooError, match="nothing to learn"):
        train_tokenizer("")
    assert len(encode(train_tokenizer("a"), "")) == 0


def test_samples_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, -1.0]).repeat(40_000, 1)
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(sample_token(logits, 0.5, generator=generator), minlength=3) / 40_000
    # four standard deviations of a share are below 0.01
    torch.testing.assert_close(counts, (logits[0] / 0.5).softmax(0), rtol=0, atol=0.01)


def test_top_k_and_greedy():
    logits = torch.tensor([[0.0, 3.0, 2.0, -1.0]]).repeat(500, 1)
    assert set(sample_token(logits, top_k=2).tolist()) == {1, 2}
    assert set(sample_token(logits, temperature=0.0).tolist()) == {1}
    with pytest.raises(zoo.ZooError, match="temperature must be 0 or more"):
        sample_token(logits, -1.0)
