"""One stage of a small problem beside penalties of any kind: plain and Newton's steps, at one reg.

A plain step answers column potentials psi by T(psi), each side by its penalty. Newton's step solves
(I - T') d = T(psi) - psi, with T' = K diag(1 / s) P^T H diag(1 / r) P, where H and K are how much
rows and columns answer of what they lack: all where no penalty holds them, nothing at a bound. It
is semismooth, hence guarded: where it does not lead up the dual it is damped, as by Levenberg and
Marquardt, and where that is in vain plain steps follow.

Source: L. Qi, J. Sun, A nonsmooth version of Newton's method, Math. Programming 1993.
"""

import math

import numpy as np
import torch

from sinkhorn_ot.problem import KL, Problem
from sinkhorn_ot.results import Scaled
from sinkhorn_ot.solvers.steps import shared

from .scaling import NORMAL
from .systems import Array, divided


# the least exponent that a kernel holds, and how far from its middle potentials may be
_FLOOR, _FAR = -340.0, 140.0
# plain steps that take about as long as one of Newton's, and columns for each of which it is longer
_SOON, _COLUMNS = 6, 20
# how far a step of Newton's may go, and how often it is held back more before plain ones follow
_CAP, _TRIALS = 30.0, 4
# passes that a stage may take
_PASSES = 200
# what is added to a matrix that may be singular: at least, after a step that led down, and by what
# factor less after each that did not
_RIDGE, _HELD_BACK, _EASED = 1e-13, 1e-6, 3.0
# a difference of logarithms that tells a slope
_STEP = 1e-5
# share of a column that pairs which the kernel dropped may have
_DROPPED = 1e-12


