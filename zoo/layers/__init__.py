"""Layers from raw tensors; importing them imports torch and the kernels alone."""

from zoo.layers.attention import MultiheadAttention, scaled_dot_product_attention
from zoo.layers.cache import KeyValueCache, TransformerCache
from zoo.layers.convolution import AvgPool2d, Conv2d, MaxPool2d
from zoo.layers.dropout import Dropout, Dropout1d, Dropout2d, Dropout3d, VariationalDropout
from zoo.layers.embedding import TokenEmbedding
from zoo.layers.feedforward import FeedForward
from zoo.layers.linear import Linear
from zoo.layers.memory import DNC, NTM
from zoo.layers.normalization import BatchNorm1d, BatchNorm2d, LayerNorm, RMSNorm
from zoo.layers.positions import LearnedPositionalEncoding, SinusoidalPositionalEncoding
from zoo.layers.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from zoo.layers.transformer import (
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)

__all__ = [
    "DNC",
    "GRU",
    "LSTM",
    "NTM",
    "RNN",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeedForward",
    "GRUCell",
    "KeyValueCache",
    "LSTMCell",
    "LayerNorm",
    "LearnedPositionalEncoding",
    "Linear",
    "MaxPool2d",
    "MultiheadAttention",
    "RMSNorm",
    "RNNCell",
    "SinusoidalPositionalEncoding",
    "TokenEmbedding",
    "Transformer",
    "TransformerCache",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "VariationalDropout",
    "scaled_dot_product_attention",
]
