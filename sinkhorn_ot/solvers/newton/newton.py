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
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks, shown
from sinkhorn_ot.solvers.acceleration import Acceleration, Anderson, Iterate, Steps, needs_exact
from sinkhorn_ot.solvers.state import State, holdable, pick
from sinkhorn_ot.sweeps import Gathers, Sparse, Sweep, Thins

from .laplacian import (
    JOINED,
    by_diagonal,
    conjugate_gradients,
    factorised,
    solve_laplacian,
    solve_sparse,
)
from .levels import Levels


# entries of Hessians held at once; more problems than fit go by conjugate gradients
_HESSIANS = 1 << 26
# columns per product of conjugate gradients that a factorisation costs
_FACTOR = 16
# products that one costs together with a solve by a factor
_SOLVE = 4
# share of the pairs up to which products alone are cheaper than those with a factor
_CHEAP = 0.25
# change of a scaled potential in one step, beyond which no kernel is of use
_LONGEST = 40.0
# residual that is small enough of a direction
_TARGET = 0.1
# share of the hoped-for fall below which a step is taken back; shares that change the damping
_LEAST, _POOR, _GOOD = 1e-2, 0.25, 0.7
# what damping is multiplied by after steps taken back, poor and good ones, and where it ends
_BACK, _MORE, _LESS, _MOST = 8.0, 4.0, 0.2, 1e3
# change of a scaled potential, and error, from which plain steps come first; how many in a row
_FAR, _WRONG, _PLAIN = 1.0, 0.5, 3


@holdable
@dataclass(frozen=True)
class Newton:
    """Damped Newton's method on the semi-dual. Needs exact marginals.

    What nearly falls into parts has a Hessian that is nearly singular, and a step that goes far too
    far along what joins them. A multiple of the column sums on the diagonal holds it back: less
    while steps lead where the quadratic model says, more where they do not. So conjugate gradients
    need few products until the end, and what needs many is factorised.

    Source: the semi-dual as in M. Cuturi, G. Peyre, Semidual regularized optimal transport, SIAM
    Review 2018; the damping of K. Levenberg 1944 and D. Marquardt 1963, in the trust-region view of
    J. J. More, The Levenberg-Marquardt algorithm, 1978; the truncated Newton method as in S. Nash,
    A survey of truncated-Newton methods, 2000.

    Args:
        direct: Most columns whose Hessian is factorised without trying conjugate gradients.
        damping: Share of the column sums added to the Hessian's diagonal in the first step.
        cg_iter: Products at most in one step's conjugate gradients, were each with all pairs.
    """

    needs_exact: ClassVar[bool] = True

    direct: int = 320
    damping: float = 0.01
    cg_iter: int = 200

    def __post_init__(self) -> None:
        checks.count("direct", self.direct, at_least=0)
        checks.positive("damping", self.damping)
        checks.count("cg_iter", self.cg_iter)

    def start(self, weight: Tensor) -> Steps:
        """Return a state that has made no step."""
        return _NewtonSteps(self, weight)


@holdable
@shown
class _Origin(NamedTuple):
    """Where a Newton step starts from: what a plain step would do there, and the value."""

    psi: Tensor
    residual: Tensor
    error: Tensor
    u: Tensor
    value: Tensor


