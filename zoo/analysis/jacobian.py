r"""The sequential Jacobian: what of its past a network still responds to when it answers.

```math
J_{ts} = \frac{\partial y_t}{\partial x_s} \in \mathbb R^{K \times D}, \qquad \|J_{ts}\|^2 = \sum_{k,d} (J_{ts})_{kd}^2
```

Legend: B examples, S steps of the input x of D numbers each (of tokens, their vectors), T steps of the answer y of K
numbers each (1 where there is one answer an example), P directions in which answers are looked at.

One gradient is one row of one block. So an example is copied for each step of its answer and each direction, and the
network runs forward and back over `chunk_size` copies at a time: it works whatever the network is made of, and memory
does not grow with T, K or B.

Source: Graves et al., "A novel connectionist system for unconstrained handwriting recognition", 2009; Graves,
"Supervised sequence labelling with recurrent neural networks", 2012, §4.2 (the vanishing gradient drawn by it).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo.checks import Range, check_type
from zoo.data.arrays import inputs_from
from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.layers import TokenEmbedding
from zoo.models.base import ZooModel

if TYPE_CHECKING:
    from zoo.training.analyses import Findings, Subject

__all__ = ["SequentialJacobian", "analyze", "sequential_jacobian"]

KINDS = ("sequence", "tokens", "series", "pairs")
SHOWN = 48  # tokens of a text whose derivatives are drawn
ROWS = 16  # examples with one answer each
TEXTS = 4  # examples with an answer at every step
MOST = 16  # outputs of a step that are looked at one by one; of more, as many random directions


class SequentialJacobian(NamedTuple):
    """What each answer owes to each input; what stands in padding is 0.

    Attributes:
        norms: ‖∂y_t/∂x_s‖ (Frobenius), (B, T, S), float64.
        blocks: ∂y_t/∂x_s, (B, T, S, P, D); None where only the norms were asked for.
        outputs: which steps of the answer are there, (B, T).
        inputs: which steps of the input are there, (B, S).
    """

    norms: Tensor
    blocks: Tensor | None
    outputs: Tensor
    inputs: Tensor

    def by_lag(self) -> Tensor:
        """Return the mean norm over all answers that look 0, 1, … S − 1 steps back, (S,); NaN where there is none.

        Raises:
            ZooError: where answers and inputs are steps of two different sequences.
        """
        _, length, steps = self.norms.shape
        if length not in (1, steps):
            raise ZooError("Steps of two different sequences have no distance in time: look at the norms themselves.")
        places = torch.arange(steps, device=self.norms.device)
        at = self.inputs.sum(1, keepdim=True) - 1 if length == 1 else places  # (B, 1) or (T,)
        lag = (at.unsqueeze(-1) - places).expand_as(self.norms)
        counted = (lag >= 0) & self.outputs.unsqueeze(2) & self.inputs.unsqueeze(1)
        sums = torch.stack([self.norms, torch.ones_like(self.norms)])[:, counted]  # (2, N)
        total, count = self.norms.new_zeros(2, steps).index_add_(1, lag[counted], sums)
        return total / count


def sequential_jacobian(
    model: ZooModel | Callable[..., Any],
    x: Any,
    mask: Tensor | None = None,
    *,
    of: Literal["source", "target"] = "source",
    directions: Tensor | None = None,
    blocks: bool = True,
    chunk_size: int = 256,
) -> SequentialJacobian:
    """Return the derivative of each step of a network's answer to each step of its input, and its norm.

    Args:
        model: a model of the zoo for sequences, tokens, series or pairs, whose answer is its output as the loss takes
            it (logits; forecasts); or a layer or function of (B, S, D), whose answer is its first output, (B, T, K) or
            (B, K), such as `nn.LSTM(…, batch_first=True)`. Dropout is off meanwhile.
        x: numbers (B, S, D) or, of a zoo model, tokens (B, S), scaled and coded already, or a `Batch`.
        mask: which steps are there, (B, S), where examples are padded; a layer is given it as `mask`.
        of: of sentence pairs, whether x is the `source` or the `target` so far.
        directions: (P, K); the answers Py are looked at in place of y. P random rows of ±1/√P give norms that are right
            on average (of their squares), where the vocabulary is large.
        blocks: keep the blocks, and not only their norms.
        chunk_size: copies of an example that run at a time.

    Raises:
        ZooError: for a model without steps, inputs that it cannot be differentiated by, or a shape that does not fit.

    Example:
        >>> lstm = nn.LSTM(3, 5, batch_first=True)
        >>> found = sequential_jacobian(lstm, torch.randn(2, 7, 3))
        >>> found.norms.shape, found.blocks.shape
        (torch.Size([2, 7, 7]), torch.Size([2, 7, 7, 5, 3]))
        >>> bool((found.norms.triu(1) == 0).all())  # no answer knows what is to come
        True
    """
    check_type("chunk_size", chunk_size, Annotated[int, Range(1)])
    check_type("of", of, Literal["source", "target"])
    network = _Network(model, x, mask, of)
    with torch.inference_mode(False), torch.enable_grad(), _undisturbed(model):
        with torch.no_grad():
            answer, leaf = network(torch.arange(network.size))
        count, length, width = answer.shape
        steps, depth = leaf.shape[1:]
        if not steps:
            raise ZooError("x has no steps that an answer could be differentiated by.")
        inputs = torch.ones(count, steps, dtype=torch.bool) if network.mask is None else network.mask
        inputs = inputs.to(answer.device)
        outputs = network.answered(length, inputs)  # (B, T)
        directions = torch.eye(width) if directions is None else torch.as_tensor(directions)
        if directions.ndim != 2 or directions.shape[1] != width:
            raise ZooError(f"directions must be of shape (P, {width}), not {tuple(directions.shape)}.")
        directions = directions.to(answer)
        whole = answer.new_zeros(count, length, steps, len(directions), depth) if blocks else None
        squares = answer.new_zeros(count, length, steps, dtype=torch.float64)  # tiny ones are squared, too
        places = outputs.nonzero().repeat_interleave(len(directions), 0)  # (N, 2)
        towards = torch.arange(len(directions), device=answer.device).repeat(int(outputs.sum()))  # (N,)
        for at, along in zip(places.split(chunk_size), towards.split(chunk_size), strict=True):
            row, step = at.unbind(1)
            answer, leaf = network(row)
            seen = (answer[torch.arange(len(row), device=row.device), step] * directions[along]).sum()
            (gradient,) = torch.autograd.grad(seen, leaf, allow_unused=True) if seen.requires_grad else (None,)
            if gradient is None:
                raise ZooError("The answer does not depend on x by anything that has a derivative.")
            gradient = gradient * inputs[row].unsqueeze(-1)  # (M, S, D)
            squares.index_put_((row, step), gradient.double().square().sum(-1), accumulate=True)
            if whole is not None:
                whole[row, step, :, along] = gradient
    return SequentialJacobian(squares.sqrt(), whole, outputs, inputs)


class _Network:
    """A model on some copies of the examples: its answer (M, T, K), and the input (M, S, D) that it depends on."""

    def __init__(self, model: Any, x: Any, mask: Tensor | None, of: str) -> None:
        self.model, self.of = model, of
        if isinstance(model, ZooModel):
            self.batch = self._batch(model, x, mask)
            self.size = self.batch.size
            self.mask = {"source": self.batch.source_mask, "target": self.batch.target_mask}[of]
            self.mask = self.mask if self.batch.source is not None else self.batch.mask
            return
        if getattr(model, "batch_first", True) is False:
            raise ZooError(f"{type(model).__name__} takes steps first: build it with batch_first=True for (B, S, D).")
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 3:
            raise ZooError("The derivatives of a layer or function are by numbers: pass x of shape (B, S, D).")
        self.mask = _mask_of(x, mask)
        self.batch, self.size = Batch(x=x.detach(), mask=self.mask), len(x)

    @staticmethod
    def _batch(model: ZooModel, x: Any, mask: Tensor | None) -> Batch:
        model.check_fitted()
        assert model.spec is not None
        _check_steps(model)
        if model.spec.kind == "pairs" and (not isinstance(x, Batch) or x.source is None):
            raise ZooError("Sentence pairs come as a Batch of a DataModule, with source and target.")
        if isinstance(x, Batch):
            return model.as_batch(x)
        batch = inputs_from(x, model.spec, missing=True)  # NaN may stand in padding
        if mask is not None:
            batch = batch._replace(mask=_mask_of(batch.inputs, mask))
        return model.as_batch(batch)

    def answered(self, length: int, inputs: Tensor) -> Tensor:
        """Return which of `length` steps of the answer are there, (B, T)."""
        mask = self.batch.target_mask if self.batch.source is not None else self.mask
        if mask is not None and mask.shape[1] == length:
            return mask.to(inputs.device)
        return inputs.new_ones(len(inputs), length)

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        batch = self.batch.rows(rows.to(self.batch.inputs.device))
        if isinstance(self.model, ZooModel) and batch.x is None:
            tokens = getattr(batch, self.of) if batch.source is not None else batch.tokens
            with _vectors_of(self.model, tokens) as leaves:
                answer = self.model.output(batch)  # type: ignore[operator]
            if len(leaves) != 1:
                raise ZooError(f"{self.model.entry.name} does not read each token once, by a table of vectors.")
            return self._shaped(answer), leaves[0]
        leaf = batch.x.detach().requires_grad_(torch.is_grad_enabled())
        if isinstance(self.model, ZooModel):
            return self._shaped(self.model.output(batch._replace(x=leaf))), leaf  # type: ignore[operator]
        answer = self.model(leaf) if batch.mask is None else self.model(leaf, mask=batch.mask)
        return self._shaped(answer[0] if isinstance(answer, tuple) else answer), leaf

    @staticmethod
    def _shaped(answer: Any) -> Tensor:
        if not isinstance(answer, Tensor):
            raise ZooError(f"An answer is a tensor, (B, T, K) or (B, K), not {type(answer).__name__}.")
        if answer.ndim not in (2, 3):
            raise ZooError(f"An answer is (B, T, K) or (B, K), not {tuple(answer.shape)}.")
        return answer if answer.ndim == 3 else answer.unsqueeze(1)


def _mask_of(x: Tensor, mask: Any) -> Tensor | None:
    if mask is None:
        return None
    mask = torch.as_tensor(mask)
    if mask.shape != x.shape[:2]:
        raise ZooError(f"mask must be of shape {tuple(x.shape[:2])}, one for each step of x, not {tuple(mask.shape)}.")
    return mask.bool().to(x.device)


def _check_steps(model: ZooModel) -> None:
    if model.spec is not None and model.spec.kind not in KINDS:
        raise ZooError(
            f"{model.entry.name} was built for {model.spec.describe()}, which have no steps: the sequential "
            f"Jacobian is for {', '.join(KINDS)}."
        )


@contextlib.contextmanager
def _vectors_of(model: nn.Module, tokens: Tensor) -> Iterator[list[Tensor]]:
    """Give a list to which the vectors (M, S, D) of these tokens are added when they are looked up, as new leaves."""
    leaves: list[Tensor] = []

    def detach(table: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not torch.equal(inputs[0], tokens):
            return None
        leaves.append(output.detach().requires_grad_(torch.is_grad_enabled()))
        return leaves[-1]

    tables = [module for module in model.modules() if isinstance(module, nn.Embedding | TokenEmbedding)]
    handles = [table.register_forward_hook(detach) for table in tables]
    try:
        yield leaves
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Differentiate by the inputs alone, without dropout, and leave the model as it was."""
    if not isinstance(model, nn.Module):
        yield
        return
    training = [(module, module.training) for module in model.modules()]
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in learnt:
        parameter.requires_grad_(False)
    try:
        with torch.backends.cudnn.flags(enabled=False):  # whose recurrent layers go back in training mode alone
            yield
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)
        for module, mode in training:
            module.training = mode


