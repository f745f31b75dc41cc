"""What `rnn`, `lstm` and `gru` share: everything but the recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo import layers
from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import EmbedsTokens, Generates
from zoo.models.base.forecasts import Forecasts, scaled_windows
from zoo.models.base.uses import Needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RecurrentModel", "detach"]

State = Any  # a tensor (L, B, H), a pair of them, or a list with one per layer

# What our layers have beside torch's, with the values that mean torch's.
_EXTRAS: dict[str, Any] = {
    "layer_norm": False,
    "variational_dropout": 0.0,
    "recurrent_dropout": 0.0,
    "zoneout": 0.0,
    "peepholes": False,
    "reset_after": True,
    "update_gate": "old",
}
_OF_TOKENS = ("embedding", "embedding_size", "freeze_embedding")


def detach(state: State) -> State:
    """Return the state cut off from the steps that led to it."""
    return state.detach() if isinstance(state, Tensor) else type(state)(detach(part) for part in state)


def move(state: State, device: torch.device) -> State:
    """Return the state on another device; None, the state before the first step, stays None."""
    if state is None or isinstance(state, Tensor):
        return state if state is None else state.to(device)
    return type(state)(move(part, device) for part in state)


class RecurrentModel(EmbedsTokens, Forecasts, Generates):
    """A mixin for gradient models: everything but the recurrent layers themselves.

    A subclass sets `layer_name`, saves its hyperparameters and calls `check_hyperparameters`.
    """

    layer_name: str
    needs: ClassVar[Needs] = {"embedding_size": {"kind": ("tokens",)}}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __call__(self, *args: Any, **options: Any) -> Any: ...

    def check_hyperparameters(self) -> None:
        """Raise one line for a hyperparameter out of range."""
        if not self._sizes:
            raise ZooError("model.hidden_size must name at least one layer, not []: pass a number, or one per layer.")
        for size in self._sizes:
            check_range("hidden_size", size, 1)
        check_range("num_layers", self.hparams.num_layers, 1, 1000)
        check_range("dropout", self.hparams.dropout, 0, 1)
        check_range("embedding_size", self.hparams.embedding_size, 1)
        self._carried: dict[str, State] = {}

    @property
    def _sizes(self) -> list[int]:
        size = self.hparams.hidden_size
        return [size] if isinstance(size, int) else list(size)

    @property
    def output_size(self) -> int:
        """Number of values that the layers put out at each step."""
        last = self.hparams.get("proj_size") or self._sizes[-1]
        return last * (2 if self.hparams.bidirectional else 1)

    def initialize(self, spec: DataSpec) -> None:
        if spec.target == "tokens" and self.hparams.bidirectional:
            raise ZooError("A language model must not see what comes next: set model.bidirectional=false.")
        self.embedding = self.token_table(spec, self.output_size)
        self.core = self._make_core(spec.shape[-1] if self.embedding is None else self.embedding.embedding_dim)
        self.drop = nn.Dropout(self.hparams.dropout)
        self.head = nn.Linear(self.output_size, self.objective.num_outputs)

    def _make_core(self, input_size: int) -> nn.Module:
        """The recurrent layers, ours or torch's."""
        options = {k: v for k, v in self.hparams.items() if k not in ("layers", *_OF_TOKENS)}
        options["dropout"] = options["dropout"] if options["num_layers"] > 1 else 0.0
        module = layers if self.hparams.layers == "zoo" else nn
        if module is nn:
            asked = [name for name, usual in _EXTRAS.items() if options.pop(name, usual) != usual]
            if asked or not isinstance(options["hidden_size"], int):
                raise ZooError(
                    f"torch's {self.layer_name} has no {', '.join(asked) or 'sizes per layer'}: use model.layers=zoo."
                )
        try:
            return getattr(module, self.layer_name)(input_size, batch_first=True, **options)
        except (TypeError, ValueError) as error:
            raise ZooError(f"{self.entry.name}: {error}") from error

    # -- forward -------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, state: State = None, mask: Tensor | None = None) -> Tensor:
        """Return one answer an example (B, K), or the logits of every step (B, T, V or K) where each is asked for one.

        Args:
            x: numbers (B, T, F) or tokens (B, T).
            state: the layers' state before the first step; zeros by default.
            mask: which steps are there, (B, T), where examples are padded.
        """
        return self.run(x, state, mask)[0]

    def run(self, x: Tensor, state: State = None, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Return the output and the state after the last step."""
        if self.spec.kind == "series":
            return self._forecast_window(x, state)
        if mask is not None and x.is_floating_point():
            x = x.masked_fill(~mask.unsqueeze(-1), 0.0)  # whatever stands there, 0 · NaN is not 0
        inputs = x if self.embedding is None else self.drop(self.embedding(x))  # (B, T, D)
        hidden, state = self._run_core(inputs, state, mask)  # (B, T, H)
        seen = hidden if self.answers_each_step else self._last(hidden, mask)
        return self.head(self.drop(seen)), state

    def _run_core(self, inputs: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        if mask is None:
            return self.core(inputs, state)
        lengths = mask.sum(1).cpu()
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        hidden, state = self.core(packed, state)
        return pad_packed_sequence(hidden, batch_first=True, total_length=inputs.shape[1])[0], state

    def _forecast_window(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The forecast of windows that are shifted and scaled by their own mean and deviation."""
        scaled, mean, std = scaled_windows(x)
        hidden, state = self.core(scaled, state)
        return self.head(self.drop(hidden[:, -1])) * std[:, :, 0] + mean[:, :, 0], state

    def _last(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Return the last step of each direction that is there, (B, H or 2H); backwards that is the first step."""
        if mask is None:
            last = hidden[:, -1]
        else:
            last = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        if not self.hparams.bidirectional:
            return last
        half = hidden.shape[-1] // 2
        return torch.cat([last[:, :half], hidden[:, 0, half:]], dim=1)

    def before_trace(self) -> None:
        super().before_trace()  # type: ignore[misc]
        if isinstance(self.core, nn.RNNBase):  # which a trace unrolls
            state, self.hparams.layers = self.core.state_dict(), "zoo"
            self.core = self._make_core(self.core.input_size)
            self.core.load_state_dict(state)
        self.core.by_steps = True  # type: ignore[assignment]

    # -- the state that a model of one long text carries from batch to batch -------------------------------------

    @property
    def _stage(self) -> str | None:
        """The trainer's stage, in which the state is carried along; None outside of one."""
        return self._trainer.state.stage if self._trainer is not None else None

    def output(self, batch: Batch) -> Tensor:
        stage = self._stage
        if stage is None or not self.spec.stream:
            return self(batch.inputs, mask=batch.mask)
        output, state = self.run(batch.inputs, self._carried.get(stage), batch.mask)
        self._carried[stage] = detach(state)
        return output

    def on_train_epoch_start(self) -> None:
        self._carried.pop("train", None)

    def on_validation_epoch_start(self) -> None:
        self._carried.pop("validate", None)

    def on_test_epoch_start(self) -> None:
        self._carried.pop("test", None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        carried: list[State] = [self._carried.get("train")]
        if self._trainer is not None and self.trainer.world_size > 1:  # each process reads a text of its own
            carried = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(carried, move(self._carried.get("train"), torch.device("cpu")))
        checkpoint["zoo"]["carried"] = carried

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        carried = checkpoint["zoo"].get("carried", [])
        rank = self.trainer.global_rank if self._trainer is not None else 0
        if rank < len(carried) and carried[rank] is not None:
            self._carried["train"] = move(carried[rank], self.device)

    # -- going on --------------------------------------------------------------------------------------------------

    state_dim = 1  # (L, B, H)

    def next_logits(
        self, tokens: Tensor, state: State = None, mask: Tensor | None = None, every: bool = False
    ) -> tuple[Tensor, State]:
        output, state = self.run(tokens, state, mask)  # (B, T, V)
        if every:
            return output, state
        return output[:, -1] if mask is None else output[torch.arange(len(output)), mask.sum(1) - 1], state

    # -- pictures ------------------------------------------------------------------------------------------------

    def graph_input(self, batch: Batch) -> Tensor:
        return batch.inputs[:1, :4]  # drawn step by step: a few say it all

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)  # type: ignore[misc]
        if self.spec.kind == "series" and batch.y is not None:
            yield "forecast", visual.forecast(batch.y, columns["prediction"], self.spec)
        steps = int(batch.mask[0].sum()) if batch.mask is not None else None
        first = batch.inputs[:1, :steps]
        inputs = first if self.embedding is None else self.embedding(first)
        yield "gates", visual.gates(self.gate_activations(inputs))

    def gate_activations(self, x: Tensor) -> dict[str, Tensor]:
        """Return what each gate of the first layer does over time for one input (1, T, ·), name → (T, H).

        Plain cells only: layer norms and projections are left out of the formula here.
        """
        core: Any = self.core
        size = self._sizes[0]
        names = {"LSTM": ("input", "forget", "candidate", "output"), "GRU": ("reset", "update", "candidate")}
        gates = names.get(self.layer_name, ("hidden",))
        inputs = x[0] @ core.weight_ih_l0.T + core.bias_ih_l0  # (T, G·H)
        hidden, _ = self.core(x) if self.hparams.num_layers == 1 else (None, None)
        if hidden is None or hidden.shape[-1] != core.weight_hh_l0.shape[1]:
            return {"hidden": self.core(x)[0][0]}
        before = torch.cat([torch.zeros_like(hidden[0, :1]), hidden[0, :-1]])
        products = before @ core.weight_hh_l0.T + core.bias_hh_l0
        activations = {"hidden": hidden[0]}
        for index, name in enumerate(gates):
            part = slice(index * size, (index + 1) * size)
            if name == "candidate" and self.layer_name == "GRU":
                activations[name] = torch.tanh(inputs[:, part] + activations["reset"] * products[:, part])
            elif name != "hidden":
                squash = torch.tanh if name == "candidate" else torch.sigmoid
                activations[name] = squash(inputs[:, part] + products[:, part])
        if self.layer_name == "LSTM":
            activations["cell state"] = _cell_states(activations)
        return activations


def _cell_states(gates: dict[str, Tensor]) -> Tensor:
    """Return c_t = f_t c_{t-1} + i_t g_t of an LSTM's gates, each (T, H)."""
    cell, states = torch.zeros_like(gates["input"][0]), []
    for forget, added in zip(gates["forget"], gates["input"] * gates["candidate"], strict=True):
        cell = forget * cell + added
        states.append(cell)
    return torch.stack(states)
