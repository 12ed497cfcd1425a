"""What a plan on the entropic path costs, how far it is from independence, and how both move.

The path is P(theta), theta = 1 / reg. With x (+) y the sum of a row and a column function that is
closest to C in the weights of P, potentials in units of reg move as x and y, the divergence as
theta times the variance of C - x (+) y, and the cost as minus that variance (docs/maths.md).
Costs count here from the problem's shift and in its unit, so that their squares are numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sinkhorn_ot.problem import Index, Problem, blocks, shown
from sinkhorn_ot.solvers import (
    JOINED,
    Newton,
    by_diagonal,
    conjugate_gradients,
    factorised,
    solve_laplacian,
)
from sinkhorn_ot.sweeps import choose, weightless


# columns up to which the system for y is factorised
_DIRECT = Newton().direct
# entries of plans looked at together: as many problems as fit in cache
_HELD = 1 << 17
# otherwise: how far its residual falls, which counts squared, and in how many products
_TARGET, _PRODUCTS = 1e-3, 60
# how far a scaled potential is moved in one step
_LONGEST = 3.0


@shown
@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of a flat batch of plans whose masses are one and whose rows are exact.

    Attributes:
        theta: unit / reg, (B,).
        u: Row potentials f / reg + log a, (B, n), which make the rows exact.
        v: Column potentials g / reg + log b, (B, m).
        cost: <P, C>, (B,), corrected for what columns miss, to second order.
        kl: KL(P | a b^T), (B,), corrected likewise.
        variance: sum P (C - x (+) y)^2, (B,).
        drift: y, how g / reg moves with theta, (B, m).
        mend: What Newton's method adds to v for the columns, (B, m).
        error: L1 error of the columns, and of rows that underflow, (B,).
        doubt: Size of what the corrections leave, of kl and of theta times cost, (B,).
        work: Sweeps' worth of work.
    """

    theta: Tensor
    u: Tensor
    v: Tensor
    cost: Tensor
    kl: Tensor
    variance: Tensor
    drift: Tensor
    mend: Tensor
    error: Tensor
    doubt: Tensor
    work: int


def unit(p: Problem) -> float:
    """Return the size of the largest cost, from the problem's shift."""
    return max(abs(p.bounds.low - p.shift), abs(p.bounds.high - p.shift)) or 1.0


def at(p: Problem, theta: Tensor) -> Problem:
    """Return the problem at reg = unit / theta."""
    return p.at(unit(p) / theta)


def measure(p: Problem, theta: Tensor, u: Tensor, v: Tensor) -> Moments:
    """Make the rows of exp(u + v - theta C) exact, and tell what is known of the plan."""
    batch, n, m = p.shape
    step = max(1, _HELD // (n * m))
    if step >= batch:
        return _measured(p, theta, u, v)
    parts = [
        _measured(p.select(some), theta[some], u[some], v[some])
        for some in torch.split(torch.arange(batch, device=theta.device), step)
    ]
    tensors = [f.name for f in fields(Moments) if f.name != "work"]
    return Moments(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in tensors},
        work=max(part.work for part in parts),
    )


def _measured(p: Problem, theta: Tensor, u: Tensor, v: Tensor) -> Moments:
    psi = weightless(v, p.b.log())
    s = _summed(p, theta, weightless(u, p.a.log()), psi)
    miss, u = p.b - s.columns, s.phi + p.a.log()
    if s.W is not None:
        factor = factorised(s.W, JOINED * p.b)
        y, mend = (solve_laplacian(factor, t, p.b) for t in (s.right, miss))
        products = 0
    else:
        y, mend, products = _by_products(at(p, theta), u, v, s.columns, s.right)
    y, mend = (torch.where(torch.isfinite(t), t, 0.0) for t in (y, mend))
    # a row whose sum underflows stays empty
    lacking = (p.a.sum(-1) - s.columns.sum(-1)).abs()
    error, furthest = miss.abs().sum(-1) + lacking, mend.abs().amax(-1)
    return Moments(
        theta=theta,
        u=u,
        v=v,
        cost=s.cost + (y * miss).sum(-1),
        kl=s.kl + ((psi - theta[:, None] * y) * miss).sum(-1),
        variance=(s.variance - (y * s.right).sum(-1)).clamp(min=0.0),
        drift=y,
        # of a long step only the direction is good
        mend=mend * (_LONGEST / furthest.clamp(min=_LONGEST))[:, None],
        error=error,
        doubt=error * furthest,
        work=2 + products,
    )


@shown
class _Sums(NamedTuple):
    """Sums over the entries of plans with exact rows.

    Attributes:
        phi: f / reg that makes them exact, (B, n).
        columns: P^T 1, (B, m).
        right: Columns of P times C less its mean in each row, (B, m).
        cost: <P, C>, (B,).
        kl: KL(P | a b^T), (B,).
        variance: sum P (C - its mean in each row)^2, (B,).
        W: P^T diag(1 / a) P, (B, m, m), or None if that is too large.
    """

    phi: Tensor
    columns: Tensor
    right: Tensor
    cost: Tensor
    kl: Tensor
    variance: Tensor
    W: Tensor | None


