r"""Weight initializations from raw tensors: those of `torch.nn.init`, with the same numbers from the same generator.

What a unit adds up has n_in terms, and its gradient n_out: a deviation of the weights that keeps the size of either is

```math
σ = g \sqrt{2 / (n_{in} + n_{out})} \text{ (Xavier)}, \qquad σ = g / \sqrt{n_{in}} \text{ or } g / \sqrt{n_{out}}
\text{ (Kaiming)}
```

with g the gain of the nonlinearity; uniform weights in ±√3 σ have it, too. Orthogonal weights keep lengths exactly.

Sources: Glorot & Bengio 2010; He, Zhang, Ren & Sun 2015; Saxe, McClelland & Ganguli 2014. Truncated normal numbers are
drawn again until they lie within, or, where that is rare, kept of uniform ones as the density says (von Neumann 1951).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = [
    "INITIALIZATIONS",
    "Initialization",
    "calculate_gain",
    "initialize",
    "kaiming_normal_",
    "kaiming_uniform_",
    "orthogonal_",
    "trunc_normal_",
    "xavier_normal_",
    "xavier_uniform_",
]

Mode = Literal["fan_in", "fan_out"]
Initialization = Literal[
    "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal", "truncated_normal"
]
_COMMON = 0.3  # share of normal numbers within the bounds, above which they are drawn as they are


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the gain g by which a nonlinearity keeps the deviation of what passes it.

    Args:
        nonlinearity: `linear`, `identity`, `sigmoid`, `tanh`, `relu`, `leaky_relu`, `selu`, or `conv1d` and its like.
        param: the slope of a leaky ReLU.

    Raises:
        ValueError: for another one.

    Example:
        >>> round(calculate_gain("relu"), 4), calculate_gain("tanh")
        (1.4142, 1.6666666666666667)
    """
    if nonlinearity in ("linear", "identity", "sigmoid") or nonlinearity.startswith("conv"):
        return 1.0
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
    if nonlinearity not in gains:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return gains[nonlinearity]


def _fans(tensor: Tensor) -> tuple[int, int]:
    """The terms of what a unit adds up, and those of its gradient."""
    if tensor.ndim < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


@torch.no_grad()
def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Fill with uniform numbers in ±g √(6 / (n_in + n_out)).

    >>> bool(xavier_uniform_(torch.empty(3, 3)).abs().max() <= 1)
    True
    """
    bound = math.sqrt(3) * (gain * math.sqrt(2 / sum(_fans(tensor))))
    return tensor.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Fill with normal numbers of deviation g √(2 / (n_in + n_out)).

    >>> xavier_normal_(torch.empty(3, 3)).shape
    torch.Size([3, 3])
    """
    return tensor.normal_(0.0, gain * math.sqrt(2 / sum(_fans(tensor))), generator=generator)


