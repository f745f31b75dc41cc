"""What a DataModule yields, said once: models take their shapes from it and nothing of it is in a config."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["Batch", "DataSpec", "Kind", "Target"]

Kind = Literal["tabular", "image", "sequence", "tokens", "pairs", "series", "transactions"]
Target = Literal["class", "value", "tokens", "series"]


class Batch(NamedTuple):
    """A batch of B examples.

    Attributes:
        x: inputs, (B, *spec.shape).
        y: class indices (B,), values (B,) or (B, num_targets), next tokens (B, T), ...; None without targets.
        weight: sample weights (B,); None means one each.
        lengths: number of valid steps or items of each example (B,), where they differ.
    """

    x: Tensor
    y: Tensor | None = None
    weight: Tensor | None = None
    lengths: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.x) if self.lengths is None else len(self.lengths)


@dataclass(frozen=True)
class DataSpec:
    """The shape and meaning of what a DataModule yields.

    Attributes:
        kind: `tabular` (F,), `image` (C, H, W), `sequence` (T, F), `tokens` (T,), `pairs`, `series` (T, F) or
            `transactions`.
        shape: shape of one input, without the batch.
        target: `class`, `value`, `tokens`, `series`, or None where there are no targets.
        num_classes: number of classes, for `class` targets.
        num_targets: number of values predicted at once, for `value` and `series` targets.
        vocab_size: number of different tokens or items.
        class_names: a name for each class.
        feature_names: a name for each input feature (or item of a basket).
        target_names: a name for each predicted value.
        tokenizer: the JSON of a tokenizer of the `tokenizers` library.
        dtype: name of the floating type of the inputs, such as `float32`.

    Example:
        >>> DataSpec(kind="tabular", shape=(4,), target="class", num_classes=3).num_features
        4
    """

    kind: Kind
    shape: tuple[int, ...] = ()
    target: Target | None = None
    num_classes: int | None = None
    num_targets: int = 1
    vocab_size: int | None = None
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    tokenizer: str | None = None
    dtype: str = "float32"

    @property
    def num_features(self) -> int:
        """Number of values in one input, flattened."""
        return torch.Size(self.shape).numel()

    @property
    def torch_dtype(self) -> torch.dtype:
        """The floating type of the inputs."""
        return getattr(torch, self.dtype)

    @property
    def task(self) -> str | None:
        """The supervised task that the targets pose, or None without targets."""
        return {
            "class": "classification",
            "value": "regression",
            "tokens": "language_modeling",
            "series": "forecasting",
            None: None,
        }[self.target]

    def to_dict(self) -> dict[str, Any]:
        """Return plain primitives, fit for a checkpoint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> DataSpec:
        """Rebuild the spec that `to_dict` wrote."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})  # type: ignore[arg-type]

    def describe(self) -> str:
        """Say in a few words what the data are, for messages."""
        shape = "×".join(map(str, self.shape))
        return (
            f"{self.kind} data"
            + (f" ({shape})" if shape else "")
            + (f" with {self.target} targets" if self.target else "")
        )
