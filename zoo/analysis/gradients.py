r"""Gradients three ways: by differences of the loss, by automatic differentiation, and by the formula of the family.

```math
\partial_i f \approx \frac{f(\theta + h e_i) - f(\theta)}{h}, \qquad
\frac{f(\theta + h e_i) - f(\theta - h e_i)}{2h}, \qquad \frac{\operatorname{Im} f(\theta + i h e_i)}{h}
```

| symbol | meaning |
|---|---|
| f, θ | a scalar function and its parameters |
| $e_i$ | a coordinate, or any direction v, along which the derivative is $v^\top \nabla f$ |
| h | step: √ε for forward, ∛ε for central differences (ε: the type's rounding), times max(1, \|θᵢ\|) |

The error is that of the series, h or h², plus that of rounding, ε/h: as h shrinks it falls and rises again, a V.
The complex step subtracts nothing and may be as small as one likes, where f is analytic and takes complex numbers.

Sources: Nocedal & Wright 2006, §8.1; Squire & Trapp 1998 (complex step).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from zoo import visual
from zoo.analysis.backpropagation import analytical_gradient, states_one
from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.training.analyses import Findings, Subject

__all__ = [
    "GradientCheck",
    "ParameterCheck",
    "analyze",
    "check_gradients",
    "default_step",
    "numerical_gradient",
    "step_errors",
]

Method = Literal["forward", "central", "complex"]
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-2}
_ROUNDING = 1e-9  # between two ways to the same formula in float64
_KINK = 1e-3  # of the derivative: two sides that differ by more are a corner, and not curvature


class _NotComplexError(ZooError):
    """A function takes no complex numbers."""


def default_step(dtype: torch.dtype, method: Method = "central") -> float:
    """Return the step that balances the error of the series with that of rounding.

    >>> f"{default_step(torch.float64):.1e}", f"{default_step(torch.float32, 'forward'):.1e}"
    ('6.1e-06', '3.5e-04')
    """
    if method == "complex":
        return 1e-20 if dtype == torch.float64 else 1e-10
    return torch.finfo(dtype).eps ** (1 / 2 if method == "forward" else 1 / 3)


@torch.no_grad()
def numerical_gradient(
    function: Callable[[Any], Tensor],
    params: Any,
    *,
    method: Method = "central",
    step: float | None = None,
    directions: int | None = None,
    seed: int = 0,
) -> Any:
    """Return the gradient of a scalar function by differences, in the form of its parameters.

    Args:
        function: takes the parameters, returns a scalar.
        params: a floating tensor, or lists, tuples and dicts of such.
        method: `forward`, `central` or `complex`.
        step: h; None is `default_step` of the type.
        directions: K random directions v in place of all coordinates, for many parameters: the mean of v (vᵀ∇f), whose
            expectation is the gradient.
        seed: of the directions.

    Raises:
        ZooError: for parameters that are no floating tensors, a function that is no scalar or takes no complex numbers,
            or an option out of range.

    Example:
        >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> numerical_gradient(lambda x: x.square().sum(), x, method="complex")
        tensor([2., 4.], dtype=torch.float64)
    """
    leaves, form = tree_flatten(params)
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            raise ZooError("Parameters must be floating tensors, or lists and dicts of such.")
    if method not in ("forward", "central", "complex"):
        raise ZooError(f"method must be forward, central or complex, not {method!r}.")
    if step is not None and not 0 < step < math.inf:
        raise ZooError(f"step must be a number above 0, not {step}.")
    if directions is not None and directions < 1:
        raise ZooError(f"directions must be at least 1, not {directions}.")

    def at(moved: list[Tensor]) -> Tensor:
        try:
            value = torch.as_tensor(function(tree_unflatten(moved, form)))
        except (RuntimeError, TypeError, NotImplementedError) as error:  # which torch says in many ways
            if method != "complex":
                raise
            raise _NotComplexError(
                f"The function takes no complex numbers ({error}): pass method='central'."
            ) from error
        if value.numel() != 1:
            raise ZooError(f"The function must be a scalar, not of shape {tuple(value.shape)}.")
        return value.reshape(())

    found = [torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device) for leaf in leaves]
    if directions is not None:
        for vectors in _random_directions(leaves, directions, seed):
            slope = _derivative(at, leaves, vectors, method, step)
            for total, vector in zip(found, vectors, strict=True):
                total += slope / directions * vector
        return tree_unflatten(found, form)
    for place, leaf in enumerate(leaves):
        for index in range(leaf.numel()):
            found[place].view(-1)[index] = _derivative(at, leaves, (place, index), method, step)
    return tree_unflatten(found, form)


def _random_directions(leaves: list[Tensor], count: int, seed: int) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield [
            torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf.device, leaf.dtype)
            for leaf in leaves
        ]


def _derivative(
    at: Callable[[list[Tensor]], Tensor], leaves: list[Tensor], along: Any, method: Method, step: float | None
) -> float:
    """The derivative along a direction, one tensor a leaf, or a coordinate (leaf, index)."""
    h = step or default_step(leaves[0].dtype, method)
    if isinstance(along, tuple):
        place, index = along
        middle = leaves[place].reshape(-1)[index].item()
        h = h if method == "complex" else h * max(1.0, abs(middle))

        def moved(by: complex) -> tuple[list[Tensor], float]:
            dtype = leaves[place].dtype.to_complex() if isinstance(by, complex) else leaves[place].dtype
            changed = leaves[place].to(dtype, copy=True).contiguous()
            changed.view(-1)[index] += by
            # What was really added, after rounding.
            added = 0.0 if isinstance(by, complex) else changed.view(-1)[index].item() - middle
            return [*leaves[:place], changed, *leaves[place + 1 :]], added
    else:

        def moved(by: complex) -> tuple[list[Tensor], float]:
            return [leaf + by * v for leaf, v in zip(leaves, along, strict=True)], by.real

    if method == "complex":
        return float(at(moved(1j * h)[0]).imag) / h
    upper, above = moved(h)
    lower, below = moved(-h) if method == "central" else (leaves, 0.0)
    return float(at(upper).double() - at(lower).double()) / (above - below)


def step_errors(
    function: Callable[[Any], Tensor],
    params: Any,
    gradient: Any,
    steps: Sequence[float],
    methods: Sequence[Method] = ("forward", "central", "complex"),
) -> dict[str, list[float]]:
    """Return the relative error ‖∇ₕf − ∇f‖ / ‖∇f‖ of each method at each step; one that f does not take is left out.

    Args:
        function: takes the parameters, returns a scalar.
        params: its parameters.
        gradient: the true gradient, in the same form.
        steps: h.
        methods: which ones.
    """
    truth = torch.cat([leaf.detach().double().reshape(-1) for leaf in tree_flatten(gradient)[0]])
    found: dict[str, list[float]] = {}
    for method in methods:
        errors = []
        for step in steps:
            try:
                leaves = tree_flatten(numerical_gradient(function, params, method=method, step=step))[0]
            except _NotComplexError:
                break
            flat = torch.cat([leaf.double().reshape(-1) for leaf in leaves])
            errors.append(float((flat - truth).norm() / truth.norm().clamp_min(1e-300)))
        else:
            found[method] = errors
    return found


class ParameterCheck(NamedTuple):
    """What was found of one parameter.

    Attributes:
        name: of the parameter.
        shape: of the parameter.
        compared: how many coordinates, or random directions, were compared.
        numerical: largest difference between automatic and numerical derivatives, relative to the largest of them.
        analytical: the same between automatic and analytical gradients; None where the family states none.
        verdict: `ok`, or what is wrong.
    """

    name: str
    shape: tuple[int, ...]
    compared: int
    numerical: float
    analytical: float | None
    verdict: str


class GradientCheck(NamedTuple):
    """The check of all parameters of a model."""

    rows: list[ParameterCheck]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return all(row.verdict == "ok" for row in self.rows)

    @property
    def verdict(self) -> str:
        """What is wrong, in a line."""
        wrong = [f"{row.name}: {row.verdict}" for row in self.rows if row.verdict != "ok"]
        return "; ".join(wrong) if wrong else f"all {len(self.rows)} gradients are right"

    def table(self) -> str:
        """Return the rows as a table of text."""
        lines = [("parameter", "shape", "compared", "numerical", "analytical", "verdict")]
        for row in self.rows:
            shape = "×".join(map(str, row.shape)) or "1"
            exact = "" if row.analytical is None else f"{row.analytical:.1e}"
            lines.append((row.name, shape, str(row.compared), f"{row.numerical:.1e}", exact, row.verdict))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )


def check_gradients(
    model: ZooModel,
    batch: Any,
    *,
    dtype: torch.dtype = torch.float64,
    most: int = 20,
    tolerance: float | None = None,
    seed: int = 0,
) -> GradientCheck:
    """Compare a model's gradients by automatic differentiation with differences of its loss, and with its formula.

    It looks at a copy of the model, in training, with the same random draws (dropout) in every evaluation. At a corner
    of the loss, such as that of ReLU, any slope between those of its two sides is right.

    Args:
        model: a built model that takes optimizer steps.
        batch: rows and targets: a `Batch`, or inputs and targets as the model takes them.
        dtype: in which it is computed.
        most: up to so many coordinates of a parameter are compared; of a larger one so many random directions.
        tolerance: of the relative difference; None is 1e-5 in float64, and 2e-2 in float32.
        seed: of directions and draws.

    Raises:
        ZooError: for a model that takes no steps by automatic differentiation.

    Example:
        >>> import zoo
        >>> spec = zoo.DataSpec(kind="tabular", shape=(3,), target="class", num_classes=2)
        >>> model = zoo.create_model("mlp", spec, widths=[4], activation="tanh")
        >>> found = check_gradients(model, (torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])))
        >>> found.passed, found.verdict
        (True, 'all 4 gradients are right')
    """
    if model.spec is None:
        raise ZooError("The model is not built: pass a spec to zoo.create_model.")
    if model.streaming or not model.automatic_optimization:
        raise ZooError(f"{model.entry.name} takes no steps by automatic differentiation: there is nothing to check.")
    tolerance = _TOLERANCE.get(dtype, 2e-2) if tolerance is None else tolerance
    copied = copy.deepcopy(model).to(dtype).train()
    batch = copied.as_batch(batch)
    loss = _loss_of(copied, batch, seed)
    names = {name: p for name, p in copied.named_parameters() if p.requires_grad}
    gradients = _automatic(loss, names)
    stated = analytical_gradient(copied, batch) if batch.mask is None and states_one(copied) else {}
    generator = torch.Generator().manual_seed(seed)
    rows = []
    with torch.no_grad():
        value = float(loss())
        for name, parameter in names.items():
            if parameter.numel():
                found = _compare(parameter, gradients[name], loss, value, most, generator)
                rows.append(_judged(name, parameter, gradients[name], stated.get(name), *found, value, tolerance))
    return GradientCheck(rows)


def _loss_of(model: ZooModel, batch: Batch, seed: int) -> Callable[[], Tensor]:
    """The training loss as a function of the parameters as they stand, with the same draws each time."""

    def loss() -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            value: Any = model.training_step(batch, 0)
        value = value["loss"] if isinstance(value, dict) else value
        if value is None:
            raise ZooError(f"{model.entry.name} has no loss of a batch that could be differentiated.")
        return value

    return loss


def _automatic(loss: Callable[[], Tensor], names: dict[str, Any]) -> dict[str, Tensor]:
    with torch.enable_grad():
        found = torch.autograd.grad(loss(), list(names.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if gradient is None else gradient
        for (name, p), gradient in zip(names.items(), found, strict=True)
    }


def _compare(
    parameter: Tensor, gradient: Tensor, loss: Callable[[], Tensor], value: float, most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Automatic and numerical derivatives along coordinates or directions, (K,) each; at a corner the nearest slope."""
    size, home = parameter.numel(), parameter.detach().clone()
    automatic, numerical = [], []
    for k in range(min(size, most)):
        direction = torch.zeros(size, dtype=torch.float64)
        if size <= most:
            direction[k] = 1.0
        else:
            direction = torch.randn(size, generator=generator, dtype=torch.float64)
            direction /= direction.norm()
        vector = direction.to(parameter.device, parameter.dtype).view(parameter.shape)
        h = default_step(parameter.dtype) * max(1.0, float((home * vector).abs().max()))
        parameter.copy_(home + h * vector)
        right = (float(loss()) - value) / h
        parameter.copy_(home - h * vector)
        left = (value - float(loss())) / h
        parameter.copy_(home)
        exact, slope = float((gradient * vector).sum()), (left + right) / 2
        if abs(left - right) > _KINK * max(abs(left), abs(right), abs(exact)):
            slope = min(max(exact, min(left, right)), max(left, right))
        automatic.append(exact)
        numerical.append(slope)
    return torch.tensor(automatic, dtype=torch.float64), torch.tensor(numerical, dtype=torch.float64)


