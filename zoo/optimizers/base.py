"""What the optimizers of this house share: a step gathers the parameters that have gradients and updates them.

Each stands in for the one of `torch.optim` that it names in `built_in`: the same arguments, the same `state_dict`, and,
where the update is the same series of roundings, the same bits. An update is written once, over lists of tensors
(`torch._foreach_*`: one kernel for all of them on a GPU); `foreach` is taken and changes nothing.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from operator import attrgetter, is_
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.checks import Range, check_type
from zoo.errors import ZooError

__all__ = ["Bucket", "RawOptimizer", "aligned", "number", "step_count", "zeros"]

# The room of a bucket on a CPU: what a step makes on its way stays in the cache, and is not asked of the system anew.
_ROOM = 2**18

_type_of, _is_sparse = attrgetter("dtype"), attrgetter("is_sparse")


def _any_sparse(grads: list[Tensor | None]) -> bool:
    """Whether any of some gradients is sparse; some may be lacking."""
    lacking = any(map(is_, grads, repeat(None)))
    return any(map(_is_sparse, [g for g in grads if g is not None] if lacking else grads))


class Bucket(NamedTuple):
    """Parameters of one device and one type that have gradients, with these and with what is kept of them."""

    params: list[Tensor]
    grads: list[Tensor]
    states: list[dict[str, Any]]
    pairs: bool = False  # whether complex numbers are taken as pairs of real ones

    def of(self, name: str) -> list[Tensor]:
        """Return the tensors that are kept under a name, as the parameters are taken."""
        kept = [state[name] for state in self.states]
        return _real(kept) if self.pairs else kept

    def suits_fused(self, *names: str) -> bool:
        """Whether each parameter is a block of memory, and what is kept of it one in the same order.

        Torch's fused forms take that for granted, and write over what lies between. Compilers fuse the other forms.
        """
        if torch.compiler.is_compiling():
            return False
        kept = [(state[name] for state in self.states) for name in names]
        tensors = [*self.params, *(tensor for tensor in chain(*kept) if tensor is not None)]
        return all(map(Tensor.is_contiguous, tensors)) or all(
            map(self._lie_alike, self.params, self.states, repeat(names))
        )

    def _lie_alike(self, parameter: Tensor, state: dict[str, Any], names: Iterable[str]) -> bool:
        """Whether a parameter has no gaps, and what is kept of it lies in its order."""
        order = torch.empty_like(parameter).stride()
        kept = [state[name] for name in names if state[name] is not None]
        return all(tensor.stride() == order for tensor in (parameter, *(_real(kept) if self.pairs else kept)))

    def where(self, holds: Callable[[dict[str, Any]], bool]) -> Bucket:
        """Return those whose states are such."""
        chosen = [i for i, state in enumerate(self.states) if holds(state)]
        params, grads = ([values[i] for i in chosen] for values in (self.params, self.grads))
        return Bucket(params, grads, [self.states[i] for i in chosen], self.pairs)

    def descent(self, maximize: bool, weight_decay: float) -> list[Tensor]:
        """Return what is to be gone down: ±∇ + λθ. The gradients stay as they are."""
        grads = torch._foreach_neg(self.grads) if maximize else self.grads
        if not weight_decay:
            return list(grads)
        if maximize:
            torch._foreach_add_(grads, self.params, alpha=weight_decay)
            return list(grads)
        return list(torch._foreach_add(grads, self.params, alpha=weight_decay))

    def steps(self) -> list[Tensor]:
        """Return the counts of steps, one of each parameter."""
        return [state["step"] for state in self.states]

    def add_step(self) -> list[Tensor]:
        """Add this step to the count of each parameter; return the counts."""
        steps = self.steps()
        # a number in place of the tensor would be made one for each of them, in three times the time
        torch._foreach_add_(steps, torch.ones((), device=steps[0].device), alpha=1.0)
        return steps

    def count_step(self) -> list[float]:
        """Add this step to the count of each parameter; return the counts as numbers, from 1 on."""
        return [step.item() for step in self.add_step()]


class _Plan(NamedTuple):
    """How the parameters of a group were gathered, which is gone by until something of it changes."""

    params: list[Tensor]
    absent: list[bool]  # whether they have no gradient
    types: list[torch.dtype]
    devices: list[int]
    parts: list[tuple[list[int], list[Tensor], list[dict[str, Any]]]]  # of each bucket; the first are places

    def holds(self, params: list[Tensor], grads: list[Tensor | None]) -> bool:
        """Whether parameters and gradients would be gathered in the same way."""
        return (
            len(params) == len(self.params)
            and all(map(is_, params, self.params))
            and list(map(is_, grads, repeat(None))) == self.absent
            and list(map(_type_of, params)) == self.types
            and list(map(Tensor.get_device, params)) == self.devices
            and not _any_sparse(grads)
        )

    def buckets(self, grads: list[Any]) -> list[Bucket]:
        """Return the buckets with new gradients."""
        if len(self.parts) == 1 and len(self.parts[0][0]) == len(grads):
            return [Bucket(self.parts[0][1], grads, self.parts[0][2])]
        return [Bucket(params, [grads[i] for i in places], states) for places, params, states in self.parts]


def _plainly(name: str) -> Any:
    """A method of torch's optimizers that imports torch's compiler first, so as to be left out of what is compiled.

    That takes seconds; as long as nobody else imported it, nothing is being compiled.
    """
    method = getattr(Optimizer, name)
    plain = getattr(method, "__wrapped__", method)

    @functools.wraps(plain)
    def call(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        return (method if "torch._dynamo" in sys.modules else plain)(self, *args, **kwargs)

    return call


class RawOptimizer(Optimizer):
    """Gathers parameters; a subclass says in `begin` what it keeps of each, and in `update` what a step is."""

    built_in: ClassVar[Any] = None  # of torch.optim, which `optimizer.source=torch` takes
    as_real: ClassVar[bool] = True  # whether complex parameters are taken as pairs of real numbers
    room: ClassVar[int] = sys.maxsize  # numbers of a bucket, beyond which it takes no further tensor

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        _check_numbers(defaults)
        for name in ("differentiable", "capturable"):
            if defaults.get(name):
                raise ZooError(
                    f"{name}=True is torch's alone: leave it out, or take torch.optim.{type(self).__name__}."
                )
        if defaults.get("fused") and defaults.get("foreach"):
            raise ZooError("foreach=True and fused=True are two forms of a step: pass one of the two.")
        self._forget_plans()
        super().__init__(params, defaults)

    add_param_group = _plainly("add_param_group")
    load_state_dict = _plainly("load_state_dict")
    state_dict = _plainly("state_dict")
    zero_grad = _plainly("zero_grad")

    def _forget_plans(self) -> None:
        self._plans: dict[int, _Plan] = {}  # of the groups, by their place
        self._kept: list[dict[str, Any]] = []  # the states that these are of

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._forget_plans()
        super().__setstate__(state)
        for group in self.param_groups:  # of a state that was saved before an option was there
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step, after evaluating `closure` if there is one; returns its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if len(self.state) != len(self._kept) or not all(map(is_, self.state.values(), self._kept)):
            self._forget_plans()
        known = len(self._plans)
        for place, group in enumerate(self.param_groups):
            for bucket in self._buckets(place, group):
                self.update(bucket, group)
        if len(self._plans) != known:
            self._kept = list(self.state.values())
        return loss

    def _buckets(self, place: int, group: dict[str, Any]) -> list[Bucket]:
        """The parameters of a group that have gradients, gathered as in the step before where nothing changed."""
        params, plan = group["params"], self._plans.pop(place, None)
        grads = [parameter.grad for parameter in params]
        if plan is not None and plan.holds(params, grads) and self._is_begun(plan, group):
            self._plans[place] = plan
            return plan.buckets(grads)
        buckets = self._gather(group)
        if len(params) == 1 or _any_sparse(grads) or any(map(torch.is_complex, params)):
            return buckets
        places = {id(parameter): i for i, parameter in enumerate(params)}
        self._plans[place] = _Plan(
            list(params),
            list(map(is_, grads, repeat(None))),
            list(map(_type_of, params)),
            list(map(Tensor.get_device, params)),
            [([places[id(p)] for p in bucket.params], bucket.params, bucket.states) for bucket in buckets],
        )
        return buckets

    def _is_begun(self, plan: _Plan, group: dict[str, Any]) -> bool:
        """Whether what is kept of parameters is what an option that was changed may ask for: nothing or something."""
        kept = [states[0] for _, _, states in plan.parts]
        return all(kept) or not kept or not self.begin(plan.parts[0][1][0], group)

    def _gather(self, group: dict[str, Any]) -> list[Bucket]:
        """The parameters that have gradients, those of a device and type together, as real numbers."""
        found: dict[Any, list[Bucket]] = {}
        room: dict[Any, int] = {}
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                self.update_sparse(parameter, gradient, group)
                continue
            key = parameter.device, parameter.dtype
            if room.get(key, 0) <= 0:
                found.setdefault(key, []).append(Bucket([], [], []))
                room[key] = _ROOM if parameter.device.type == "cpu" and self.passes_often(group) else self.room
            room[key] -= parameter.numel()
            bucket = found[key][-1]
            bucket.params.append(parameter)
            bucket.grads.append(gradient)
            bucket.states.append(self._state(parameter, group))
        buckets = [bucket for of_key in found.values() for bucket in of_key]
        if not self.as_real:
            return buckets
        return [
            Bucket(_real(b.params), _real(b.grads), b.states, pairs=True) if b.params[0].is_complex() else b
            for b in buckets
        ]

    def passes_often(self, group: dict[str, Any]) -> bool:
        """Whether a step passes over its tensors more than once, so that it is worth keeping them in the cache."""
        return not group.get("fused")

    def _state(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """What is kept of a parameter, begun where nothing is."""
        state = self.state.get(parameter)
        if not state:
            state = self.begin(parameter, group)
            if state:
                self.state[parameter] = state
        return state

    def begin(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """Return what is kept of a parameter before its first step."""
        raise NotImplementedError

    def update(self, bucket: Bucket, group: dict[str, Any]) -> None:
        """Take a step of the parameters of a bucket."""
        raise NotImplementedError

    def update_sparse(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Take a step of a parameter whose gradient is sparse."""
        raise ZooError(f"{type(self).__name__} takes no sparse gradients: use SGD or Adagrad.")


