r"""The Huffman tree of a vocabulary, and the way from its root to each word.

```math
P(w \mid h) = \prod_{n \text{ on the path of } w} σ(\pm\, u_n^\top h)
```

with + where the path turns left at node n, and − where it turns right: the probabilities of all words sum to 1, at the
cost of one path, about $\log_2 V$ nodes, and fewer for frequent words.

Legend: V words, of which U are in the text, u_n the vector of an inner node.

Source: Huffman 1952; Morin & Bengio 2005 (the softmax); Mikolov et al. 2013 (this tree for it).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["HuffmanTree", "huffman_tree"]


class HuffmanTree(NamedTuple):
    """The path of each word; one that is not in the text has none.

    Attributes:
        nodes: the inner nodes from the root on, (V, depth), 0 behind the last.
        left: whether the path turns left there, (V, depth).
        on_path: which of them are there, (V, depth).
    """

    nodes: Tensor
    left: Tensor
    on_path: Tensor


def huffman_tree(counts: Tensor) -> HuffmanTree:
    """Return the tree in which the paths, weighted with the counts, are shortest.

    Inner nodes are numbered from 0, the root, to U − 2.

    Args:
        counts: how often each word is met, (V,); those of 0 are left out.

    Example:
        >>> huffman_tree(torch.tensor([5, 1, 2])).on_path.sum(1).tolist()  # bits of each word
        [1, 2, 2]
    """
    order = counts.argsort(stable=True)
    words = order[counts[order] > 0]  # (U,), rarest first
    parent, turns_left = _join(counts[words].tolist())
    size = len(words)
    place, nodes, left = torch.arange(size), [], []
    root = 2 * size - 2
    while size > 1 and bool((place != root).any()):  # one step up for all words that are not there yet
        there = place != root
        nodes.append(torch.where(there, parent[place], -1))
        left.append(turns_left[place] & there)
        place = torch.where(there, parent[place], place)
    depth = len(nodes)
    found = torch.stack(nodes, 1) if depth else torch.zeros(size, 0, dtype=torch.long)  # from the word to the root
    turns = torch.stack(left, 1) if depth else torch.zeros(size, 0, dtype=torch.bool)
    length = (found >= 0).sum(1, keepdim=True)
    step = torch.arange(depth)
    on_path = step < length
    backwards = (length - 1 - step).clamp_min(0)  # from the root to the word
    table = HuffmanTree(
        torch.zeros(len(counts), depth, dtype=torch.long),
        torch.zeros(len(counts), depth, dtype=torch.bool),
        torch.zeros(len(counts), depth, dtype=torch.bool),
    )
    table.nodes[words] = (root - found.gather(1, backwards)).masked_fill(~on_path, 0)
    table.left[words] = turns.gather(1, backwards) & on_path
    table.on_path[words] = on_path
    return table


def _join(counts: list[int]) -> tuple[Tensor, Tensor]:
    """Join the two rarest nodes again and again; return each node's parent, and whether it is the left one, (2U − 1,).

    Counts rise, and so do those of joined nodes as they are made, so that two queues replace a heap.
    """
    leaves, joined = deque(enumerate(counts)), deque[tuple[int, int]]()
    parent, is_left = [0] * max(2 * len(counts) - 1, 0), [False] * max(2 * len(counts) - 1, 0)
    for made in range(len(counts), 2 * len(counts) - 1):
        pair = []
        for _ in range(2):
            rarest = leaves if leaves and (not joined or leaves[0][1] <= joined[0][1]) else joined
            pair.append(rarest.popleft())
        for left, (node, _) in zip((False, True), pair, strict=True):
            parent[node], is_left[node] = made, left
        joined.append((made, pair[0][1] + pair[1][1]))
    return torch.tensor(parent, dtype=torch.long), torch.tensor(is_left, dtype=torch.bool)
