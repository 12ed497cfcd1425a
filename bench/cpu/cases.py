"""Problems that people pose, by name: each a function of its size, always from the same seed."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Case:
    """One problem, or a batch; costs lie in [0, 1]."""

    name: str
    C: Tensor
    a: Tensor
    b: Tensor

    def to(self, dtype: torch.dtype) -> "Case":
        """Return the case in another precision."""
        return replace(self, C=self.C.to(dtype), a=self.a.to(dtype), b=self.b.to(dtype))

    def stripped(self) -> "Case":
        """Return the case without the rows and columns of no weight; a batch as it is."""
        if self.C.ndim > 2 or self.a.ndim > 1 or bool((self.a > 0).all() and (self.b > 0).all()):
            return self
        rows, columns = self.a > 0, self.b > 0
        return replace(self, C=self.C[rows][:, columns], a=self.a[rows], b=self.b[columns])


def dirichlet(n: int, seed: int) -> Tensor:
    """Return weights drawn from the flat Dirichlet distribution, shape (n,)."""
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(n)))


def uniform(n: int, seed: int) -> Tensor:
    """Return equal weights."""
    return torch.full((n,), 1 / n, dtype=torch.float64)


def with_zeros(n: int, seed: int) -> Tensor:
    """Return Dirichlet weights, a third of them zero."""
    weight = dirichlet(n, seed)
    weight[np.random.default_rng(seed).permutation(n)[: n // 3]] = 0
    return weight / weight.sum()


WEIGHTS = {"dirichlet": dirichlet, "uniform": uniform, "zeros": with_zeros}


def points(n: int, m: int | None = None) -> Tensor:
    """Squared distances between two uniform clouds in the unit square."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(n, 2, generator=rng, dtype=torch.float64)
    y = torch.rand(m or n, 2, generator=rng, dtype=torch.float64)
    return torch.cdist(x, y).square()


def euclidean(n: int) -> Tensor:
    """Distances between the same clouds: a metric."""
    return points(n).sqrt()


def mixtures(n: int) -> Tensor:
    """Squared distances between samples of two mixtures of ten Gaussians in 64 dimensions."""
    rng = torch.Generator().manual_seed(0)

    def sample() -> Tensor:
        centres = 2 * torch.randn(10, 64, generator=rng, dtype=torch.float64)
        which = torch.randint(10, (n,), generator=rng)
        return centres[which] + torch.randn(n, 64, generator=rng, dtype=torch.float64)

    return torch.cdist(sample(), sample()).square()


def random_costs(n: int) -> Tensor:
    """Independent uniform costs."""
    return torch.rand(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def wide(n: int) -> Tensor:
    """Squared distances of n points to 50."""
    return points(n, 50)


DENSE = {
    "points": points,
    "mixtures": mixtures,
    "random": random_costs,
    "euclidean": euclidean,
    "wide": wide,
}


def dense(kind: str, n: int, weights: str = "dirichlet") -> Case:
    """Return a problem with a cost of its own."""
    C = DENSE[kind](n)
    draw = WEIGHTS[weights]
    return Case(kind, C / C.max(), draw(C.shape[0], 1), draw(C.shape[1], 2))


def grid_cost(side: int) -> Tensor:
    """Squared distances between the pixels of a square image, largest one."""
    at = torch.cartesian_prod(*[torch.arange(float(side), dtype=torch.float64)] * 2)
    return torch.cdist(at, at).square() / (2 * (side - 1) ** 2)


def digits(count: int, side: int, seed: int, zeros: bool) -> Tensor:
    """Return scikit-learn's digits scaled up to a side, as histograms (count, side^2)."""
    from sklearn.datasets import load_digits

    rng = torch.Generator().manual_seed(seed)
    X = torch.from_numpy(load_digits(return_X_y=True)[0]).reshape(-1, 8, 8)
    X = X[torch.randint(len(X), (count,), generator=rng)][:, None]
    X = torch.nn.functional.interpolate(X, size=(side, side), mode="bilinear")
    # the soft edge of what is scaled up is no ink
    X = (X.reshape(count, -1) - 4).clamp(min=0)
    X = X if zeros else X + 0.02 * X.mean()
    return X / X.sum(1, keepdim=True)


def digit_histograms(count: int) -> Case:
    """Pairs of scikit-learn's 8x8 digits as histograms on the pixel grid, zero pixels in place."""
    from sklearn.datasets import load_digits

    X, _ = load_digits(return_X_y=True)
    X = X / X.sum(1, keepdims=True)
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(X), (2, count))
    return Case("digits", grid_cost(8), torch.from_numpy(X[first]), torch.from_numpy(X[second]))


def digit_pair(side: int) -> Case:
    """One pair of digits."""
    many = digit_histograms(1)
    return replace(many, name="digit", a=many.a[0], b=many.b[0])


