"""The bases of every model: `GradientModel` takes optimizer steps, `StreamingModel` sums statistics and solves.

Both train through the same `Trainer.fit`, where one pass over the data is one epoch. A family with a choice of solver
derives from both and sets `streaming` in its constructor: the streaming hooks then stand aside for the gradient ones.

    class MyModel(GradientModel):           # initialize(spec), forward(x)
    class MyModel(StreamingModel):          # initialize(spec), accumulate(batch), solve(), done
    class MyModel(StreamingModel, GradientModel):
    class MyModel(CollectsRows, StreamingModel):    # solve() takes all rows of the pass
    class MyModel(EmbedsTokens, GradientModel):     # token_table(spec, size): vectors of tokens, perhaps from a file
    class MyModel(Generates, GradientModel):        # next_logits(tokens, state): goes on with a text
"""

from zoo.models.base.collects import Collected, CollectsRows
from zoo.models.base.embeds import EmbedsTokens
from zoo.models.base.generates import Generates
from zoo.models.base.gradient import GradientModel, NonFiniteLossError
from zoo.models.base.module import ZooModel
from zoo.models.base.streaming import StreamingModel

__all__ = [
    "Collected",
    "CollectsRows",
    "EmbedsTokens",
    "Generates",
    "GradientModel",
    "NonFiniteLossError",
    "StreamingModel",
    "ZooModel",
]
