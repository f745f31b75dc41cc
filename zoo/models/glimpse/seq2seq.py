r"""Sequence to sequence with attention: a recurrent encoder reads, a recurrent decoder says, and looks back as it does.

```math
m = \mathrm{enc}(E_s) \;\text{in both directions}, \qquad
h_0 = \tanh(W_b [\overrightarrow m_S, \overleftarrow m_1]), \qquad h_t = \mathrm{dec}(E_{t}, h_{t-1}), \\
α_{ts} = \mathrm{softmax}_s\, e(h_t, m_s), \quad c_t = \sum_s α_{ts} m_s, \quad r_t = \tanh(W_r [c_t, h_t]), \quad
p(t_{j+1} \mid t_{\le j}, s) = \mathrm{softmax}(E\, r_j)
```

The weights α are a distribution over glimpses of the source; nobody tells it which words belong together. The score e
is `additive` (Bahdanau et al.) or `multiplicative` (Luong et al.), see `zoo.layers.glimpse`. With `input_feeding` the
step also takes the readout before it, $h_t = \mathrm{dec}([E_t, r_{t-1}], h_{t-1})$, so that it knows where it looked;
without, all steps of the training are one call of the layer.

Legend: B pairs, S tokens of the source s, T of the target t, H hidden units, L layers, V tokens, E the one table of
V × H numbers for both languages and the output, m the memory (B, S, 2H), h the states (B, T, H), r the readouts
(B, T, H).

Source: Sutskever, Vinyals & Le 2014; Bahdanau, Cho & Bengio 2015; Luong, Pham & Manning 2015. Deviations: the query is
the state behind the step, as Luong's, for both scores (Bahdanau's is the state before it, and the glimpse goes into the
step); every layer of the decoder begins with both directions of the encoder's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo import layers
from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.layers import TokenEmbedding
from zoo.layers.glimpse import AdditiveAttention, MultiplicativeAttention
from zoo.models.base import GradientModel
from zoo.models.base.translates import Translates
from zoo.registry import register_model
from zoo.text.reading import select_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Seq2Seq"]

ALIGNED = 4  # pairs whose alignments are drawn
MOST = 32  # tokens of a text that are drawn

Hidden = tuple[Tensor, ...]  # (h,) of a GRU, (h, c) of an LSTM, (L, B, H) each


class State(NamedTuple):
    """What decoding goes on from.

    Attributes:
        memory: what the encoder made of the sources, (B, S, 2H).
        projected: what the scores need of it, computed once.
        mask: which of their tokens are there, (B, S), or None for all.
        hidden: the decoder's state.
        readout: r of the step before, (B, H).
    """

    memory: Tensor
    projected: Tensor
    mask: Tensor | None
    hidden: Hidden
    readout: Tensor


@register_model(
    "seq2seq",
    family="attention",
    accepts={"pairs": "tokens"},
    source="Bahdanau, Cho & Bengio 2015; Luong, Pham & Manning 2015",
    docs="glimpse",
)
class Seq2Seq(Translates, GradientModel):
    """Recurrent encoder and decoder with attention, for sentence pairs such as translations.

    Args:
        hidden_size: H, units of each layer and direction, and the width of a token's vector.
        num_layers: L, layers of the encoder and of the decoder.
        cell: `gru` or `lstm`.
        attention: how queries are scored: `additive` or `multiplicative`.
        input_feeding: a step also takes the readout of the one before.
        dropout: share dropped in training, of vectors, of readouts and between layers.
        tie_embeddings: one table for the tokens that are read and for the scores of those that are said.
        label_smoothing: ε, the share of the label that is spread over all tokens in training.
        layers: `zoo` for our layers, `torch` for the built-in ones with the same weights.

    Raises:
        ZooError: for a hyperparameter out of range.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="pairs", shape=(7, 5), target="tokens", vocab_size=11)
        >>> model = zoo.create_model("seq2seq", spec, hidden_size=8)
        >>> model(torch.zeros(4, 7, dtype=torch.long), torch.zeros(4, 5, dtype=torch.long)).shape
        torch.Size([4, 5, 11])
    """

    def __init__(
        self,
        *,
        hidden_size: int = 128,
        num_layers: int = 1,
        cell: Literal["gru", "lstm"] = "gru",
        attention: Literal["additive", "multiplicative"] = "additive",
        input_feeding: bool = False,
        dropout: float = 0.1,
        tie_embeddings: bool = True,
        label_smoothing: float = 0.1,
        layers: Literal["zoo", "torch"] = "zoo",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_range("hidden_size", hidden_size, 1)
        check_range("num_layers", num_layers, 1, 1000)
        check_range("dropout", dropout, 0, 1)
        check_range("label_smoothing", label_smoothing, 0, 1)

    def initialize(self, spec: DataSpec) -> None:
        assert spec.vocab_size is not None  # the objective has asked for it
        h, size = self.hparams, self.hparams.hidden_size
        self.embedding = TokenEmbedding(spec.vocab_size, size, scaled=True)
        self.drop = layers.Dropout(h.dropout)
        make = getattr(layers if h.layers == "zoo" else nn, h.cell.upper())
        options = {"num_layers": h.num_layers, "dropout": h.dropout if h.num_layers > 1 else 0.0, "batch_first": True}
        self.encoder = make(size, size, bidirectional=True, **options)
        self.decoder = make(2 * size if h.input_feeding else size, size, **options)
        self.bridges = nn.ModuleList(nn.Linear(2 * size, size) for _ in range(2 if h.cell == "lstm" else 1))
        additive = h.attention == "additive"
        self.attention = (
            AdditiveAttention(size, 2 * size, size) if additive else MultiplicativeAttention(size, 2 * size)
        )
        self.readout = nn.Linear(3 * size, size, bias=False)
        self.head = None if h.tie_embeddings else nn.Linear(size, spec.vocab_size, bias=False)

    # -- forward -------------------------------------------------------------------------------------------------

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Return the logits (B, T, V) of what follows each token of the targets.

        Args:
            source: tokens (B, S).
            target: tokens (B, T), from the one that begins a text on.
            source_mask: which tokens of the sources are there, (B, S); None for all.
        """
        return self.logits(self.decode(target, self.encode(source, source_mask))[0])

    def encode(self, source: Tensor, mask: Tensor | None = None) -> State:
        """Return what decoding sources (B, S) begins with."""
        x = self.drop(self.embedding(source))
        if mask is None:
            memory, last = self.encoder(x)
        else:
            packed = pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
            memory, last = self.encoder(packed)
            memory = pad_packed_sequence(memory, batch_first=True, total_length=source.shape[1])[0]  # (B, S, 2H)
        both = [self._both(part) for part in (last if isinstance(last, tuple) else (last,))]  # (L, B, 2H) each
        hidden = [bridge(part) for bridge, part in zip(self.bridges, both, strict=True)]
        hidden[0] = hidden[0].tanh()  # a cell has no bound
        projected = self.attention.project(memory)
        readout = memory.new_zeros(memory.shape[0], self.hparams.hidden_size)
        return State(memory, projected, mask, tuple(hidden), readout)

    @staticmethod
    def _both(last: Tensor) -> Tensor:
        """The last states of both directions (2L, B, H) side by side, (L, B, 2H)."""
        return torch.cat(last.unflatten(0, (-1, 2)).unbind(1), -1)

    def decode(self, target: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return the readouts (B, T, H) and the weights of the sources (B, T, S) after each token of the targets."""
        x = self.drop(self.embedding(target))  # (B, T, H)
        feeds = self.hparams.input_feeding
        readouts, weights = [], []
        for step in x.split(1, 1) if feeds else (x,):
            inputs = torch.cat([step, state.readout.unsqueeze(1)], -1) if feeds else step
            states, last = self.decoder(inputs, state.hidden if len(state.hidden) == 2 else state.hidden[0])
            glimpse, looked = self.attention(states, state.memory, state.mask, state.projected)
            readouts.append(self.drop(self.readout(torch.cat([glimpse, states], -1)).tanh()))
            weights.append(looked)
            hidden = last if isinstance(last, tuple) else (last,)
            state = state._replace(hidden=hidden, readout=readouts[-1][:, -1])
        return torch.cat(readouts, 1), torch.cat(weights, 1), state

    def logits(self, readouts: Tensor) -> Tensor:
        """Return the scores (…, V) of the tokens that readouts (…, H) say."""
        return self.embedding.logits(readouts) if self.head is None else self.head(readouts)

    def before_trace(self) -> None:
        super().before_trace()
        self.encoder.by_steps = self.decoder.by_steps = True

    # -- translating ---------------------------------------------------------------------------------------------

    def read(self, batch: Batch) -> State:
        return self.encode(batch.source, batch.source_mask)

    def next_logits(
        self, tokens: Tensor, state: State | None = None, mask: Tensor | None = None, every: bool = False
    ) -> tuple[Tensor, State]:
        assert state is not None  # a translation begins with a source
        readouts, _, state = self.decode(tokens, state)
        return self.logits(readouts if every else readouts[:, -1]), state

    def select_state(self, state: State, rows: Tensor) -> State:
        return select_rows(state._replace(hidden=()), rows)._replace(hidden=select_rows(state.hidden, rows, 1))

    # -- pictures ------------------------------------------------------------------------------------------------

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)
        few = batch.rows(slice(ALIGNED))
        weights = self.decode(few.target, self.encode(few.source, few.source_mask))[1]  # (B, T, S)
        pairs = []
        for row in range(few.size):
            read, said = (
                min(MOST, tokens.shape[1] if mask is None else int(mask[row].sum()))
                for tokens, mask in ((few.source, few.source_mask), (few.target, few.target_mask))
            )
            follows = few.target if few.y is None else few.y
            names = self._names(follows[row, :said]), self._names(few.source[row, :read])
            pairs.append((weights[row, :said, :read], *names))
        yield "alignment", visual.alignment(pairs)
