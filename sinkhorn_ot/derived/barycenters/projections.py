"""Bregman projections for all histograms at once: a sweep over the shared cost, then a consensus.

Let s_k be the column sums of histogram k's plan, whose rows are exact, and psi_k its scaled column
potential. A plain step makes all column sums their weighted geometric mean q, as the step of a
solve makes them the marginal that is given: psi_k += log q - log s_k.

Sources: J.-D. Benamou, G. Carlier, M. Cuturi, L. Nenna, G. Peyre, Iterative Bregman projections for
regularized transportation problems, SIAM J. Sci. Comput. 2015, proposition 2; debiased H. Janati,
M. Cuturi, A. Gramfort, Debiased Sinkhorn barycenters, ICML 2020, algorithm 1.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, shown
from sinkhorn_ot.results import Status
from sinkhorn_ot.solvers import Anderson, Anneal, Iterate
from sinkhorn_ot.sweeps import Sweep, exp_


# sweeps without progress after which what has not arrived is given up
_PATIENCE = 300
# an error from which nothing can be told
_MOST = 1e30
_ANNEAL = Anneal()
# potentials of one barycentre, of those that there are, which say how to mix steps, at most
_SAMPLE = 1 << 14


@shown
@dataclass(frozen=True, eq=False)
class Found:
    """Where projections ended, for G barycentres of k histograms each.

    Attributes:
        u: Scaled row potentials, (G * k, n).
        psi: Scaled column potentials, (G, k, m).
        log_q: Logarithm of the barycentre, (G, m).
        errors: How far column sums are from it, in L1, relative to the mass, (G, k).
        error: The largest of these, and of what a debiased one misses besides, (G,).
        n_iter: Sweeps that each took, (G,).
        status: How each ended.
    """

    u: Tensor
    psi: Tensor
    log_q: Tensor
    errors: Tensor
    error: Tensor
    n_iter: Tensor
    status: list[Status]


@shown
@dataclass(frozen=True, eq=False)
class Look:
    """What a sweep shows: the answer of the rows, what a plain step would add, and errors."""

    u: Tensor
    residual: Tensor
    log_q: Tensor
    errors: Tensor
    error: Tensor


@shown
@dataclass(frozen=True, eq=False)
class Level:
    """Barycentres at one reg.

    Attributes:
        sweep: Sweeps the problems of all histograms, (G * k), whose columns are free.
        own: Sweeps the problem of each barycentre with itself, (G,); None unless debiased.
        w: Weights of the histograms, (G, k), that sum to one.
    """

    sweep: Sweep
    own: Sweep | None
    w: Tensor

    @property
    def problem(self) -> Problem:
        """The problem of every histogram."""
        return self.sweep.problem

    def at(self, factor: float) -> "Level":
        """Return the same at a multiple of reg."""
        own = self.own and self.own.at(self.own.problem.reg * factor)
        return Level(self.sweep.at(self.problem.reg * factor), own, self.w)

    def look(self, psi: Tensor, u: Tensor | None) -> Look:
        """Sweep at psi (G, k, m)."""
        u, log_s = self.sweep.sweep(u, psi.flatten(0, 1))
        log_s = log_s.view_as(psi)
        log_q = self.consensus(log_s)
        mass = self.problem.a.sum(-1).view_as(self.w)
        q = log_q.exp()
        off = exp_(log_s.clone()).sub_(q[:, None])
        errors = torch.linalg.vector_norm(off, 1, dim=-1) / mass
        residual = torch.sub(log_q[:, None], log_s, out=log_s)
        error = errors.amax(-1)
        if self.own is not None:
            # q = d * K d, where log d is the consensus of psi
            log_d = self.consensus(psi)
            mirrored = log_d + self._answer(self.own, log_d)
            residual += (log_q - mirrored)[:, None] / 2
            error = torch.maximum(error, (mirrored.exp() - q).abs().sum(-1) / mass[:, 0])
        # what is no number is an error that a step takes back
        error = error.nan_to_num(nan=_MOST, posinf=_MOST)
        return Look(u, residual, log_q, errors, error)

    def consensus(self, t: Tensor) -> Tensor:
        """Return the weighted mean of t (G, k, m) over histograms, (G, m)."""
        return torch.matmul(self.w[:, None], t)[:, 0]

    @staticmethod
    def _answer(own: Sweep, log_d: Tensor) -> Tensor:
        """Return log K d."""
        u, _ = own.sweep(None, log_d)
        return own.problem.a.log() - u


def project(level: Level, psi: Tensor | None, tol: float, max_iter: int) -> Found:
    """Project until all barycentres are within tol, or no more may or can be done.

    Args:
        level: The barycentres at the wanted reg.
        psi: Column potentials to start from, (G, k, m); they replace the annealing.
        tol: Error to reach.
        max_iter: Sweeps allowed.
    """
    p, factors, used = level.problem, [1.0], 0
    if psi is None:
        psi = p.a.new_zeros(*level.w.shape, p.shape[2])
        spread = p.bounds.high - p.bounds.low
        factors = _ANNEAL.stages(spread, p.least_reg)[-max_iter:]
    for k, factor in enumerate(factors[:-1]):
        most = min(max_iter - (len(factors) - k - 1), used + _ANNEAL.max_iter)
        run = Run(level.at(factor), psi, used).until(_ANNEAL.tol, most)
        # potentials keep their units while reg shrinks
        psi, used = run.psi * (factor / factors[k + 1]), run.used
    return Run(level, psi, used).until(tol, max_iter).found(tol)


class Run:
    """Projections at one reg."""

    def __init__(self, level: Level, psi: Tensor, used: int) -> None:
        self.psi, self.used = psi, used
        self._level = level
        self._n_iter = torch.full_like(level.w[:, 0], math.inf)

    def until(self, tol: float, max_iter: int) -> "Run":
        """Project until every error is within tol, or no more may or can be done."""
        look = self._looked(None, tol)
        # columns weigh what they carry, and histograms alike: those of no weight have plans too
        weight = look.log_q.exp()[:, None].expand_as(self.psi).flatten(1)
        steps = Anderson().start(weight / weight.sum(-1, keepdim=True), self._every)
        best, since = math.inf, self.used
        while True:
            worst = float(look.error.amax())
            if worst < 0.999 * best:
                best, since = worst, self.used
            self._stalled = self.used - since >= _PATIENCE
            arrived = worst <= tol
            if arrived or self._stalled or self.used >= max_iter:
                self._look = look
                return self
            joined = (self.psi.flatten(1), look.residual.flatten(1), look.error, look.u)
            self.psi = steps(Iterate(*joined, self._level.sweep)).view_as(self.psi)
            look = self._looked(look.u, tol)

    @property
    def _every(self) -> int:
        """How far apart potentials of a sample are, so that all points have their turn."""
        m = self.psi.shape[2]
        least = math.ceil(self.psi[0].numel() / _SAMPLE)
        return next(step for step in itertools.count(least) if math.gcd(step, m) == 1)

    def _looked(self, u: Tensor | None, tol: float) -> Look:
        look = self._level.look(self.psi, u)
        self.used += 1
        arrived = (look.error <= tol) & (self._n_iter == math.inf)
        self._n_iter = torch.where(arrived, float(self.used), self._n_iter)
        return look

    def found(self, tol: float) -> Found:
        """Return what was reached."""
        look, missed = self._look, Status.STALLED if self._stalled else Status.MAX_ITER
        status = [
            Status.CONVERGED if off <= tol else missed if off < _MOST else Status.NOT_FINITE
            for off in look.error.tolist()
        ]
        n_iter = self._n_iter.clamp(max=self.used).to(torch.int64)
        return Found(look.u, self.psi, look.log_q, look.errors, look.error, n_iter, status)