class Proximal:
    """A problem at one reg: the kernel exp((shift - C) / reg + psi + log b - top), scaled."""

    def __init__(self, p: Problem, C: Array, psi: Array, room: Array) -> None:
        """Begin.

        Args:
            p: The problem at this reg, all of whose points have weight.
            C: Its costs, (n, m).
            psi: Column potentials to start from, in units of reg, (m,).
            room: Where the kernel may be, (n, m).
        """
        self.p, self.C, self.K, self.reg = p, C, room, p.reg[:, None]
        self.a, self.b = p.a.numpy()[0], p.b.numpy()[0]
        self.log_b, self.alpha = np.log(self.b), 1 / p.least_reg
        self.sides = [
            penalty or KL(self.reg.new_full((1, 1), rho))
            for penalty, rho in zip(p.penalties, p.relax, strict=True)
        ]
        self.passes, self.newton, self.ridge, self.best = 0, False, _RIDGE, math.inf
        self.build(psi)
        self.look(psi)

    def build(self, base: Array) -> None:
        """Exponentiate around column potentials, whose scaling becomes one."""
        S = np.subtract(self.p.shift, self.C, out=self.K)
        S *= self.alpha
        S += base + self.log_b
        self.base, self.top = base, S.max(1)
        S -= self.top[:, None]
        self.whole = bool(S.min() > _FLOOR)
        np.maximum(S, _FLOOR, out=S)
        np.exp(S, out=S)

    def look(self, psi: Array) -> None:
        """Answer psi by the rows, that by the columns, and see how far both are apart."""
        if not np.abs(psi - self.base).max() <= _FAR:
            self.build(psi)
        self.psi, self.x = psi, np.exp(psi - self.base)
        r = self.K.dot(self.x)
        self.log_r = np.log(r) + self.top
        self.phi = self._answer(0, self.log_r)
        self.given = self.a * np.exp(self.phi + self.log_r)
        self.y = self.given / r
        self.taken = self.x * self.y.dot(self.K)
        self.log_s = np.log(self.taken) - self.log_b - psi
        self.moved = self._answer(1, self.log_s)
        self.residual = self.moved - psi
        self.wanted = self.taken * np.exp(self.residual)
        self.error = float(np.abs(self.taken - self.wanted).sum() / self.wanted.sum())
        self.passes += 1

    def _answer(self, side: int, log_sum: Array) -> Array:
        """Return what a side's penalty answers."""
        weight = (self.p.a, self.p.b)[side]
        found = self.sides[side].answer(torch.from_numpy(log_sum[None]), weight, self.reg)
        answered: Array = found.numpy()[0]
        return answered

    def until(self, tol: float) -> bool:
        """Step until the error is within tol; say whether it is."""
        most, patience, wait, fall = self.passes + _PASSES, 1, 0, math.inf
        soon = max(_SOON, len(self.b) // _COLUMNS)
        while self.error > tol and self.passes < most:
            before, phi, plain = self.error, self.phi, self.moved
            if not (wait or fall * soon > math.log(before / tol)):
                if self._newton():
                    continue
                patience, wait = 2 * patience, patience
                plain = self._levelled(phi, plain)
            wait = max(0, wait - 1)
            self.look(plain)
            fall = math.log(before / self.error) if 0 < self.error < math.inf else -math.inf
        return self.error <= tol

    def _newton(self) -> bool:
        """Make a step, held back until it leads up; say whether it could."""
        self.newton = True
        psi, height, residual = self.psi, self.height, self.residual
        # the least error so far, lest steps that raise the dual and steps that lower both go round
        self.best = best = min(self.best, self.error)
        slopes = self._slopes()
        for _ in range(_TRIALS):
            self.look(psi + self._direction(slopes, residual))
            if self.error <= 0.9 * best or self.height > height:
                self.ridge = max(self.ridge / _EASED, _RIDGE)
                return True
            self.ridge = max(self.ridge * _EASED**2, _HELD_BACK)
        return False

    @property
    def height(self) -> float:
        """The dual over reg, once the columns have answered."""
        sides = zip(self.sides, (self.phi, self.moved), (self.p.a, self.p.b), strict=True)
        duals = [
            float(side.dual(torch.from_numpy(potential[None]) * self.reg, weight))
            for side, potential, weight in sides
        ]
        return sum(duals) * self.alpha - float(self.wanted.sum())

    def _levelled(self, phi: Array, psi: Array) -> Array:
        """Return column potentials less the constant that both penalties agree on, if it is far."""
        if self.p.one_mass:
            return psi
        sides = (torch.from_numpy(side[None]) for side in (phi, psi))
        levelled: Array = psi - shared(self.p, *sides).numpy()[0]
        return levelled

    def _slopes(self) -> Array:
        """Return I - T', beside exact masses less the constant, which changes nothing."""
        P = self.K * self.x
        P *= self.y[:, None]
        given, taken = (np.maximum(mass, NORMAL)[:, None] for mass in (self.given, self.taken))
        slopes = self._moved(1, (P.T / taken) @ self._moved(0, P / given))
        np.negative(slopes, out=slopes)
        slopes.reshape(-1)[:: len(slopes) + 1] += 1
        if self.p.one_mass:
            slopes += self.b / self.b.sum()
        return slopes

    def _direction(self, slopes: Array, residual: Array) -> Array:
        """Return Newton's step, no longer than what it may be trusted for."""
        held = slopes + self.ridge * np.eye(len(slopes))
        d = divided(residual, held, positive=False)
        d *= min(1.0, _CAP / max(float(np.abs(d).max()), NORMAL))
        return d

    def _moved(self, side: int, changes: Array) -> Array:
        """Return how far a side's potentials fall, for changes of its log_sum, (n, k)."""
        slope = self._slope(side)
        moved: Array = slope[:, None] * changes
        if self.p.one_mass:
            share = (1 - slope) * (self.given, self.taken)[side]
            if (mass := share.sum()) > 0:
                moved += (1 - slope)[:, None] * (share @ changes / mass)
        return moved

    def _slope(self, side: int) -> Array:
        """Return how much of what a point lacks it answers by itself."""
        log_sum, answered = ((self.log_r, self.phi), (self.log_s, self.moved))[side]
        if self.p.one_mass:
            # who gives all that it has; the others answer together
            return np.where(answered + log_sum >= 0, 1.0, 0.0)
        slope: Array = (answered - self._answer(side, log_sum + _STEP)) / _STEP
        return slope

    @property
    def held(self) -> bool:
        """Whether no potential depends on pairs that the kernel dropped."""
        if self.whole:
            return True
        lost = math.exp(_FLOOR) * self.y.sum() * self.x > _DROPPED * self.taken
        return not (lost.any() and self._slope(1)[lost].any())

    @property
    def scaled(self) -> Scaled | None:
        """The plan, where nothing was cut off."""
        good = self.whole and min(self.y.min(), self.x.min()) >= NORMAL
        return Scaled(self.K, self.y, self.x) if good else None
