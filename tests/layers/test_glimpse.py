"""Distributions over glimpses: the soft one's limit, REINFORCE enumerated, scores against plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from zoo.layers.glimpse import (
    AdditiveAttention,
    MultiplicativeAttention,
    chosen_glimpse,
    expected_glimpse,
    glimpse_probabilities,
    read_window,
    reinforce_loss,
    retina,
    sampled_glimpse,
    straight_through_glimpse,
    window_filters,
    window_of,
)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# -- soft --------------------------------------------------------------------------------------------------------------


def test_the_expectation_is_that_of_all_glimpses() -> None:
    glimpses, logits = drawn(3, 5, 2), drawn(3, 5, seed=1)
    g, p = expected_glimpse(glimpses, logits)
    for row in range(3):
        e = [float(a.exp()) for a in logits[row]]
        torch.testing.assert_close(g[row], sum(w / sum(e) * glimpses[row, n] for n, w in enumerate(e)))
    torch.testing.assert_close(p.sum(1), torch.ones(3).double())
    many, weights = expected_glimpse(glimpses, torch.stack([logits, -logits], 1))
    torch.testing.assert_close(many[:, 0], g)
    torch.testing.assert_close(weights[:, 1], glimpse_probabilities(-logits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_low_temperature_the_soft_glimpse_is_the_most_likely(dtype: torch.dtype) -> None:
    glimpses, logits = drawn(20, 6, 3, dtype=dtype), drawn(20, 6, seed=1, dtype=dtype)
    likeliest = chosen_glimpse(glimpses, logits, logits.argmax(1)).value
    gaps = logits.topk(2).values.diff().abs().squeeze(1)
    for temperature in (1e-1, 1e-2, 1e-3):
        g, _ = expected_glimpse(glimpses, logits, temperature=temperature)
        bound = 5 * glimpses.abs().amax() * 2 * (-gaps / temperature).exp().unsqueeze(1)  # N − 1 others, at the most
        assert ((g - likeliest).abs() <= bound + 4 * torch.finfo(dtype).eps).all()
    torch.testing.assert_close(expected_glimpse(glimpses, 1e6 * logits, temperature=1e-6)[0], likeliest)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_masks_and_scales(scale: float) -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    glimpses = drawn(2, 3, 2).masked_fill(~mask.unsqueeze(-1), torch.nan)
    logits = (scale * drawn(2, 3, seed=1)).requires_grad_()
    g, p = expected_glimpse(glimpses, logits, mask)
    torch.testing.assert_close(g[0], (p[0, [0, 2]].unsqueeze(1) * glimpses[0, [0, 2]]).sum(0))
    assert p[0, 1] == 0
    assert (g[1] == 0).all()
    assert (p[1] == 0).all()
    g.sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[1] == 0).all()
    assert (logits.grad[0, 1]) == 0
    drawn_one = sampled_glimpse(glimpses[:1], logits[:1].detach(), mask[:1]).chosen
    assert int(drawn_one) in (0, 2)
    with pytest.raises(ValueError, match="above 0"):
        glimpse_probabilities(logits, temperature=0)


# -- hard --------------------------------------------------------------------------------------------------------------


class Looker(nn.Module):
    """Two looks at five glimpses, the second of which depends on the first, and a loss of what was seen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Parameter(drawn(5, seed=2))
        self.second, self.answer = nn.Linear(3, 5).double(), nn.Linear(6, 1).double()
        self.baseline = nn.Linear(3, 1).double()
        self.glimpses = drawn(1, 5, 3, seed=3)

    def forward(self, choices: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """The loss after two choices, the sum of their log-probabilities, and a baseline that saw the first alone."""
        one = chosen_glimpse(self.glimpses, self.first.unsqueeze(0), torch.tensor([choices[0]]))
        two = chosen_glimpse(self.glimpses, self.second(one.value), torch.tensor([choices[1]]))
        loss = (self.answer(torch.cat([one.value, two.value], 1)) - 1).square().squeeze(1)
        return loss, torch.stack([one.log_prob, two.log_prob]), self.baseline(one.value).squeeze(1)


@pytest.mark.parametrize("with_baseline", [False, True])
def test_reinforce_is_right_on_average(with_baseline: bool) -> None:
    """Over all 25 ways to look, REINFORCE's gradients have the mean that the expected loss has as its gradient."""
    model = Looker()
    learnt = [p for name, p in model.named_parameters() if not name.startswith("baseline")]
    exact, estimated = [torch.zeros_like(p) for p in learnt], [torch.zeros_like(p) for p in learnt]
    for choices in itertools.product(range(5), repeat=2):
        loss, log_prob, baseline = model(choices)
        probability = log_prob.sum(0).exp()
        for total, part in zip(exact, torch.autograd.grad((probability * loss).sum(), learnt), strict=True):
            total += part
        loss, log_prob, baseline = model(choices)
        bases = (0.7, baseline) if with_baseline else (0.0, 0.0)  # of the first look a number, of the second a network
        surrogate = loss + sum(reinforce_loss(log_prob[k], loss, bases[k]) for k in range(2))
        weight = float(probability.detach())
        for total, part in zip(estimated, torch.autograd.grad(surrogate.sum(), learnt), strict=True):
            total += weight * part
    for ours, theirs in zip(estimated, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


def test_draws_are_as_frequent_as_they_are_likely() -> None:
    logits = drawn(1, 4, seed=4).expand(20_000, 4)
    glimpses, p = torch.eye(4).double().expand(20_000, 4, 4), drawn(1, 4, seed=4).softmax(1)[0]
    generator = torch.Generator().manual_seed(0)
    for draw in (sampled_glimpse, straight_through_glimpse):
        found = draw(glimpses, logits, generator=generator)
        torch.testing.assert_close(found.value.mean(0), p, atol=0.015, rtol=0)
        torch.testing.assert_close(found.log_prob, logits.log_softmax(1).gather(1, found.chosen[:, None]).squeeze(1))
        assert (found.value.sum(1) - 1).abs().max() < 1e-12


def test_straight_through_goes_back_through_the_softmax_of_the_noise() -> None:
    glimpses, logits = drawn(2, 5, 3), drawn(2, 5, seed=1).requires_grad_()
    found = straight_through_glimpse(glimpses, logits, temperature=0.7, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(found.value, glimpses[torch.arange(2), found.chosen])
    weight = drawn(2, 3, seed=2)
    ours = torch.autograd.grad((found.value * weight).sum(), logits)[0]
    uniform = torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    noisy = (logits - (-uniform.log()).log()) / 0.7
    soft = (noisy.softmax(1).unsqueeze(2) * glimpses).sum(1)
    torch.testing.assert_close(ours, torch.autograd.grad((soft * weight).sum(), logits)[0])


# -- content -----------------------------------------------------------------------------------------------------------


def test_additive_scores_are_those_of_a_loop() -> None:
    layer = AdditiveAttention(4, 6, 5, dtype=torch.float64)
    query, memory, mask = drawn(2, 3, 4), drawn(2, 7, 6, seed=1), torch.rand(2, 7) < 0.7
    mask[:, 0] = True
    context, weights = layer(query, memory, mask)
    w, u, b, v = layer.weight_query, layer.weight_memory, layer.bias, layer.weight_score
    for row, step in itertools.product(range(2), range(3)):
        e = torch.stack([v @ torch.tanh(w @ query[row, step] + u @ m + b) for m in memory[row][mask[row]]])
        torch.testing.assert_close(weights[row, step][mask[row]], e.softmax(0), rtol=1e-10, atol=0)
        torch.testing.assert_close(context[row, step], e.softmax(0) @ memory[row][mask[row]], rtol=1e-10, atol=1e-14)
    assert (weights.masked_select(~mask.unsqueeze(1)) == 0).all()


def test_multiplicative_attention_is_torchs_with_projected_keys() -> None:
    layer = MultiplicativeAttention(4, 6, dtype=torch.float64)
    query, memory, mask = drawn(2, 3, 4), drawn(2, 7, 6, seed=1), torch.rand(2, 7) < 0.7
    mask[:, 0] = True
    expected = nn.functional.scaled_dot_product_attention(
        query, memory @ layer.weight.T, memory, mask.unsqueeze(1).expand(2, 3, 7), scale=1.0
    )
    torch.testing.assert_close(layer(query, memory, mask)[0], expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(layer(query, memory, mask, layer.project(memory))[0], expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "layer", [AdditiveAttention(3, 4, 5), MultiplicativeAttention(3, 4)], ids=["additive", "multi"]
)
def test_gradients_strides_and_empty_batches(layer: nn.Module) -> None:
    double = layer.double()
    assert torch.autograd.gradcheck(
        lambda q, m: double(q, m)[0], (drawn(2, 3, 3).requires_grad_(), drawn(2, 4, 4).requires_grad_())
    )
    query, memory = drawn(3, 3, 2).transpose(1, 2), drawn(1, 4, 4).expand(3, 4, 4)
    expected = double(query.contiguous(), memory.contiguous())[0]
    torch.testing.assert_close(double(query, memory)[0], expected)
    assert double(query[:0], memory[:0])[0].shape == (0, 2, 4)
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    assert (double(query, memory, nothing)[0] == 0).all()
    assert "3, 4" in repr(layer)


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("num_scales", [1, 3])
def test_a_retina_on_the_pixels_grid_takes_means_of_pixels(size: int, num_scales: int) -> None:
    images, margin = drawn(2, 3, 20, 28), 20
    padded = nn.functional.pad(images, [margin] * 4)
    corners = torch.tensor([[0, 0], [14, 9]])  # in pixels: where the middle lies, between pixels or on one
    half = 0.5 if size % 2 else 0.0
    middle = corners + half  # from the upper left corner of the image
    places = 2 * middle / torch.tensor([28.0, 20.0]).double() - 1
    seen = retina(images, places, size, num_scales)
    assert seen.shape == (2, num_scales, 3, size, size)
    for row in range(2):
        for k in range(num_scales):
            side = size * 2**k
            if (middle[row, 0] - side / 2) % 1:
                continue  # the square of this scale lies between the pixels
            left, top = (int(m - side / 2) + margin for m in middle[row].tolist())
            square = padded[row, :, top : top + side, left : left + side]
            expected = nn.functional.avg_pool2d(square.unsqueeze(0), 2**k)[0]
            torch.testing.assert_close(seen[row, k], expected, rtol=1e-10, atol=1e-12)


def test_a_retina_sees_alike_alone_and_in_a_batch_and_of_any_strides() -> None:
    images = drawn(4, 9, 8, 2).permute(0, 3, 1, 2)  # (4, 2, 9, 8), channels last
    places = drawn(2, 4, seed=1).T.clamp(-1, 1)
    together = retina(images, places, 4, 2)
    for row in range(4):
        alone = retina(images[row : row + 1].contiguous(), places[row : row + 1].contiguous(), 4, 2)
        torch.testing.assert_close(together[row : row + 1], alone)
    assert retina(images[:0], places[:0], 4).shape == (0, 1, 2, 4, 4)
    assert torch.autograd.gradcheck(
        lambda x, place: retina(x, place, 2), (images[:1].requires_grad_(), 0.3 * places[:1])
    )
    with pytest.raises(ValueError, match="at least 1"):
        retina(images, places, 0)
    with pytest.raises(ValueError, match=r"\(4, 2\)"):
        retina(images, places[:2], 3)


def test_filters_are_those_of_a_plain_loop() -> None:
    outputs, images = 0.3 * drawn(2, 5), drawn(2, 3, 7, 9, seed=1)
    window = window_of(outputs, 7, 9, 4)
    seen = read_window(images, window, 4)
    for row in range(2):
        x, y, variance, stride, brightness = outputs[row].tolist()
        gx, gy, delta = 4 + 5 * x, 3 + 4 * y, 8 / 3 * math.exp(stride)
        banks = []
        for centre, length in ((gy, 7), (gx, 9)):
            bank = torch.zeros(4, length, dtype=torch.float64)
            for i, a in itertools.product(range(4), range(length)):
                mean = centre + (i - 1.5) * delta
                bank[i, a] = math.exp(-((a - mean) ** 2) / 2 / math.exp(variance))
            banks.append(bank / bank.sum(1, keepdim=True))
        expected = math.exp(brightness) * (banks[0] @ images[row] @ banks[1].T)
        torch.testing.assert_close(seen[row], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_windows_at_the_extremes_are_finite_and_a_distribution(dtype: torch.dtype) -> None:
    for centre, width in itertools.product((-1e6, 0.0, 1e6), (1e-6, 1.0, 1e6)):
        values = [torch.tensor([v], dtype=dtype, requires_grad=True) for v in (centre, 2.0, width)]
        bank = window_filters(*values, 3, 5)
        torch.testing.assert_close(bank.sum(-1), torch.ones(1, 3, dtype=dtype))
        bank.square().sum().backward()
        assert all(v.grad.isfinite().all() for v in values)
    point = window_filters(*(torch.tensor([v], dtype=dtype) for v in (1.0, 1.0, 1e-3)), 3, 3)
    torch.testing.assert_close(point[0], torch.eye(3, dtype=dtype))
    parameters = [v.requires_grad_() for v in (drawn(2, 5) * 0.2, drawn(2, 1, 5, 4, seed=1))]
    assert torch.autograd.gradcheck(lambda a, x: read_window(x, window_of(a, 5, 4, 3), 3), parameters)
    with pytest.raises(ValueError, match=r"\(B, 5\)"):
        window_of(torch.zeros(2, 4), 5, 4, 3)
