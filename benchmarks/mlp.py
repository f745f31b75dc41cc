"""What the trainer costs: an mlp's epochs through Lightning and the zoo's loader, beside a plain loop over tensors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

import zoo
from benchmarks import Job
from zoo.data.array_data import ArrayData
from zoo.training.trainer import make_trainer

ROWS, FEATURES, CLASSES, EPOCHS = 20_000, 64, 10, 2


def jobs() -> Iterator[Job]:
    torch.manual_seed(0)
    x, y = torch.randn(ROWS, FEATURES), torch.randint(CLASSES, (ROWS,))
    for batch_size, width in ((64, 128), (256, 512)):

        def ours(batch_size: int = batch_size, width: int = width) -> None:
            model = zoo.create_model("mlp", widths=[width, width])
            data = ArrayData(x, y, batch_size=batch_size)
            make_trainer(model, max_epochs=EPOCHS, accelerator="auto", progress=False).fit(model, datamodule=data)

        def peer(batch_size: int = batch_size, width: int = width) -> None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            inputs, targets = x.to(device), y.to(device)
            net = nn.Sequential(
                nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES)
            ).to(device)
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
            for _ in range(EPOCHS):
                for rows in torch.randperm(ROWS, device=device).split(batch_size):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(net(inputs[rows]), targets[rows]).backward()
                    optimizer.step()

        name = f"mlp {FEATURES}-{width}-{width}-{CLASSES}, {EPOCHS} epochs of {ROWS:,} rows, batches of {batch_size}"
        yield Job(name, ours, peer, "plain PyTorch loop", bound=1.3)