# -- evaluate.py analysis=sequential_jacobian ----------------------------------------------------------------------


def check(subject: Subject) -> None:
    """Raise for a model whose data have no steps."""
    _check_steps(subject.model)


def analyze(subject: Subject) -> Findings:
    """Draw what each answer owes to each input, for some held-out rows, and how it fades with time."""
    from zoo import visual
    from zoo.training.analyses import Findings

    model, spec = subject.model, subject.model.spec
    assert spec is not None
    rows = subject.rows(TEXTS if spec.target == "tokens" else ROWS)
    if spec.kind == "tokens":
        rows = rows._replace(
            tokens=rows.tokens[:, :SHOWN],
            mask=None if rows.mask is None else rows.mask[:, :SHOWN],
            y=None if rows.y is None or spec.target != "tokens" else rows.y[:, :SHOWN],
        )
    found = sequential_jacobian(model, rows, directions=_directions(model, rows), blocks=False)
    if found.norms.shape[1] == 1:  # an answer an example
        names, norms, what = [f"row {row + 1}" for row in range(len(found.norms))], found.norms[:, 0], "answer of row"
    else:
        here, there = (int(side[0].sum()) for side in (found.outputs, found.inputs))
        names, norms, what = _names(model, rows, said=True)[:here], found.norms[0, :here, :there], "answer after"
    read = _names(model, rows, said=False)[: norms.shape[1]] if found.norms.shape[1] > 1 else []
    figures = {"sequential_jacobian": visual.sequential_jacobian(norms, names, read or None, what)}
    if spec.kind == "pairs":
        return Findings(figures)
    fading = found.by_lag()
    figures["memory"] = visual.memory({model.entry.name: fading})
    table = [{"steps_back": lag, "norm": value} for lag, value in enumerate(fading.tolist())]
    return Findings(figures, {"memory": table})


def _directions(model: ZooModel, rows: Batch) -> Tensor | None:
    """Random directions where answers have too many numbers to look at each."""
    with torch.no_grad():
        width = model.eval().output(model.as_batch(rows.rows(slice(1)))).shape[-1]  # type: ignore[operator]
    if width <= MOST:
        return None
    signs = torch.randint(2, (MOST, width), generator=torch.Generator().manual_seed(0))  # norms to a fifth
    return (2.0 * signs - 1) / MOST**0.5


def _names(model: Any, rows: Batch, *, said: bool) -> list[str]:
    """What stands at each step of the first row, read or said."""
    tokens = (rows.target if said else rows.source) if rows.source is not None else rows.tokens
    if tokens is None:
        return [str(step + 1) for step in range(rows.x.shape[1])]
    if not model.spec.tokenizer:
        return [str(number) for number in tokens[0].tolist()]
    from zoo.text import Tokenizer

    return [text for text, _ in Tokenizer.from_json(model.spec.tokenizer).shown(tokens[0].tolist())]
