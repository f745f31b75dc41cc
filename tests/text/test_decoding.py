"""Decoding: beams against all continuations there are, speculation against the model alone, text piece by piece."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.text import Decoding, Reader, TextStream, Tokenizer, beam_search, decode, speculate
from zoo.text.reading import window_start


class Table:
    """A language model that looks at the last two tokens: logits (V, V, V). What it read is its state."""

    caches = True

    def __init__(self, num_tokens: int, seed: int = 0, context: int | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.logits = 2 * torch.randn(num_tokens, num_tokens, num_tokens, generator=generator, dtype=torch.float64)
        self.context, self.calls = context, 0

    def next_logits(self, tokens: Tensor, state: Any = None, mask: Tensor | None = None, every: bool = False) -> Any:
        self.calls += 1
        before = torch.zeros(len(tokens), 1, dtype=torch.long) if state is None else state
        text = torch.cat([before, tokens], 1)
        logits = self.logits[text[:, :-1], text[:, 1:]]  # (B, T, V)
        last = torch.full((len(tokens),), tokens.shape[1] - 1) if mask is None else mask.sum(1) - 1
        rows = torch.arange(len(tokens))
        return logits if every else logits[rows, last], tokens[rows, last][:, None]

    def select_state(self, state: Any, rows: Tensor) -> Any:
        return None if state is None else state[rows]

    def rewind(self, state: Any, count: int) -> Any:
        return None

    def log_p(self, prompt: list[int], continuation: tuple[int, ...]) -> float:
        text, total = [0, *prompt, *continuation], 0.0
        for place in range(len(text) - len(continuation), len(text)):
            total += float(self.logits[text[place - 2], text[place - 1]].log_softmax(0)[text[place]])
        return total


def all_continuations(num_tokens: int, steps: int, end: int | None) -> list[tuple[int, ...]]:
    """Everything of at most `steps` tokens that ends with `end`, or that is as long as it may be."""
    found = []
    for length in range(1, steps + 1):
        for tokens in itertools.product(range(num_tokens), repeat=length):
            if end not in tokens[:-1] and (tokens[-1] == end or length == steps):
                found.append(tokens)
    return found


@pytest.mark.parametrize("end", [None, 1])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -1.0, 2.5])
def test_as_many_beams_as_there_are_texts_find_the_best_of_all(end: int | None, length_penalty: float) -> None:
    model, steps, prompts = Table(3, seed=4), 4, torch.tensor([[2, 0], [0, 1]])
    found = beam_search(
        Reader(model, prompts, room=steps), steps=steps, num_beams=3**steps, length_penalty=length_penalty,
        early_stopping="never", ends=None if end is None else lambda tokens: tokens[..., -1] == end,
    )  # fmt: skip
    for prompt, hypotheses in zip(prompts.tolist(), found, strict=True):
        every = all_continuations(3, steps, end)
        scores = {t: model.log_p(prompt, t) / len(t) ** length_penalty for t in every}
        best = sorted(every, key=lambda t: -scores[t])
        assert [tuple(h.tokens.tolist()) for h in hypotheses[:20]] == best[:20]
        assert [h.score for h in hypotheses] == pytest.approx([scores[t] for t in best][: len(hypotheses)], abs=1e-5)


def test_one_beam_is_greedy_and_more_find_no_worse() -> None:
    model, prompt = Table(6, seed=1), torch.tensor([[3]])
    greedy = torch.cat(list(decode(Reader(model, prompt, room=8), Decoding("greedy", steps=8), [])))
    (single,) = beam_search(Reader(model, prompt, room=8), steps=8, num_beams=1)
    assert torch.equal(single[0].tokens, greedy)
    scores = [beam_search(Reader(model, prompt, room=8), steps=8, num_beams=k)[0][0].score for k in (1, 6, 6**3)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_a_prompt_is_searched_as_if_it_were_alone(early_stopping: bool | str) -> None:
    model = Table(5, seed=2)
    tokens, lengths = torch.tensor([[1, 2, 3], [4, 0, 0], [2, 2, 0]]), [3, 1, 2]
    options: dict[str, Any] = {
        "steps": 7, "num_beams": 3, "early_stopping": early_stopping, "ends": lambda found: found[..., -1] == 4
    }  # fmt: skip
    together = beam_search(Reader(model, tokens, lengths, room=7), **options)
    for row, length in enumerate(lengths):
        (alone,) = beam_search(Reader(model, tokens[row : row + 1, :length], room=7, cache=False), **options)
        assert [h.tokens.tolist() for h in alone] == [h.tokens.tolist() for h in together[row]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[row]])


@pytest.mark.parametrize("context", [None, 2, 3, 8])
def test_a_full_context_goes_on_with_its_later_half_with_a_cache_and_without(context: int | None) -> None:
    model = Table(5, seed=3, context=context)
    tokens, lengths = torch.tensor([[1, 2], [4, 0]]), [2, 1]
    runs = []
    for cache in (True, False):
        reader = Reader(model, tokens, lengths, room=20, cache=cache)
        runs.append(torch.stack(list(decode(reader, Decoding("greedy", steps=20), []))))
    assert torch.equal(*runs)
    alone = Reader(model, tokens[1:, :1], room=20)
    assert torch.equal(torch.cat(list(decode(alone, Decoding("greedy", steps=20), []))), runs[0][:, 1])


def test_a_window_holds_no_more_than_the_context_and_at_least_its_later_half() -> None:
    for context in (1, 2, 3, 7, 8):
        for length in range(1, 40):
            seen = length - window_start(length, context)
            assert min(length, context - max(1, context // 2) + 1) <= seen <= context


@pytest.mark.parametrize("context", [None, 6])
@pytest.mark.parametrize("num_proposals", [1, 3, 5])
def test_speculation_takes_the_greedy_tokens_in_fewer_calls(context: int | None, num_proposals: int) -> None:
    options, prompt = Decoding("greedy", steps=30, repetition_penalty=1.2), torch.tensor([[1, 2]])
    alone = torch.cat(list(decode(Reader(Table(5, 7, context), prompt, room=30), options, [])))
    for seed in (7, 8):  # the same model, and another
        model, draft = Table(5, 7, context), Table(5, seed)
        readers = [Reader(m, prompt, room=40, keep=num_proposals + 1) for m in (model, draft)]
        found = speculate(
            *readers, options.distribution, steps=30, num_proposals=num_proposals, needs_seen=True
        )  # fmt: skip
        assert torch.equal(torch.cat(list(found)), alone)
        if seed == 7 and context is None:
            assert model.calls == -(-30 // (num_proposals + 1))


def test_speculation_draws_from_the_larger_model() -> None:
    """Counts of all texts of two tokens: a chi-square of 8 degrees of freedom is below 26 in 999 of 1,000."""
    model, draft, prompt, number = Table(3, 1), Table(3, 2), torch.tensor([[1]]), 1500
    options = Decoding(steps=2, temperature=1.5)
    counts: Counter[tuple[int, ...]] = Counter()
    generator = torch.Generator().manual_seed(0)
    for _ in range(number):
        readers = [Reader(m, prompt, room=4, keep=3) for m in (model, draft)]
        found = speculate(*readers, options.distribution, steps=2, num_proposals=2, generator=generator)
        counts[tuple(int(token) for token in found)] += 1
    model.logits /= 1.5
    chi_square = 0.0
    for text in itertools.product(range(3), repeat=2):
        expected = number * torch.tensor(model.log_p([1], text)).exp().item()
        chi_square += (counts[text] - expected) ** 2 / expected
    assert chi_square < 26


def test_pieces_of_text_join_to_the_whole_and_never_hold_half_a_character() -> None:
    text = "naïve “Ω” — 水 and 🦜🦜!"
    tokenizer = Tokenizer.train(["abc"], "bpe", vocab_size=256)  # each byte is a token
    ids = tokenizer.encode(text).tolist()
    for cut in (0, 1, 5):
        stream = TextStream(tokenizer, ids[:cut])
        pieces = [stream.push(number) for number in ids[cut:]]
        assert tokenizer.decode(ids[:cut]) + "".join(pieces) + stream.end() == text or cut == 3
        assert not any("�" in piece for piece in pieces)


@pytest.mark.parametrize("kind", ["char", "word", "bpe", "wordpiece", "unigram"])
def test_pieces_are_those_of_each_tokenizer(kind: str) -> None:
    text = "to be or not to be that is the question whether it is nobler"
    tokenizer = Tokenizer.train([text], kind, vocab_size=300)
    ids = tokenizer.encode(text).tolist()
    stream = TextStream(tokenizer, ids[:3])
    pieces = "".join(stream.push(number) for number in ids[3:]) + stream.end()
    assert tokenizer.decode(ids[:3]) + pieces == tokenizer.decode(ids)


def test_a_stop_text_across_tokens_is_left_out() -> None:
    tokenizer = Tokenizer.train(["abcde"], "char")
    stream = TextStream(tokenizer, [], stops=["cde", "bcx", "dd"])
    assert "".join(stream.push(number) for number in tokenizer.encode("abcdabcde").tolist()) == "abcdab"
    assert stream.stopped
    assert stream.end() == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_beams": 0, "decoding": "beam"}, "num_beams must be an integer of at least 1, not 0"),
        ({"top_p": 0.0}, "top_p must be a number above 0 and at most 1 or null, not 0.0"),
        ({"temperature": -1}, "temperature must be a number of at least 0, not -1"),
        ({"decoding": "beams"}, "Did you mean beam"),
        ({"num_beams": 3}, "num_beams does nothing with decoding=sample: pass decoding=beam"),
        ({"decoding": "greedy", "top_k": 3}, "top_k does nothing with decoding=greedy"),
        ({"decoding": "beam", "num_return": 5}, "num_return=5 is too many: num_beams=4 finds no more"),
        ({"stop": ["a", ""]}, "stop must not be empty"),
        ({"length_penalty": 50, "decoding": "beam"}, "length_penalty must be a number of at least -10 and at most 10"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty must be a number of at least 0.001 and at most 1000"),
        ({"steps": 10**12}, "steps must be an integer of at least 0 and at most 10000000"),
        ({"num_beam": 3}, "generate has no option 'num_beam'. Did you mean num_beams"),
    ],
)
def test_what_no_decoding_can_do_is_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(zoo.ZooError) as caught:
        Decoding.of(options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
