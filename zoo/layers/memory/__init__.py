"""Networks with a memory beside their weights, which heads read and write, and the steps by which they find a place."""

from zoo.layers.memory.addressing import content_weights, interpolate, read, sharpen, shift, similarity, write
from zoo.layers.memory.allocation import allocation, link, precede, use
from zoo.layers.memory.dnc import DNC, DNCState
from zoo.layers.memory.ntm import NTM, NTMState

__all__ = [
    "DNC",
    "NTM",
    "DNCState",
    "NTMState",
    "allocation",
    "content_weights",
    "interpolate",
    "link",
    "precede",
    "read",
    "sharpen",
    "shift",
    "similarity",
    "use",
    "write",
]
