"""Explicit attention: a distribution Pr(g | a) over glimpses g of the data, whose parameters a a network puts out.

The glimpse, which goes into the network's next step, is their mean (soft) or one of them (hard), `choice.py`. They are
positions, or entries of a memory that fit a query (`content.py`), Gaussian windows of an image (`windows.py`), or the
patches of a retina (`retina.py`).
"""

from zoo.layers.glimpse.choice import (
    HardGlimpse,
    chosen_glimpse,
    expected_glimpse,
    glimpse_probabilities,
    reinforce_loss,
    sampled_glimpse,
    straight_through_glimpse,
)
from zoo.layers.glimpse.content import AdditiveAttention, MultiplicativeAttention
from zoo.layers.glimpse.retina import retina
from zoo.layers.glimpse.windows import Window, read_window, window_filters, window_of

__all__ = [
    "AdditiveAttention",
    "HardGlimpse",
    "MultiplicativeAttention",
    "Window",
    "chosen_glimpse",
    "expected_glimpse",
    "glimpse_probabilities",
    "read_window",
    "reinforce_loss",
    "retina",
    "sampled_glimpse",
    "straight_through_glimpse",
    "window_filters",
    "window_of",
]