def step_count(parameter: Tensor, fused: bool | None = None) -> Tensor:
    """Return the count of steps, 0: a number on the CPU, and beside the parameter for the fused form."""
    exact = torch.get_default_dtype() == torch.float64 and not fused
    dtype = torch.float64 if exact else torch.float32
    return torch.zeros((), dtype=dtype, device=parameter.device if fused else "cpu")


def zeros(parameter: Tensor) -> Tensor:
    """Return zeros that lie in memory as the parameter does."""
    return torch.zeros_like(parameter, memory_format=torch.preserve_format)


def aligned(grads: list[Tensor], params: list[Tensor]) -> list[Tensor]:
    """Return the gradients lying in memory as their parameters do, which torch's fused forms take for granted."""
    if all(map(Tensor.is_contiguous, grads)) and all(map(Tensor.is_contiguous, params)):
        return grads
    return [g if g.stride() == p.stride() else zeros(p).copy_(g) for g, p in zip(grads, params, strict=True)]


def number(value: Any) -> Any:
    """Return a number that may come as a tensor of one element."""
    return value.item() if isinstance(value, Tensor) else value


def _real(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.view_as_real(t) if t.is_complex() else t for t in tensors]


def _check_numbers(options: dict[str, Any]) -> None:
    """Raise one line for a number out of its range; a tensor of one element is a number, too."""
    for name in ("lr", "eps", "weight_decay", "momentum", "alpha", "lr_decay", "initial_accumulator_value"):
        value = options.get(name)
        if value is None or isinstance(value, tuple):
            continue
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ZooError(f"{name} must be a number or a tensor of one element, not of shape {tuple(value.shape)}.")
        check_type(name, float(value), Annotated[float, Range(0)])
    for beta in options.get("betas", ()):
        check_type("each of betas", float(beta), Annotated[float, Range(0, 1, open_high=True)])
