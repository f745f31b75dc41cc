r"""What follows from eigenvalues and eigenvectors: how many to keep, their signs, a step towards them, and a density.

Sources: G. Golub, F. Luk and M. Overton, "A block Lanczos method for computing the singular values and corresponding
singular vectors of a matrix", 1981; M. Tipping and C. Bishop, "Probabilistic principal component analysis", 1999.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.numerics.hashing import epoch_generator
from zoo.numerics.moments import gram

__all__ = [
    "components_for_share",
    "fix_signs",
    "greatest_eigenvalues",
    "krylov_block",
    "leading_spectrum",
    "likeliest_components",
    "probabilistic_log_density",
]

SMALL = 256  # rows or columns, up to which all eigenvalues are soon found
PRODUCTS = 4, 3  # of the Gram matrix with a block of few vectors, and of many
FEW = 0.1  # of all eigenvalues
BASIS = 300  # vectors, about, beyond which the blocks of a basis cost more than they lead to
SURPLUS = 10  # vectors of a block beyond the number that is wanted

# Letters: B rows, D features, D' eigenvalues, K components, L vectors of a block, W of a basis.


def fix_signs(components: Tensor) -> Tensor:
    """Turn each component so that its entry of largest magnitude is positive.

    Args:
        components: one a row, (K, D).

    Example:
        >>> fix_signs(torch.tensor([[0.6, -0.8], [-0.8, -0.6]]))
        tensor([[-0.6000,  0.8000],
                [ 0.8000,  0.6000]])
    """
    magnitude = components.abs()
    # Entries equal but for rounding must not let the order of the rows decide: the first of them does.
    largest = (magnitude >= magnitude.amax(1, keepdim=True) * (1 - 1e-6)).int().argmax(1, keepdim=True)
    return torch.where(components.gather(1, largest) < 0, -components, components)


def components_for_share(variance: Tensor, share: float) -> int:
    """The least number of components that explain more than a share of the variance.

    Args:
        variance: of all components, descending, (D',).
        share: between 0 and 1.

    Example:
        >>> components_for_share(torch.tensor([6.0, 3.0, 1.0]), 0.8)
        2
    """
    explained = variance.cumsum(0) / variance.sum()
    return min(int((explained <= share).sum()) + 1, len(variance))


def likeliest_components(variance: Tensor, num_rows: float) -> int:
    r"""The number of components under which the rows are most likely, by Laplace's method.

    ```math
    \log p(K) \approx \sum_{j \le K} \log \Gamma\Big(\tfrac{D - j + 1}{2}\Big) - \tfrac{D - j + 1}{2} \log \pi
    - K \log 2 - \tfrac n2 \sum_{j \le K} \log \lambda_j - \tfrac{n (D - K)}{2} \log \hat v
    + \tfrac{m + K}{2} \log 2 \pi - \tfrac12 \log |A| - \tfrac K2 \log n
    ```
    ```math
    \log |A| = \sum_{i \le K} \sum_{j > i} \log\big( (\hat\lambda_j^{-1} - \hat\lambda_i^{-1})
    (\lambda_i - \lambda_j)\, n \big), \qquad m = D K - \tfrac{K (K + 1)}{2}
    ```

    where $\hat v$, the mean of the variances left out, stands for each of them in $\hat\lambda$. Pairs of equal
    variances, in which no direction is preferred, are left out of $|A|$.

    Args:
        variance: of all D components, descending, (D,).
        num_rows: n.

    Source: T. Minka, "Automatic choice of dimensionality for PCA", 2000, equations 30 and 77.

    Example:
        >>> likeliest_components(torch.tensor([9.0, 5.0, 0.1, 0.1, 0.1]), num_rows=100)
        2
    """
    spectrum, features = variance.double(), len(variance)
    if features < 2:
        return features
    tiny = 1e-15
    kept = torch.arange(1, features, dtype=torch.float64, device=variance.device)  # K
    logs = spectrum.clamp_min(tiny).log()
    left = spectrum.sum() - spectrum.cumsum(0)[:-1]
    noise = (left / (features - kept)).clamp_min(tiny)  # v̂ of each K
    half = (features - kept + 1) / 2
    volume = (torch.lgamma(half) - half * math.log(math.pi)).cumsum(0) - kept * math.log(2.0)
    fit = -0.5 * num_rows * (logs.cumsum(0)[:-1] + (features - kept) * noise.log())
    free = features * kept - kept * (kept + 1) / 2
    gaps = (spectrum[:, None] - spectrum).triu(1)  # (D, D): λ_i − λ_j of i < j
    gaps = torch.where(gaps > 1e-12 * spectrum[:, None], gaps, 0.0)
    inverse = spectrum.clamp_min(tiny).reciprocal()
    both = _log_of_positive(gaps * (inverse - inverse[:, None]) * num_rows)
    curvature = torch.empty_like(kept)
    for index, value in enumerate(noise.reciprocal()):  # pairs of kept components, and of a kept and a left out one
        k = index + 1
        outer = gaps[:k, k:] * (value - inverse[:k, None]) * num_rows
        curvature[index] = both[:k, :k].sum() + _log_of_positive(outer).sum()
    score = volume + fit + 0.5 * (math.log(2 * math.pi) * (free + kept) - curvature - kept * math.log(num_rows))
    score = score.masked_fill((spectrum[:-1] < tiny) | score.isnan(), -math.inf)
    return int(score.argmax()) + 1


def _log_of_positive(matrix: Tensor) -> Tensor:
    """Logarithms of what is above zero, and zeros elsewhere."""
    return torch.where(matrix > 0, matrix, 1.0).log()


def greatest_eigenvalues(matrix: Tensor, number: int | None = None) -> tuple[Tensor, Tensor]:
    """The greatest eigenvalues of a symmetric matrix (D, D), descending, (W,), and the eigenvectors as rows, (W, D).

    A few of many are found by LAPACK without the others.

    Args:
        matrix: float64, without NaN.
        number: how many are wanted; None for all. There may be more: W is this or D.

    Example:
        >>> greatest_eigenvalues(torch.tensor([[3.0, 0.0], [0.0, 5.0]]), 1)[0]
        tensor([5., 3.])
    """
    size = len(matrix)
    if number is not None and 0 < number <= FEW * size and size > SMALL and matrix.device.type == "cpu":
        from scipy.linalg import eigh

        found = eigh(matrix.numpy(), subset_by_index=(size - number, size - 1), check_finite=False)
        values, vectors = (torch.from_numpy(part) for part in found)
    else:
        values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0), vectors.T.flip(0)


def krylov_block(basis: Tensor, product: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    r"""Take a step of the block Lanczos method: what $M$ is on a basis $Q$, and the block by which the basis grows.

    ```math
    T_{\cdot b} = Q^\top M Q_b, \qquad Q_{b + 1} R = M Q_b - Q\, T_{\cdot b}
    ```

    Args:
        basis: $Q$, orthonormal columns (D, W), the last L of which are its last block $Q_b$.
        product: $M Q_b$, (D, L).
        seed: of the directions that take the place of those in which $M$ leads nowhere new.

    Returns:
        $T_{\cdot b}$, (W, L), and $Q_{b+1}$, (D, min(L, D − W)).

    Source: G. Golub, F. Luk and M. Overton, "A block Lanczos method for computing the singular values and corresponding
    singular vectors of a matrix", 1981.

    Example:
        >>> basis, product = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [1.0]])
        >>> column, block = krylov_block(basis, product, seed=0)
        >>> column, block.abs()
        (tensor([[2.]]), tensor([[0.],
                [1.]]))
    """
    column = basis.T @ product
    size = min(product.shape[1], len(basis) - basis.shape[1])
    block = product - basis @ column
    noise = torch.randn(block.shape, generator=epoch_generator(seed), dtype=torch.float64).to(block)
    limits = torch.finfo(block.dtype)
    block += noise * (limits.eps * torch.linalg.vector_norm(product)).clamp_min(limits.tiny)
    for _ in range(3):  # the first time leaves what rounding leaves, which may be all where M leads nowhere new
        block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
    return column, block[:, :size]


def leading_spectrum(rows: Tensor, number: int, seed: int) -> tuple[Tensor, Tensor] | None:
    r"""The greatest eigenvalues of $Z^\top Z$ of rows in memory, and their eigenvectors.

    Of few rows or columns by all eigenvalues of the smaller Gram matrix; else on a basis of what that matrix makes of
    random vectors, of what it makes of these, and so on, the first of which are left out where there are many.

    Args:
        rows: Z, (B, D).
        number: how many, K.
        seed: of the random vectors.

    Returns:
        Eigenvalues, descending, (K,), and unit vectors, one a row, (K, D), both float64; None where rounding hides the
        last of them.

    Source: C. Musco and C. Musco, "Randomized block Krylov methods for stronger and faster approximate singular value
    decomposition", 2015.

    Example:
        >>> leading_spectrum(torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), 1, seed=0)[0].round(decimals=4)
        tensor([9.], dtype=torch.float64)
    """
    wide = len(rows) < rows.shape[1]
    short = rows if wide else rows.T  # (S, T) with S ≤ T
    if len(short) <= SMALL:
        values, basis = torch.linalg.eigh(gram(short.T))
    else:
        values, basis = _krylov_spectrum(short, number, seed)
    values, basis = values.flip(0)[:number], basis.flip(1)[:, :number]
    if not values[-1] > len(short) * torch.finfo(rows.dtype).eps * values[0]:
        return None
    if not wide:
        return values, basis.T
    vectors = (basis.T.to(rows.dtype) @ rows).double()  # of the rows' own digits
    return values, vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


def _krylov_spectrum(short: Tensor, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues of Z Zᵀ (S, S), ascending, and eigenvectors, (S, W), on a basis of a few products."""

    def product(block: Tensor) -> Tensor:
        return short @ (short.T @ block)

    length, count = min(number + SURPLUS, len(short)), PRODUCTS[number >= FEW * len(short)]
    blocks = min(count, max(2, BASIS // length), len(short) // length)
    random = torch.randn(short.shape[1], length, generator=epoch_generator(seed), dtype=short.dtype)
    block = _orthonormal(short @ random)
    for _ in range(count - blocks):
        block = _orthonormal(product(block))
    basis, products = block, product(block)
    for _ in range(blocks - 1):
        block = products[:, -length:]
        for _ in range(2):  # the first time leaves what rounding leaves
            block = block - basis @ (basis.T @ block)
        block = _orthonormal(block)
        basis, products = torch.cat([basis, block], 1), torch.cat([products, product(block)], 1)
    projected = (basis.T @ products).double()
    values, vectors = torch.linalg.eigh((projected + projected.T) / 2)
    return values, basis.double() @ vectors


def _orthonormal(block: Tensor) -> Tensor:
    """The same columns made orthonormal, by Cholesky's factor of their products where that keeps the digits."""
    length = torch.linalg.vector_norm(block, dim=0)
    found = block / torch.where(length > 0, length, 1.0)
    for _ in range(2):  # the second time mends what the square of the condition number costs
        factor, failed = torch.linalg.cholesky_ex(gram(found), upper=True)
        if int(failed) or not bool(factor.diagonal().min() > 100 * torch.finfo(block.dtype).eps ** 0.5):
            return torch.linalg.qr(block).Q
        found = torch.linalg.solve_triangular(factor.to(block.dtype), found, upper=True, left=False)
    return found


def probabilistic_log_density(centred: Tensor, components: Tensor, variance: Tensor, noise_variance: Tensor) -> Tensor:
    r"""Log density of the normal distribution whose covariance the components and the noise make up.

    ```math
    \log p(x) = -\tfrac12 \Big( D \log 2 \pi + \sum_{j \le K} \Big( \log \lambda_j + \frac{t_j^2}{\lambda_j} \Big)
    + (D - K) \log \sigma^2 + \frac{\|x - \mu\|^2 - \|t\|^2}{\sigma^2} \Big)
    ```

    Args:
        centred: rows less the mean, (B, D).
        components: orthonormal, one a row, (K, D).
        variance: along the components, (K,).
        noise_variance: along all other directions, ().

    Returns:
        Log densities, (B,).

    Raises:
        ZooError: if a variance is zero or mere rounding, since there is then no density.

    Source: Tipping & Bishop 1999, section 3.2.

    Example:
        >>> line = torch.tensor([[1.0, 0.0]])
        >>> probabilistic_log_density(torch.zeros(1, 2), line, torch.tensor([1.0]), torch.tensor(1.0))
        tensor([-1.8379])
    """
    others = components.shape[1] - len(components)
    variances = torch.cat([variance, noise_variance.expand(others)])
    if not bool((variances > len(variances) * torch.finfo(variances.dtype).eps * variances.max()).all()):
        raise ZooError(
            "The density needs a positive variance in every direction, and in some these rows do not vary: leave out "
            "features that are constant or follow from others, or keep fewer components."
        )
    projected = centred @ components.T  # (B, K)
    distance = (projected.square() / variance).sum(1)
    if others:
        outside = centred.square().sum(1) - projected.square().sum(1)
        distance = distance + outside.clamp_min(0) / noise_variance
    return -0.5 * (components.shape[1] * math.log(2 * math.pi) + variances.log().sum() + distance)
