"""Mixed precision on a CPU: what Lightning asks of fused optimizers does not stand in the way of clipping."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import zoo
from zoo.data.array_data import ArrayData
from zoo.training.trainer import make_trainer


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_gradients_are_clipped_in_mixed_precision(precision: str, tmp_path: Path) -> None:
    x = torch.randn(40, 3)
    model = zoo.create_model("mlp", widths=[4])
    trainer = make_trainer(
        model, run_dir=tmp_path, max_epochs=1, accelerator="cpu", progress=False, precision=precision,
        gradient_clip_val=1e-6,
    )  # fmt: skip
    norms: list[float] = []
    model.on_before_zero_grad = lambda optimizer: norms.append(  # type: ignore[method-assign]
        sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None) ** 0.5
    )
    trainer.fit(model, datamodule=ArrayData(x, (x[:, 0] > 0).long(), batch_size=10))
    assert len(norms) == 4
    assert 0 < max(norms) < 2e-6