def _kaiming_deviation(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of fan_in, fan_out")
    return calculate_gain(nonlinearity, a) / math.sqrt(_fans(tensor)[mode == "fan_out"])


@torch.no_grad()
def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill with uniform numbers in ±g √(3 / n), n being n_in or n_out.

    Args:
        tensor: weights of two or more axes.
        a: slope of a leaky ReLU.
        mode: `fan_in` keeps the size of what passes forward, `fan_out` that of gradients.
        nonlinearity: which gain g.
        generator: where the numbers come from.

    Example:
        >>> bool(kaiming_uniform_(torch.empty(4, 6)).abs().max() <= 1)
        True
    """
    if not tensor.numel():
        return tensor
    bound = math.sqrt(3) * _kaiming_deviation(tensor, a, mode, nonlinearity)
    return tensor.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill with normal numbers of deviation g / √n; arguments as those of `kaiming_uniform_`.

    >>> kaiming_normal_(torch.empty(4, 6)).shape
    torch.Size([4, 6])
    """
    if not tensor.numel():
        return tensor
    return tensor.normal_(0.0, _kaiming_deviation(tensor, a, mode, nonlinearity), generator=generator)


@torch.no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Fill with g times orthonormal rows, or columns where those are fewer: the Q of normal numbers, R's signs made +.

    Args:
        tensor: weights of two or more axes, of which all but the first are taken as one.
        gain: g.
        generator: where the numbers come from.

    Raises:
        ValueError: for fewer axes.

    Example:
        >>> weight = orthogonal_(torch.empty(2, 5, dtype=torch.float64))
        >>> bool((weight @ weight.T).allclose(torch.eye(2, dtype=torch.float64)))
        True
    """
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if not tensor.numel():
        return tensor
    rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
    drawn = tensor.new_empty((rows, columns)).normal_(0, 1, generator=generator)
    q, r = torch.linalg.qr(drawn.T if rows < columns else drawn)
    q = q * r.diagonal().sign()
    return tensor.copy_((q.T if rows < columns else q).reshape(tensor.shape)).mul_(gain)


@torch.no_grad()
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill with normal numbers that lie in [a, b].

    Args:
        tensor: of any shape.
        mean: of the numbers, before those outside are left out.
        std: their deviation.
        a: smallest number.
        b: largest number.
        generator: where they come from.

    Example:
        >>> bool(trunc_normal_(torch.empty(99)).abs().max() <= 2)
        True
    """
    share = sum(sign * math.erf((end - mean) / std / math.sqrt(2)) / 2 for sign, end in ((1, b), (-1, a)))
    low, high = tensor.new_tensor(a).item(), tensor.new_tensor(b).item()
    drawn, wrong = tensor.clone(), torch.ones_like(tensor, dtype=torch.bool)
    highest = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2  # of the logarithm of the density in [a, b]
    while bool(wrong.any()):
        if share > _COMMON:  # most normal numbers lie there
            drawn = torch.where(wrong, torch.empty_like(tensor).normal_(mean, std, generator=generator), drawn)
            wrong = (drawn < low) | (drawn > high)
            continue
        even = torch.empty_like(tensor).uniform_(a, b, generator=generator)
        drawn = torch.where(wrong, even, drawn)
        density = ((even - mean) / std).square() * -0.5 - highest
        wrong = wrong & (torch.empty_like(tensor).uniform_(generator=generator).log() > density)
    return tensor.copy_(drawn)


def _truncated(tensor: Tensor) -> Tensor:
    return trunc_normal_(tensor, std=0.02, a=-0.04, b=0.04)


INITIALIZATIONS: dict[Initialization, Callable[[Tensor, float], Tensor]] = {
    "xavier_uniform": xavier_uniform_,
    "xavier_normal": xavier_normal_,
    "kaiming_uniform": lambda tensor, gain: kaiming_uniform_(tensor, nonlinearity="linear").mul_(gain),
    "kaiming_normal": lambda tensor, gain: kaiming_normal_(tensor, nonlinearity="linear").mul_(gain),
    "orthogonal": orthogonal_,
    "truncated_normal": lambda tensor, gain: _truncated(tensor),
}


@torch.no_grad()
def initialize(module: nn.Module, name: Initialization, nonlinearity: str = "relu") -> None:
    """Draw all weights of a network (of two or more axes) anew, and set the biases of its layers to 0.

    Args:
        module: the network; normalizations and embeddings are left alone.
        name: of `INITIALIZATIONS`.
        nonlinearity: which gain the weights get; that of an unknown one, such as `gelu`, is that of `relu`.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> initialize(net, "orthogonal")
        >>> bool((net[0].weight @ net[0].weight.T).allclose(2 * torch.eye(4), atol=1e-5)), bool(net[0].bias.any())
        (True, False)
    """
    known = ("linear", "identity", "sigmoid", "tanh", "relu", "leaky_relu")
    gain = calculate_gain(nonlinearity if nonlinearity in known else "relu")
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 2 or isinstance(layer, nn.Embedding):
            continue
        INITIALIZATIONS[name](weight.data, gain)
        if isinstance(bias := getattr(layer, "bias", None), Tensor):
            bias.data.zero_()