def images(side: int) -> Case:
    """Two images of eight soft spots each, as histograms on the pixel grid."""
    at = torch.cartesian_prod(*[torch.linspace(0, 1, side, dtype=torch.float64)] * 2)

    def image(seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        centres = torch.rand(8, 2, generator=rng, dtype=torch.float64)
        width = 0.02 + 0.1 * torch.rand(8, generator=rng, dtype=torch.float64)
        pixels = torch.exp(-(torch.cdist(at, centres) / width).square()).sum(1) + 1e-3
        return pixels / pixels.sum()

    return Case("image", grid_cost(side), image(1), image(2))


def own_costs(count: int) -> Case:
    """A batch of clouds of 64 points each, every problem with its own cost."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, count, 64, 2, generator=rng, dtype=torch.float64)
    C = torch.cdist(x, y).square()
    a, b = (torch.stack([dirichlet(64, k + s) for k in range(count)]) for s in (0, count))
    return Case("own costs", C / C.amax((1, 2), keepdim=True), a, b)


def logits(n: int, scale: float) -> Case:
    """SeLa: costs -log p of n samples over 128 labels of unequal size, weights of both equal."""
    rng = torch.Generator().manual_seed(0)
    bias = 0.3 * torch.randn(128, generator=rng)
    S = (scale * (torch.randn(n, 128, generator=rng) + bias)).log_softmax(-1).double()
    return Case("logits", -S / -S.min(), uniform(n, 0), uniform(128, 0))


def flat_logits(n: int) -> Case:
    """The logits of an untrained head."""
    return logits(n, 0.1)


def peaked_logits(n: int) -> Case:
    """The logits of a very sure head."""
    return logits(n, 3.0)


def scores(n: int) -> Case:
    """SwAV: cosines of n features with 3000 prototypes, weights equal."""
    rng = torch.Generator().manual_seed(0)
    z, c = (
        torch.nn.functional.normalize(torch.randn(k, 128, generator=rng), dim=1) for k in (n, 3000)
    )
    S = (z @ c.T).double()
    return Case("scores", (S.max() - S) / (S.max() - S.min()), uniform(n, 0), uniform(3000, 0))


WHOLE = {
    "digit": digit_pair,
    "image": images,
    "digits": digit_histograms,
    "own costs": own_costs,
    "flat logits": flat_logits,
    "peaked logits": peaked_logits,
    "scores": scores,
}


def own_reg(kind: str) -> float:
    """Return the reg that SeLa and SwAV publish, relative to costs of [0, 1]."""
    # 1 / 25 and 0.05, over the largest cost before it is scaled
    return {"flat logits": 0.04 / 5.38, "peaked logits": 0.04 / 26.17, "scores": 0.05 / 0.92}[kind]


@dataclass(frozen=True)
class Problem:
    """A case by name, and its reg; `case()` makes the tensors.

    Attributes:
        kind: A name in `DENSE` or `WHOLE`.
        n: Its size: rows, side of an image, or count of a batch.
        reg: Regularisation, relative to costs in [0, 1].
        weights: A name in `WEIGHTS`, where the kind has no weights of its own.
        dtype: "float64" or "float32".
    """

    kind: str
    n: int
    reg: float
    weights: str = "dirichlet"
    dtype: str = "float64"

    def case(self) -> Case:
        """Return the tensors."""
        if self.kind in DENSE:
            made = dense(self.kind, self.n, self.weights)
        else:
            made = WHOLE[self.kind](self.n)
        return made.to(getattr(torch, self.dtype))

    @property
    def batch(self) -> bool:
        """Whether it is many problems."""
        return self.kind in ("digits", "own costs")

    @property
    def size(self) -> int:
        """Entries of all plans, about."""
        n = self.n
        return {
            "wide": 50 * n,
            "digit": 64 * 64,
            "image": n**4,
            "digits": 64 * 64 * n,
            "own costs": 64 * 64 * n,
            "flat logits": 128 * n,
            "peaked logits": 128 * n,
            "scores": 3000 * n,
        }.get(self.kind, n * n)

    @property
    def name(self) -> str:
        """What tables call it."""
        kind, n = self.kind, self.n
        text = {
            "wide": f"points {n}x50",
            "digit": "digit pair",
            "image": f"image {n}x{n} pixels",
            "digits": f"batch {n}x64x64, one cost",
            "own costs": f"batch {n}x64x64, own costs",
            "flat logits": f"flat logits {n}x128",
            "peaked logits": f"peaked logits {n}x128",
            "scores": f"scores {n}x3000",
        }.get(kind, f"{kind} {n}")
        text += "" if self.weights == "dirichlet" else f", {self.weights}"
        return text + ("" if self.dtype == "float64" else f", {self.dtype}")
