r"""Word2Vec: vectors of words, learned by predicting a word from the words around it.

```math
J = \frac{1}{|P|} \sum_{(c, o) \in P} \Big( -\ln σ(u_o^\top v_c) - \sum_{k=1}^{K} \ln σ(-u_{n_k}^\top v_c) \Big),
\qquad n_k \sim n_w^{3/4}
```

for skip-gram with negative sampling: P are the pairs of a centre word c and a word o of its window. CBOW puts the mean
of the window's vectors in the place of $v_c$ and the centre in that of o; the hierarchical softmax puts the nodes on
the path of o in the place of the drawn words. With n-grams $v_w$ is the mean of a word's own vector and those of its
character n-grams.

A step takes the gradients of J's sum over the pairs of some blocks of text, by the formula, and changes only the rows
that occur in them: a batch is many such steps, at the learning rate of the batch.

Deviations from the tool `word2vec`: the drawn words are shared by a block of 16 centres and weighted to the same
expectation; they may be the predicted word itself, as the objective has it; the step of a row that occurs often is
bounded (see `descent`); output vectors begin small and random rather than at 0; in CBOW each vector gets its share of
the mean's gradient, not all of it.

Legend: V words and phrases, D numbers of a vector, B texts, T tokens, v input and u output vectors, K drawn words.

Source: Mikolov, Chen, Corrado & Dean 2013 (skip-gram, CBOW); Mikolov, Sutskever, Chen, Corrado & Dean 2013 (negative
sampling, subsampling, phrases); Bojanowski, Grave, Joulin & Mikolov 2017 (n-grams).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.kernels.word2vec import available, word2vec_steps
from zoo.models.base import GradientModel
from zoo.models.base.objectives import Objective, OwnLoss
from zoo.models.word_vectors.descent import descend
from zoo.models.word_vectors.huffman import HuffmanTree, huffman_tree
from zoo.models.word_vectors.noise import draw_words, noise_table, spread_words
from zoo.models.word_vectors.phrases import find_phrases, join_phrases
from zoo.models.word_vectors.prediction import Prediction, gradients, hierarchical, losses, negative_sampling
from zoo.models.word_vectors.subwords import Bags, bags_of, n_gram_buckets
from zoo.models.word_vectors.windows import Blocks, Windows, draw_windows, expected_blocks, keep_probability
from zoo.models.word_vectors.word_vector_model import WordVectorModel, special_tokens
from zoo.optimizers import Recipe
from zoo.registry import register_model
from zoo.text import Tokenizer, WordVectors

__all__ = ["Word2Vec"]

_AT_ONCE = 1 << 20  # tokens that are counted together
_SPREAD = 256  # words that stand for the noise where nothing is drawn


class Vocabulary(NamedTuple):
    """What follows from how often each word is met.

    Attributes:
        keep: probability that it stays in the text, (V,).
        noise: the table of the noise, (S,); None for the hierarchical softmax.
        tree: the paths of the hierarchical softmax; None for negative sampling.
        bags: the rows of each word's n-grams; None where it has its own alone.
    """

    keep: Tensor
    noise: Tensor | None
    tree: HuffmanTree | None
    bags: Bags | None


@register_model(
    "word2vec",
    family="word_vectors",
    accepts={"tokens": None},
    task="word_vectors",
    source="Mikolov, Chen, Corrado & Dean 2013",
    docs="word_vectors",
)
class Word2Vec(WordVectorModel, GradientModel):
    """Word2Vec: vectors of words that stand in similar places, by skip-gram or CBOW.

    Args:
        architecture: `skip_gram` predicts each word of a window from its centre, `cbow` the centre from its window.
        method: `negative_sampling`, or `hierarchical_softmax` over a Huffman tree.
        embedding_size: D.
        window: the most words on each side of a centre; for each centre fewer are drawn.
        negatives: K, drawn words for each pair.
        shared_negatives: drawn words for each block of 16 centres, which stand for the K of each pair.
        noise_power: the power of a word's count with which it is drawn.
        subsample: share of the text from which on a word is left out now and then; 0 keeps all.
        phrase_threshold: the least score of a pair of words that becomes one word; None for no phrases.
        phrase_min_count: how often it must be met.
        ngrams: shortest and longest character n-grams of the words; None for whole words alone.
        num_buckets: rows that the n-grams share.
        blocks_per_step: blocks of 16 centres whose gradients are taken at once.
        step_bound: c, the longest step of a row in units of the inverse of its curvature's bound.

    Raises:
        ZooError: for a hyperparameter out of range, or an optimizer other than plain `sgd`.

    Example:
        >>> import zoo
        >>> text = torch.randint(8, (40, 50), generator=torch.Generator().manual_seed(0))
        >>> model = zoo.fit(zoo.create_model("word2vec", embedding_size=4), text.tolist(), max_epochs=1, device="cpu")
        >>> model.vectors.shape
        torch.Size([8, 4])
    """

    automatic_optimization = False  # a batch is many steps, each of a few rows
    spec: Any
    counts: Tensor
    phrases: Tensor

    def __init__(
        self,
        *,
        architecture: Literal["skip_gram", "cbow"] = "skip_gram",
        method: Literal["negative_sampling", "hierarchical_softmax"] = "negative_sampling",
        embedding_size: int = 100,
        window: int = 5,
        negatives: int = 5,
        shared_negatives: int = 32,
        noise_power: float = 0.75,
        subsample: float = 1e-3,
        phrase_threshold: float | None = None,
        phrase_min_count: int = 5,
        ngrams: list[int] | None = None,
        num_buckets: int = 200_000,
        blocks_per_step: int = 64,
        step_bound: float = 2.0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("embedding_size", embedding_size), ("window", window), ("negatives", negatives),
            ("num_buckets", num_buckets), ("shared_negatives", shared_negatives),
            ("phrase_min_count", phrase_min_count), ("blocks_per_step", blocks_per_step),
        ):  # fmt: skip
            check_range(name, value, 1)
        for name, share in (
            ("noise_power", noise_power),
            ("subsample", subsample),
            ("phrase_threshold", phrase_threshold),
        ):
            check_range(name, share, 0)
        check_range("step_bound", step_bound, 0, open_low=True)
        if ngrams is not None and not (len(ngrams) == 2 and 1 <= ngrams[0] <= ngrams[1]):
            raise ZooError(f"model.ngrams must be two lengths such as [3, 6], not {ngrams}.")
        self.save_hyperparameters()
        self.recipe = Recipe("sgd", {"lr": 0.025}, "linear")
        self._vocabulary: Vocabulary | None = None

    # -- building --------------------------------------------------------------------------------------------------

    def make_objective(self, spec: DataSpec) -> Objective:
        return OwnLoss()

    def initialize(self, spec: DataSpec) -> None:
        if not spec.vocab_size:
            raise ZooError("word2vec needs the size of the vocabulary; the data do not say it.")
        self.special = special_tokens(spec.tokenizer)
        counts = torch.ones(spec.vocab_size, dtype=torch.int64)  # until the text is counted
        counts[self.special] = 0
        self.register_buffer("counts", counts)
        self.register_buffer("phrases", torch.zeros(0, 2, dtype=torch.int64))
        self._make_vectors()

    def _make_vectors(self) -> None:
        """Make vectors for the words and phrases that there are, and for the buckets of their n-grams."""
        size, device = self.hparams.embedding_size, self.counts.device
        rows = len(self.counts) + (self.hparams.num_buckets if self.hparams.ngrams else 0)
        self.embedding = nn.Parameter(torch.empty(rows, size, device=device).uniform_(-0.5 / size, 0.5 / size))
        self.context = nn.Parameter(
            torch.empty(len(self.counts), size, device=device).uniform_(-0.5 / size, 0.5 / size)
        )
        self._vocabulary = None

    @property
    def heeds(self) -> frozenset[str]:
        return super().heeds - {"gradient_clipping", "penalties"}

    def train_by(self, recipe: Recipe) -> None:
        options = {**recipe.optimizer_options, "lr": None}
        given = {key: value for key, value in options.items() if value and (key, value) != ("source", "zoo")}
        if recipe.optimizer != "sgd" or given:
            said = f"optimizer.{next(iter(given))}" if recipe.optimizer == "sgd" else f"optimizer={recipe.optimizer}"
            raise ZooError(f"word2vec takes plain steps of a few rows each: leave {said} out (optimizer=sgd).")
        if recipe.scheduler == "plateau":
            raise ZooError("scheduler=plateau is not for word2vec, whose rate changes with each batch: choose linear.")
        super().train_by(recipe)

    # -- the words of the training text ----------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if stage == "fit" and hasattr(self.trainer.datamodule, "rows"):
            self.count_words(self.trainer.datamodule.rows("train"))

    @torch.no_grad()
    def count_words(self, rows: Any) -> None:
        """Count the words of the training text, and find its phrases.

        Args:
            rows: the text, as `zoo.data.base.Rows`.

        Raises:
            ZooError: if it holds no word.
        """
        size, device = self.spec.vocab_size, self.counts.device
        counts = torch.zeros(size, dtype=torch.int64)
        for tokens, words in self._texts(rows):
            counts += torch.bincount(tokens[words], minlength=size)
        if not bool(counts.any()):
            raise ZooError("The training text has no word of the vocabulary: lower data.min_count, or check the text.")
        phrases = torch.zeros(0, 2, dtype=torch.int64)
        if self.hparams.phrase_threshold is not None:
            options = self.hparams
            phrases, met = find_phrases(self._texts(rows), counts, options.phrase_threshold, options.phrase_min_count)
            for part in phrases.T:  # a word within a phrase is not met by itself
                counts.index_add_(0, part, -met)
            counts = torch.cat([counts.clamp_min_(0), met])
        changed = len(counts) != len(self.counts)
        self.counts, self.phrases, self._vocabulary = counts.to(device), phrases.to(device), None
        if changed:
            self._make_vectors()

    def _texts(self, rows: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the tokens of the text, (B, T), and which of them are words, some at a time."""
        each = max(1, _AT_ONCE // max(1, self.spec.num_features))
        for index in torch.arange(len(rows)).split(each):
            batch = rows[index]
            yield batch.tokens, self._words(batch.tokens, batch.mask)

    def _words(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return which tokens are there and are words, (B, T)."""
        words = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.clone()
        for token in self.special:
            words &= tokens != token
        return words

    @property
    def vocabulary(self) -> Vocabulary:
        """What follows from how often each word is met."""
        if self._vocabulary is None or self._vocabulary.keep.device != self.counts.device:
            with torch.inference_mode(False):  # asked for first by a prediction, it serves training too
                self._vocabulary = self._make_vocabulary(self.counts.device)
        return self._vocabulary

    def _make_vocabulary(self, device: torch.device) -> Vocabulary:
        options, counts, noise, tree, bags = self.hparams, self.counts.cpu(), None, None, None
        if options.method == "negative_sampling":
            noise = noise_table(counts, options.noise_power).to(device)
        else:
            tree = HuffmanTree(*(part.to(device) for part in huffman_tree(counts)))
        if options.ngrams:
            shortest, longest = options.ngrams
            bags = bags_of(self.spellings, shortest, longest, options.num_buckets)
            bags = Bags(*(part.to(device) for part in bags))
        return Vocabulary(keep_probability(counts, options.subsample).to(device), noise, tree, bags)

    @property
    def spellings(self) -> list[str]:
        """How each word and phrase is written, V; special tokens are empty."""
        tokenizer, size = self.spec.tokenizer, self.spec.vocab_size
        words = Tokenizer.from_json(tokenizer).vocabulary if tokenizer else [str(number) for number in range(size)]
        words = ["" if number in {*self.special} else word for number, word in enumerate(words)]
        return words + [f"{words[a]}_{words[b]}" for a, b in self.phrases.tolist()]

    # -- training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        together = self.trainer.world_size > 1
        before = [table.clone() for table in (self.embedding.data, self.context.data)] if together else []
        loss, count = self.descend(batch, optimizer.param_groups[0]["lr"], batch_idx)
        if together:
            self._join_steps(before)
        optimizer.step()  # the steps are taken: this counts them, for checkpoints, curves and the schedule
        if schedule is not None:
            schedule.step()
        if count:
            self._unlogged.append((loss, count))

    @torch.no_grad()
    def descend(self, batch: Batch, rate: float, batch_idx: int = 0) -> tuple[Tensor, int]:
        """Take the steps of a batch; return the mean loss of its pairs, before each one's step, and their number.

        Args:
            batch: texts.
            rate: the learning rate of the sum over pairs.
            batch_idx: what messages call the batch.
        """
        tokens, keep = self._kept(batch)
        windows = draw_windows(tokens, keep, self.hparams.window)
        noise, bags = self.vocabulary.noise, self.vocabulary.bags
        drawn = None if noise is None else draw_words(noise, len(windows.reach), self.hparams.shared_negatives)
        if drawn is not None and bags is None and available(self.embedding):
            loss, predicted = self._descend_compiled(windows, drawn, rate)
        else:
            loss, predicted = self._descend(windows.blocks(keep.dtype), drawn, rate)
        self.check_finite(loss, batch_idx)
        number = round(float(predicted))
        return loss / max(number, 1), number

    def _descend_compiled(self, windows: Windows, drawn: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Take the steps of a text in one call; return the sum of the losses and the number of predicted words."""
        options = self.hparams
        loss, predicted = word2vec_steps(
            self.embedding.data, self.context.data, *windows, drawn, float(options.negatives),
            options.architecture == "cbow", rate, options.step_bound, options.blocks_per_step,
        )  # fmt: skip
        return loss, predicted

    def _descend(self, blocks: Blocks, drawn: Tensor | None, rate: float) -> tuple[Tensor, Tensor]:
        """Take the same steps in torch operations, for any device and each of the variants."""
        options = self.hparams
        loss, predicted = torch.zeros(2, dtype=torch.float64, device=blocks.centre.device)
        for place, part in enumerate(blocks.parts(options.blocks_per_step)):
            first = place * options.blocks_per_step
            prediction = self._prediction(part, None if drawn is None else drawn[first : first + len(part.centre)])
            inputs, outputs = prediction.inputs.flatten(), prediction.outputs.flatten()
            found = gradients(*self._look_up(prediction), prediction)
            loss += found.loss.sum()
            predicted += prediction.predicted.sum()
            if not loss.isfinite():
                break
            self._descend_inputs(inputs, found.inputs.flatten(0, 1), found.input_curvature.flatten(), rate)
            of_outputs, curvature = found.outputs.flatten(0, 1), found.output_curvature.flatten()
            descend(self.context.data, outputs, of_outputs, curvature, rate, options.step_bound)
        return loss, predicted

    def _kept(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the tokens of a batch with its phrases joined, and how probably each stays, (B, T)."""
        words = self._words(batch.tokens, batch.mask)
        tokens, words = join_phrases(batch.tokens, words, self.phrases, self.spec.vocab_size)
        return tokens, self.vocabulary.keep[tokens].to(self.embedding.dtype) * words

    def _prediction(self, blocks: Blocks, drawn: Tensor | None) -> Prediction:
        """Return what the model predicts in blocks, of drawn words (N, K'), or None for the tree."""
        options, vocabulary = self.hparams, self.vocabulary
        cbow = options.architecture == "cbow"
        if vocabulary.tree is not None:
            return hierarchical(blocks, vocabulary.tree, cbow)
        assert drawn is not None
        return negative_sampling(blocks, drawn, options.negatives, cbow)

    def _look_up(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Return the vectors of the inputs (N, I, D) and of the outputs (N, O, D)."""
        inputs, outputs, bags = prediction.inputs, prediction.outputs, self.vocabulary.bags
        words = inputs.flatten()
        vectors = self.embedding.index_select(0, words) if bags is None else bags.of(words).mean(self.embedding)
        contexts = self.context.index_select(0, outputs.flatten())
        size = self.hparams.embedding_size
        return vectors.view(*inputs.shape, size), contexts.view(*outputs.shape, size)

    def _descend_inputs(self, words: Tensor, gradient: Tensor, curvature: Tensor, rate: float) -> None:
        bags, rows = self.vocabulary.bags, words
        if bags is not None:
            own = bags.of(words)
            rows, gradient = own.rows, own.spread(gradient)
            curvature = own.spread(curvature.unsqueeze(1)).squeeze(1)
        descend(self.embedding.data, rows, gradient, curvature, rate, self.hparams.step_bound)

    def _join_steps(self, before: list[Tensor]) -> None:
        """Put together what several processes have learned of their parts of a batch.

        Their steps of a row add up as if one process had taken them one after the other, but rows that several have
        moved would move too far: of those the mean is taken.
        """
        for table, old in zip((self.embedding.data, self.context.data), before, strict=True):
            step = table - old
            moved = (step != 0).any(1).to(step.dtype)
            torch.distributed.all_reduce(step)
            torch.distributed.all_reduce(moved)
            table.copy_(old + step / moved.clamp_min_(1).unsqueeze(1))

    # -- evaluation ------------------------------------------------------------------------------------------------

    def output(self, batch: Batch) -> Tensor:
        """Return the mean loss of each text's pairs, and how many there are, (B, 2), without any draw.

        Each pair counts as probably as training would draw it, and the words at even distances of the noise stand for
        those that it draws.
        """
        tokens, keep = self._kept(batch)
        noise, blocks = self.vocabulary.noise, expected_blocks(tokens, keep, self.hparams.window)
        found: list[Tensor] = []
        for part in blocks.parts(self.hparams.blocks_per_step):
            drawn = None if noise is None else spread_words(noise, _SPREAD).expand(len(part.centre), -1)
            prediction = self._prediction(part, drawn)
            found.append(torch.stack([losses(*self._look_up(prediction), prediction), prediction.predicted], 1))
        if not found:
            return keep.new_zeros(len(tokens), 2)
        loss, count = torch.cat(found).view(len(tokens), -1, 2).sum(1).unbind(1)  # (B,) of all blocks of a text
        return torch.stack([loss / count.detach().masked_fill(count == 0, 1.0), count.detach()], 1)

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.output(batch)[:, 0]}

    def row_weight(self, batch: Batch) -> Tensor:
        tokens, keep = self._kept(batch)
        blocks = expected_blocks(tokens, keep, self.hparams.window)
        cbow = self.hparams.architecture == "cbow"
        met = blocks.band.sum(2)
        count = (blocks.weight * (met > 0) if cbow else met).view(len(tokens), -1).sum(1)
        return count if batch.weight is None else count * batch.weight

    # -- the vectors -----------------------------------------------------------------------------------------------

    @property
    def vectors(self) -> Tensor:
        """The vectors of all words and phrases, (V, D)."""
        bags = self.vocabulary.bags
        return self.embedding if bags is None else bags.mean(self.embedding)

    def vector(self, word: str) -> Tensor:
        """Return the vector of a word, (D,); with n-grams also of one that was never met.

        Raises:
            ZooError: for an unknown word of a model without n-grams.
        """
        self.check_fitted()
        known = self.spellings
        if word and word in known:
            return self.vectors.detach()[known.index(word)].cpu()
        if not self.hparams.ngrams:
            raise ZooError(f"'{word}' is not in the vocabulary: with model.ngrams=[3,6] any word has a vector.")
        shortest, longest = self.hparams.ngrams
        buckets = n_gram_buckets([word], shortest, longest, self.hparams.num_buckets)[0]
        if not len(buckets):
            raise ZooError(f"'{word}' has no n-gram of {shortest} to {longest} characters.")
        return self.embedding.detach()[len(self.counts) + buckets.to(self.device)].mean(0).cpu()

    @property
    def word_vectors(self) -> WordVectors:
        found = super().word_vectors
        if not len(self.phrases):
            return found
        names = self.spellings[self.spec.vocab_size :]
        return WordVectors(found.words + names, torch.cat([found.vectors, self.vectors.detach().cpu()[-len(names) :]]))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over the phrases of the saved model, and as many vectors."""
        for name in ("counts", "phrases"):
            saved = state_dict.get(prefix + name)
            if saved is not None:
                setattr(self, name, torch.empty_like(saved, device=self.counts.device))
        if len(self.counts) != len(self.context):
            self._make_vectors()
        self._vocabulary = None
        super()._load_from_state_dict(state_dict, prefix, *args)
