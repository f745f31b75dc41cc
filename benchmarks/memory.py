"""Steps of the Neural Turing Machine beside a plain design: head after head, and the shift in a loop over the batch.

The design is that of public implementations in PyTorch: each head has its own slice of the controller's output and
compares its key by `cosine_similarity`, each row has its weights shifted by a `conv1d` and raised to a power,
and then the heads read or write by outer products. It is written anew, around the same parameters, for the same work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import Job
from zoo.layers import NTM
from zoo.layers.memory.machine import control

STEPS, INPUTS = 20, 9
ROWS = (32, 4)
BOUNDS = {32: 0.2, 4: 0.5}


def shifted(weights: Tensor, shifts: Tensor) -> Tensor:
    """Move the weights of one row (N,) round the ring."""
    reach = shifts.numel() // 2
    ring = torch.cat([weights[-reach:], weights, weights[:reach]])
    return F.conv1d(ring.view(1, 1, -1), shifts.flip(0).view(1, 1, -1)).view(-1)


def place(memory: Tensor, before: Tensor, key: Tensor, positive: Tensor, gate: Tensor, shifts: Tensor) -> Tensor:
    """Where one head goes, (B, N)."""
    strength, sharpness = F.softplus(positive[:, :1]), 1 + F.softplus(positive[:, 1:])
    content = F.softmax(strength * F.cosine_similarity(memory + 1e-16, key.unsqueeze(1) + 1e-16, dim=-1), dim=1)
    mixed = gate * content + (1 - gate) * before
    shifts = F.softmax(shifts, dim=1)
    moved = torch.zeros_like(mixed)
    for row in range(len(mixed)):
        moved[row] = shifted(mixed[row], shifts[row])
    sharp = moved**sharpness
    return sharp / (sharp.sum(dim=1, keepdim=True) + 1e-16)


def plain(net: NTM, x: Tensor) -> Tensor:
    """What `net` puts out, (B, T, C + R W), step by step and head by head."""
    heads, state = net.heads, net.begin(x.shape[0])
    memory, weights, reads, hidden = state.memory, list(state.weights.unbind(1)), state.reads, state.hidden
    outputs = []
    for step in range(x.shape[1]):
        hidden = control(F.linear(x[:, step], net.weight_x, net.bias), reads, hidden, net.weight_r)
        keys, positive, gates, add, shifts = net.interface(hidden[0]).split(heads.sizes, dim=1)
        keys, shifts = keys.chunk(heads.total, 1), shifts.chunk(heads.total, 1)
        for head in range(heads.total):
            told = positive[:, [head, heads.total + head]], torch.sigmoid(gates[:, head : head + 1])
            weights[head] = place(memory, weights[head], keys[head], *told, shifts[head])
        erase, add = (
            torch.sigmoid(gates[:, heads.total :]).chunk(heads.writing, 1),
            torch.tanh(add).chunk(heads.writing, 1),
        )
        for number, where in enumerate(weights[heads.reading :]):
            memory = memory * (1 - torch.matmul(where.unsqueeze(-1), erase[number].unsqueeze(1)))
        for number, where in enumerate(weights[heads.reading :]):
            memory = memory + torch.matmul(where.unsqueeze(-1), add[number].unsqueeze(1))
        found = [torch.matmul(where.unsqueeze(1), memory).squeeze(1) for where in weights[: heads.reading]]
        reads = torch.cat(found, dim=1)
        outputs.append(torch.cat([hidden[0], reads], dim=1))
    return torch.stack(outputs, dim=1)


def training(net: NTM, forward: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> Callable[[], Tensor]:
    """Forward and backward; the result is the gradient of the heads' weights."""

    def run() -> Tensor:
        net.zero_grad()
        forward(x).backward(gradient)
        assert net.interface.weight.grad is not None
        return net.interface.weight.grad.clone()

    return run


def agree(ours: Tensor, peer: Tensor) -> None:
    """Both did the same work."""
    assert (ours - peer).norm() <= 1e-3 * peer.norm()


def jobs() -> Iterator[Job]:
    for controller in ("lstm", "feedforward"):
        for rows in ROWS:
            torch.manual_seed(0)
            net = NTM(INPUTS, controller=controller, initial_memory="random")
            x, gradient = torch.randn(rows, STEPS, INPUTS), torch.randn(rows, STEPS, net.output_size)
            ours = training(net, lambda v, net=net: net(v)[0], x, gradient)  # type: ignore[misc]
            peer = training(net, lambda v, net=net: plain(net, v), x, gradient)  # type: ignore[misc]
            threads = torch.get_num_threads()
            name = f"ntm, {controller}, batch {rows}, {STEPS} training steps, memory 128 × 20, threads={threads}"
            yield Job(name, ours, peer, "loop over the batch", 7, BOUNDS[rows], check=agree)
