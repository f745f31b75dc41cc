"""Recurrent networks: `rnn`, `lstm` and `gru`."""

from zoo.models.recurrent.recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]
