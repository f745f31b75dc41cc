"""`gpt` beside a plain loop with torch's built-ins (training) and beside `transformers` (going on with a text).

Other work on the machine hits both alike; what counts is the time of the processor that this process took.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
from benchmarks import Job
from benchmarks._grid import name_of
from zoo.optimizers import Recipe


class Block(nn.Module):
    """A layer as one would write it in an afternoon: torch's modules and its fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, steps, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(rows, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, steps, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Plain(nn.Module):
    """The model of `experiment=char_gpt_cpu`, written plainly."""

    def __init__(self, vocab_size: int, context: int, width: int, heads: int, num_layers: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab_size, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(num_layers)])
        self.norm, self.head = nn.LayerNorm(width, bias=False), nn.Linear(width, vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * num_layers) if residual else 0.02)
        self.tokens.weight = self.head.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def plain_optimizer(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    """AdamW of matrices and of the rest."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99))


def training(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]]) -> Callable:
    """Steps of forward, backward, clipping and AdamW."""

    def run() -> None:
        for tokens, y in batches:
            loss = F.cross_entropy(model(tokens).flatten(0, 1), y.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return run


def trainings() -> Iterator[Job]:
    torch.manual_seed(0)
    spec = zoo.DataSpec("tokens", (64,), "tokens", vocab_size=65)
    ours: Any = zoo.create_model("gpt", spec, num_layers=4, num_heads=4, hidden_size=128, bias=False, activation="gelu")
    plain = Plain(65, 64, 128, 4, 4)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in plain.parameters())
    batches = [tuple(torch.randint(0, 65, (2, 12, 64))) for _ in range(10)]
    recipe = Recipe("adamw", {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.1})
    yield Job(
        f"gpt, 10 training steps of 12 × 64 tokens, 4 layers of 128, threads={torch.get_num_threads()}",
        training(ours.train(), recipe.build_optimizer(ours), batches),  # type: ignore[arg-type]
        training(plain.train(), plain_optimizer(plain), batches),  # type: ignore[arg-type]
        "a plain loop with torch's built-ins", pairs=21,
    )  # fmt: skip


def generations() -> Iterator[Job]:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(eos_token_id=None, bos_token_id=None)).eval()
    prompt = torch.randint(0, 50257, (1, 8))
    for dtype in (torch.float32, torch.bfloat16):
        ours = copied(theirs).to(dtype)
        peer = theirs.to(dtype)
        yield Job(
            f"gpt, 128 new tokens, 12 layers of 768, batch 1, {dtype}, threads={torch.get_num_threads()}",
            lambda ours=ours: greedy(ours, prompt, 128),
            lambda peer=peer: peer.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=128, do_sample=False, pad_token_id=0
            )[0, prompt.shape[1] :],
            "transformers with its cache", pairs=5,
            check=same_tokens if dtype == torch.float32 else None,
        )  # fmt: skip


def copied(theirs: Any) -> Any:
    """Our model with the weights of a model of transformers."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return zoo.load_pretrained(folder)


@torch.inference_mode()
def greedy(model: Any, prompt: Tensor, steps: int) -> Tensor:
    from zoo.text import Decoding, Reader, decode

    return torch.cat(list(decode(Reader(model, prompt, room=steps), Decoding("greedy", steps=steps), [])))


def same_tokens(ours: Tensor, theirs: Tensor) -> None:
    assert torch.equal(ours, theirs)


def jobs() -> Iterator[Job]:
    yield from trainings()
    yield from generations()


GRID = (  # rows B, width, steps T, layers, heads
    (1, 64, 32, 2, 2), (1, 256, 256, 2, 4), (4, 128, 512, 2, 4), (12, 128, 64, 4, 4), (16, 32, 16, 1, 2),
    (64, 64, 64, 2, 4), (256, 64, 16, 2, 2), (8, 512, 64, 2, 8),
)  # fmt: skip


def grid() -> Iterator[Job]:
    """Yield training steps of models of all shapes beside torch's built-ins."""
    for rows, width, steps, depth, heads in GRID:
        torch.manual_seed(0)
        spec = zoo.DataSpec("tokens", (steps,), "tokens", vocab_size=100)
        options: dict[str, Any] = {"num_layers": depth, "num_heads": heads, "hidden_size": width}
        ours: Any = zoo.create_model("gpt", spec, bias=False, activation="gelu", **options)
        plain = Plain(100, steps, width, heads, depth)
        batches: Any = [tuple(torch.randint(0, 100, (2, rows, steps)))]
        recipe = Recipe("adamw", {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.1})
        where = {"rows": rows, "width": width, "steps": steps, "layers": depth, "dtype": "float32"}
        yield Job(
            f"gpt, a training step, {name_of(**where)}",
            training(ours.train(), recipe.build_optimizer(ours), batches),
            training(plain.train(), plain_optimizer(plain), batches),
            "a plain loop with torch's built-ins", where=where, quick=rows * steps * width**2 * depth < 5e7,
        )  # fmt: skip
