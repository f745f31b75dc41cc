r"""Steps of stochastic gradient descent in the forms in which scikit-learn's multilayer perceptrons take them.

```math
\text{adam:}\quad m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
\theta \leftarrow \theta - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{\sqrt v + \varepsilon}
```
```math
\text{sgd:}\quad u \leftarrow \mu u - \eta g, \qquad \theta \leftarrow \theta + u \quad \text{or, after Nesterov,} \quad
\theta \leftarrow \theta + \mu u - \eta g
```

torch's own differ: its Adam adds ε before the correction of the bias, and the velocity of its SGD does not remember the
learning rates of the past, which matters where they change.

Sources: D. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015 (end of section 2); B. Polyak 1964;
I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and momentum in deep learning",
2013.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Adam", "Momentum"]


class Adam:
    """Adam.

    Args:
        parameters: θ, written to.
        lr: η.
        betas: β₁ and β₂.
        eps: ε.

    Example:
        >>> x = torch.tensor([1.0])
        >>> Adam([x], lr=0.1).step([torch.tensor([4.0])])
        >>> x
        tensor([0.9000])
    """

    def __init__(
        self, parameters: Sequence[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.lr, self.betas, self.eps = lr, betas, eps
        self.parameters = list(parameters)
        self.mean, self.square = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        self.num_steps = 0

    def step(self, gradients: list[Tensor]) -> None:
        """Move the parameters by their gradients g."""
        self.num_steps += 1
        first, second = self.betas
        count = torch.tensor(float(self.num_steps), device=self.parameters[0].device)
        # torch adds its ε to √(v / (1 − β₂ᵗ))
        torch._fused_adam_(
            self.parameters, gradients, self.mean, self.square, [], [count] * len(gradients), amsgrad=False,
            lr=self.lr, beta1=first, beta2=second, weight_decay=0.0, eps=self.eps / (1 - second**self.num_steps) ** 0.5,
            maximize=False,
        )  # fmt: skip


class Momentum:
    """Gradient descent with momentum.

    Args:
        parameters: θ, written to.
        lr: η, which may be set anew between steps.
        momentum: μ.
        nesterov: look ahead along the velocity.

    Example:
        >>> x = torch.tensor([1.0])
        >>> Momentum([x], lr=0.1, momentum=0.9).step([torch.tensor([1.0])])
        >>> x
        tensor([0.8100])
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float, momentum: float = 0.0, nesterov: bool = True) -> None:
        self.lr, self.momentum, self.nesterov = lr, momentum, nesterov
        self.parameters = list(parameters)
        self.velocity = [torch.zeros_like(p) for p in parameters]

    def step(self, gradients: list[Tensor]) -> None:
        """Move the parameters by their gradients g."""
        torch._foreach_mul_(self.velocity, self.momentum)
        torch._foreach_add_(self.velocity, gradients, alpha=-self.lr)
        if self.nesterov:
            torch._foreach_add_(self.parameters, self.velocity, alpha=self.momentum)
            torch._foreach_add_(self.parameters, gradients, alpha=-self.lr)
        else:
            torch._foreach_add_(self.parameters, self.velocity)
