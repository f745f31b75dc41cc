"""Cases of attention that its kernels for a GPU are held to, beside softmax(QKᵀ)V in double precision.

`python attention_cases.py interpret N` runs them, and N drawn ones, on a CPU by Triton's interpreter, in blocks of 16,
so that short sequences have several. It is a process of its own, since Triton reads `TRITON_INTERPRET` when imported.
`python attention_cases.py compile 90` compiles the kernels for a GPU of that capability, which need not be there.
"""

from __future__ import annotations

import math
import os
import random
import sys
from dataclasses import dataclass, replace

import torch
from torch import Tensor

UNUSABLE = 77  # what the process ends with where the interpreter does not run
DOUBLE = torch.float64
BOUNDS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Case:
    """Sizes, what is hidden, and how the tensors lie."""

    queries: int
    keys: int
    rows: int = 1
    heads: int = 2
    groups: int = 2
    widths: tuple[int, int] = (5, 3)
    mask: str = ""  # "padding" of keys, "weights" to add by heads and queries, "hidden" by queries, or "lowest"
    alibi: bool = False
    causal: bool = False
    window: int = 0
    offset: int = 0
    dropout: float = 0.0
    layout: str = "dense"  # or "heads", of one product side by side; "sliced"; "expanded"
    dtype: torch.dtype = torch.float32
    scale: float = 0.4
    seed: int = 0


CASES = [
    Case(17, 34, mask="hidden", groups=1, causal=True, offset=17, layout="heads"),
    Case(17, 30, 2, 1, 1, mask="padding", window=20, layout="sliced", dtype=torch.float16, widths=(16, 17)),
    Case(17, 16, mask="weights", window=12, alibi=True, layout="expanded", dropout=0.3),
    Case(16, 32, causal=True, window=20, offset=15, widths=(20, 4), groups=1, dtype=torch.bfloat16, scale=2.0),
    Case(17, 40, mask="lowest", causal=True, offset=20, groups=1, dropout=0.3),
    Case(5, 16, window=2, offset=30),  # nobody sees anything
]
EMPTY = [Case(3, 4, rows=0), Case(3, 0), Case(0, 4), Case(3, 4, heads=0, groups=0)]


def tensor(case: Case, heads: int, steps: int, width: int, device: torch.device) -> Tensor:
    """Numbers (B, heads, steps, width) as they lie in memory."""
    shapes = {
        "heads": (case.rows, steps, heads, width), "sliced": (case.rows, heads, steps + 1, 2 * width),
        "expanded": (1, heads, 1, width), "dense": (case.rows, heads, steps, width),
    }  # fmt: skip
    x = torch.randn(shapes[case.layout]).to(device, case.dtype)
    if case.layout == "heads":
        x = x.transpose(1, 2)
    if case.layout == "sliced":
        x = x[:, :, 1:, ::2]
    return x.expand(case.rows, heads, steps, width).requires_grad_()


def inputs_of(case: Case, device: torch.device):  # type: ignore[no-untyped-def]
    """What the operator takes."""
    from zoo.kernels.attention import Inputs
    from zoo.layers.positions import alibi_slopes

    torch.manual_seed(case.seed)
    sizes = [(case.heads, case.queries, case.widths[0]), (case.groups, case.keys, case.widths[0])]
    q, k, v = (tensor(case, *size, device) for size in [*sizes, (case.groups, case.keys, case.widths[1])])
    mask = None
    if case.mask:
        shapes = {"padding": (case.rows, 1, 1), "weights": (1, case.heads, case.queries)}
        mask = torch.zeros(*shapes.get(case.mask, (1, 1, case.queries)), case.keys)
        mask = torch.randn(mask.shape) if case.mask == "weights" else mask
        mask[torch.rand(mask.shape) < 0.4] = -torch.inf
        mask[:, :, :1] = -torch.inf if case.mask == "hidden" else mask[:, :, :1]
        if case.mask == "lowest":  # of finite numbers, in some rows, beside which scores are nothing
            mask[:, :, ::2] = torch.finfo(case.dtype).min
            mask[..., ::3] = -torch.inf
        mask = mask.to(device, case.dtype)
    slopes = alibi_slopes(case.heads).to(device) if case.alibi else None
    seed = torch.tensor(case.seed + 12345) if case.dropout else None
    return Inputs(q, k, v, mask, slopes, seed, case.scale, case.dropout, case.causal, case.window, case.offset)


