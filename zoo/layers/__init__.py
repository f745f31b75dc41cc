"""Layers from raw tensors; importing them imports torch alone."""

from zoo.layers.convolution import AvgPool2d, Conv2d, MaxPool2d
from zoo.layers.recurrent import GRU, LSTM, RNN
from zoo.layers.recurrent_cells import GRUCell, LSTMCell, RNNCell
from zoo.layers.recurrent_kernels import build_kernels

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AvgPool2d",
    "Conv2d",
    "GRUCell",
    "LSTMCell",
    "MaxPool2d",
    "RNNCell",
    "build_kernels",
]
