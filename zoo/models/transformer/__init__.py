"""Transformers: the causal language model `gpt`."""

from zoo.models.transformer.gpt import GPT

__all__ = ["GPT"]