def formula(x, kept: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
    """softmax(c QKᵀ + M)V with all weights at once, in double precision; `kept` is the mask of dropout."""
    shared = x.q.shape[1] // max(1, x.k.shape[1])
    k, v = (t.repeat_interleave(shared, 1) for t in (x.k, x.v))
    scores = x.scale * x.q @ k.mT
    back = torch.arange(x.q.shape[2]).unsqueeze(1) + x.offset - torch.arange(k.shape[2])
    back = back.to(x.q.device)
    if x.slopes is not None:
        scores = scores - x.slopes.view(-1, 1, 1) * back.abs()
    if x.mask is not None:
        alone = x.mask < -1e30  # which is all that is left of such a sum, though it has the same gradient
        scores = torch.where(alone, scores - scores.detach(), scores) + x.mask
    hidden = (back < 0) & x.causal
    if x.window:
        hidden = hidden | (back.abs() >= x.window)
    scores = scores.masked_fill(hidden, -torch.inf)
    dead = (scores == -torch.inf).all(-1, keepdim=True)
    weights = scores.masked_fill(dead, 0.0).softmax(-1)
    return ((weights if kept is None else weights * kept) @ v).masked_fill(dead, 0.0)


def dropout_mask(x, operator) -> Tensor | None:  # type: ignore[no-untyped-def]
    """The mask of dropout (B, H, T, S), which values of one-hot vectors show, 16 of them at once."""
    if x.seed is None:
        return None
    (rows, groups, keys), parts = x.k.shape[:3], []
    plain = x._replace(q=torch.zeros_like(x.q), mask=None, slopes=None, causal=False, window=0)
    for few in torch.eye(keys, dtype=x.q.dtype, device=x.q.device).split(16, dim=1):
        parts.append(operator(plain._replace(v=few.expand(rows, groups, *few.shape))) * keys)
    kept = torch.cat(parts, -1).double()
    assert torch.allclose(kept[kept > 0.1], torch.tensor(1 / (1 - x.dropout), dtype=DOUBLE, device=x.q.device), 1e-2)
    share = (kept < 0.1).double().mean().item()
    assert abs(share - x.dropout) <= 6 * math.sqrt(x.dropout * (1 - x.dropout) / kept.numel()), share
    return kept


def check(case: Case, device: torch.device) -> None:
    """Results and gradients of the operator beside those of the formula."""
    from zoo.layers.attention import _BLOCKWISE

    x = inputs_of(case, device)
    kept = dropout_mask(x, _BLOCKWISE)
    exact = x._replace(**{n: getattr(x, n).detach().double().requires_grad_() for n in ("q", "k", "v")})
    found = []
    for out, y in ((_BLOCKWISE(x), x), (formula(exact, kept), exact)):
        up = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device, case.dtype)
        up = up[:, :, :1].expand(out.shape) if case.layout == "expanded" else up
        found.append([out, *torch.autograd.grad(out, y[:3], up.to(out.dtype))])
    largest = max(oracle.norm().item() for oracle in found[1])
    for mine, oracle in zip(*found, strict=True):
        assert mine.shape == oracle.shape, case
        assert mine.isfinite().all(), case
        error = (mine - oracle).norm().item()
        # δ is taken from results that are rounded to their type; where all terms of a gradient cancel, so much stays
        floor = largest if case.dtype.itemsize == 2 or oracle.norm().item() < 1e-9 * largest else 1.0
        assert error <= BOUNDS[case.dtype] * max(oracle.norm().item(), floor), (case, error)


def drawn(random: random.Random) -> Case:
    """Any case."""
    groups = random.randint(1, 2)
    return Case(
        queries=random.randint(1, 34), keys=random.randint(1, 50), rows=random.choice([1, 1, 2]), groups=groups,
        heads=groups * random.randint(1, 2), widths=(random.randint(1, 20), random.randint(1, 20)),
        mask=random.choice(["", "padding", "weights", "hidden"]), alibi=random.random() < 0.3,
        causal=random.random() < 0.5, window=random.choice([0, 0, 1, 7, 16, 40]),
        offset=random.choice([0, 0, 1, 16, 33]), dropout=random.choice([0.0, 0.0, 0.5]),
        layout=random.choice(["dense", "heads", "sliced", "expanded"]), dtype=random.choice(list(BOUNDS)),
        scale=random.choice([0.1, 1.0]), seed=random.randint(0, 2**31),
    )  # fmt: skip


