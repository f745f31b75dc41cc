r"""L-BFGS: quasi-Newton steps from the last pairs of steps and changes of the gradient.

```math
\theta \leftarrow \theta - t\, H g, \qquad
H \leftarrow (I - \rho\, s y^\top)\, H\, (I - \rho\, y s^\top) + \rho\, s s^\top, \qquad \rho = \frac{1}{y^\top s}
```

| symbol | meaning |
|---|---|
| θ, g | all parameters as one vector (N,), and the gradient there (−g with `maximize`) |
| s, y | the last step and the change of the gradient over it, of which `history_size` pairs are kept |
| H | approximate inverse Hessian, never formed: Hg is two loops over the pairs, from $H_0 = I\, s^\top y / y^\top y$ |
| t | step length: `lr`, or what the line search finds, which starts from it |

The line search looks for a point at which both strong Wolfe conditions hold, $f(t) \le f(0) + c_1 t f'(0)$ and
$|f'(t)| \le c_2 |f'(0)|$: it brackets one, going outwards, then narrows the bracket by cubic interpolation.

Sources: Liu & Nocedal 1989; Nocedal & Wright 2006, algorithms 7.4, 3.5 and 3.6; the safeguards of the interpolation are
those of Schmidt's minFunc, 2005, which torch follows, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.optimizers.base import RawOptimizer, number

__all__ = ["LBFGS"]

_KEPT = ("d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss")
_SUFFICIENT, _CURVATURE = 1e-4, 0.9  # c₁ and c₂
_LEAST_CURVATURE = 1e-10  # of yᵀs: below it H would not be positive definite


class LBFGS(RawOptimizer):
    r"""L-BFGS: θ ← θ − tHg with H from the last pairs of steps and changes of the gradient.

    A step needs a closure that evaluates the loss and its gradient anew.

    Args:
        params: tensors, or one parameter group.
        lr: step length t, or where the line search starts.
        max_iter: iterations a step.
        max_eval: function evaluations a step; None is 1.25 · `max_iter`.
        tolerance_grad: stop where no coordinate of the gradient is larger.
        tolerance_change: stop where neither the loss nor a coordinate changes by more.
        history_size: pairs that are kept.
        line_search_fn: `strong_wolfe`, or None for steps of length `lr`.
        maximize: ascend instead of descend.

    Raises:
        ZooError: a value is out of its range, there are several groups, or no closure is given.

    Source: Liu & Nocedal 1989.

    Example:
        >>> point = torch.nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
        >>> optimizer = LBFGS([point], max_iter=100, line_search_fn="strong_wolfe")
        >>> def rosenbrock():
        ...     optimizer.zero_grad()
        ...     loss = (1 - point[0]) ** 2 + 100 * (point[1] - point[0] ** 2) ** 2
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(rosenbrock)
        >>> bool((point.data - 1).abs().max() < 1e-3)
        True
    """

    built_in = torch.optim.LBFGS

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: Literal["strong_wolfe"] | None = None,
        *,
        maximize: bool = False,
    ) -> None:
        if line_search_fn not in (None, "strong_wolfe"):
            raise ZooError(f"line_search_fn must be strong_wolfe or None, not {line_search_fn!r}.")
        super().__init__(
            params,
            {
                "lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size,
                "line_search_fn": line_search_fn, "maximize": maximize,
            },
        )  # fmt: skip
        if len(self.param_groups) != 1:
            raise ZooError("L-BFGS has one history of all parameters: pass one group of them.")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take up to `max_iter` iterations; returns the loss before them."""
        if closure is None:
            raise ZooError("L-BFGS evaluates the loss several times a step: pass a closure that does.")
        closure, group = torch.enable_grad()(closure), self.param_groups[0]
        before = closure()
        parameters = group["params"]
        if not parameters:
            return before
        # One state of all of them, kept with the first, whose type it takes when it is loaded.
        state = self.state[parameters[0]]
        loss, gradient = self._sign * float(before), self._gradient()
        evaluations = 1
        state["func_evals"] = state.get("func_evals", 0) + 1
        state.setdefault("n_iter", 0)
        if gradient.abs().max() <= group["tolerance_grad"]:
            return before
        memory = {name: state.get(name) for name in _KEPT}
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(gradient, memory, state)
            if memory["prev_flat_grad"] is None:
                memory["prev_flat_grad"] = gradient.clone()
            else:
                memory["prev_flat_grad"].copy_(gradient)
            memory["d"], memory["prev_loss"] = direction, loss
            rate = number(group["lr"])
            memory["t"] = min(1.0, 1.0 / gradient.abs().sum()) * rate if state["n_iter"] == 1 else rate
            slope = gradient.dot(direction)
            if slope > -group["tolerance_change"]:
                break
            found = 0  # evaluations of this iteration
            if group["line_search_fn"] is not None:
                start = Point(0, loss, gradient.clone(), slope)
                search = _LineSearch(self._along(closure, direction), start, group["tolerance_change"])
                best = search.run(memory["t"], direction.abs().max(), group["max_eval"] - evaluations)
                memory["t"], loss, gradient, found = best.t, best.loss, best.gradient, search.evaluations
                self._move(memory["t"], direction)
            else:
                self._move(memory["t"], direction)
                if iteration < group["max_iter"]:  # the next step begins with an evaluation of its own
                    loss, gradient, found = self._sign * float(closure()), self._gradient(), 1
            evaluations += found
            state["func_evals"] += found
            if (
                evaluations >= group["max_eval"]
                or gradient.abs().max() <= group["tolerance_grad"]
                or direction.mul(memory["t"]).abs().max() <= group["tolerance_change"]
                or abs(loss - memory["prev_loss"]) < group["tolerance_change"]
            ):
                break
        state.update(memory)
        return before

    @property
    def _sign(self) -> int:
        return -1 if self.param_groups[0]["maximize"] else 1

    def _gradient(self) -> Tensor:
        """The gradient of all parameters, (N,)."""
        parts = []
        for parameter in self.param_groups[0]["params"]:
            part = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            part = part.to_dense() if part.is_sparse else part
            parts.append((torch.view_as_real(part) if part.is_complex() else part).reshape(-1))
        flat = torch.cat(parts)
        return flat.neg_() if self._sign < 0 else flat

    def _move(self, length: Any, direction: Tensor) -> None:
        """θ ← θ + t d"""
        begin = 0
        for parameter in self.param_groups[0]["params"]:
            real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
            real.add_(direction[begin : begin + real.numel()].view_as(real), alpha=length)
            begin += real.numel()

    def _direction(self, gradient: Tensor, memory: dict[str, Any], state: dict[str, Any]) -> Tensor:
        """−Hg, after the last step and what it did to the gradient are remembered."""
        if state["n_iter"] == 1:
            memory.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            return gradient.neg()
        changes, steps, inverses = memory["old_dirs"], memory["old_stps"], memory["ro"]
        change, step = gradient.sub(memory["prev_flat_grad"]), memory["d"].mul(memory["t"])
        curvature = change.dot(step)
        size = self.param_groups[0]["history_size"]
        if curvature > _LEAST_CURVATURE:
            if len(changes) == size:
                for kept in (changes, steps, inverses):
                    kept.pop(0)
            changes.append(change)
            steps.append(step)
            inverses.append(1.0 / curvature)
            memory["H_diag"] = curvature / change.dot(change)
        shares = state.setdefault("al", [None] * size)
        vector = gradient.neg()
        for i in reversed(range(len(changes))):
            shares[i] = steps[i].dot(vector) * inverses[i]
            vector.add_(changes[i], alpha=-shares[i])
        vector = vector * memory["H_diag"]
        for i in range(len(changes)):
            vector.add_(steps[i], alpha=shares[i] - changes[i].dot(vector) * inverses[i])
        return vector

    def _along(self, closure: Callable[[], Any], direction: Tensor) -> Callable[[Any], Point]:
        """Return what evaluates the loss at t along a direction, and leaves the parameters where they are."""
        parameters = self.param_groups[0]["params"]
        home = [parameter.clone(memory_format=torch.contiguous_format) for parameter in parameters]

        def at(length: Any) -> Point:
            self._move(length, direction)
            loss, gradient = self._sign * float(closure()), self._gradient()
            for parameter, value in zip(parameters, home, strict=True):
                parameter.copy_(value)
            return Point(length, loss, gradient, gradient.dot(direction))

        return at


