"""Newton's steps on the semi-dual, for accuracy and for small reg.

With the rows exact, the column potentials minimise the convex F(psi) = sum_i a_i L_i - <b, psi>,
L_i = log sum_j exp(psi_j + log b_j - C_ij / reg), whose gradient is the column sums minus b and
whose Hessian is the graph Laplacian of W = P^T diag(1 / a) P. Small problems factorise it; larger
ones solve with it by conjugate gradients, one sweep's work a product.

A Laplacian is used because its diagonal, sum_k W_jk over k != j, loses no digits, where
diag(P^T 1) - W cancels as the plan nears a permutation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks

from .acceleration import Acceleration, Anderson, Iterate, Steps, needs_exact
from .state import State, pick


# entries of Hessians held at once; more problems than fit go by conjugate gradients
_HESSIANS = 1 << 26
# what is added to the diagonal of a Hessian, relative to b
JOINED = 1e-12


@dataclass(frozen=True)
class Newton:
    """Guarded Newton's method on the semi-dual. Needs exact marginals.

    Source: the semi-dual as in M. Cuturi, G. Peyre, Semidual regularized optimal transport, SIAM
    Review 2018; the truncated Newton method as in S. Nash, A survey of truncated-Newton methods,
    2000.

    Args:
        direct: Most columns whose Hessian is factorised; above it, conjugate gradients.
        cap: Largest change of a scaled potential in one step, doubled while such steps go well.
        cg_iter: Products at most in one step's conjugate gradients.
    """

    needs_exact: ClassVar[bool] = True

    direct: int = 320
    cap: float = 6.0
    cg_iter: int = 200

    def __post_init__(self) -> None:
        checks.count("direct", self.direct, at_least=0)
        checks.positive("cap", self.cap)
        checks.count("cg_iter", self.cg_iter)

    def start(self, weight: Tensor) -> Steps:
        """Return a state that has made no step."""
        return _NewtonSteps(self, weight)


class _NewtonSteps(State):
    """Newton steps, each judged at the next call: one that raised F is taken back and shortened."""

    def __init__(self, options: Newton, b: Tensor) -> None:
        self._options, self._b = options, b
        one = b.new_zeros(b.shape[0])
        # where the last Newton step began and what it was; none has been made
        self._psi, self._residual, self._step = (torch.zeros_like(b) for _ in range(3))
        self._length, self._value, self._slope, self._error = (one.clone() for _ in range(4))
        self._cap = torch.full_like(one, options.cap)
        self._stepped = one > 0

    def __call__(self, at: Iterate) -> Tensor:
        value = semidual(at)
        slack = 1e-4 * self._length * self._slope + 1e-13 * value.abs()
        fine = (value <= self._value + slack) | (at.error <= 0.9 * self._error)
        failed = self._stepped & ~fine
        # a capped step that went well may be longer next time: prices far apart take many
        grown = pick(self._length < 1, 2 * self._cap, self._cap)
        shrunk = (0.3 * self._cap).clamp(min=self._options.cap)
        self._cap = pick(failed, shrunk, pick(self._stepped, grown, self._cap))
        self._length = pick(failed, 0.3 * self._length, self._length)
        given_up = failed & (self._length * self._step.abs().amax(-1) < 1e-3)
        # far from the solution a plain step follows every Newton step: it is the globaliser
        plain = self._stepped & ~failed & (at.error > 0.1)
        fresh = ~failed & ~plain
        if bool(fresh.any()):
            self._begin(at, value, fresh)
        origin = pick(plain | fresh, at.psi, self._psi)
        move = pick(plain, at.residual, self._length[:, None] * self._step)
        move = pick(given_up, self._residual, move)
        self._stepped = ~plain & ~given_up
        return origin + move

    def _begin(self, at: Iterate, value: Tensor, fresh: Tensor) -> None:
        """Take a new direction where `fresh`."""
        gradient = self._b * torch.expm1(-at.residual)
        step = self._direction(at, gradient)
        slope = (gradient * step).sum(-1)
        # rounding may leave no descent: a plain step always descends
        descends = (slope < 0) & torch.isfinite(step).all(-1)
        step = pick(descends, step, at.residual)
        slope = pick(descends, slope, (gradient * step).sum(-1))
        length = (self._cap / step.abs().amax(-1).clamp(min=1e-300)).clamp(max=1.0)
        self._psi = pick(fresh, at.psi, self._psi)
        self._residual = pick(fresh, at.residual, self._residual)
        self._step, self._length = pick(fresh, step, self._step), pick(fresh, length, self._length)
        self._value, self._slope = pick(fresh, value, self._value), pick(fresh, slope, self._slope)
        self._error = pick(fresh, at.error, self._error)

    def _direction(self, at: Iterate, gradient: Tensor) -> Tensor:
        """Return the solution x of Hessian x = -gradient, (B, m)."""
        v = at.psi + self._b.log()
        batch, m = self._b.shape
        if m <= self._options.direct and batch * m * m <= _HESSIANS:
            W = at.sweep.curve(at.u, v)
            return -solve_laplacian(W, gradient, self._b)
        mass = self._b + gradient

        def product(x: Tensor) -> Tensor:
            return mass * x - at.sweep.curve(at.u, v, x[:, :, None])[:, :, 0]

        target = at.error.sqrt().clamp(max=0.3)
        return -conjugate_gradients(product, mass, gradient, target, self._options.cg_iter)


def semidual(at: Iterate) -> Tensor:
    """Return F(psi) = sum_i a_i L_i - <b, psi>, (B,); L_i = log a_i - u_i where rows are exact."""
    p = at.sweep.problem
    rows = torch.where(p.a > 0, p.a * (p.a.log() - at.u), 0.0)
    return at.sweep.total(rows) - (p.b * at.psi).sum(-1)


def solve_laplacian(W: Tensor, right: Tensor, b: Tensor) -> Tensor:
    """Return x with (diag(W 1) - W) x = right and <b, x> = 0, for right that sums to zero, (B, m).

    The diagonal of W is not read. What joins the parts of a graph may be lost to rounding, and the
    constant is without any: next to nothing of b, (B, m), gives each a direction.
    """
    M = -W
    diagonal = M.diagonal(dim1=-2, dim2=-1)
    diagonal.zero_()
    degree = JOINED * b - M.sum(-1)
    # a point without links and weight gets zero
    diagonal.copy_(torch.where(degree > 0, degree, 1.0))
    factor, info = torch.linalg.cholesky_ex(M)
    x = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
    # a constant means nothing, and rounding would decide it
    x = x - (b * x).sum(-1, keepdim=True) / b.sum(-1, keepdim=True)
    return x.masked_fill((info != 0)[:, None], math.nan)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    diagonal: Tensor,
    right: Tensor,
    target: Tensor,
    most: int,
) -> Tensor:
    """Return x with product(x) about right, by conjugate gradients preconditioned by a diagonal.

    Each problem of the batch stops by itself, once its preconditioned residual has fallen to
    `target` of what it was.
    """
    inverse = torch.where(diagonal > 0, 1 / diagonal.clamp(min=1e-300), 0.0)
    x, residual = torch.zeros_like(right), right
    z = inverse * residual
    direction, rho = z, (residual * z).sum(-1)
    goal, running = target.square() * rho, rho > 0
    for _ in range(most):
        if not bool(running.any()):
            break
        image = product(direction)
        curvature = (direction * image).sum(-1)
        running = running & (curvature > 0)
        length = torch.where(running, rho / curvature, 0.0)[:, None]
        x, residual = x + length * direction, residual - length * image
        z = inverse * residual
        after = (residual * z).sum(-1)
        direction = z + (after / rho.clamp(min=1e-300))[:, None] * direction
        running, rho = running & (after > goal), after
    return x


@dataclass(frozen=True)
class Switch:
    """Anderson's steps until they crawl, then Newton's, from where they are.

    Args:
        first: Steps to begin with.
        second: Steps to end with.
        window: Steps over which the error's fall is measured.
        fall: Factor by which the error must fall over a window for the first steps to go on.
    """

    first: Acceleration = Anderson()
    second: Acceleration = Newton()
    window: int = 16
    fall: float = 10.0

    def __post_init__(self) -> None:
        checks.count("window", self.window)
        checks.positive("fall", self.fall)

    @property
    def needs_exact(self) -> bool:
        """Whether one of the two serves exact marginals only."""
        return needs_exact(self.first) or needs_exact(self.second)

    def start(self, weight: Tensor) -> Steps:
        """Return a state that makes the first kind of steps."""
        return _SwitchSteps(self, weight)


class _SwitchSteps(State):
    def __init__(self, options: Switch, weight: Tensor) -> None:
        self._options, self._weight = options, weight
        self._steps = options.first.start(weight)
        self._count, self._switched = 0, False
        self._best = self._mark = weight.new_full(weight.shape[:1], math.inf)

    def __call__(self, at: Iterate) -> Tensor:
        self._count += 1
        self._best = torch.minimum(self._best, at.error)
        if not self._switched and self._count % self._options.window == 0:
            crawls = self._best * self._options.fall > self._mark
            self._mark = self._best
            if bool(crawls.any()):
                self._switched = True
                self._steps = self._options.second.start(self._weight)
        return self._steps(at)
