"""Sampling: draws follow the probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo
from zoo.text import filter_logits, penalize_repetition, sample_token


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


@pytest.mark.parametrize("temperature", [1e-300, 1e-42, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_coldest_draw_is_the_most_probable_token(temperature: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, 50.0, 2.0, -1.0], [-7.0, -9.0, -8.0, -6.0]], dtype=dtype)
    assert sample_token(logits, temperature, generator=torch.Generator().manual_seed(0)).tolist() == [1, 3]


def test_scores_that_are_not_finite_are_one_line() -> None:
    with pytest.raises(zoo.ZooError, match="is not finite: its weights are damaged"):
        sample_token(torch.tensor([[0.0, float("nan")]]))


def kept(row: np.ndarray, top_k: int | None, top_p: float | None, min_p: float | None) -> set[int]:
    """The tokens that are drawn from, one after the other as the words say it."""
    tokens = sorted(range(len(row)), key=lambda i: -row[i])
    if top_k is not None:
        tokens = [i for i in tokens if row[i] >= row[tokens[min(top_k, len(row)) - 1]]]
    weight = np.exp(row[tokens] - row.max())
    share = weight / weight.sum()
    if top_p is not None and top_p < 1:
        before = np.cumsum(share) - share
        number = max(1, int((before < top_p).sum()))
        tokens, share = tokens[:number], share[:number] / share[:number].sum()
    if min_p is not None:
        tokens = [i for i, p in zip(tokens, share, strict=True) if p >= min_p * share[0]]
    return set(tokens)


@pytest.mark.parametrize("top_k", [None, 1, 3, 50])
@pytest.mark.parametrize("top_p", [None, 1e-9, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("min_p", [None, 0.0, 0.2, 1.0])
def test_filters_keep_what_their_words_say(top_k: int | None, top_p: float | None, min_p: float | None) -> None:
    logits = 3 * torch.randn(20, 9, dtype=torch.float64)
    for scale, shift in ((1.0, 0.0), (1e-3, 1e3), (50.0, -1e4)):
        found = filter_logits(logits * scale + shift, 0.7, top_k, top_p, min_p)
        for row, ours in zip((logits * scale / 0.7).numpy(), found, strict=True):
            assert set(torch.isfinite(ours).nonzero().flatten().tolist()) == kept(row, top_k, top_p, min_p)
        left = torch.isfinite(found)
        torch.testing.assert_close(found[left], ((logits * scale + shift) / 0.7)[left])


def test_filters_of_one_token_and_of_equal_ones() -> None:
    assert filter_logits(torch.zeros(2, 1), top_k=1, top_p=0.1, min_p=1.0).tolist() == [[0.0], [0.0]]
    assert filter_logits(torch.zeros(1, 4), top_k=2).tolist() == [[0.0] * 4]  # none is more probable than another
    assert torch.isfinite(filter_logits(torch.zeros(1, 4), top_p=0.5)).sum() == 2


def test_a_row_is_drawn_as_if_it_were_alone() -> None:
    logits = torch.randn(5, 11)
    together = sample_token(logits, generator=[torch.Generator().manual_seed(s) for s in range(5)])
    alone = [sample_token(row[None], generator=torch.Generator().manual_seed(s)) for s, row in enumerate(logits)]
    assert together.tolist() == torch.cat(alone).tolist()


def test_repetition_is_made_less_probable() -> None:
    logits = torch.randn(50, 8)
    seen = torch.rand(50, 8) < 0.5
    after = penalize_repetition(logits, seen, 1.3)
    assert torch.equal(after[~seen], logits[~seen])
    assert bool((after[seen] < logits[seen]).all())
