"""Explicit attention: a distribution Pr(g | a) over glimpses g of the data, whose parameters a a network puts out.

The glimpse, which goes into the network's next step, is their mean (soft) or one of them (hard), `choice.py`. They are
positions, or entries of a memory that fit a query (`content.py`).
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

__all__ = [
    "AdditiveAttention",
    "HardGlimpse",
    "MultiplicativeAttention",
    "chosen_glimpse",
    "expected_glimpse",
    "glimpse_probabilities",
    "reinforce_loss",
    "sampled_glimpse",
    "straight_through_glimpse",
]
