"""What the models made of transformer layers share beside their parts: sizes that fit, and shares for processes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn

from zoo import layers
from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import GradientModel
from zoo.models.base.embeds import pretrained_table

__all__ = ["AttentionModel"]

_Base: Any = GradientModel if TYPE_CHECKING else object


class AttentionModel(_Base):
    """A mixin for models of transformer layers: weight decay shrinks matrices alone, and layers may be shared out."""

    decays_matrices_only = True
    compiles = True

    @property
    def heeds(self) -> frozenset[str]:
        return super().heeds | {"activation_checkpointing", "shares"}

    def check_sizes(self, *depths: str) -> None:
        """Raise one line for a size or a share out of range; `depths` names what says how many layers there are."""
        h = self.hparams
        for name in depths:
            check_range(name, h[name], 1, 1000)
        for name in ("num_heads", "hidden_size", "feedforward_size"):
            check_range(name, h[name], 1)
        for name in ("dropout", "label_smoothing"):
            check_range(name, h.get(name, 0.0), 0, 1)
        if h.hidden_size % h.num_heads:
            raise ZooError(f"model.hidden_size={h.hidden_size} must be a multiple of model.num_heads={h.num_heads}.")

    def take_vectors(self, spec: DataSpec) -> None:
        """Begin the table of the tokens' vectors as `model.embedding` has them, where that is given."""
        path, table = self.hparams.embedding, self.embedding
        if path is None:
            return
        vectors = pretrained_table(path, spec, None).weight.detach()  # (V, D)
        if vectors.shape != table.weight.shape:
            size, width = vectors.shape[1], self.hparams.hidden_size
            raise ZooError(f"{path} has vectors of {size} numbers, not {width}: pass model.hidden_size={size}.")
        table.weight.data.copy_(vectors / math.sqrt(self.hparams.hidden_size) if table.scaled else vectors)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.hparams.get("embedding") is not None:  # the vectors are there, and no file is asked for again
            checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], "embedding": None}

    def configure_model(self) -> None:
        """Leave each process a share of every layer for a fit, where Lightning's ModelParallelStrategy asks for it."""
        if self.device_mesh is None or self.trainer.state.fn != "fit" or self._is_shared:
            return
        from torch.distributed.fsdp import fully_shard

        mesh = self.device_mesh["data_parallel"]
        own = (layers.TransformerEncoderLayer, layers.TransformerDecoderLayer)
        parts: list[Any] = list(self.modules())
        for part in (p for p in parts if isinstance(p, (*own, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer))):
            fully_shard(part, mesh=mesh)
        fully_shard(parts[0], mesh=mesh)

    @property
    def _is_shared(self) -> bool:
        """Whether this process holds a share of each layer alone."""
        return self.device_mesh is not None and any(hasattr(p, "full_tensor") for p in self.parameters())

    def check_fitted(self) -> None:
        super().check_fitted()
        if self._is_shared:
            raise ZooError("Each process holds a share of this model alone: zoo.load_model(RUN) has it whole.")

    def _evaluation_step(self, batch: Batch, split: str) -> None:
        if not batch.size and self._is_shared:  # the others wait for this process's share
            row = [None if t is None else t.new_zeros(1, *(max(1, size) for size in t.shape[1:])) for t in batch]
            self.output(Batch(*row))  # type: ignore[arg-type]
        super()._evaluation_step(batch, split)