# -- Triton's interpreter ----------------------------------------------------------------------------------------------


def interpret() -> None:
    """Let the operator take its kernels on a CPU, in blocks of 16."""
    import triton
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    import zoo.kernels.attention as blocks
    from zoo.kernels import attention_triton

    @triton.jit
    def total(x, n):  # type: ignore[no-untyped-def]
        found = 0
        for i in range(n + 1):
            found += i
        tl.store(x, found)

    x = torch.zeros(1, dtype=torch.int32)
    total[(1,)](x, 3)
    assert x.item() == 6
    dot = InterpreterBuilder.create_dot

    def create_dot(self, a, b, d, *options):  # type: ignore[no-untyped-def]
        """Bits of bfloat16, which the interpreter would multiply as they are, become single precision."""
        if a.dtype == tl.bfloat16:
            a, b = (TensorHandle((t.data.astype("uint32") << 16).view("float32"), tl.float32) for t in (a, b))
        return dot(self, a, b, d, *options)

    truncate = InterpreterBuilder.create_fp_trunc

    def create_fp_trunc(self, source, target):  # type: ignore[no-untyped-def]
        """To bfloat16 it would cut off what a GPU rounds."""
        if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
            return truncate(self, source, target)
        rounded = torch.tensor(source.data).bfloat16().view(torch.int16).numpy().view("uint16")
        return TensorHandle(rounded, tl.bfloat16)

    InterpreterBuilder.create_dot, InterpreterBuilder.create_fp_trunc = create_dot, create_fp_trunc
    small = attention_triton.Sizes(16, 16, 4, 1)
    for table in (attention_triton.FORWARD, attention_triton.BACKWARD):
        table.update(dict.fromkeys(table, (small,) * 3))
    blocks.fits_gpu = lambda *_: True


def run_interpreted(drawn_cases: int) -> None:
    import zoo.layers  # noqa: F401

    assert "triton" not in sys.modules, "importing the layers imports triton"
    try:
        interpret()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(UNUSABLE)
    cpu, source = torch.device("cpu"), random.Random(os.environ.get("SEED", "0"))
    cases = [*CASES, *EMPTY, *(drawn(source) for _ in range(drawn_cases))]
    for case in cases:
        check(case, cpu)
        print(case, flush=True)
    print(f"{len(cases)} cases")


# -- its compiler ------------------------------------------------------------------------------------------------------


class Absent:
    """A GPU that is not there, as Triton asks for one."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self):  # type: ignore[no-untyped-def]
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


class Compiled:
    """A kernel that is compiled where it would be called, within the memory that the smallest GPUs share in a block."""

    def __init__(self, kernel) -> None:  # type: ignore[no-untyped-def]
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]):  # type: ignore[no-untyped-def]
        return lambda *args, **options: self.compile(grid, args, options)

    def compile(self, grid: tuple[int, ...], args: tuple, options: dict) -> None:
        done = self.kernel.warmup(*args, grid=grid, **options)
        kept = done.metadata.shared / 1024
        print(f"{done.metadata.name}, {options['d']} wide: {kept:.0f} KB", flush=True)
        assert kept <= 99


def run_compiled(capability: int) -> None:
    import triton

    import zoo.kernels.attention as blocks
    from zoo.kernels import attention_triton

    triton.runtime.driver.set_active(Absent(capability))
    for name in ("_forward", "_backward_queries", "_backward_keys"):
        setattr(attention_triton, name, Compiled(getattr(attention_triton, name)))
    cpu, plain = torch.device("cpu"), Case(64, 64, causal=True, layout="heads")
    full = replace(plain, mask="weights", alibi=True, window=9, dropout=0.1, groups=1)
    for dtype in (torch.float16, torch.float32):
        for width in (64, 128, 256):
            for case in (plain, full):
                x = inputs_of(replace(case, dtype=dtype, widths=(width, width)), cpu)
                out, norm = blocks._fake(*x)
                attention_triton.forward(x, out, norm)
                attention_triton.backward(x, out, norm, out, blocks._fake_backward(*x))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "interpret":
        os.environ["TRITON_INTERPRET"] = "1"
        run_interpreted(int(sys.argv[2]))
    else:
        run_compiled(int(sys.argv[2]))
