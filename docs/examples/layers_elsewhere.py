# %% [markdown]
# # Layers in another project
#
# The layers of the zoo stand in for torch's: the same constructor, the same `state_dict`, the same results. A project
# changes an import and keeps the rest.

# %%
import torch
from zoo.layers import LSTM

torch.manual_seed(0)
ours = LSTM(8, 16, num_layers=2, batch_first=True)
theirs = torch.nn.LSTM(8, 16, num_layers=2, batch_first=True)
theirs.load_state_dict(ours.state_dict())

x = torch.randn(4, 30, 8)
(ours(x)[0] - theirs(x)[0]).abs().max().item()

# %% [markdown]
# ## A training loop without the zoo
#
# Nothing here is the zoo's but the layer. The network reads a noisy sine and says what comes next.

# %%
import matplotlib.pyplot as plt
from torch import nn


class Forecaster(nn.Module):
    def __init__(self, lstm: type[nn.Module]) -> None:
        super().__init__()
        self.lstm = lstm(1, 32, batch_first=True)
        self.head = nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0])


def train(lstm: type[nn.Module]) -> tuple[Forecaster, list[float]]:
    torch.manual_seed(0)
    model = Forecaster(lstm)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(80):
        start = 6.3 * torch.rand(32, 1, 1)
        wave = torch.sin(start + 0.3 * torch.arange(41).view(1, -1, 1)) + 0.05 * torch.randn(32, 41, 1)
        loss = nn.functional.mse_loss(model(wave[:, :-1]), wave[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


model, losses = train(LSTM)
_, others = train(nn.LSTM)
plt.figure(figsize=(6, 3))
plt.semilogy(losses, label="zoo.layers.LSTM")
plt.semilogy(others, "--", label="torch.nn.LSTM")
plt.xlabel("step")
plt.ylabel("mean squared error")
_ = plt.legend()

# %% [markdown]
# The curves lie on each other. What the trained layer knows goes back to torch by `load_state_dict`, or to a file:

# %%
torch.save(model.state_dict(), "forecaster.pt")
again = Forecaster(nn.LSTM)
again.load_state_dict(torch.load("forecaster.pt", weights_only=True))

# %% [markdown]
# ## What torch's layers lack
#
# A query whose keys are all hidden gets zeros and no NaN, positions may be relative, a window limits how far back a
# step sees:

# %%
from zoo.layers import MultiheadAttention

attention = MultiheadAttention(32, num_heads=4, batch_first=True, window=6, positions="rotary")
tokens = torch.randn(1, 24, 32)
_, weights = attention(tokens, tokens, tokens, is_causal=True)
plt.figure(figsize=(3.2, 3.2))
plt.imshow(weights[0].detach(), cmap="magma")
plt.xlabel("key")
_ = plt.ylabel("query")

# %% [markdown]
# Optimizers stand in in the same way, `from zoo.optimizers import AdamW`, and estimators under scikit-learn's names:
# `from zoo.sklearn import PCA`. All layers: [the API](../api/layers.md).
