r"""Networks with a memory: what to write to it, and where to look for it, is learnt by gradients.

```math
h_t = \mathrm{controller}(x_t, r_{t-1}), \qquad
M_t = M_{t-1} ⊙ (1 - w_t e_t^\top) + w_t a_t^\top, \qquad r_t = w^r_t M_t, \qquad
\hat y_t = W [h_t, r_t] + b
```

The heads of the Neural Turing Machine `ntm` find their places $w_t$ by the likeness of a key and a slot, and by going
some slots on from where they were. Those of the differentiable neural computer `dnc` write to free slots, or to those
that are like a key, and read what is like a key, or what was written before or after what they have just read. The
steps by which they do so are functions of `zoo.layers.memory`. Every sequence begins with the memory of the start.

Legend: B batch, T steps, F features of a step, C units of the controller, N slots of W numbers, K bits of an answer.

Source: Graves, Wayne & Danihelka 2014; Graves et al. 2016. Deviations: see `zoo.layers.memory.ntm` and `.dnc`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from zoo import layers
from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.layers.memory.machine import MemoryMachine
from zoo.models.base import GradientModel
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DNC", "NTM"]

_SIZES = ("hidden_size", "num_slots", "slot_size", "num_read_heads", "num_write_heads", "shift_range")


class MemoryModel:
    """A mixin for gradient models: a machine with a memory, and a linear readout at each step.

    A subclass saves its hyperparameters, calls `check_sizes` and makes the machine.
    """

    core: MemoryMachine

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __call__(self, *args: Any, **options: Any) -> Any: ...

    def check_sizes(self) -> None:
        """Raise one line for a size out of range."""
        for name in _SIZES:
            check_range(name, self.hparams.get(name), int(name != "shift_range"))

    def machine(self, input_size: int) -> MemoryMachine:
        """Return the controller, its heads and their memory."""
        raise NotImplementedError

    def initialize(self, spec: DataSpec) -> None:
        self.core = self.machine(spec.shape[-1])
        self.head = nn.Linear(self.core.output_size, self.objective.num_outputs)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits of every step, (B, T, K); the memory begins anew with each sequence.

        Args:
            x: numbers (B, T, F).
            mask: which steps are there, (B, T), where sequences are padded.
        """
        if mask is not None:
            x = x.masked_fill(~mask.unsqueeze(-1), 0.0)  # whatever stands there, 0 · NaN is not 0
        return self.head(self.core(x)[0])

    def output(self, batch: Batch) -> Tensor:
        return self(batch.inputs, batch.mask)

    # -- pictures ------------------------------------------------------------------------------------------------

    def graph_input(self, batch: Batch) -> Tensor:
        return batch.inputs[:1, :2]  # drawn step by step: two say it all

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)  # type: ignore[misc]
        first = batch.rows(slice(0, 1))
        steps = int(first.mask.sum()) if first.mask is not None else first.x.shape[1]
        states: list[Any] = list(self.core.steps(first.x[:, :steps]))
        weights = torch.stack([state.weights[0] for state in states], dim=-1)  # (H, N, T)
        yield (
            "heads",
            visual.heads([state.memory[0] for state in states], weights, self.core.num_read_heads, first.x[0, :steps]),
        )


@register_model(
    "ntm", family="memory", accepts={"sequence": "bits"}, source="Graves, Wayne & Danihelka 2014", docs="memory"
)
class NTM(MemoryModel, GradientModel):
    """Neural Turing Machine for sequences of bits.

    Args:
        hidden_size: units of the controller.
        num_slots: slots of the memory.
        slot_size: numbers in a slot.
        num_read_heads: heads that read.
        num_write_heads: heads that write.
        shift_range: the furthest that a head goes in a step, to either side.
        controller: `feedforward` or `lstm`.
        initial_memory: what every sequence finds: `constant`, `learned`, or `random`, drawn once with the weights.
        gate_bias: added to the heads' gates at first: far below 0 they go on from where they were.
        strength_bias: added to the strengths of the heads' keys at first: above 0 contents tell slots apart.
        shift_bias: added to the heads' shifts to the next slot at first: far above 0 they step ahead.
        tied_keys: whether at first every head looks for what the first write head would write.
        span: the most steps for which units of an LSTM keep what they hold at first, many of them for about one; 0 for
            all alike.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="sequence", shape=(5, 3), target="bits", num_targets=2)
        >>> zoo.create_model("ntm", spec, hidden_size=8)(torch.zeros(4, 5, 3)).shape
        torch.Size([4, 5, 2])
    """

    needs = {"span": {"controller": ("lstm",)}}

    def __init__(
        self,
        *,
        hidden_size: int = 100,
        num_slots: int = 128,
        slot_size: int = 20,
        num_read_heads: int = 1,
        num_write_heads: int = 1,
        shift_range: int = 1,
        controller: Literal["feedforward", "lstm"] = "feedforward",
        initial_memory: Literal["constant", "learned", "random"] = "constant",
        gate_bias: float = -2.0,
        strength_bias: float = 0.0,
        shift_bias: float = 0.0,
        tied_keys: bool = False,
        span: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_sizes()
        check_range("gate_bias", gate_bias, -100, 100)
        check_range("strength_bias", strength_bias, -100, 100)
        check_range("shift_bias", shift_bias, -100, 100)
        if span and not 1 <= span < math.inf:
            raise ZooError(f"model.span must be 0, or at least 1 and finite, not {span!r}.")

    def machine(self, input_size: int) -> layers.NTM:
        return layers.NTM(input_size, **self.hparams)


@register_model("dnc", family="memory", accepts={"sequence": "bits"}, source="Graves et al. 2016", docs="memory")
class DNC(MemoryModel, GradientModel):
    """Differentiable neural computer for sequences of bits.

    Args:
        hidden_size: units of the controller.
        num_slots: slots of the memory.
        slot_size: numbers in a slot.
        num_read_heads: heads that read.
        controller: `lstm` or `feedforward`.

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="sequence", shape=(5, 3), target="bits", num_targets=2)
        >>> zoo.create_model("dnc", spec, hidden_size=8)(torch.zeros(4, 5, 3)).shape
        torch.Size([4, 5, 2])
    """

    def __init__(
        self,
        *,
        hidden_size: int = 100,
        num_slots: int = 64,
        slot_size: int = 20,
        num_read_heads: int = 1,
        controller: Literal["lstm", "feedforward"] = "lstm",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_sizes()

    def machine(self, input_size: int) -> layers.DNC:
        return layers.DNC(input_size, **self.hparams)
