r"""GloVe: vectors of words whose products are the logarithms of how often the words stand near each other.

```math
J = \sum_{i,j: X_{ij} > 0} f(X_{ij}) \, (w_i^\top \tilde w_j + b_i + \tilde b_j - \ln X_{ij})^2, \qquad
f(x) = \min\!\big(1, (x / x_{\max})^α\big)
```

A first pass over the text counts the table X; each pass then goes once through the table, by steps of AdaGrad on some
of its entries at a time,

```math
G \leftarrow G + g^2, \qquad θ \leftarrow θ - η \, g / \sqrt{G}, \qquad G_0 = 1,
```

g being the sum of the gradients over the entries of the step. The vectors are $w_i + \tilde w_i$. Of a new text is
reported how well its words predict each other, with $p(j \mid i) ∝ \exp(w_i^\top \tilde w_j + \tilde b_j)$.

Legend: V tokens of the vocabulary, D numbers of a vector, w words and w̃ contexts, b and b̃ their biases, X
co-occurrences, N entries of the table or of a step, B texts, T tokens of each, M tokens of all, G the sum of squared
gradients, η the learning rate.

Source: Pennington, Socher & Manning 2014; AdaGrad of Duchi, Hazan & Singer 2011. Deviation: their tool takes a step an
entry, in several threads that do not wait for each other; here a step is of many entries, and always the same.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import StreamingModel
from zoo.models.word_vectors.cooccurrence import CooccurrenceTable, Entries, cooccurrences, unit_of_counts
from zoo.models.word_vectors.word_vector_model import WordVectorModel, special_tokens
from zoo.numerics.hashing import epoch_generator
from zoo.registry import register_model
from zoo.text import Tokenizer

__all__ = ["GloVe", "Gradients", "glove_gradients"]

_PARTS = ("words", "contexts")  # (V, D + 1) each, the bias behind the vector
_SCORED = 1 << 24  # scores that are held at a time when a text is evaluated


class Gradients(NamedTuple):
    """The loss of some entries, and its gradients by the rows that they have.

    Attributes:
        loss: J, summed over the entries.
        rows: words i that occur, (U,).
        words: gradient by their vectors and biases, (U, D + 1).
        columns: words j that occur, (U',).
        contexts: gradient by their vectors and biases as contexts, (U', D + 1).
    """

    loss: Tensor
    rows: Tensor
    words: Tensor
    columns: Tensor
    contexts: Tensor


def glove_gradients(
    words: Tensor, contexts: Tensor, i: Tensor, j: Tensor, x: Tensor, x_max: float = 100.0, alpha: float = 0.75
) -> Gradients:
    """Return the weighted squared error of some entries of the table, and its gradients.

    Args:
        words: vectors and, last, biases of words, (V, D + 1).
        contexts: those of contexts, (V, D + 1).
        i: the word of each entry, (N,).
        j: its context, (N,).
        x: its count X above 0, (N,).
        x_max: the count from which on all weigh alike.
        alpha: α, the power of smaller counts.

    Example:
        >>> table = torch.zeros(2, 3)  # of one entry, X = e: J = (1 / 100)^0 (0 - 1)²
        >>> x = torch.tensor([math.e])
        >>> glove_gradients(table, table, *torch.tensor([[0], [1]]), x, alpha=0.0).loss.round(decimals=4)
        tensor(1.)
    """
    left, right = words.index_select(0, i), contexts.index_select(0, j)  # (N, D + 1)
    error = torch.linalg.vecdot(left[:, :-1], right[:, :-1]) + left[:, -1] + right[:, -1] - x.log()
    weight = (x / x_max).clamp(max=1).pow(alpha)
    scaled = 2 * weight * error
    rows, by_words = _summed(i, j, contexts, scaled)
    columns, by_contexts = _summed(j, i, words, scaled)
    return Gradients((weight * error.square()).sum(), rows, by_words, columns, by_contexts)


def _summed(of: Tensor, by: Tensor, vectors: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows that occur, and for each the sum of scaled vectors, and of the scales, which is its bias's."""
    order = of.argsort(stable=True)
    rows, counts = of[order].unique_consecutive(return_counts=True)
    scale, first = scale[order], counts.cumsum(0) - counts
    sums = F.embedding_bag(by[order], vectors, first, mode="sum", per_sample_weights=scale)
    bag = torch.arange(len(rows), device=of.device).repeat_interleave(counts)
    sums[:, -1] = scale.new_zeros(len(rows)).index_add_(0, bag, scale)
    return rows, sums


@register_model(
    "glove",
    family="word_vectors",
    accepts={"tokens": None},
    task="word_vectors",
    source="Pennington, Socher & Manning 2014",
    docs="word_vectors",
)
class GloVe(WordVectorModel, StreamingModel):
    """GloVe: vectors of words from how often any two of them stand near each other.

    Args:
        embedding_size: D.
        window: how far apart two words may stand.
        symmetric: whether it does not matter which of them comes first.
        x_max: the count from which on all entries weigh alike.
        alpha: α, the power with which smaller counts weigh.
        learning_rate: η.
        num_epochs: how often the table is gone through.
        entries_per_step: entries of the table whose gradients make up a step.
        memory_limit: bytes of the table beyond which it is put on disk.
        seed: of the first vectors, and of the order of steps.

    Raises:
        ZooError: for a hyperparameter out of range.

    Example:
        >>> import zoo
        >>> text = torch.randint(8, (40, 50), generator=torch.Generator().manual_seed(0))
        >>> model = zoo.fit(zoo.create_model("glove", embedding_size=4, num_epochs=2), text.tolist(), device="cpu")
        >>> model.vectors.shape
        torch.Size([8, 4])
    """

    keys: Tensor
    counts: Tensor
    met_keys: Tensor
    met_counts: Tensor
    epoch: Tensor

    def __init__(
        self,
        *,
        embedding_size: int = 100,
        window: int = 10,
        symmetric: bool = True,
        x_max: float = 10.0,
        alpha: float = 0.75,
        learning_rate: float = 0.2,
        num_epochs: int = 10,
        entries_per_step: int = 8192,
        memory_limit: int = 1 << 30,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("embedding_size", embedding_size), ("window", window), ("num_epochs", num_epochs),
            ("entries_per_step", entries_per_step), ("memory_limit", memory_limit),
        ):  # fmt: skip
            check_range(name, value, 1)
        for name, number in (("x_max", x_max), ("learning_rate", learning_rate)):
            check_range(name, number, 0, 1e30, open_low=True)  # vectors are float32
        check_range("alpha", alpha, 0)
        check_range("num_epochs", num_epochs, 1, 1_000_000)
        self.save_hyperparameters()
        self._table: CooccurrenceTable | None = None

    def initialize(self, spec: DataSpec) -> None:
        if not spec.vocab_size:
            raise ZooError("glove needs the size of the vocabulary; the data do not say it.")
        none = torch.zeros(0, dtype=torch.int64)
        self.register_accumulator("met_keys", none)
        self.register_accumulator("met_counts", none)
        self.register_buffer("keys", none.clone())  # the table, once the text is read; until the model is done
        self.register_buffer("counts", none.clone())
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        width = self.hparams.embedding_size
        draw, shape = epoch_generator(self.hparams.seed, 0), (spec.vocab_size, width + 1)
        for name in _PARTS:
            start = (torch.rand(shape, generator=draw, dtype=torch.float64) - 0.5) / width
            self.register_parameter(name, nn.Parameter(start.to(spec.torch_dtype), requires_grad=False))
            self.register_buffer(f"{name}_squares", torch.ones(shape, dtype=spec.torch_dtype))
        self._table = None

    @property
    def _vocab_size(self) -> int:
        return len(self.words)

    @property
    def _tokenizer(self) -> str | None:
        assert self.spec is not None
        return self.spec.tokenizer

    @property
    def vectors(self) -> Tensor:
        return (self.words + self.contexts)[:, :-1]

    # -- counting ----------------------------------------------------------------------------------------------------

    def accumulate(self, batch: Batch) -> None:
        if len(self.keys):
            return  # the table is made
        if batch.weight is not None:
            raise ZooError("glove gives all texts the same weight: leave the sample weights out.")
        if self._table is None:
            self._table = CooccurrenceTable(self.hparams.memory_limit, Entries(self.met_keys, self.met_counts))
        tokens, text = self._words_of(batch)
        options = self.hparams
        self._table.add(cooccurrences(tokens, text, self._vocab_size, options.window, options.symmetric))

    def _words_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the words of all texts one after the other, (M,), and the text of each, which ends where one ends."""
        there = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.mask is None else batch.mask
        tokens = batch.tokens[there]
        text = torch.arange(batch.size, device=tokens.device).unsqueeze(1).expand_as(there)[there]
        tokenizer = self._tokenizer
        known = torch.ones_like(tokens, dtype=torch.bool)
        for token in special_tokens(tokenizer):
            known &= tokens != token
        if tokenizer is not None:
            end = Tokenizer.from_json(tokenizer).special("end")
            if end is not None:
                text = text + (tokens == end).cumsum(0)
        return tokens[known], text[known]

    def reset_accumulators(self) -> None:
        super().reset_accumulators()
        self._table = None

    def _state(self) -> dict[str, Tensor]:
        if self._table is not None:
            self.met_keys, self.met_counts = (column.to(self.device) for column in self._table.entries())
            self._table = None
        return super()._state()

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        table = CooccurrenceTable(self.hparams.memory_limit)
        for state in states:
            table.add(Entries(state["met_keys"], state["met_counts"]))
        return dict(zip(("met_keys", "met_counts"), table.entries(), strict=True))

    # -- going through the table ---------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return int(self.epoch) >= self.hparams.num_epochs

    @property
    def passes_needed(self) -> int:
        return self.hparams.num_epochs

    def solve(self) -> dict[str, float | Tensor]:
        if not len(self.keys):
            self._state()
            self.keys, self.counts = self.met_keys, self.met_counts
            self.reset_accumulators()
            if not len(self.keys):
                raise ZooError("No two known words stand near each other: there is nothing for glove to learn from.")
        loss, entries = self._go_through()
        if not math.isfinite(loss):
            raise ZooError("The vectors are not finite any more: lower model.learning_rate.")
        self.epoch += 1
        if self.done:
            self.keys, self.counts = (self.keys.new_zeros(0) for _ in range(2))
        return {"loss": loss / entries}

    def _go_through(self) -> tuple[float, int]:
        """Take a step for each part of the table; return the sum of J as it was before each step, and of how many."""
        size, total, entries = self.hparams.entries_per_step, 0.0, 0
        starts = torch.arange(0, len(self.keys), size)
        order = torch.randperm(len(starts), generator=epoch_generator(self.hparams.seed, 1, int(self.epoch)))
        for start in starts[order].tolist():
            i, j, x = self._entries(slice(start, start + size))
            found = glove_gradients(self.words, self.contexts, i, j, x, self.hparams.x_max, self.hparams.alpha)
            self._step("words", found.rows, found.words)
            self._step("contexts", found.columns, found.contexts)
            total += float(found.loss)
            entries += len(i)
        return total, entries

    def _entries(self, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return word, context and count of some entries; one that stands for both orders becomes two."""
        keys, size = self.keys[part], self._vocab_size
        x = self.counts[part].to(self.words.dtype) / unit_of_counts(self.hparams.window)
        i, j = keys // size, keys % size
        if not self.hparams.symmetric:
            return i, j, x
        twice = i != j
        x = torch.where(twice, x, 2 * x)  # a word near itself is met from both sides
        return torch.cat([i, j[twice]]), torch.cat([j, i[twice]]), torch.cat([x, x[twice]])

    def _step(self, name: str, rows: Tensor, gradient: Tensor) -> None:
        squares = getattr(self, f"{name}_squares")
        sums = squares[rows] + gradient.square()
        squares[rows] = sums
        getattr(self, name).data.index_add_(0, rows, gradient / sums.sqrt(), alpha=-self.hparams.learning_rate)

    # -- new texts -----------------------------------------------------------------------------------------------------

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean of −ln p(j | i) over the words near each other in each text, weighted by 1/distance."""
        if not self.done and self._trainer is not None and self.trainer.state.fn == "fit":
            return {}  # it costs as much as a pass over the table
        tokens, text = self._words_of(batch)
        # A text that an end parts has one row all the same.
        row = self._row_of_words(batch)
        centre, place = tokens.unique(return_inverse=True)
        normalizer = self._normalizer(centre)[place]  # (M,)
        total = normalizer.new_zeros(batch.size)
        weight = normalizer.new_zeros(batch.size)
        pair = (self.words, self.contexts)
        for distance in range(1, min(self.hparams.window, len(tokens) - 1) + 1):
            near = (text[distance:] == text[:-distance]).nonzero().flatten()
            both = (near, near + distance)
            for one, other in (both, both[::-1]) if self.hparams.symmetric else (both,):
                loss = normalizer[one] - self._scores(pair, tokens[one], tokens[other])
                total.index_add_(0, row[one], loss, alpha=1 / distance)
                weight.index_add_(0, row[one], torch.ones_like(loss), alpha=1 / distance)
        return {"nll": torch.where(weight > 0, total / weight.clamp_min(1e-30), 0.0)}

    def _row_of_words(self, batch: Batch) -> Tensor:
        there = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.mask is None else batch.mask.clone()
        for token in special_tokens(self._tokenizer):
            there &= batch.tokens != token
        return there.nonzero()[:, 0]

    @staticmethod
    def _scores(pair: tuple[Tensor, Tensor], i: Tensor, j: Tensor) -> Tensor:
        words, contexts = pair
        vectors = torch.linalg.vecdot(words[i][:, :-1], contexts[j][:, :-1])
        return vectors + contexts[j][:, -1]

    def _normalizer(self, centres: Tensor) -> Tensor:
        """Return ln Σ_j exp(w_i · w̃_j + b̃_j) for each centre, over all words that are no special tokens."""
        words = torch.ones(len(self.contexts), dtype=torch.bool, device=self.device)
        words[special_tokens(self._tokenizer)] = False
        contexts = self.contexts[words]
        parts = [self.words.new_zeros(0)]
        for part in centres.split(max(1, _SCORED // max(1, len(contexts)))):
            parts.append((self.words[part][:, :-1] @ contexts[:, :-1].T + contexts[:, -1]).logsumexp(1))
        return torch.cat(parts)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._table = None  # of another text
        super()._load_from_state_dict(state_dict, prefix, *args)
