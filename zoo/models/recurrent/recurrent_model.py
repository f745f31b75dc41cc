"""What `rnn`, `lstm` and `gru` share: everything but the recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from zoo import layers
from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import GradientModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RecurrentModel", "detach"]

State = Any  # a tensor (L, B, H), a pair of them, or a list with one per layer


def detach(state: State) -> State:
    """Return the state cut off from the steps that led to it."""
    return state.detach() if isinstance(state, Tensor) else type(state)(detach(part) for part in state)


class RecurrentModel(GradientModel):
    """What `rnn`, `lstm` and `gru` share: everything but the recurrent layers themselves.

    A subclass sets `core_name` and hands the layers' own options to `configure`.
    """

    core_name: str

    def configure(
        self,
        hidden_size: int | Sequence[int],
        num_layers: int,
        dropout: float,
        bidirectional: bool,
        embedding_size: int | None,
        source: Literal["zoo", "torch"],
        **extras: Any,
    ) -> None:
        """Check and keep the hyperparameters."""
        sizes = [hidden_size] if isinstance(hidden_size, int) else list(hidden_size)
        for size in sizes:
            check_range("hidden_size", size, 1)
        check_range("num_layers", num_layers, 1)
        check_range("dropout", dropout, 0, 1)
        check_range("embedding_size", embedding_size, 1)
        self.output_size = (extras.get("proj_size") or sizes[-1]) * (2 if bidirectional else 1)
        self.bidirectional, self.embedding_size, self.dropout = bidirectional, embedding_size, dropout
        self.source = source
        self.core_options = {
            "hidden_size": hidden_size if isinstance(hidden_size, int) else list(hidden_size),
            "num_layers": num_layers,
            "dropout": dropout if num_layers > 1 else 0.0,
            "bidirectional": bidirectional,
            **extras,
        }
        self._carried: dict[str, State] = {}
        self._stage: str | None = None  # set while a step of training or evaluation runs, in which the state is carried

    def initialize(self, spec: DataSpec) -> None:
        input_size = spec.shape[-1] if spec.kind != "tokens" else self.embedding_size or self.output_size
        if spec.kind == "tokens":
            if self.bidirectional:
                raise ZooError("A language model must not see what comes next: set model.bidirectional=false.")
            assert spec.vocab_size is not None
            self.embedding = nn.Embedding(spec.vocab_size, input_size)
        self.core = self._make_core(input_size)
        self.drop = nn.Dropout(self.dropout)
        self.head = nn.Linear(self.output_size, self.objective.num_outputs)

    def _make_core(self, input_size: int) -> nn.Module:
        options = dict(self.core_options)
        if self.source == "torch":
            defaults = {"reset_after": True, "update_gate": "old"}
            extra = ("layer_norm", "variational_dropout", "recurrent_dropout", "zoneout", "peepholes", *defaults)
            asked = [k for k in extra if options.pop(k, defaults.get(k, 0)) != defaults.get(k, 0)]
            if asked or not isinstance(options["hidden_size"], int):
                raise ZooError(
                    f"torch's {self.core_name} has no {', '.join(asked) or 'sizes per layer'}: use model.layers=zoo."
                )
        module = layers if self.source == "zoo" else nn
        try:
            return getattr(module, self.core_name)(input_size, batch_first=True, **options)
        except (TypeError, ValueError) as error:
            raise ZooError(f"{self.entry.name}: {error}") from error

    def forward(self, x: Tensor, state: State = None, lengths: Tensor | None = None) -> Tensor:
        """Return logits of every step (B, T, V) for tokens (B, T), and (B, K) for sequences and series (B, T, F)."""
        return self.run(x, state, lengths)[0]

    def run(self, x: Tensor, state: State = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Return the output and the state after the last step."""
        assert hasattr(self, "core")
        if hasattr(self, "embedding"):
            hidden, state = self.core(self.drop(self.embedding(x)), state)  # (B, T, H)
            return self.head(self.drop(hidden)), state
        if self._is_forecaster:
            mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True, correction=0).clamp_min(1e-6)  # (B, 1, F)
            hidden, state = self.core((x - mean) / std, state)
            return self.head(self.drop(hidden[:, -1])) * std[:, :, 0] + mean[:, :, 0], state
        hidden, state = self.core(x, state)
        return self.head(self.drop(self._last(hidden, lengths))), state

    @property
    def _is_forecaster(self) -> bool:
        return self.spec is not None and self.spec.kind == "series"

    def _last(self, hidden: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the last valid step of each direction, (B, H or 2H); backwards that is the first step."""
        if lengths is None:
            last = hidden[:, -1]
        else:
            last = hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
        if not self.bidirectional:
            return last
        half = hidden.shape[-1] // 2
        return torch.cat([last[:, :half], hidden[:, 0, half:]], dim=1)

    # -- the state that a language model carries from batch to batch ---------------------------------------------

    def output(self, batch: Batch) -> Tensor:
        if self._stage is None or not hasattr(self, "embedding"):
            return self(batch.x, lengths=batch.lengths)
        state = self._carried.get(self._stage)
        output, state = self.run(batch.x, state)
        self._carried[self._stage] = detach(state)
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        self._stage = "train"
        try:
            return super().training_step(batch, batch_idx)
        finally:
            self._stage = None

    def _evaluation_step(self, batch: Batch, stage: str) -> None:
        self._stage = stage
        try:
            super()._evaluation_step(batch, stage)
        finally:
            self._stage = None

    def on_train_epoch_start(self) -> None:
        self._carried.pop("train", None)

    def on_validation_epoch_start(self) -> None:
        self._carried.pop("val", None)

    def on_test_epoch_start(self) -> None:
        self._carried.pop("test", None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["zoo"]["carried"] = self._carried.get("train")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["zoo"].get("carried") is not None:
            self._carried["train"] = checkpoint["zoo"]["carried"]

    # -- going on --------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(
        self, prompt: str = "\n", steps: int = 400, temperature: float = 0.8, top_k: int | None = None, seed: int = 0
    ) -> str:
        """Return the prompt and what the language model makes of it.

        Args:
            prompt: the beginning; may be empty.
            steps: number of tokens to draw.
            temperature: below 1 bolder, above 1 wilder; 0 takes the most probable token.
            top_k: draw from the k most probable tokens only.
            seed: seed of the draw.
        """
        from zoo.text import decode, encode, load_tokenizer, sample_token

        self.check_fitted()
        assert self.spec is not None
        tokenizer = load_tokenizer(self.spec.tokenizer)
        ids = encode(tokenizer, prompt)
        ids = ids if len(ids) else torch.zeros(1, dtype=torch.long)
        generator = torch.Generator().manual_seed(seed)
        self.eval()
        drawn = [ids]
        output, state = self.run(ids.unsqueeze(0).to(self.device))
        for _ in range(steps):
            drawn.append(sample_token(output[:, -1].cpu(), temperature, top_k, generator))
            output, state = self.run(drawn[-1].unsqueeze(0).to(self.device), state)
        return decode(tokenizer, torch.cat(drawn))

    @torch.inference_mode()
    def forecast(self, history: Tensor, steps: int) -> Tensor:
        """Return the next `steps` values (steps,) after a history (N,), each fed back to predict the next."""
        self.check_fitted()
        assert self.spec is not None
        window = self.spec.shape[0]
        if len(history) < window:
            raise ZooError(f"A forecast needs {window} steps of history; there are {len(history)}.")
        self.eval()
        values = history.to(self.device, self.input_dtype)
        while len(values) < len(history) + steps:
            ahead = self(values[-window:].view(1, window, 1))  # (1, h)
            values = torch.cat([values, ahead.flatten()])
        return values[len(history) : len(history) + steps].cpu()

    def continuation(self, batch: Batch, prompt: str | None, steps: int) -> str | Tensor | None:
        assert self.spec is not None
        if self.spec.kind == "tokens":
            return self.generate(prompt or "\n", steps)
        if self.spec.kind == "series":
            return self.forecast(batch.x[-1, :, 0], steps)
        return None

    def texts(self) -> Iterator[tuple[str, str]]:
        assert self.spec is not None
        if self.spec.kind == "tokens" and self.spec.tokenizer:
            sample = self.generate().replace("\n", "\n    ")
            yield "sample", f"    {sample}"  # indented: TensorBoard reads Markdown

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        assert self.spec is not None
        yield from super().pictures(batch, columns)
        if self.spec.kind == "series" and batch.y is not None:
            yield "forecast", visual.forecast(batch.y, columns["prediction"], self.spec)
        inputs = self.embedding(batch.x[:1]) if hasattr(self, "embedding") else batch.x[:1]
        yield "gates", visual.gates(self.gate_activations(inputs))

    def gate_activations(self, x: Tensor) -> dict[str, Tensor]:
        """Return what each gate of the first layer does over time for one input (1, T, ·), name → (T, H).

        Plain cells only: layer norms and projections are left out of the formula here.
        """
        core: Any = self.core
        size = _first(self.core_options["hidden_size"])
        names = {"LSTM": ("input", "forget", "candidate", "output"), "GRU": ("reset", "update", "candidate")}
        gates = names.get(self.core_name, ("hidden",))
        inputs = x[0] @ core.weight_ih_l0.T + core.bias_ih_l0  # (T, G·H)
        hidden, _ = self.core(x) if self.core_options["num_layers"] == 1 else (None, None)
        if hidden is None or hidden.shape[-1] != core.weight_hh_l0.shape[1]:
            return {"hidden": self.core(x)[0][0]}
        before = torch.cat([torch.zeros_like(hidden[0, :1]), hidden[0, :-1]])
        products = before @ core.weight_hh_l0.T + core.bias_hh_l0
        activations = {"hidden": hidden[0]}
        for index, name in enumerate(gates):
            part = slice(index * size, (index + 1) * size)
            if name == "candidate" and self.core_name == "GRU":
                activations[name] = torch.tanh(inputs[:, part] + activations["reset"] * products[:, part])
            elif name != "hidden":
                squash = torch.tanh if name == "candidate" else torch.sigmoid
                activations[name] = squash(inputs[:, part] + products[:, part])
        return activations


def _first(size: int | list[int]) -> int:
    return size if isinstance(size, int) else size[0]
