"""Explicit attention: `seq2seq`, which looks at words."""

from zoo.models.glimpse.seq2seq import Seq2Seq

__all__ = ["Seq2Seq"]
