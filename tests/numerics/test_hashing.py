"""The counter-based generator against known values of its source and against the distributions that it stands for."""

from __future__ import annotations

import pytest
import torch

from zoo.numerics.hashing import normals, splitmix64, stream_key, uniforms


def reference(seed: int, count: int) -> list[int]:
    """SplitMix64 with Python's unlimited integers, word by word from its source."""
    words, state, mask = [], seed, 2**64 - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        words.append(z ^ (z >> 31))
    return words


def test_published_values() -> None:
    """The first outputs for the seed 1234567, as other languages' test suites list them."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [int(word) % 2**64 for word in splitmix64(1234567, torch.arange(4))] == expected


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_words_equal_the_reference(seed: int) -> None:
    assert [int(word) % 2**64 for word in splitmix64(seed, torch.arange(200))] == reference(seed, 200)


def test_each_word_stands_alone() -> None:
    index = torch.randperm(1000)
    assert torch.equal(splitmix64(7, torch.arange(1000))[index], splitmix64(7, index))


def test_keys_differ() -> None:
    keys = {stream_key(seed, *position) for seed in range(10) for position in ((), (0,), (1,), (1, 2), (2, 1))}
    assert len(keys) == 50


def test_uniforms_are_uniform() -> None:
    """200,000 draws: mean ½ and variance 1/12 to five standard errors; the halves of a word uncorrelated."""
    high, low = uniforms(splitmix64(3, torch.arange(200_000)), torch.float64)
    for draws in (high, low):
        assert draws.min() > 0
        assert draws.max() <= 1
        assert abs(draws.mean() - 0.5) < 5 * (1 / 12 / 200_000) ** 0.5
        assert abs(draws.var() - 1 / 12) < 5 * (1 / 180 / 200_000) ** 0.5
    assert abs(torch.corrcoef(torch.stack((high, low)))[0, 1]) < 5 / 200_000**0.5


def test_normals_are_normal() -> None:
    """Kolmogorov–Smirnov against SciPy's normal, and the first four moments, on 200,000 draws."""
    from scipy import stats

    z = normals(splitmix64(11, torch.arange(100_000)), torch.float64)
    assert z.shape == (200_000,)
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    assert abs(z.mean()) < 5 / 200_000**0.5
    assert abs(z.var() - 1) < 5 * (2 / 200_000) ** 0.5
    assert abs((z**3).mean()) < 5 * (15 / 200_000) ** 0.5
    assert abs((z**4).mean() - 3) < 5 * (96 / 200_000) ** 0.5


def test_extreme_words_stay_finite() -> None:
    words = torch.tensor([0, -1, 2**63 - 1, -(2**63), 2**32, -(2**32)])
    assert normals(words).isfinite().all()
    assert normals(words, torch.float64).isfinite().all()


def test_keys_are_splitmix64_of_tensors_too():
    """The numbers that make a key are computed in Python's integers; they are those of the tensors."""
    key = 7
    for value in (0, 3, 2**40):
        key = int(splitmix64(key, torch.tensor(value)))
    assert stream_key(7, 3, 2**40) == key