def _judged(
    name: str,
    parameter: Tensor,
    gradient: Tensor,
    stated: Tensor | None,
    automatic: Tensor,
    numerical: Tensor,
    value: float,
    tolerance: float,
) -> ParameterCheck:
    # Derivatives below this are lost in the rounding of the loss.
    noise = 10 * torch.finfo(parameter.dtype).eps / default_step(parameter.dtype) * max(abs(value), 1e-3)
    error = _relative(automatic, numerical, noise / tolerance)
    formula = None if stated is None else _relative(gradient, stated, 1e-12)
    rounding = _ROUNDING if parameter.dtype == torch.float64 else tolerance
    verdict = "ok"
    if not error <= tolerance:
        verdict = f"the automatic gradient {_wrong(automatic, numerical, tolerance)}"
    elif formula is not None and not formula <= rounding:
        verdict = f"the analytical gradient {_wrong(stated, gradient, 1e-6)}"  # type: ignore[arg-type]
    return ParameterCheck(name, tuple(parameter.shape), len(automatic), error, formula, verdict)


def _relative(a: Tensor, b: Tensor, least: float) -> float:
    size = max(float(a.abs().max()), float(b.abs().max()), least)
    return float((a - b).abs().max()) / size


def _wrong(found: Tensor, truth: Tensor, tolerance: float) -> str:
    """Say how a gradient is wrong."""
    found, truth = found.double().reshape(-1), truth.double().reshape(-1)
    if not bool(torch.isfinite(found).all()):
        return "is not finite"
    if float(found.abs().max()) == 0:
        return "is 0, and the loss changes"
    if float(truth.abs().max()) == 0:
        return "is not 0, and the loss does not change"
    factor = float(found @ truth / (truth @ truth))
    if float((found - factor * truth).norm()) <= 10 * tolerance * float(found.norm()):
        if math.isclose(factor, -1, rel_tol=max(tolerance, 1e-3)):
            return "has the opposite sign"
        return f"is {factor:.{4 if tolerance < 1e-3 else 2}g} times the true one"
    flipped = (found + truth).abs() <= 10 * tolerance * truth.abs().max()
    wrong = (found - truth).abs() > 10 * tolerance * truth.abs().max()
    if bool((flipped | ~wrong).all()):
        return f"has the opposite sign in {int(wrong.sum())} of {len(wrong)} places"
    return "differs from the true one"


