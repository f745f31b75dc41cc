"""Layers from raw tensors; importing them imports torch alone."""

from zoo.layers.recurrent import GRU, LSTM, RNN
from zoo.layers.recurrent_cells import GRUCell, LSTMCell, RNNCell

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]
