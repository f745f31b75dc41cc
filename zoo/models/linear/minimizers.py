r"""Convex minimization where each pass over the data gives value and derivatives at one point, and no more.

```math
\min_w F(w) = f(w) + \sum_i λ_i |w_i|, \qquad f \text{ smooth and convex}
```

A minimizer names the `point` at which the next pass evaluates f, ∇f (and ∇²f); `update` takes them. A
step is accepted or halved by Armijo's rule on the values of passes, so that nothing is evaluated twice:

```math
F(w + t d) \le F(w) + c\, t\, Δ, \qquad Δ = \nabla f(w)^\top d + \sum_i λ_i (|w_i + d_i| - |w_i|) < 0
```

- `Newton`: d minimizes the quadratic model ∇fᵀd + ½ dᵀ∇²f d + Σ λ|w + d|: a linear system for λ = 0, and by
  coordinate descent otherwise (`zoo.models.linear.quadratic`), with exact zeros.
- `LBFGS`: d from the last ten changes of the gradient; for λ ≠ 0 in the orthant of the pseudo-gradient, whose
  product with the step stands for t Δ (OWL-QN).

Some coordinates may be demanded to be non-negative.

Legend: D dimensions, M history.

Source: Lee, Sun & Saunders 2014 (proximal Newton); Byrd, Nocedal & Schnabel 1994, theorem 2.2 (L-BFGS); Andrew & Gao
2007 (OWL-QN). Deviations: coordinates are scaled to a unit diagonal of the Hessian, directions without curvature are
left alone, and values are compared up to rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.models.linear.quadratic import minimize_quadratic, solve_semidefinite

__all__ = ["LBFGS", "Minimizer", "Newton", "newton_step", "pseudo_gradient"]

ARMIJO = 1e-4
ROUNDING = 64 * torch.finfo(torch.float64).eps  # relative error that a sum of many losses may carry


def newton_step(
    hessian: Tensor, gradient: Tensor, point: Tensor, l1: Tensor | None, positive: Tensor | None = None
) -> Tensor:
    """Return d = argmin ∇fᵀd + ½ dᵀ∇²f d + Σ λ_i |w_i + d_i|, (D,), with w_i + d_i ≥ 0 where `positive`."""
    scale = hessian.diagonal().clamp_min(1e-300).rsqrt()
    scaled = hessian * torch.outer(scale, scale)
    if positive is None and (l1 is None or not l1.any()):
        return scale * solve_semidefinite(scaled, -scale * gradient)
    l1 = torch.zeros_like(point) if l1 is None else l1
    scaled.diagonal().add_(1e-10)  # a step that is a little too short where nothing bends
    x = point / scale
    return scale * (minimize_quadratic(scaled, scale * gradient - scaled @ x, l1 * scale, x, positive=positive).x - x)


def pseudo_gradient(gradient: Tensor, point: Tensor, l1: Tensor | None, positive: Tensor | None = None) -> Tensor:
    """Return the shortest subgradient of f + Σ λ|w|: zero at the minimum and nowhere else."""
    if l1 is None and positive is None:
        return gradient
    l1 = torch.zeros_like(point) if l1 is None else l1
    at_zero = gradient.sign() * (gradient.abs() - l1).clamp_min(0)
    if positive is not None:
        at_zero = torch.where(positive, (gradient + l1).clamp_max(0), at_zero)
    return torch.where(point == 0, at_zero, gradient + l1 * point.sign())


class Minimizer(nn.Module):
    """Base: which point is evaluated next. A subclass says in which direction to go.

    Its state travels in checkpoints: points in buffers, numbers in one tensor more.

    Args:
        size: D.
        tolerance: stop when the decrease that a full step promises is below this share of max(1, |F|).
        max_passes: stop after so many evaluations.
        positive: coordinates that may not be negative, (D,) bool; none by default.

    Attributes:
        point: where the next pass evaluates; where the search ended, in the end, (D,).
        value: F at the last accepted point.
        promise: the decrease that a full step from there promises.
        passes: evaluations so far.
        finished: whether no further one is needed.
        converged: whether that is because no step promises anything.
    """

    NUMBERS = {"value": float, "promise": float, "step": float, "passes": int, "finished": bool, "converged": bool}

    positive: Tensor | None
    point: Tensor
    accepted: Tensor
    direction: Tensor

    def __init__(
        self, size: int, tolerance: float = 1e-12, max_passes: int = 100, positive: Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("positive", positive, persistent=False)
        self.size, self.tolerance, self.max_passes = size, tolerance, max_passes
        for name in ("point", "accepted", "direction"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        self.value, self.promise, self.step, self.passes = math.inf, math.inf, 1.0, 0
        self.finished, self.converged = False, False

    def extra_repr(self) -> str:
        return f"{self.size}, tolerance={self.tolerance}, max_passes={self.max_passes}"

    def get_extra_state(self) -> Tensor:
        return torch.tensor([float(getattr(self, name)) for name in self.NUMBERS], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        for (name, kind), number in zip(self.NUMBERS.items(), state.tolist(), strict=True):
            setattr(self, name, kind(number))

    @torch.no_grad()
    def update(
        self,
        smooth: Tensor,
        gradient: Tensor,
        l1: Tensor | None,
        hessian: Tensor | None = None,
        *,
        settled: bool = False,
    ) -> None:
        """Take f, ∇f and ∇²f at `point`: accept it and aim anew, or come back half the way.

        Args:
            smooth: f, ().
            gradient: ∇f, (D,).
            l1: λ, (D,), or None for no penalty.
            hessian: ∇²f, (D, D), for Newton.
            settled: whether the point is good enough for the caller, if it is accepted.
        """
        self.passes += 1
        value = float(smooth if l1 is None else smooth + l1 @ self.point.abs())
        if self._acceptable(value, gradient):
            self.value, self.accepted = value, self.point.clone()
            if settled:
                self.finished = self.converged = True
                return
            self.direction = self._aim(gradient, l1, hessian)
            self.promise = self._promise(gradient, l1)
            self.step = self._first_step()
            self.converged = self.promise <= self.tolerance * max(1.0, abs(value))
        else:
            self.step /= 2
            # After thirty halvings the values cannot tell the points apart any more.
            self.converged = self.step < 2.0**-30
        self.finished = self.converged or self.passes >= self.max_passes
        self.point = self._arrive() if self.finished else self._trial(l1)

    def end(self, point: Tensor, passes: float, converged: float, value: float, promise: float, step: float) -> bool:
        """Take over where another search has ended; False, and nothing else, where it made no pass."""
        if passes:
            self.point, self.accepted = point, point.clone()
            self.passes, self.converged, self.finished = int(passes), bool(converged), True
            self.value, self.promise, self.step = value, promise, step
        return bool(passes)

    def _acceptable(self, value: float, gradient: Tensor) -> bool:
        if not math.isfinite(value) or not math.isfinite(gradient.abs().max()):
            return False
        return self.passes == 1 or value <= self.value - ARMIJO * self._expected() + ROUNDING * abs(self.value)

    def _aim(self, gradient: Tensor, l1: Tensor | None, hessian: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _first_step(self) -> float:
        return 1.0

    def _promise(self, gradient: Tensor, l1: Tensor | None) -> float:
        """The decrease that the model of F promises for a full step, to first order."""
        if l1 is None:
            return -float(gradient @ self.direction)
        change = (self.accepted + self.direction).abs() - self.accepted.abs()
        return -float(gradient @ self.direction + l1 @ change)

    def _expected(self) -> float:
        """The same for the step that was taken."""
        return self.step * self.promise

    def _trial(self, l1: Tensor | None) -> Tensor:
        return torch.add(self.accepted, self.direction, alpha=self.step)

    def _arrive(self) -> Tensor:
        """The point to end at."""
        return self.accepted.clone()


class Newton(Minimizer):
    """(Proximal) Newton: quadratic convergence, one D × D system a pass."""

    def _aim(self, gradient: Tensor, l1: Tensor | None, hessian: Tensor | None) -> Tensor:
        assert hessian is not None
        return newton_step(hessian, gradient, self.accepted, l1, self.positive)

    def _arrive(self) -> Tensor:
        # Near the minimum the full step squares the error, so it is worth taking unchecked.
        return self.accepted + self.direction if self.converged and self.step == 1 else self.accepted.clone()


class LBFGS(Minimizer):
    """L-BFGS, and OWL-QN with an L1 penalty: 2 M vectors instead of a matrix."""

    def __init__(
        self,
        size: int,
        tolerance: float = 1e-12,
        max_passes: int = 100,
        positive: Tensor | None = None,
        history: int = 10,
    ) -> None:
        super().__init__(size, tolerance, max_passes, positive)
        for name in ("moves", "turns"):  # s = w⁺ − w and y = ∇f⁺ − ∇f, the newest last, (M, D)
            self.register_buffer(name, torch.zeros(history, size, dtype=torch.float64))
        for name in ("last_point", "last_gradient", "steepest"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))

    def _aim(self, gradient: Tensor, l1: Tensor | None, hessian: Tensor | None) -> Tensor:
        self._remember(self.accepted - self.last_point, gradient - self.last_gradient)
        self.last_point, self.last_gradient = self.accepted.clone(), gradient.clone()
        self.steepest = pseudo_gradient(gradient, self.accepted, l1, self.positive)
        direction = -self._inverse_times(self.steepest)
        if l1 is None and self.positive is None:
            return direction
        return torch.where(self._held(l1) & (direction * self.steepest >= 0), 0.0, direction)

    def _promise(self, gradient: Tensor, l1: Tensor | None) -> float:
        return -float(self.steepest @ self.direction)

    def _expected(self) -> float:
        return float(self.steepest @ (self.accepted - self.point))

    def _remember(self, move: Tensor, turn: Tensor) -> None:
        if self.passes > 1 and move @ turn > torch.finfo(move.dtype).eps * turn.square().sum():
            self.moves = torch.cat([self.moves[1:], move.unsqueeze(0)])
            self.turns = torch.cat([self.turns[1:], turn.unsqueeze(0)])

    def _inverse_times(self, vector: Tensor) -> Tensor:
        """H v = γ (v − Yᵀ a) + Sᵀ k, a = R⁻¹ S v, k = R⁻ᵀ (diag(R) a + γ Y (Yᵀ a − v)), R = triu(S Yᵀ)."""
        known = int((self.moves.square().sum(1) > 0).sum())  # the newest rows: others are zero
        if not known:
            return vector
        s, y = self.moves[-known:], self.turns[-known:]
        triangle = (s @ y.T).triu()
        size = triangle[-1, -1] / y[-1].square().sum()
        a = torch.linalg.solve_triangular(triangle, (s @ vector).unsqueeze(1), upper=True).squeeze(1)
        rest = triangle.diagonal() * a + size * (y @ (a @ y - vector))
        k = torch.linalg.solve_triangular(triangle.T, rest.unsqueeze(1), upper=False).squeeze(1)
        return size * (vector - a @ y) + k @ s

    def _first_step(self) -> float:
        return 1.0 if self.moves.any() else 1 / max(1.0, float(self.direction.abs().sum()))

    def _trial(self, l1: Tensor | None) -> Tensor:
        trial = super()._trial(l1)
        if l1 is None and self.positive is None:
            return trial
        orthant = torch.where(self.accepted == 0, -self.steepest.sign(), self.accepted.sign())
        return torch.where(self._held(l1) & (trial.sign() * orthant < 0), 0.0, trial)

    def _held(self, l1: Tensor | None) -> Tensor:
        """Which coordinates have a kink or an end at zero."""
        kink = torch.zeros_like(self.point, dtype=torch.bool) if l1 is None else l1 > 0
        return kink if self.positive is None else kink | self.positive
