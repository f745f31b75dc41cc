"""Transformers: the encoder and decoder of 2017, the encoder by itself, BERT, and the causal language model `gpt`."""

from zoo.models.transformer.bert import BERT
from zoo.models.transformer.gpt import GPT
from zoo.models.transformer.transformer import TransformerModel
from zoo.models.transformer.transformer_encoder import TransformerEncoderModel

__all__ = ["BERT", "GPT", "TransformerEncoderModel", "TransformerModel"]
