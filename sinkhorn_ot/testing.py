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

from sinkhorn_ot.problem import shown


Array = NDArray[np.float64]

# error of the marginals up to which a judgement counts, relative: float32 masses differ less
_JUST = 1e-6


@shown
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
    return torch.full((n,), 1 / n, dtype=torch.float64, device="cpu")


def permutation(n: int = 7, seed: int = 0) -> Known:
    """A hidden permutation costs nothing, other pairs at least one: the plan is that permutation.

    reg is so small that no digit of the plan sees it.
    """
    generator = torch.Generator().manual_seed(seed)
    to = torch.randperm(n, generator=generator, device="cpu")
    cost = 1 + torch.rand(n, n, generator=generator, dtype=torch.float64, device="cpu")
    cost[torch.arange(n, device="cpu"), to] = 0
    plan = torch.zeros_like(cost)
    plan[torch.arange(n, device="cpu"), to] = 1 / n
    return Known(cost, uniform(n), uniform(n), 0.02, plan, 0.02 * math.log(n))


def two_points(distance: float = 1.0, reg: float = 0.3) -> Known:
    """Two points onto themselves: who stays is a logistic function of distance / reg."""
    odds = math.exp(-distance / reg)
    stay, leave = 1 / (1 + odds), odds / (1 + odds)
    plan = torch.tensor([[stay, leave], [leave, stay]], dtype=torch.float64, device="cpu") / 2
    cost = distance * (1 - torch.eye(2, dtype=torch.float64, device="cpu"))
    entropy = sum(share * math.log(2 * share) for share in (stay, leave))
    value = distance * leave + reg * entropy
    return Known(cost, uniform(2), uniform(2), reg, plan, value)


def line(n: int = 6, m: int = 9, seed: int = 0) -> Known:
    """Points on a line, squared distances: the exact plan is monotone.

    Cumulative mass meets cumulative mass. `reg` is zero: this is the answer of exact transport.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y, a, b = (
        torch.rand(k, generator=generator, dtype=torch.float64, device="cpu") for k in (n, m, n, m)
    )
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
    x = torch.linspace(-7, 7, n, dtype=torch.float64, device="cpu")
    weight = torch.exp(-x.square() / 2)
    return mean + deviation * x, weight / weight.sum()


def free_columns(n: int = 5, m: int = 8, reg: float = 0.2, seed: int = 0) -> Known:
    """Rows exact and columns free: every row is a softmax, and one pass finds it."""
    p = random(n, m, reg, seed=seed)
    rows = torch.softmax(p.b.log() - p.cost / reg, -1)
    value = -reg * (p.a * torch.logsumexp(p.b.log() - p.cost / reg, -1)).sum()
    return Known(p.cost, p.a, p.b, reg, p.a[:, None] * rows, float(value))


@shown
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

    Raises:
        ArithmeticError: If it misses its conditions of optimality: a judge that errs says so.
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


@shown
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

    def _sides(self, z: Array) -> list[tuple[Array, Array, float]]:
        """Return potential, weight and penalty in units of reg, of each side."""
        f, g = np.split(z, [len(self.a)])
        return [(f, self.a, self.rho[0] / self.reg), (g, self.b, self.rho[1] / self.reg)]

    def _value(self, z: Array) -> float:
        value = -float(self.plan(z).sum())
        for potential, weight, rho in self._sides(z):
            if math.isinf(rho):
                value += float(weight @ potential)
            elif rho > 0:
                value -= rho * float(weight @ np.expm1(-potential / rho))
        return value

    def _derivatives(self, z: Array) -> tuple[Array, Array]:
        """Return the gradient, which is what the marginals lack, and minus the Hessian."""
        P = self.plan(z)
        gradient, curvature = [], []
        for mass, (potential, weight, rho) in zip(
            (P.sum(1), P.sum(0)), self._sides(z), strict=True
        ):
            relaxed = 0 < rho < math.inf
            target = weight * np.exp(-potential / rho) if relaxed else weight
            gradient.append(target - mass)
            curvature.append(mass + target / rho if relaxed else mass)
        first, second = (np.diag(c) for c in curvature)
        return np.concatenate(gradient), np.block([[first, P], [P.T, second]])

    def maximise(self) -> Array:
        """Return the best z that Newton's method with a line search finds."""
        z = self._annealed()
        moves = np.repeat(np.array(self.rho) > 0, (len(self.a), len(self.b)))
        best, at, since = math.inf, z, 0
        for _ in range(200):
            gradient, curvature = self._derivatives(z)
            gradient, curvature = gradient[moves], curvature[np.ix_(moves, moves)]
            error = float(np.abs(gradient).sum())
            best, at, since = (error, z, 0) if error < best else (best, at, since + 1)
            # rounding moves the error about once it is all there is
            if since > 5 and best < 1e-10 or best == 0:
                break
            step = np.zeros_like(z)
            step[moves] = self._newton(curvature, gradient)
            z = self._search(z, step, float(gradient @ step[moves]))
        if not best <= _JUST * max(float(x.sum()) for x in (self.a, self.b, self.plan(at))):
            raise ArithmeticError(
                f"judge() missed the conditions of optimality by {best:.3g}: "
                "reg is too small for it, or there is no plan"
            )
        return at

    def _newton(self, curvature: Array, gradient: Array) -> Array:
        """Return curvature^-1 gradient, with every point brought to one scale."""
        q = np.sqrt(curvature.diagonal())
        # the last digit keeps points apart that no mass of the plan connects
        scaled = curvature / q[:, None] / q[None, :] + 1e-15 * np.eye(len(q))
        if self.rho == (math.inf, math.inf):
            # f + c, g - c is the same plan: lift that direction, which the gradient does not have
            null = q * np.repeat([1.0, -1.0], (len(self.a), len(self.b)))
            scaled += np.outer(null, null) / (null @ null)
        return np.asarray(np.linalg.solve(scaled, gradient / q) / q)

    def _search(self, z: Array, step: Array, slope: float) -> Array:
        """Return the first of z + step, z + step / 2, ... that raises the dual enough."""
        floor = self._value(z) - 1e-14
        length = min(1.0, 5.0 / (float(np.abs(step).max()) + 1e-300))
        while length > 1e-3 and self._value(z + length * step) < floor + 0.1 * length * slope:
            length /= 2
        return np.asarray(z + length * step)

    def _annealed(self) -> Array:
        """Return z after Sinkhorn steps at falling reg."""
        f, g = np.zeros_like(self.a), np.zeros_like(self.b)
        spread = np.ptp(self.C[np.isfinite(self.C)]) if np.isfinite(self.C).any() else 0.0
        for k in range(max(0, math.ceil(math.log2(spread / self.reg + 1e-300))), -1, -1):
            reg = self.reg * 2**k
            kappa_a, kappa_b = (1.0 if math.isinf(r) else r / (r + reg) for r in self.rho)
            for _ in range(30):
                s = g[None, :] / reg - self.C / reg
                f = -reg * kappa_a * _log_sum(s + np.log(self.b)[None, :], 1)
                s = f[:, None] / reg - self.C / reg
                g = -reg * kappa_b * _log_sum(s + np.log(self.a)[:, None], 0)
        start: Array = np.concatenate([f, g]) / self.reg
        return start


def _log_sum(s: Array, axis: int) -> Array:
    """Return log sum exp along an axis that has a finite entry."""
    peak = s.max(axis=axis, keepdims=True)
    return np.asarray(np.squeeze(peak, axis) + np.log(np.exp(s - peak).sum(axis=axis)))
