"""What models that read tokens share: the table of the tokens' vectors, drawn at random or taken from word vectors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo.data.spec import DataSpec
from zoo.errors import ZooError

__all__ = ["EmbedsTokens", "pretrained_table"]

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from zoo.models.base.module import ZooModel

_Base: Any = ZooModel if TYPE_CHECKING else object


class EmbedsTokens(_Base):
    """A mixin for models with the hyperparameters `embedding` (a file of word vectors, or the run that learned them),
    `freeze_embedding` and `embedding_size`; `self.embedding` is the table that `token_table` made.

    What such a model is saved with holds its vectors: `embedding` is null there, and no file is asked for again.
    """

    def token_table(self, spec: DataSpec, size: int) -> nn.Embedding | None:
        """Return the vectors of the tokens, (V, D); None for data of another kind.

        Args:
            spec: what the data hold.
            size: D where neither the user nor a file says another one.

        Raises:
            ZooError: for word vectors of another size than asked for, or of none of the words.
        """
        path = self.hparams.embedding
        if spec.kind != "tokens":
            if path is not None:
                raise ZooError(f"model.embedding is for tokens, and these are {spec.describe()}: leave it out.")
            return None
        if not spec.vocab_size:
            raise ZooError(f"{self.entry.name} needs the size of the vocabulary; the data do not say it.")
        if path is None:
            table = nn.Embedding(spec.vocab_size, self.hparams.embedding_size or size)
        else:
            table = pretrained_table(path, spec, self.hparams.embedding_size)
        table.weight.requires_grad_(not self.hparams.freeze_embedding)
        return table

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.hparams.embedding is not None:
            own = {"embedding": None, "embedding_size": self.embedding.embedding_dim}
            checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], **own}


def pretrained_table(path: str, spec: DataSpec, size: int | None) -> nn.Embedding:
    """Return the vectors of a file for the words of the vocabulary; of others, draws of the same spread.

    Args:
        path: a file of word vectors, or the run that learned them.
        spec: what the data hold.
        size: how many numbers a vector is to have; None for as many as it has.

    Raises:
        ZooError: for word vectors of another size, or of none of the words.
    """
    from zoo.text import Tokenizer
    from zoo.text.vector_files import read_vectors

    if spec.tokenizer is None:
        raise ZooError("model.embedding finds vectors by words, and these are bare numbers of tokens: leave it out.")
    vocabulary = Tokenizer.from_json(spec.tokenizer).vocabulary
    words, vectors = read_vectors(path, only={*vocabulary, *map(str.lower, vocabulary)})
    if size is not None and len(words) and size != vectors.shape[1]:
        raise ZooError(f"{path} has vectors of {vectors.shape[1]} numbers: leave model.embedding_size={size} out.")
    numbers = {word: number for number, word in enumerate(words)}
    place = torch.tensor([numbers.get(word, numbers.get(word.lower(), -1)) for word in vocabulary])  # (V,)
    found = place >= 0
    if not bool(found.any()):
        some = ", ".join(word for word in vocabulary if word.isalpha())[:40]
        raise ZooError(f"{path} has a vector for none of the tokens ({some} …): pass data.tokenizer=word.")
    log.info("%s has vectors for %d of %d tokens; the others begin at random.", path, int(found.sum()), len(found))
    table = nn.Embedding(len(vocabulary), vectors.shape[1])
    with torch.no_grad():
        known = vectors[place[found]]
        table.weight.mul_(known.square().mean().sqrt())
        table.weight[found] = known.to(table.weight.dtype)
    return table
