r"""Naive Bayes: the class that, with features taken for independent within a class, explains a row best.

```math
\log p(c \mid x) = \log \pi_c + \log p(x \mid c) - \log \sum_k \pi_k\, p(x \mid k),\qquad
p(x \mid c) = \prod_d p(x_d \mid c),\qquad
\pi_c = \frac{n_c}{\sum_k n_k}
```

The five likelihoods $p(x \mid c)$ are in `gaussian`, `counts` (multinomial, complement, Bernoulli) and `categorical`
beside this file. Each adds up statistics of the rows in one pass, which merge over batches and processes, and has its
parameters from them in closed form. Nothing leaves the logarithm but the probabilities at the end.

- $\pi$ $(C,)$: prior, learned from the (weighted) rows or given; $n$ $(C,)$: rows of each class
- $x$ $(D,)$: a row; images are flattened

Sources: M. Maron, "Automatic indexing: an experimental inquiry", 1961; T. Hastie, R. Tibshirani and J. Friedman, *The
Elements of Statistical Learning*, 2nd ed. 2009, §6.6.3.

Deviation: of a row that is impossible in every class nothing is learned: its probabilities are the prior.

Letters: B rows, D features, C classes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import StreamingModel
from zoo.models.base.evaluation import Pooling
from zoo.models.base.objectives import Classification
from zoo.models.naive_bayes.categorical import Categorical
from zoo.models.naive_bayes.counts import Bernoulli, Complement, Multinomial
from zoo.models.naive_bayes.gaussian import Gaussian
from zoo.models.naive_bayes.likelihood import Likelihood
from zoo.numerics.sparse import as_rows, dense_rows
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NaiveBayes", "log_posterior"]


def log_posterior(joint: Tensor, log_prior: Tensor) -> Tensor:
    """Class log-probabilities from the logarithms of prior times likelihood.

    Args:
        joint: log p(c) + log p(x | c), (B, C).
        log_prior: what a row has for which all of them are minus infinity, (C,).

    Returns:
        (B, C).

    Example:
        >>> joint = torch.tensor([[-1000.0, -1000.0], [-torch.inf, -torch.inf]])
        >>> log_posterior(joint, torch.tensor([0.25, 0.75]).log()).exp()
        tensor([[0.5000, 0.5000],
                [0.2500, 0.7500]])
    """
    impossible = joint.amax(1, keepdim=True).isneginf()
    return torch.where(impossible, log_prior.to(joint.dtype), joint).log_softmax(1)


@register_model(
    "naive_bayes",
    family="naive_bayes",
    accepts={"tabular": "class", "image": "class"},
    source="Maron 1961",
)
class NaiveBayes(StreamingModel):
    """Naive Bayes classifier in one pass over the data, with any of five likelihoods.

    Args:
        likelihood: how a feature is distributed within a class: `gaussian` (measurements), `multinomial` (counts),
            `complement` (counts, classes of very different size), `bernoulli` (yes or no), `categorical` (0, 1, 2).
        priors: probability of each class; `uniform`; or null for the shares of the (weighted) training rows.
        alpha: added to every count of all likelihoods but the Gaussian, one number, or one a feature (not for
            `categorical`).
        var_smoothing: share of the largest variance of a feature that is added to all variances, for `gaussian`.
        threshold: yes is what lies above, for `bernoulli`; null where features are 0 and 1 already.
        norm: whether the weights of each class are divided by their sum, for `complement`.
        min_categories: categories of each feature at least, one number, or one a feature, for `categorical`.

    Raises:
        ZooError: for an argument out of range or of another length than the data call for, fewer than two classes with
            rows, NaN, negative counts, or categories that are no whole numbers.

    Example:
        >>> import torch, zoo
        >>> x, y = torch.tensor([[1.0], [2.0], [8.0], [9.0]]), torch.tensor([0, 0, 1, 1])
        >>> model = zoo.fit(zoo.create_model("naive_bayes"), x, y)
        >>> model.mean.flatten().tolist(), model.predict([[3.0]]).tolist()
        ([1.5, 8.5], [0])
    """

    class_count: Tensor
    log_prior: Tensor

    needs = {
        "alpha": {"likelihood": ("multinomial", "complement", "bernoulli", "categorical")},
        "var_smoothing": {"likelihood": ("gaussian",)},
        "threshold": {"likelihood": ("bernoulli",)},
        "norm": {"likelihood": ("complement",)},
        "min_categories": {"likelihood": ("categorical",)},
    }

    def __init__(
        self,
        *,
        likelihood: Literal["gaussian", "multinomial", "complement", "bernoulli", "categorical"] = "gaussian",
        priors: Literal["uniform"] | Sequence[float] | None = None,
        alpha: float | Sequence[float] = 1.0,
        var_smoothing: float = 1e-9,
        threshold: float | None = 0.0,
        norm: bool = False,
        min_categories: int | Sequence[int] = 0,
    ) -> None:
        super().__init__()
        for name, values in (("priors", priors), ("alpha", alpha), ("min_categories", min_categories)):
            for value in values if isinstance(values, list | tuple) else () if isinstance(values, str) else (values,):
                check_range(name, value, 0)
        check_range("var_smoothing", var_smoothing, 0)
        if isinstance(priors, list | tuple) and abs(sum(priors) - 1) > 1e-6:
            raise ZooError(f"model.priors must sum to 1, and these sum to {sum(priors):g}.")
        if likelihood == "categorical" and not isinstance(alpha, int | float):
            raise ZooError("model.alpha must be one number where model.likelihood=categorical.")
        self.save_hyperparameters()
        densities: dict[str, Likelihood] = {
            "gaussian": Gaussian(var_smoothing),
            "multinomial": Multinomial(alpha),
            "complement": Complement(alpha, norm),
            "bernoulli": Bernoulli(alpha, threshold),
            "categorical": Categorical(alpha, min_categories),  # type: ignore[arg-type]
        }
        self.density = densities[likelihood]

    @property
    def takes_sparse(self) -> bool:  # type: ignore[override]
        """Whether zeros are counted without being looked at."""
        hp = self.hparams
        return hp.likelihood in ("multinomial", "complement") or (
            hp.likelihood == "bernoulli" and (hp.threshold is None or hp.threshold >= 0)
        )

    def _cast(self, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
        tensor = tensor if self.takes_sparse else dense_rows(tensor)
        return tensor.to(self.device)  # rows are converted a block at a time, where they lie in the cache

    def initialize(self, spec: DataSpec) -> None:
        assert spec.num_classes is not None
        priors = self.hparams.priors
        if isinstance(priors, list | tuple) and len(priors) != spec.num_classes:
            raise ZooError(f"model.priors has {len(priors)} numbers for {spec.num_classes} classes: give one a class.")
        self.density.check(spec.num_features)
        statistics, parameters = self.density.blank(spec.num_features, spec.num_classes)
        for name, value in statistics.items():
            self.register_accumulator(name, value)
        for name, value in parameters.items():
            self.register_buffer(name, value)
        self.register_buffer("log_prior", torch.zeros(spec.num_classes, dtype=torch.float64))

    # -- the pass ------------------------------------------------------------------------------------------------

    def accumulate(self, batch: Batch) -> None:
        assert batch.y is not None
        found = self.density.statistics(as_rows(batch.x), batch.y, batch.weight, len(self.class_count))
        for name, value in self.density.merge(self._state(), found).items():
            setattr(self, name, value)

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return functools.reduce(self.density.merge, states)

    def solve(self) -> dict[str, float | Tensor]:
        seen = self.class_count > 0
        if int(seen.sum()) < 2:
            raise ZooError(
                f"naive_bayes was given rows of {int(seen.sum())} class{'' if seen.any() else 'es'} (with a positive "
                "weight): at least two are needed to tell them apart."
            )
        self.estimate()
        return {"rows": self.class_count.sum(), "classes": seen.sum()}

    def estimate(self) -> None:
        """Take priors and parameters from what was added up so far."""
        if bool((self.class_count < 0).any()):
            raise ZooError(
                "naive_bayes was given sample weights that add up to less than 0 for a class: a class is as likely as "
                "its weights add up to."
            )
        for name, value in self.density.estimate(self._state()).items():
            setattr(self, name, value)
        self.log_prior = self._priors().log()

    def _priors(self) -> Tensor:
        if self.hparams.priors is None:
            return self.class_count / self.class_count.sum()
        if self.hparams.priors == "uniform":
            return torch.full_like(self.class_count, 1 / len(self.class_count))
        return self.class_count.new_tensor(self.hparams.priors)

    # -- the fitted model ----------------------------------------------------------------------------------------

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(c) + log p(x | c) of rows (B, *shape), (B, C); of `complement` the score, which has no prior."""
        parameters = {name: getattr(self, name) for name in self.density.parameters}
        scores = self.density.scores(as_rows(x).to(self.device), parameters)
        return scores + self.log_prior if self.density.uses_prior else scores

    def log_probability(self, x: Tensor) -> Tensor:
        """log p(c | x) of rows (B, *shape), (B, C)."""
        return log_posterior(self.log_joint(x), self.log_prior)

    def forward(self, x: Tensor) -> Tensor:
        """Class log-probabilities of rows (B, *shape), (B, C)."""
        return self.log_probability(x)

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        logs = self(batch.x)
        return {"prediction": logs.argmax(1), "probability": logs.exp()}

    # -- evaluation ----------------------------------------------------------------------------------------------

    @property
    def objective(self) -> Classification:
        """What the class log-probabilities are measured by, as other classifiers' logits are."""
        assert self.spec is not None
        return Classification(self.spec)

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return self.objective.evaluate(self(batch.x), batch)

    def pooling(self) -> dict[str, Pooling]:
        return self.objective.pooling()

    # -- what it looks like --------------------------------------------------------------------------------------

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        assert self.spec is not None
        if self.spec.kind == "tabular" and self.spec.num_features == 2:
            prepared = functools.partial(self.predict_columns, raw=False)
            yield "decision_boundary", visual.decision_boundary(prepared, batch.x, batch.y, self.spec)
        counted = self.density.occurrences(self._state())
        if counted is None:
            share = self.class_count / self.class_count.sum()
            mean, variance, rows = self.mean, self.variance, batch.x.flatten(1)
            scaling = None if self.preprocessing is None else self.preprocessing.scaling
            if scaling is not None and self.spec.kind == "tabular":  # drawn in the user's units
                shift, scale = scaling.mean.to(mean), scaling.std.to(mean)
                mean, variance, rows = mean * scale + shift, variance * scale.square(), rows * scale + shift
            yield "densities", visual.densities(mean, variance, share, self.spec, rows, batch.y)
        elif self.spec.kind == "tabular":
            odds = self.log_odds()
            yield "telling_features", visual.telling_features(odds, counted, self.feature_labels(), self.spec)
        if self.spec.kind == "image" and self.hparams.likelihood != "categorical":
            means = self.mean if counted is None else counted / self.class_count.unsqueeze(1).clamp_min(1)
            tiles = means.unflatten(1, self.spec.shape)
            yield "class_means", visual.images(tiles, self.spec.class_names, title="class means")

    def log_odds(self) -> Tensor:
        """By how much an occurrence of each feature moves a class above the mean of the others, (C, D)."""
        logs = self.feature_log_prob
        others = (logs.sum(0) - logs) / max(1, len(logs) - 1)
        return logs - others

    def feature_labels(self) -> list[str]:
        """A name for each column of `feature_log_prob`: features, or their categories."""
        assert self.spec is not None
        names = self.spec.feature_names or [f"feature {i}" for i in range(self.spec.num_features)]
        if self.hparams.likelihood != "categorical":
            return list(names)
        return [
            f"{name} = {k}" for name, size in zip(names, self.categories.tolist(), strict=True) for k in range(size)
        ]
