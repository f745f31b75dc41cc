r"""DRAW's reader: an image is seen through a grid of Gaussian filters that the network moves and widens itself.

```math
(g_X, g_Y, \log σ^2, \log δ, \log γ)_t = W_a h_{t-1}, \qquad r_t = γ\, F_Y\, x\, F_X^\top, \qquad
h_t = \mathrm{LSTM}(r_t, h_{t-1}), \qquad \hat y = \mathrm{softmax}(W_y h_T)
```

The glimpse is the mean of the image under the filters (`zoo.layers.glimpse.windows`), soft, so that where to look is
learned by backpropagation alone. The first glimpse is of the whole image, coarsely.

Legend: B images x, T glimpses of N × N filters, H hidden units.

Source: Gregor, Danihelka, Graves, Rezende & Wierstra 2015, §3.2 and 4.1 (classification of cluttered MNIST). The part
that draws is not here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import layers
from zoo.checks import check_range
from zoo.data.spec import DataSpec
from zoo.layers.glimpse import read_window, window_of
from zoo.models.base import GradientModel
from zoo.models.glimpse.glimpse_model import Glances, LooksAtImages
from zoo.registry import register_model

__all__ = ["DRAW"]


@register_model("draw", family="attention", accepts={"image": "class"}, source="Gregor et al. 2015", docs="glimpse")
class DRAW(LooksAtImages, GradientModel):
    """A classifier that reads an image by DRAW's filter bank, a few glimpses one after the other.

    Args:
        num_glimpses: T.
        glimpse_size: N, filters on a side.
        hidden_size: H.

    Raises:
        ZooError: for a hyperparameter out of range.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="image", shape=(1, 28, 28), target="class", num_classes=10)
        >>> zoo.create_model("draw", spec, num_glimpses=3)(torch.zeros(4, 1, 28, 28)).shape
        torch.Size([4, 10])
    """

    def __init__(self, *, num_glimpses: int = 6, glimpse_size: int = 4, hidden_size: int = 128) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_range("num_glimpses", num_glimpses, 1, 10_000)
        check_range("glimpse_size", glimpse_size, 1, 10_000)
        check_range("hidden_size", hidden_size, 1)

    def initialize(self, spec: DataSpec) -> None:
        h = self.hparams
        self.core = layers.LSTMCell(spec.shape[0] * h.glimpse_size**2, h.hidden_size)
        self.attend = nn.Linear(h.hidden_size, 5)
        nn.init.zeros_(self.attend.bias)  # the whole image at first
        self.head = nn.Linear(h.hidden_size, self.objective.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W)."""
        return self.head(self.glance(x).hidden)

    def glance(self, x: Tensor) -> Glances:
        size = self.hparams.glimpse_size
        state = tuple(x.new_zeros(x.shape[0], self.hparams.hidden_size) for _ in range(2))
        centres, sides = [], []
        for _ in range(self.hparams.num_glimpses):
            window = window_of(self.attend(state[0]), x.shape[-2], x.shape[-1], size)
            state = self.core(read_window(x, window, size).flatten(1), state)
            centres.append(torch.stack([window.x, window.y], 1))
            sides.append(((size - 1) * window.stride + 2 * window.width).unsqueeze(1))
        return Glances(state[0], torch.stack(centres, 1), torch.stack(sides, 1))
