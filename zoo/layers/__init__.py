"""Layers from raw tensors; importing them imports torch and the kernels alone."""

from zoo.layers.convolution import AvgPool2d, Conv2d, MaxPool2d
from zoo.layers.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

__all__ = ["GRU", "LSTM", "RNN", "AvgPool2d", "Conv2d", "GRUCell", "LSTMCell", "MaxPool2d", "RNNCell"]