class _NewtonSteps(State):
    """Steps from the best point so far, each judged at the next call.

    One that leads too far is tried again shortened, then with more damping.
    """

    def __init__(self, options: Newton, b: Tensor) -> None:
        self._options, self._b = options, b
        one = b.new_zeros(b.shape[0])
        self._damping = torch.full_like(one, options.damping)
        # the last step, its largest change, the fall hoped for, and plain steps in a row
        self._step, self._longest = torch.zeros_like(b), one
        self._hoped, self._plain = one, one
        self._stepped = self._shortened = one > 0
        self._origin: _Origin | None = None
        # of the last Hessians that were factorised, and of whom they are
        self._factor: Tensor | None = None
        self._held = self._stepped

    def __call__(self, at: Iterate) -> Tensor:
        here = _Origin(at.psi, at.residual, at.error, at.u, semidual(at))
        before = self._origin or here
        back = self._judge(before, here)
        origin = _Origin(*(pick(back, a, b) for a, b in zip(before, here, strict=True)))
        self._origin = origin
        # far from the solution plain steps come first: they are the globaliser
        far = (origin.residual.abs().amax(-1) >= _FAR) | (origin.error >= _WRONG)
        plain = ~back & far & (self._plain < _PLAIN)
        self._plain = torch.where(plain, self._plain + 1, torch.where(back, self._plain, 0.0))
        shorter = back & ~self._shortened & (self._longest > _FAR)
        fresh = ~plain & ~shorter
        if bool(fresh.any()):
            step, hoped = self._newton(at.sweep, origin)
            # rounding may leave no descent, and damping no step: a plain step always descends
            lost = ~(hoped > 0) | ~torch.isfinite(step).all(-1) | (self._damping > _MOST)
            lost &= fresh
            self._damping = torch.where(lost, self._options.damping, self._damping)
            plain |= lost
            self._step = pick(fresh, step, self._step)
            self._hoped = torch.where(fresh, hoped, self._hoped)
        longest = self._step.abs().amax(-1)
        # links that are too weak grow exponentially along a step
        self._longest = torch.where(shorter, longest.log1p(), longest.clamp(max=_LONGEST))
        share = torch.where(longest > self._longest, self._longest / longest, 1.0)
        self._step, self._hoped = self._step * share[:, None], self._hoped * share * (2 - share)
        self._stepped, self._shortened = ~plain, shorter
        return origin.psi + pick(plain, origin.residual, self._step)

    def _judge(self, before: _Origin, here: _Origin) -> Tensor:
        """Say which steps are taken back, (B,), and damp the next by what came of the last."""
        fall, noise = before.value - here.value, 1e-13 * here.value.abs()
        better, known = here.error <= 0.5 * before.error, self._hoped > 10 * noise
        better &= fall >= -noise
        good = better | (known & (fall >= _GOOD * self._hoped))
        poor = known & ~better & (fall < _POOR * self._hoped)
        # where the fall is rounding, only the error can tell
        bad = torch.where(known, fall < _LEAST * self._hoped, here.error > 2 * before.error)
        back = self._stepped & ~better & bad
        change = torch.where(poor | self._shortened, _MORE, torch.where(good, _LESS, 1.0))
        # who goes back is first tried shortened, if that is shorter
        again = self._shortened | (self._longest <= _FAR)
        change = torch.where(back, torch.where(again, _BACK, 1.0), change)
        self._damping = self._damping * torch.where(self._stepped, change, 1.0)
        return back

    def _newton(self, sweep: Sweep, at: _Origin) -> tuple[Tensor, Tensor]:
        """Return x with (Hessian + damping) x = -gradient, (B, m), and the hoped-for fall, (B,)."""
        gradient = self._b * torch.expm1(-at.residual)
        mass, v = self._b + gradient, at.psi + self._b.log()
        # a column that lacks nearly all of its mass would go far without it
        damping = self._damping[:, None] * torch.maximum(mass, self._b)
        step, arrived = torch.zeros_like(gradient), torch.zeros_like(self._stepped)
        large = not self._fits or self._b.shape[1] > self._options.direct
        if large and (found := self._sparsely(sweep, at, damping, gradient)) is not None:
            step, arrived = found, torch.isfinite(found).all(-1)
        elif large:
            share = sweep.share(v) if isinstance(sweep, Thins) else 1.0
            held = self._held & (share > _CHEAP)
            # a step needs few digits
            rough = sweep.rough_product if isinstance(sweep, Gathers) else sweep.curve_product
            times = rough(at.u, v)
            step, arrived = conjugate_gradients(
                lambda x: (mass + damping) * x - times(x),
                self._grouped(sweep, at.u, v, mass, damping) or self._inverse(mass + damping, held),
                -gradient,
                at.error.sqrt().clamp(max=_TARGET),
                self._products(share, held),
            )
        if self._fits and not bool(arrived.all()):
            factor = factorised(sweep.curve(at.u, v), JOINED * self._b + damping)
            step = pick(arrived, step, solve_laplacian(factor, -gradient, self._b))
            # what was not positive definite serves nobody
            self._held = pick(arrived, self._held, torch.isfinite(factor[:, -1, -1]))
            if self._factor is not None and bool(arrived.any()):
                factor = torch.where(arrived[:, None, None], self._factor, factor)
            self._factor = factor
        hoped = 0.5 * ((damping * step.square()).sum(-1) - (gradient * step).sum(-1))
        return step, hoped

    def _sparsely(
        self, sweep: Sweep, at: _Origin, damping: Tensor, gradient: Tensor
    ) -> Tensor | None:
        """Return the step where the Hessian is sparse, (1, m)."""
        v = at.psi + self._b.log()
        found = sweep.sparse_curve(at.u, v) if isinstance(sweep, Sparse) else None
        if found is None:
            return None
        W, order = found
        ends = (JOINED * self._b + damping, -gradient, self._b)
        step = torch.zeros_like(gradient)
        step[0, order] = solve_sparse(W, *(x[0, order] for x in ends))
        return step

    def _grouped(
        self, sweep: Sweep, u: Tensor, v: Tensor, mass: Tensor, damping: Tensor
    ) -> Levels | None:
        """Return about the inverse of a Hessian by groups of columns, where a sweep has some."""
        found = sweep.gathered_curve(u, v) if isinstance(sweep, Gathers) else None
        return found and Levels(*found, self._b, mass, damping)

    def _inverse(self, diagonal: Tensor, held: Tensor) -> Callable[[Tensor], Tensor]:
        """Return about the inverse of a Hessian: by the last factor where `held`, or a diagonal."""
        divide, factor = by_diagonal(diagonal), self._factor
        if factor is None or not bool(held.any()):
            return divide
        return lambda x: pick(held, torch.cholesky_solve(x[:, :, None], factor)[:, :, 0], divide(x))

    @property
    def _fits(self) -> bool:
        batch, m = self._b.shape
        return batch * m * m <= _HESSIANS

    def _products(self, share: float, held: Tensor) -> Tensor:
        """Return most products of a step, (B,): of the cost of a factorisation, if one may."""
        most, m = round(self._options.cg_iter / share), round(self._b.shape[1] / share)
        few = (1 + m // _FACTOR, 1 + m // (_FACTOR * _SOLVE)) if self._fits else (most, most)
        alone, with_factor = (torch.full_like(self._plain, min(most, k)) for k in few)
        return torch.where(held, with_factor, alone)


def semidual(at: Iterate) -> Tensor:
    """Return F(psi) = sum_i a_i L_i - <b, psi>, (B,); L_i = log a_i - u_i where rows are exact."""
    p = at.sweep.problem
    rows = torch.where(p.a > 0, p.a * (p.a.log() - at.u), 0.0)
    return at.sweep.total(rows) - (p.b * at.psi).sum(-1)


@holdable
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
    window: int = 8
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

    @property
    def heir(self) -> Acceleration:
        """What a next stage had better begin with: what crawled at one reg crawls at a smaller."""
        return self._options.second if self._switched else self._options

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
