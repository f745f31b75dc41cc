"""Going on with a text: alone and beside others, with a cache and without, with a draft and without, piece by piece."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import zoo
from zoo.text import Tokenizer

TOKENIZER = Tokenizer.train(["abcdefgh .\n"], "char", special_tokens=["end", "unknown"])
SPEC = zoo.DataSpec(
    kind="tokens", shape=(8,), target="tokens", vocab_size=TOKENIZER.vocab_size, tokenizer=TOKENIZER.to_json()
)
PROMPTS = ["abc", "h", "ab ab ab.", "", "ffff"]
MODELS: dict[str, dict[str, Any]] = {
    "rnn": {"hidden_size": 8},
    "lstm": {"hidden_size": 8, "proj_size": 5},
    "gru": {"hidden_size": [8, 6]},
}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"decoding": "greedy"},
    "sample": {"temperature": 1.2, "top_p": 0.9, "seed": 3},
    "penalized": {"temperature": 1.0, "repetition_penalty": 1.3, "min_p": 0.05},
    "beam": {"decoding": "beam", "num_beams": 3},
}


def sharp(name: str, seed: int = 0) -> Any:
    """A model of a few units whose tokens differ by more than rounding."""
    torch.manual_seed(seed)
    model = zoo.create_model(name, SPEC, **MODELS[name]).double()
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_is_gone_on_with_as_if_it_were_alone(name: str, way: str) -> None:
    model, options = sharp(name), {"steps": 12, **WAYS[way]}
    together = model.generate(PROMPTS, **options)
    assert together == [model.generate(prompt, **options) for prompt in PROMPTS]
    assert together == model.generate(PROMPTS, cache=False, **options)
    assert all(text.startswith(prompt) for text, prompt in zip(together, PROMPTS, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_draft_changes_nothing_but_the_time(name: str) -> None:
    model, draft = sharp(name), sharp("gru", seed=5)
    for prompt in PROMPTS:
        alone = model.generate(prompt, 20, decoding="greedy")
        for number in (1, 4):
            assert model.generate(prompt, 20, decoding="greedy", draft=draft, draft_steps=number) == alone
            assert model.generate(prompt, 20, decoding="greedy", draft=model, draft_steps=number) == alone


def test_pieces_are_those_of_the_whole() -> None:
    model = sharp("gru")
    for prompt, (way, options) in itertools.product(PROMPTS, list(WAYS.items())[:3]):
        text = model.generate(prompt, 15, **options)
        assert model.shown(prompt) + "".join(model.stream(prompt, steps=15, **options)) == text, way
    with pytest.raises(zoo.ZooError, match="A stream is one continuation"):
        next(model.stream("a", decoding="beam"))


def test_a_stop_text_ends_a_continuation() -> None:
    model = sharp("gru")
    model.head.bias.data[TOKENIZER.special("end")] = -100.0
    whole = model.generate("abc", 30, seed=1, temperature=1.5)
    stop = whole[8:10]
    cut = whole[: whole.index(stop, 3)]
    assert model.generate("abc", 30, seed=1, temperature=1.5, stop=stop) == cut
    assert model.generate("abc", 30, seed=1, temperature=1.5, stop=["no such", stop]) == cut
    assert "abc" + "".join(model.stream("abc", steps=30, seed=1, temperature=1.5, stop=stop)) == cut
    beams = model.generate("abc", 6, decoding="beam", num_beams=3, num_return=3, stop="b")
    assert not any("b" in text[3:] for text in beams)


def test_several_continuations_of_each_prompt() -> None:
    model = sharp("lstm")
    found = model.generate(["ab", "c"], 10, num_return=3, seed=7)
    assert [len(each) for each in found] == [3, 3]
    assert found[1] == [model.generate("c", 10, seed=seed) for seed in (7, 8, 9)]
    beams = model.generate("ab", 5, decoding="beam", num_beams=4, num_return=4)
    assert len(set(beams)) == 4
    assert model.generate([], 3) == []


def test_the_end_of_a_text_ends_it() -> None:
    model = sharp("gru")
    with torch.no_grad():
        model.head.bias[TOKENIZER.special("end")] = 100.0
    assert model.generate("abc", 5, decoding="greedy") == "abc"
    assert model.generate(["abc", "d"], 5, decoding="beam") == ["abc", "d"]
    assert list(model.stream("abc")) == []


def test_training_goes_on_as_before() -> None:
    model = sharp("gru").train()
    model.generate("a", 2)
    assert model.training


def test_drafts_that_cannot_be() -> None:
    model = sharp("gru")
    other = zoo.DataSpec(
        kind="tokens", shape=(8,), target="tokens", vocab_size=11, tokenizer=Tokenizer.train(["xyz"], "char").to_json()
    )
    with pytest.raises(zoo.ZooError, match="draft reads another vocabulary"):
        model.generate("a", draft=zoo.create_model("gru", other, hidden_size=4))
    with pytest.raises(zoo.ZooError, match="draft must be a language model, not str"):
        model.generate("a", draft="gru")
    with pytest.raises(zoo.ZooError, match="draft does nothing with decoding=beam"):
        model.generate("a", draft=model, decoding="beam")
