"""Sampling: draws follow the probabilities."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.text import sample_token


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
