# %% [markdown]
# # Your own model
#
# A model is a class with a name. What it says of itself is enough for the rest: commands, checkpoints that resume,
# predictions from raw rows, pictures and TensorBoard are there without a further line.
#
# ## One that takes steps
#
# A *gradient model* builds its parameters in `initialize`, where it learns from the `DataSpec` how many features and
# classes there are, and says in `forward` what it makes of rows. Here a network of radial basis functions,
#
# $$
# \hat y = W \exp(-\lVert x - c_k \rVert^2 / 2 s_k^2) + b .
# $$

# %%
import torch
import zoo
from torch import Tensor, nn
from zoo.data import DataSpec
from zoo.models.base import GradientModel


@zoo.register_model(
    "rbf_network", family="feedforward", accepts={"tabular": ("class", "value")}, source="Broomhead & Lowe 1988"
)
class RBFNetwork(GradientModel):
    """A network of bells around centres that are learned."""

    def __init__(self, *, num_centers: int = 20, width: float = 1.0) -> None:
        super().__init__()
        self.save_hyperparameters()

    def initialize(self, spec: DataSpec) -> None:
        self.centers = nn.Parameter(torch.randn(self.hparams.num_centers, spec.num_features))  # (K, D)
        self.width = nn.Parameter(torch.full((self.hparams.num_centers,), self.hparams.width))  # (K,)
        self.head = nn.Linear(self.hparams.num_centers, self.objective.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        bells = torch.exp(-torch.cdist(x, self.centers).square() / (2 * self.width.square()))  # (B, K)
        return self.head(bells)


# %% [markdown]
# Two half-moons, which no line separates:

# %%
from sklearn.datasets import make_moons

X, y = make_moons(400, noise=0.2, random_state=0)
model = zoo.fit(zoo.create_model("rbf_network"), X, y, lr=0.02, max_epochs=40, validation=0.2)
model.score(X, y)

# %%
from zoo.visual import decision_boundary

decision_boundary(model.predict_columns, torch.as_tensor(X), torch.as_tensor(y), model.spec)

# %% [markdown]
# Whether its gradients are right, by differences of the loss:

# %%
from zoo.analysis import check_gradients

print(check_gradients(model, (torch.as_tensor(X[:20]), torch.as_tensor(y[:20]))).table())

# %% [markdown]
# ## One that is solved
#
# A *streaming model* adds each batch to what it keeps, and solves at the end of the pass. The base adds up over
# processes, stops when the model is done, and resumes a half-done pass. Here the nearest class mean, one pass over
# data of any length:

# %%
from zoo.data import Batch
from zoo.models.base import StreamingModel


@zoo.register_model("nearest_mean", family="naive_bayes", accepts={"tabular": "class"}, source="Fisher 1936")
class NearestMean(StreamingModel):
    """The class whose mean is nearest."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()

    def initialize(self, spec: DataSpec) -> None:
        self.register_accumulator(
            "sums", torch.zeros(spec.num_classes, spec.num_features, dtype=torch.float64)
        )  # (C, D)
        self.register_accumulator("counts", torch.zeros(spec.num_classes, dtype=torch.float64))  # (C,)
        self.register_buffer("means", torch.zeros(spec.num_classes, spec.num_features, dtype=torch.float64))

    def accumulate(self, batch: Batch) -> None:
        self.sums.index_add_(0, batch.y, batch.x)
        self.counts += batch.y.bincount(minlength=len(self.counts))

    def solve(self) -> dict[str, float | Tensor]:
        self.means = self.sums / self.counts.unsqueeze(1)
        return {"rows": self.counts.sum()}

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x, self.means)  # (B, C)

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        return {"prediction": self(batch.x).argmin(1)}

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {"accuracy": (self(batch.x).argmin(1) == batch.y).double()}


means = zoo.fit(zoo.create_model("nearest_mean"), X, y)
means.means, means.score(X, y)

# %% [markdown]
# The same result for any batch size, number of processes and order of rows:

# %%
small = zoo.fit(zoo.create_model("nearest_mean"), X[::-1].copy(), y[::-1].copy(), batch_size=7)
torch.allclose(small.means, means.means, rtol=1e-12)

# %% [markdown]
# ## From the command line
#
# A module of your own registers its models when it is imported. `plugins` names it, where Python finds it; a package
# that names it in an entry point of the group `zoo.models` needs no option.

# %% language="bash"
# cat > my_models.py <<'END'
# import torch, zoo
# from zoo.models.base import GradientModel
#
# @zoo.register_model("line", family="linear", accepts={"tabular": "class"}, source="mine")
# class Line(GradientModel):
#     """One affine map."""
#
#     def __init__(self, *, bias: bool = True):
#         super().__init__()
#         self.save_hyperparameters()
#
#     def initialize(self, spec):
#         self.map = torch.nn.Linear(spec.num_features, self.objective.num_outputs, bias=self.hparams.bias)
#
#     def forward(self, x):
#         return self.map(x)
# END
# python -m zoo train plugins=[my_models] model=line model.bias=false data=iris run_dir=line | tail -n 9

# %% [markdown]
# In the zoo itself a model comes with its formula, a config, an oracle that it is tested against, and a page:
# [contributing](../contributing.md).
