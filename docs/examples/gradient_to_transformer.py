# %% [markdown]
# # From gradient to Transformer
#
# The syllabus in one sitting: a gradient, a step, a line, a network, attention, and a language model that goes on
# with a text.
#
# ## A gradient
#
# The slope of a function by differences of its values, $\partial f / \partial x_i \approx (f(x + h e_i) - f(x - h
# e_i)) / 2h$, and by automatic differentiation:

# %%
import torch
from zoo.analysis import numerical_gradient


def valley(x: torch.Tensor) -> torch.Tensor:
    """Rosenbrock's curved valley, lowest at (1, 1)."""
    return (1 - x[0]) ** 2 + 20 * (x[1] - x[0] ** 2) ** 2


x = torch.tensor([-1.0, 1.5], dtype=torch.float64, requires_grad=True)
(automatic,) = torch.autograd.grad(valley(x), x)
numerical_gradient(valley, x.detach()), automatic

# %% [markdown]
# ## Steps
#
# Gradient descent goes against the slope, $\theta \leftarrow \theta - \alpha \nabla J(\theta)$; Adam scales each
# coordinate by how large its slopes have been.

# %%
import matplotlib.pyplot as plt
from zoo.optimizers import SGD, Adam


def descend(optimizer: type[torch.optim.Optimizer], steps: int, **options: float) -> torch.Tensor:
    """The places of a descent, (steps + 1, 2)."""
    x = torch.tensor([-1.0, 1.5], requires_grad=True)
    rule, places = optimizer([x], **options), [x.detach().clone()]
    for _ in range(steps):
        rule.zero_grad()
        valley(x).backward()
        rule.step()
        places.append(x.detach().clone())
    return torch.stack(places)


grid_x, grid_y = torch.meshgrid(torch.linspace(-1.6, 1.6, 120), torch.linspace(-0.6, 2, 120), indexing="xy")
plt.figure(figsize=(6, 3.6))
plt.contour(grid_x, grid_y, valley(torch.stack([grid_x, grid_y])).log1p(), levels=20, cmap="Greys")
for name, places in {
    "descent": descend(SGD, 200, lr=0.004),
    "with momentum": descend(SGD, 200, lr=0.004, momentum=0.9),
    "Adam": descend(Adam, 200, lr=0.1),
}.items():
    plt.plot(*places.T, ".-", markersize=3, linewidth=1, label=name)
plt.plot(1, 1, "k*")
_ = plt.legend()

# %% [markdown]
# ## A line, and what a line cannot do
#
# Logistic regression is one neuron: $p = 1/(1 + e^{-z})$ with $z = w \cdot x + b$. A network puts layers of them
# before it.

# %%
import zoo
from sklearn.datasets import make_moons

X, y = make_moons(300, noise=0.15, random_state=0)
line = zoo.fit(zoo.create_model("logistic_regression"), X, y)
network = zoo.fit(zoo.create_model("mlp", widths=[32, 32]), X, y, lr=0.01, max_epochs=40)
line.score(X, y), network.score(X, y)

# %%
from zoo.visual import decision_boundary

decision_boundary(network.predict_columns, torch.as_tensor(X), torch.as_tensor(y), network.spec)

# %% [markdown]
# ## Attention
#
# A layer that lets each token look at the others, $\operatorname{softmax}(Q K^\top / \sqrt{d})\, V$. Causal: a token
# sees itself and those before it.

# %%
from zoo.layers import scaled_dot_product_attention

torch.manual_seed(0)
tokens = torch.randn(1, 1, 6, 4)  # (B, H, T, d)
seen = scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True)
by_hand = (tokens @ tokens.mT / 2).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf).softmax(-1) @ tokens
torch.allclose(seen, by_hand, atol=1e-6)

# %% [markdown]
# ## A Transformer
#
# Embedding, positions, blocks of attention and feed-forward networks, each around a residual path, and a softmax over
# the next token: GPT, here small, on Python's own documentation, character by character.

# %%
data = zoo.create_data("python_docs", sequence_length=48, batch_size=16, val_fraction=0.01, shuffle=True)
gpt = zoo.create_model("gpt", num_layers=2, num_heads=4, hidden_size=64)
zoo.fit(gpt, data, optimizer="adamw", lr=4e-3, max_epochs=1, max_steps=500)
print(gpt.generate("The function ", steps=160, temperature=0.7, seed=1))

# %% [markdown]
# A few seconds of training know the letters and the common words. `zoo-train experiment=char_gpt_cpu
# data.path=input.txt` goes on for minutes, and knows far more: [GPT](../gpt.md).
