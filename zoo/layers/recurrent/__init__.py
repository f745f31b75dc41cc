"""Recurrent layers from raw tensors, drop-ins for `torch.nn`'s. The equations: `lstm.py`, `gru.py` and `rnn.py`.

Each of the three opens with its formula, a function for one step, and has the layer and the cell below. `scan.py` is
the loop over time, `base.py` the parameters and the walk over layers and directions: that is all there is to a layer.
Where torch's own layer has the same formula, an operator of `zoo.kernels.recurrent` takes all steps at once.

Same constructors, `state_dict` keys, initial weights from a seed, results, errors and warnings as torch. Beyond torch,
and off by default: layer normalization in the cell, variational (locked) dropout, recurrent dropout, zoneout, hidden
sizes per layer, peepholes, and the GRU's other forms.
"""

from zoo.layers.recurrent.gru import GRU, GRUCell
from zoo.layers.recurrent.lstm import LSTM, LSTMCell
from zoo.layers.recurrent.rnn import RNN, RNNCell

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]