def analyze(subject: Subject) -> Findings:
    """Check the gradients of a finished run, and draw the error of its differences over the step."""
    model, batch = subject.model, subject.rows(16)
    found = check_gradients(model, batch)
    table = [{**row._asdict(), "shape": "×".join(map(str, row.shape))} for row in found.rows]
    steps = [10.0**-k for k in range(1, 14)]
    errors = directional_errors(model, batch, steps)
    title, labels = "derivative by differences", {"xlabel": "step h", "ylabel": "relative error"}
    figure = visual.curve(errors, steps, title=title, log_x=True, log_y=True, **labels)
    return Findings({"gradients": figure}, {"gradients": table}, f"{found.table()}\n{found.verdict}")


@torch.no_grad()
def directional_errors(
    model: ZooModel, batch: Any, steps: Sequence[float], dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, list[float]]:
    """Return the relative errors of forward and central differences of a model's loss along the gradient, step by step.

    Args:
        model: a built model that takes optimizer steps.
        batch: rows and targets.
        steps: h.
        dtype: in which it is computed.
        seed: of the draws.
    """
    copied = copy.deepcopy(model).to(dtype).train()
    loss = _loss_of(copied, copied.as_batch(batch), seed)
    names = {name: p for name, p in copied.named_parameters() if p.requires_grad}
    gradients = _automatic(loss, names)
    length = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
    if length == 0:
        raise ZooError("The gradient is 0: there is no direction in which to look at it.")
    home, value = {name: p.detach().clone() for name, p in names.items()}, float(loss())

    def at(h: float) -> float:
        for name, parameter in names.items():
            parameter.copy_(home[name] + h / length * gradients[name])
        return float(loss())

    found: dict[str, list[float]] = {"forward": [], "central": []}
    for h in steps:
        upper, lower = at(h), at(-h)
        found["forward"].append(abs((upper - value) / h - length) / length)
        found["central"].append(abs((upper - lower) / (2 * h) - length) / length)
    return {method: [max(error, 1e-17) for error in errors] for method, errors in found.items()}
