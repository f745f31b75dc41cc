r"""The recurrent attention model: a small retina is moved over an image, and what it saw makes the answer.

```math
g_t = \mathrm{relu}\bigl(W_1 \mathrm{relu}(W_ρ ρ(x, l_{t-1})) + W_2 \mathrm{relu}(W_l l_{t-1})\bigr), \qquad
h_t = \mathrm{relu}(W_h h_{t-1} + W_g g_t), \\
l_t \sim N(\tanh(W_π h_t), σ^2), \qquad b_t = w_b^\top h_t, \qquad \hat y = \mathrm{softmax}(W_y h_T)
```

Where to look has no gradient: it is a hard glimpse. Training lowers the cross-entropy of the answer by backpropagation
through all glimpses, and for the places, with the reward R = 1 for a right answer, goes by REINFORCE with a baseline:

```math
L = -\log \hat y_y - \sum_t (R - b_t) \log N(l_t;\, \tanh(W_π h_t), σ^2) + \tfrac1T \sum_t (R - b_t)^2
```

In training the first place is drawn evenly. An answer on held-out images is that of the path of the means, which begins
in the middle, or, with `num_paths` M above 1, the mean of the probabilities over M drawn paths (Monte Carlo), drawn
alike for all images, so that an answer depends on nothing but its image.

Legend: B images x, T glimpses, l places from (−1, −1) to (1, 1), ρ the retina (`zoo.layers.glimpse.retina`), H hidden
units, σ the deviation of the places.

Source: Mnih, Heess, Graves & Kavukcuoglu 2014. Deviations: places beyond the border are looked at on it; the policy and
the baseline read the state and do not change it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo import layers
from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.layers.glimpse import reinforce_loss, retina
from zoo.models.base import GradientModel
from zoo.models.glimpse.glimpse_model import Glances, LooksAtImages, pixels
from zoo.registry import register_model

__all__ = ["RAM"]

SEED = 0x5EE  # of the paths that are drawn for all held-out images alike


@register_model(
    "ram",
    family="attention",
    accepts={"image": "class"},
    source="Mnih, Heess, Graves & Kavukcuoglu 2014",
    docs="glimpse",
)
class RAM(LooksAtImages, GradientModel):
    """The recurrent attention model, which classifies images by a few glimpses and learns where to look.

    Args:
        num_glimpses: T.
        glimpse_size: g, side of the retina's patches, in pixels at its first scale.
        num_scales: patches at each place, each twice as large as the one before and as coarse.
        hidden_size: H.
        glimpse_hidden_size: units of what it saw, and of where, before they are joined.
        std: σ, deviation of the places that are tried; 1 is half an image.
        num_paths: M, paths over which answers on held-out images are averaged; 1 takes the path of the means.

    Raises:
        ZooError: for a hyperparameter out of range.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="image", shape=(1, 28, 28), target="class", num_classes=10)
        >>> zoo.create_model("ram", spec, num_glimpses=3)(torch.zeros(4, 1, 28, 28)).shape
        torch.Size([4, 10])
    """

    adjustable = ("num_paths",)
    _drawn: tuple[Tensor, Tensor] | None = None

    def __init__(
        self,
        *,
        num_glimpses: int = 6,
        glimpse_size: int = 4,
        num_scales: int = 1,
        hidden_size: int = 256,
        glimpse_hidden_size: int = 128,
        std: float = 0.1,
        num_paths: int = 1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_range("num_glimpses", num_glimpses, 1, 10_000)
        check_range("glimpse_size", glimpse_size, 1, 10_000)
        check_range("num_scales", num_scales, 1, 12)
        check_range("hidden_size", hidden_size, 1)
        check_range("glimpse_hidden_size", glimpse_hidden_size, 1)
        check_range("std", std, 0, open_low=True)
        check_range("num_paths", num_paths, 1)

    def initialize(self, spec: DataSpec) -> None:
        h, side = self.hparams, max(spec.shape[1:])
        useful = 1 + max(0, math.ceil(math.log2(2 * side / h.glimpse_size)))  # the last holds the image from any place
        if h.num_scales > useful:
            raise ZooError(
                f"model.num_scales must be at most {useful} with model.glimpse_size={h.glimpse_size} on images of "
                f"{spec.shape[1]}×{spec.shape[2]}, not {h.num_scales}: the patches of more would hold nothing else."
            )
        self.what = nn.Linear(spec.shape[0] * h.num_scales * h.glimpse_size**2, h.glimpse_hidden_size)
        self.where = nn.Linear(2, h.glimpse_hidden_size)
        self.join = nn.Linear(2 * h.glimpse_hidden_size, h.hidden_size)
        self.core = layers.RNNCell(h.hidden_size, h.hidden_size, nonlinearity="relu")
        self.policy = nn.Linear(h.hidden_size, 2)
        self.baseline = nn.Linear(h.hidden_size, 1)
        self.head = nn.Linear(h.hidden_size, self.objective.num_outputs)

    # -- looking -------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W); in training those of one path that is drawn."""
        if self.training or self.hparams.num_paths == 1:
            return self.head(self.glance(x).hidden)
        paths = [self.head(self._look(x, *noise).hidden).log_softmax(-1) for noise in self._paths(x)]
        return torch.stack(paths).logsumexp(0) - math.log(len(paths))

    def glance(self, x: Tensor) -> Glances:
        """Return what is done with images: in training a drawn path, else that of the means from the middle."""
        if not self.training:
            return self._look(x, x.new_zeros(1, 2), x.new_zeros(1, self.hparams.num_glimpses - 1, 2))
        like: Any = {"dtype": x.dtype, "device": x.device}
        first = 2 * torch.rand(len(x), 2, **like) - 1
        return self._look(x, first, torch.randn(len(x), self.hparams.num_glimpses - 1, 2, **like))

    def _paths(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The first places and the noise of M paths, the same for all images."""
        first, noise = self._drawn or self._draw()
        return list(zip(first.to(x), noise.to(x), strict=True))

    def _draw(self) -> tuple[Tensor, Tensor]:
        generator, h = torch.Generator().manual_seed(SEED), self.hparams
        first = 2 * torch.rand(h.num_paths, 1, 2, generator=generator, dtype=torch.float64) - 1
        noise = torch.randn(h.num_paths, 1, h.num_glimpses - 1, 2, generator=generator, dtype=torch.float64)
        return first, noise

    def before_trace(self) -> None:
        super().before_trace()
        self._drawn = self._draw()  # no trace holds the drawing

    def _look(self, x: Tensor, first: Tensor, noise: Tensor) -> Glances:
        """Look at images from the first places (B or 1, 2) on, with noise (B or 1, T − 1, 2) for the others."""
        h = self.hparams
        place, state = first.expand(x.shape[0], 2), x.new_zeros(x.shape[0], h.hidden_size)
        places, log_probs, baselines = [place], [], []
        for step in range(h.num_glimpses):
            state = self.core(self._seen(x, place), state)  # (B, H)
            if step == h.num_glimpses - 1:
                break
            still = state.detach()
            mean = self.policy(still).tanh()
            chosen = (mean + h.std * noise[:, step]).detach()
            log_probs.append(-((chosen - mean) / h.std).square().sum(1) / 2)  # but for a constant
            baselines.append(self.baseline(still).squeeze(1))
            place = chosen.clamp(-1, 1)
            places.append(place)
        side = h.glimpse_size * 2.0 ** torch.arange(h.num_scales, device=x.device, dtype=x.dtype)
        return Glances(
            state,
            pixels(torch.stack(places, 1), *x.shape[-2:]),
            side.expand(x.shape[0], h.num_glimpses, h.num_scales),
            torch.stack(log_probs, 1) if log_probs else None,
            torch.stack(baselines, 1) if baselines else None,
        )

    def _seen(self, x: Tensor, place: Tensor) -> Tensor:
        """Return the features of a glimpse (B, H) at places (B, 2)."""
        patches = retina(x, place, self.hparams.glimpse_size, self.hparams.num_scales)
        both = torch.cat([self.what(patches.flatten(1)).relu(), self.where(place).relu()], 1)
        return self.join(both).relu()

    # -- training ------------------------------------------------------------------------------------------------

    def training_loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of the answer, with REINFORCE for the places and the error of the baseline."""
        found = self.glance(batch.x)
        output = self.head(found.hidden)
        loss = self.objective.loss(output, batch)
        if found.log_probs is None or found.baselines is None:
            return loss
        right = torch.eq(self.objective.predict(output), batch.y)  # type: ignore[arg-type]
        reward = right.to(output.dtype).unsqueeze(1)  # (B, 1)
        policy = reinforce_loss(found.log_probs, -reward, -found.baselines).sum(1)
        error = (found.baselines - reward).square().mean(1)
        losses, weight = policy + error, self.objective.row_weight(batch)
        return loss + (losses.mean() if weight is None else (losses * weight).sum() / weight.sum())
