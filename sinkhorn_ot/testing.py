"""Problems whose answers are known, and a judge for those whose are not.

For tests, benchmarks and documentation. Nothing here uses the solver: closed forms are written from
their formulas, and `judge` is a dense Newton method in NumPy that shares no code with it.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Known:
    """A problem and its answer, all float64.

    Attributes:
        cost: Costs, (n, m).
        a: Source weights, (n,).
        b: Target weights, (m,).
        reg: Regularisation in units of the cost.
        plan: The optimal plan, (n, m).
        value: The objective <P, C> + reg KL(P | a b^T) at the plan, penalties included.
    """

    cost: Tensor
    a: Tensor
    b: Tensor
    reg: float
    plan: Tensor
    value: float


def uniform(n: int) -> Tensor:
    """Return n equal weights of total one."""
    return torch.full((n,), 1 / n, dtype=torch.float64)


def permutation(n: int = 7, seed: int = 0) -> Known:
    """A hidden permutation costs nothing and every other pair one or more: reg is small enough
    for the plan to be that permutation to the last digit."""
    generator = torch.Generator().manual_seed(seed)
    to = torch.randperm(n, generator=generator)
    cost = 1 + torch.rand(n, n, generator=generator, dtype=torch.float64)
    cost[torch.arange(n), to] = 0
    plan = torch.zeros_like(cost)
    plan[torch.arange(n), to] = 1 / n
    return Known(cost, uniform(n), uniform(n), 0.02, plan, 0.02 * math.log(n))


def two_points(distance: float = 1.0, reg: float = 0.3) -> Known:
    """Two points onto themselves: who stays is a logistic function of distance / reg."""
    stay = 1 / (1 + math.exp(-distance / reg))
    plan = torch.tensor([[stay, 1 - stay], [1 - stay, stay]], dtype=torch.float64) / 2
    cost = distance * (1 - torch.eye(2, dtype=torch.float64))
    entropy = stay * math.log(2 * stay) + (1 - stay) * math.log(2 * (1 - stay))
    value = distance * (1 - stay) + reg * entropy
    return Known(cost, uniform(2), uniform(2), reg, plan, value)


def line(n: int = 6, m: int = 9, seed: int = 0) -> Known:
    """Points on a line, convex cost: the exact plan is monotone, cumulative mass meeting
    cumulative mass. `reg` is zero: the answer is that of exact transport."""
    generator = torch.Generator().manual_seed(seed)
    x, y, a, b = (torch.rand(k, generator=generator, dtype=torch.float64) for k in (n, m, n, m))
    x, y = x.sort().values, y.sort().values
    a, b = (a + 0.1) / (a + 0.1).sum(), (b + 0.1) / (b + 0.1).sum()
    top = torch.minimum(a.cumsum(0)[:, None], b.cumsum(0)[None, :])
    floor = torch.maximum((a.cumsum(0) - a)[:, None], (b.cumsum(0) - b)[None, :])
    plan = (top - floor).clamp(min=0)
    cost = (x[:, None] - y[None, :]).square()
    return Known(cost, a, b, 0.0, plan, float((plan * cost).sum()))


def gaussians(n: int = 161, m: int = 151, dim: int = 1, reg: float = 0.5) -> Known:
    """Two Gaussians on a grid so fine that sums are integrals, squared Euclidean cost.

    Source: H. Janati et al., Entropic optimal transport between unbalanced Gaussian measures has a
    closed form, NeurIPS 2020, theorem 1, with reg = 2 sigma^2. In `dim` 2 both are products of
    the Gaussians of one dimension.
    """
    mean, deviation = 0.4, (0.9, 0.6)
    x, a = _bell(n, 0.0, deviation[0])
    y, b = _bell(m, mean, deviation[1])
    A, B = deviation[0] ** 2, deviation[1] ** 2
    s2 = reg / 2
    D = math.sqrt(4 * A * B + s2**2)
    value = mean**2 + A + B - D + s2 * (1 - math.log(2 * s2)) + s2 * math.log(D + s2)
    # the plan is a Gaussian too, with this covariance between source and target
    K = (D - s2) / 2
    precision = np.linalg.inv(np.array([[A, K], [K, B]]))
    p, q, r = precision[0, 0], precision[1, 1], precision[0, 1]
    dx, dy = x[:, None], (y - mean)[None, :]
    plan = torch.exp(-(p * dx.square() + 2 * r * dx * dy + q * dy.square()) / 2)
    plan /= plan.sum()
    cost = (x[:, None] - y[None, :]).square()
    if dim == 2:
        cost = (cost[:, None, :, None] + cost[None, :, None, :]).reshape(n * n, m * m)
        plan, a, b = torch.kron(plan, plan), torch.kron(a, a), torch.kron(b, b)
    return Known(cost, a, b, reg, plan, dim * value)


def _bell(n: int, mean: float, deviation: float) -> tuple[Tensor, Tensor]:
    x = torch.linspace(-7, 7, n, dtype=torch.float64)
    weight = torch.exp(-x.square() / 2)
    return mean + deviation * x, weight / weight.sum()


def free_columns(n: int = 5, m: int = 8, reg: float = 0.2, seed: int = 0) -> Known:
    """Rows exact and columns free: every row is a softmax, and one pass finds it."""
    p = random(n, m, reg, seed=seed)
    rows = torch.softmax(p.b.log() - p.cost / reg, -1)
    value = -reg * (p.a * torch.logsumexp(p.b.log() - p.cost / reg, -1)).sum()
    return Known(p.cost, p.a, p.b, reg, p.a[:, None] * rows, float(value))


@dataclass(frozen=True, eq=False)
class Random:
    """A problem drawn at random, float64.

    Attributes:
        cost: Costs in [0, 1], (n, m).
        a: Source weights of total one, (n,).
        b: Target weights of total one, (m,).
        reg: Regularisation.
    """

    cost: Tensor
    a: Tensor
    b: Tensor
    reg: float


def random(n: int, m: int, reg: float = 0.1, *, zeros: bool = False, seed: int = 0) -> Random:
    """Draw uniform costs and weights; with `zeros`, about a third of the weights vanish."""
    rng = np.random.default_rng(seed)
    weights = []
    for size in (n, m):
        w = rng.uniform(0.1, 1.0, size)
        if zeros:
            w[1:] *= rng.random(size - 1) > 1 / 3
        weights.append(torch.from_numpy(w / w.sum()))
    return Random(torch.from_numpy(rng.random((n, m))), weights[0], weights[1], reg)


def judge(
    cost: Tensor, a: Tensor, b: Tensor, reg: float, rho: tuple[float, float] = (math.inf, math.inf)
) -> Known:
    """Solve a small problem to the last digits, slowly and by other means than the solver.

    Annealed log-domain Sinkhorn, then damped Newton on the concave dual until it stops improving.

    Args:
        cost: Costs, (n, m); inf forbids a pair.
        a: Source weights, (n,).
        b: Target weights, (m,).
        reg: Regularisation in units of the cost.
        rho: KL penalty of each marginal; inf keeps it exact, 0 leaves it free.
    """
    C, wa, wb = (np.asarray(t, dtype=np.float64) for t in (cost, a, b))
    at = np.ix_(wa > 0, wb > 0)
    dual = _Dual(C[at], wa[wa > 0], wb[wb > 0], reg, rho)
    P = np.zeros_like(C)
    P[at] = dual.plan(dual.maximise())
    parts = torch.from_numpy(C), torch.from_numpy(wa), torch.from_numpy(wb)
    return Known(*parts, reg, torch.from_numpy(P), objective(P, C, wa, wb, reg, rho))


def objective(
    P: Array, C: Array, a: Array, b: Array, reg: float, rho: tuple[float, float]
) -> float:
    """Return <P, C> + reg KL(P | a b^T) + penalties, entry by entry."""
    used = P > 0
    value = float((P[used] * C[used]).sum()) + reg * _kl(P, a[:, None] * b[None, :])
    for weight, mass, penalty in zip((a, b), (P.sum(1), P.sum(0)), rho, strict=True):
        if 0 < penalty < math.inf:
            value += penalty * _kl(mass, weight)
    return value


def _kl(p: Array, q: Array) -> float:
    """Return sum p log(p / q) - p + q."""
    used = p > 0
    return float((p[used] * np.log(p[used] / q[used])).sum() - p.sum() + q.sum())


@dataclass(frozen=True, eq=False)
class _Dual:
    """The dual over z = (f, g) / reg, every weight above zero."""

    C: Array
    a: Array
    b: Array
    reg: float
    rho: tuple[float, float]

    def plan(self, z: Array) -> Array:
        f, g = np.split(z, [len(self.a)])
        exponent = f[:, None] + g[None, :] - self.C / self.reg
        return np.asarray(self.a[:, None] * self.b[None, :] * np.exp(exponent))

    def _side(self, z: Array, weight: Array, rho: float) -> tuple[Array, Array]:
        """Return what the marginal must be at potential z, and how fast that falls with z."""
        if math.isinf(rho):
            return weight, np.zeros_like(weight)
        target = weight * np.exp(-z * self.reg / rho)
        return target, target * (self.reg / rho)

    def maximise(self) -> Array:
        z = self._annealed()
        n = len(self.a)
        moves = np.r_[np.full(n, self.rho[0] > 0), np.full(len(self.b), self.rho[1] > 0)]
        best, at = math.inf, z
        for _ in range(60):
            gradient, hessian = self._derivatives(z)
            error = np.abs(gradient[moves]).sum() if moves.any() else 0.0
            if not error < best:
                break
            best, at = error, z
            inner = hessian[np.ix_(moves, moves)]
            step = np.zeros_like(z)
            step[moves] = np.linalg.lstsq(inner, gradient[moves], rcond=1e-15)[0]
            # far from the optimum Newton overshoots: no potential moves by more than one reg
            z = z + step / max(1.0, float(np.abs(step).max()))
        return at

    def _derivatives(self, z: Array) -> tuple[Array, Array]:
        """Return what the marginals lack, and minus its derivative."""
        n = len(self.a)
        P = self.plan(z)
        rho_a, rho_b = (r if r > 0 else math.inf for r in self.rho)
        target_a, slope_a = self._side(z[:n], self.a, rho_a)
        target_b, slope_b = self._side(z[n:], self.b, rho_b)
        gradient = np.r_[target_a - P.sum(1), target_b - P.sum(0)]
        hessian = np.block(
            [[np.diag(P.sum(1) + slope_a), P], [P.T, np.diag(P.sum(0) + slope_b)]]
        )
        return gradient, hessian

    def _annealed(self) -> Array:
        """Return z after Sinkhorn steps at falling reg."""
        f, g = np.zeros_like(self.a), np.zeros_like(self.b)
        spread = np.ptp(self.C[np.isfinite(self.C)]) if np.isfinite(self.C).any() else 0.0
        for k in range(max(0, math.ceil(math.log2(spread / self.reg + 1e-300))), -1, -1):
            reg = self.reg * 2**k
            kappa_a, kappa_b = (1.0 if math.isinf(r) else r / (r + reg) for r in self.rho)
            for _ in range(200 if k else 3000):
                s = g[None, :] / reg - self.C / reg
                f = -reg * kappa_a * _log_sum(s + np.log(self.b)[None, :], 1)
                s = f[:, None] / reg - self.C / reg
                g = -reg * kappa_b * _log_sum(s + np.log(self.a)[:, None], 0)
        return np.r_[f, g] / self.reg


def _log_sum(s: Array, axis: int) -> Array:
    """Return log sum exp along an axis that has a finite entry."""
    peak = s.max(axis=axis, keepdims=True)
    return np.asarray(np.squeeze(peak, axis) + np.log(np.exp(s - peak).sum(axis=axis)))
