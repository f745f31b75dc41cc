r"""What a model of word vectors predicts in each block: inputs, outputs, and how much each pair of them counts.

All four variants are logistic regressions of pairs of a hidden vector h and an output vector u, with weights $p_{ij}$
for "these two belong together" and $q_{ij}$ for "these do not":

```math
J = \sum_{ij} p_{ij} \ln(1 + e^{-s_{ij}}) + q_{ij} \ln(1 + e^{s_{ij}}), \qquad s_{ij} = h_i^\top u_j
```
```math
\frac{\partial J}{\partial s_{ij}} = (p_{ij} + q_{ij})\, σ(s_{ij}) - p_{ij}
```

| | hidden | outputs | p | q |
|---|---|---|---|---|
| skip-gram, drawn words | each centre | halo, K' drawn words | band | K m / K' of drawn words |
| CBOW, drawn words | mean of its window | centres, K' drawn words | 1 for its own centre | K / K' of drawn words |
| skip-gram, tree | each centre | nodes on the halo's paths | band, where a path turns left | band, right |
| CBOW, tree | mean of its window | nodes on the centres' paths | own path, left | own path, right |

where m is how many context words the centre has: the drawn words are shared by a block, with weights such that each
pair has K of them in expectation.

Legend: N blocks, C centres, L words of a halo, I input words, H hidden vectors, O outputs, D numbers of a vector, K
drawn words for each pair, K' for each block.

Source: Mikolov, Chen, Corrado & Dean 2013; Mikolov, Sutskever, Chen, Corrado & Dean 2013; shared negatives after Ji,
Satish, Li & Dubey 2016.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.word_vectors.huffman import HuffmanTree
from zoo.models.word_vectors.windows import Blocks

__all__ = ["Gradients", "Prediction", "gradients", "hierarchical", "losses", "negative_sampling"]


class Prediction(NamedTuple):
    """What is predicted of what in each block.

    Attributes:
        inputs: words whose vectors go in, (N, I).
        mix: with which weights they make up each hidden vector, (N, H, I); None where each is one.
        outputs: rows of the output vectors, (N, O).
        positive: p of the first P outputs, (N, H, P); it is 0 for all others.
        total: p + q, (N, H, O).
        predicted: how many words are, each from what the method predicts it of, (N,).
    """

    inputs: Tensor
    mix: Tensor | None
    outputs: Tensor
    positive: Tensor
    total: Tensor
    predicted: Tensor


class Gradients(NamedTuple):
    """The loss of blocks and its derivatives.

    Attributes:
        loss: J of each block, (N,).
        inputs: ∂J / ∂(vectors of the inputs), (N, I, D).
        outputs: ∂J / ∂(vectors of the outputs), (N, O, D).
        input_curvature: no second derivative by an input's vector is above it, (N, I).
        output_curvature: nor one by an output's vector above this, (N, O).
    """

    loss: Tensor
    inputs: Tensor
    outputs: Tensor
    input_curvature: Tensor
    output_curvature: Tensor


def negative_sampling(blocks: Blocks, drawn: Tensor, negatives: float, cbow: bool) -> Prediction:
    """Return the predictions of negative sampling.

    Args:
        blocks: N of them.
        drawn: words drawn from the noise, (N, K').
        negatives: K.
        cbow: predict the centre from its window, rather than each word of the window from the centre.
    """
    band, shared = blocks.band, negatives / drawn.shape[1]
    met = band.sum(2, keepdim=True)  # (N, C, 1)
    if cbow:
        mix, there = _means(blocks, met)
        positive = torch.eye(band.shape[1], dtype=band.dtype, device=band.device) * there  # (N, C, C)
        total = torch.cat([positive, (shared * there).expand(-1, -1, drawn.shape[1])], 2)
        return Prediction(blocks.halo, mix, torch.cat([blocks.centre, drawn], 1), positive, total, there.sum((1, 2)))
    total = torch.cat([band, (shared * met).expand(-1, -1, drawn.shape[1])], 2)  # (N, C, L + K')
    return Prediction(blocks.centre, None, torch.cat([blocks.halo, drawn], 1), band, total, met.sum((1, 2)))


def hierarchical(blocks: Blocks, tree: HuffmanTree, cbow: bool) -> Prediction:
    """Return the predictions of the hierarchical softmax: at each node of a word's path, whether it turns left.

    Args:
        blocks: N of them.
        tree: the Huffman tree of the vocabulary.
        cbow: predict the centre from its window, rather than each word of the window from the centre.
    """
    band, words = blocks.band, blocks.centre if cbow else blocks.halo
    met = band.sum(2, keepdim=True)  # (N, C, 1)
    mix, weight, predicted = None, band, met.sum((1, 2))
    if cbow:
        mix, there = _means(blocks, met)
        predicted = there.sum((1, 2))
        weight = torch.eye(band.shape[1], dtype=band.dtype, device=band.device) * there
    nodes, left, on_path = tree.nodes[words], tree.left[words], tree.on_path[words]  # (N, ·, depth)
    total = (weight.unsqueeze(3) * on_path.unsqueeze(1)).flatten(2)
    positive = (weight.unsqueeze(3) * (left & on_path).unsqueeze(1)).flatten(2)
    return Prediction(blocks.halo if cbow else blocks.centre, mix, nodes.flatten(1), positive, total, predicted)


def _means(blocks: Blocks, met: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of the mean of each centre's window (N, C, L), and of each centre that has one (N, C, 1)."""
    return blocks.band / met.masked_fill(met == 0, 1.0), blocks.weight.unsqueeze(2) * (met > 0)


def losses(vectors: Tensor, contexts: Tensor, prediction: Prediction) -> Tensor:
    """Return J of each block, (N,), of the vectors of its inputs (N, I, D) and outputs (N, O, D)."""
    hidden = vectors if prediction.mix is None else prediction.mix @ vectors
    scores = hidden @ contexts.mT  # (N, H, O)
    return _loss(scores, prediction)


def gradients(vectors: Tensor, contexts: Tensor, prediction: Prediction) -> Gradients:
    """Return J of each block and its derivatives, by the formula.

    Args:
        vectors: those of the inputs, (N, I, D).
        contexts: those of the outputs, (N, O, D).
        prediction: what is predicted.

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> pair = Prediction(torch.tensor([[0]]), None, torch.tensor([[0]]), one, one, torch.ones(1))
        >>> gradients(2 * one, 0 * one, pair).outputs.item()  # σ(0) − 1 times the input's vector
        -1.0
    """
    mix, positive = prediction.mix, prediction.positive
    hidden = vectors if mix is None else torch.bmm(mix, vectors)
    scores = torch.bmm(hidden, contexts.mT)
    loss = _loss(scores, prediction)
    slope = scores.sigmoid_().mul_(prediction.total)
    slope[:, :, : positive.shape[2]] -= positive
    of_hidden = torch.bmm(slope, contexts)
    of_inputs = of_hidden if mix is None else torch.bmm(mix.mT, of_hidden)
    # σ' is at most 1/4; all words of a mean move together, so that each has its share of the mean's curvature.
    of_means = 0.25 * (prediction.total * _squares(contexts).unsqueeze(1)).sum(2)  # (N, H)
    input_curvature = of_means if mix is None else torch.bmm(mix.mT, of_means.unsqueeze(2)).squeeze(2)
    output_curvature = 0.25 * (prediction.total * _squares(hidden).unsqueeze(2)).sum(1)  # (N, O)
    return Gradients(loss, of_inputs, torch.bmm(slope.mT, hidden), input_curvature, output_curvature)


def _squares(vectors: Tensor) -> Tensor:
    """Return the squared lengths of vectors (N, ·, D), (N, ·)."""
    return torch.linalg.vector_norm(vectors, dim=2).square_()


def _loss(scores: Tensor, prediction: Prediction) -> Tensor:
    """Σ (p + q) ln(1 + e^s) − p s, which is J with one logarithm for each pair."""
    total, positive = prediction.total, prediction.positive
    paired = (positive * scores[:, :, : positive.shape[2]]).sum((1, 2))
    return (total * F.softplus(scores)).sum((1, 2)) - paired