class Point(NamedTuple):
    """A point on the line: how far along, the loss, its gradient (N,), and its slope f'(t) along the line."""

    t: Any
    loss: float
    gradient: Tensor
    slope: Tensor


class _LineSearch:
    """Looks for a point along a line at which both strong Wolfe conditions hold.

    Args:
        at: evaluates a point.
        start: the point at t = 0, where the line goes down.
        tolerance: the length of a bracket that is looked into no more.
    """

    def __init__(self, at: Callable[[Any], Point], start: Point, tolerance: float) -> None:
        self.at, self.start, self.tolerance = at, start, tolerance
        self.evaluations = 0

    def run(self, first: Any, size: Tensor, most: int) -> Point:
        """Return the point that is found, or the best one after `most` rounds.

        Args:
            first: where to begin.
            size: the largest coordinate of the direction.
            most: rounds.
        """
        bracket, rounds, done = self._bracket(first, most)
        return bracket[0] if done else self._narrow(bracket, size, most - rounds)

    def _evaluate(self, t: Any) -> Point:
        self.evaluations += 1
        return self.at(t)

    def _falls_too_little(self, point: Point) -> bool:
        return bool(point.loss > self.start.loss + _SUFFICIENT * point.t * self.start.slope)

    def _is_flat(self, point: Point) -> bool:
        return bool(abs(point.slope) <= -_CURVATURE * self.start.slope)

    def _bracket(self, first: Any, most: int) -> tuple[list[Point], int, bool]:
        """Go outwards until a point serves (the one that is returned), or two lie about one that does."""
        before, point = self.start, self._evaluate(first)
        for round_ in range(most):
            if self._falls_too_little(point) or (round_ > 1 and point.loss >= before.loss):
                return [before, point], round_, False
            if self._is_flat(point):
                return [point], round_, True
            if point.slope >= 0:
                return [before, point], round_, False
            # At least a little further, at most ten times as far.
            reach = (point.t + 0.01 * (point.t - before.t), point.t * 10)
            before, point = point, self._evaluate(_lowest(before, point, reach))
        return [self.start, point], most, False

    def _narrow(self, ends: list[Point], size: Tensor, most: int) -> Point:
        """Narrow a bracket down to a point that serves; return its lower end."""
        low, high = (0, 1) if ends[0].loss <= ends[1].loss else (1, 0)
        near = False  # whether the last trial lay near an end
        for _ in range(most):
            left, right = sorted(end.t for end in ends)
            if abs(ends[1].t - ends[0].t) * size < self.tolerance:
                break
            trial, margin = _lowest(ends[0], ends[1]), 0.1 * (right - left)
            if min(right - trial, trial - left) < margin:
                if near or trial >= right or trial <= left:
                    trial = right - margin if abs(trial - right) < abs(trial - left) else left + margin
                    near = False
                else:
                    near = True
            else:
                near = False
            point = self._evaluate(trial)
            if self._falls_too_little(point) or point.loss >= ends[low].loss:
                ends[high] = point
                low, high = (0, 1) if ends[0].loss <= ends[1].loss else (1, 0)
                continue
            done = self._is_flat(point)
            if not done and point.slope * (ends[high].t - ends[low].t) >= 0:
                ends[high] = ends[low]
            ends[low] = point
            if done:
                break
        return ends[low]


def _lowest(a: Point, b: Point, reach: tuple[Any, Any] | None = None) -> Any:
    """The t at which the cubic through two points, with their slopes, is lowest within a reach (between the two)."""
    least, most = reach or ((a.t, b.t) if a.t <= b.t else (b.t, a.t))
    first, second = (a, b) if a.t <= b.t else (b, a)
    mixed = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = mixed**2 - a.slope * b.slope
    if not square >= 0:
        return (least + most) / 2.0
    root = square.sqrt()
    share = (second.slope + root - mixed) / (second.slope - first.slope + 2 * root)
    return min(max(second.t - (second.t - first.t) * share, least), most)