def _summed(p: Problem, theta: Tensor, phi: Tensor, psi: Tensor) -> _Sums:
    """Make the rows exact, and sum."""
    batch, _, m = p.shape
    W = p.b.new_zeros((batch, m, m)) if m <= _DIRECT else None
    columns, right = torch.zeros_like(p.b), torch.zeros_like(p.b)
    cost, kl, variance = (torch.zeros_like(theta) for _ in range(3))
    for rows, C in _costs(p):
        a = p.a[:, rows, None]
        base = a * p.b[:, None, :]
        log_ratio = phi[:, rows, None] + psi[:, None, :] - _times(p, theta, C)
        # pairs without weight have any ratio, and one out of range times none is no number
        empty = None if bool((base > 0).all()) else base == 0
        log_ratio = _without(empty, log_ratio)
        mass = (base * log_ratio.exp()).sum(-1, keepdim=True)
        lift = torch.where(mass > 0, a / mass, 1.0).log()
        phi[:, rows] += lift[..., 0]
        log_ratio = _without(empty, log_ratio + lift)
        ratio = log_ratio.exp()
        # term by term: none is negative, and the digits of small ones are kept
        kl += (base * (_finite(p, log_ratio) * ratio - log_ratio.expm1())).sum((-2, -1))
        P, C = base * ratio, _finite(p, C)
        mean = torch.where(a > 0, (P * C).sum(-1, keepdim=True) / a, 0.0)
        cost += (a * mean).sum((-2, -1))
        C = C - mean
        weighted = P * C
        columns += P.sum(-2)
        right += weighted.sum(-2)
        variance += (weighted * C).sum((-2, -1))
        if W is not None:
            root = P * torch.where(a > 0, a, 1.0).rsqrt()
            W += root.mT @ root
    return _Sums(phi, columns, right, cost, kl, variance, W)


def _without(empty: Tensor | None, log_ratio: Tensor) -> Tensor:
    return log_ratio if empty is None else log_ratio.masked_fill(empty, 0.0)


def independent(p: Problem) -> Moments:
    """Return what is known of a b^T, where no pair is forbidden; theta = 0."""
    none, zero = torch.zeros_like(p.reg), torch.zeros_like(p.b)
    m = Moments(none, p.a.log(), p.b.log(), none, none, none, zero, zero, none, none, 0)
    return settled(p, m)


def settled(p: Problem, m: Moments) -> Moments:
    """Return the same with cost, variance and drift in all digits, by two projections.

    A factorised system leaves some: where the cost is almost x (+) y, its variance would be those.
    """
    y, cost, variance = m.drift, m.cost, m.variance
    for _ in range(2):
        cost, variance = torch.zeros_like(cost), torch.zeros_like(cost)
        columns, right = torch.zeros_like(p.b), torch.zeros_like(p.b)
        for rows, C in _costs(p):
            a = p.a[:, rows, None]
            P = (m.u[:, rows, None] + m.v[:, None, :] - _times(p, m.theta, C)).exp()
            C = _finite(p, C)
            cost += (P * C).sum((-2, -1))
            D = C - y[:, None, :]
            D = D - torch.where(a > 0, (P * D).sum(-1, keepdim=True) / a, 0.0)
            weighted = P * D
            columns += P.sum(-2)
            right += weighted.sum(-2)
            variance += (weighted * D).sum((-2, -1))
        y = y + torch.where(columns > 0, right / columns, 0.0)
    return replace(m, cost=cost, variance=variance, drift=y, work=m.work + 2)


def _costs(p: Problem) -> Iterator[tuple[Index, Tensor]]:
    """Yield rows of the costs from the shift, in the unit; what is little comes at once."""
    batch, n, m = p.shape
    for rows, C in blocks(p.cost, 1 if batch * n * m <= _HELD else batch, p.work):
        yield rows, (C - p.shift) / unit(p)


def _times(p: Problem, theta: Tensor, C: Tensor) -> Tensor:
    """Return theta C, (B, rows, m); a forbidden pair is one at theta = 0 too."""
    scaled = theta[:, None, None] * C
    return torch.where(torch.isinf(C), C, scaled) if p.bounds.forbids else scaled


def _finite(p: Problem, t: Tensor) -> Tensor:
    """Return numbers of pairs, with zero at those that carry nothing."""
    return torch.where(torch.isfinite(t), t, 0.0) if p.bounds.forbids else t


def _by_products(
    p: Problem, u: Tensor, v: Tensor, columns: Tensor, right: Tensor
) -> tuple[Tensor, Tensor, int]:
    """Return drift and mend by conjugate gradients, and how many products they took."""
    sweep, count = choose(p, 1e-9), 0
    # builds the kernel, where one is kept
    sweep.sweep(u, v)

    times = sweep.curve_product(u, v)

    def product(x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return columns * x - times(x)

    target, most = (torch.full_like(p.reg, t) for t in (_TARGET, _PRODUCTS))
    y, mend = (
        conjugate_gradients(product, by_diagonal(columns), t, target, most)[0]
        for t in (right, p.b - columns)
    )
    return y, mend, count
