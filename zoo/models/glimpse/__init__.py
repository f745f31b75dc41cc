"""Explicit attention: `seq2seq`, which looks at words, `ram` and `draw`, which look at images."""

from zoo.models.glimpse.draw import DRAW
from zoo.models.glimpse.ram import RAM
from zoo.models.glimpse.seq2seq import Seq2Seq

__all__ = ["DRAW", "RAM", "Seq2Seq"]
