"""Models that one device does not hold: each process of a run keeps a share of every layer (FSDP2)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.training.checkpoint import load_checkpoint

__all__ = ["ShareStrategy", "check_shares", "in_shares", "whole"]

OF_WHOLE_MATRICES = ("adafactor", "muon")  # by the mean of a row and a column, and by their singular vectors


class ShareStrategy(ModelParallelStrategy):
    """Processes that hold a share of each layer each, and write checkpoints of whole tensors, as all runs do.

    Lightning's own leaves it to the user over how many processes layers are shared, and reads checkpoints unchecked.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        load_checkpoint(checkpoint_path)  # its digests
        return super().load_checkpoint(checkpoint_path, weights_only=True)


def check_shares(model: Any, averages: bool) -> None:
    """Raise one line for a model that cannot be shared out, or for what asks for whole weights in each step.

    Args:
        model: the model, with its recipe.
        averages: whether weights are averaged.
    """
    if "shares" not in model.heeds:
        raise ZooError(
            f"strategy=fsdp shares out transformer layers, and {model.entry.name} has none: pass strategy=ddp."
        )
    recipe = model.recipe
    if recipe.optimizer in OF_WHOLE_MATRICES:
        raise ZooError(
            f"optimizer={recipe.optimizer} looks at whole matrices, of which strategy=fsdp leaves each process "
            "some rows: pass optimizer=adamw."
        )
    asked = {f"regularization.{name}": getattr(recipe, name) for name in ("l1", "l2", "weight_noise")}
    asked["averaging"] = averages
    name = next((name for name, value in asked.items() if value), None)
    if name is not None:
        instead = "take optimizer.weight_decay" if name.endswith(("l1", "l2")) else "leave it out"
        raise ZooError(f"strategy=fsdp leaves each process a share of the weights, and {name} asks for all: {instead}.")


def in_shares(model: nn.Module) -> bool:
    """Whether this process holds a share of the parameters alone."""
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor of which each process may hold a share; then all of them must ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
