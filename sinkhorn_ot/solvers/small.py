"""One small problem on a CPU, whole, in NumPy: there a call costs more than its arithmetic.

The road is the usual one: annealed, plain steps while they are about to arrive, Newton's on the
semi-dual (see `newton`) from there. What does not arrive this way is left to the others.

Beside penalties, with R = rho / reg on either side, rows answer phi = -k L where k = R / (1 + R),
columns should sum to t = b exp(-psi / R), and the Hessian is k times the Laplacian of the exact
problem plus the diagonal (1 - k) P^T 1 + t / R: it has no constant to fix.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, shown
from sinkhorn_ot.results import Scaled, Solution, Status
from sinkhorn_ot.sweeps import in_single

from .newton import JOINED
from .price import HESSIAN, PAIRS
from .sinkhorn import Anneal
from .steps import HELD


Array = npt.NDArray[np.float64]

# so many times as many pairs are small if the cost spreads over so little of reg that plain steps
# may arrive, and twice as many if over so much; up to what spread single precision holds a kernel
_PLAIN, _MANY, _SHARP, _EASY = 110.0, 8, 500.0, 30.0
_STAGES = Anneal(start=0.05, tol=1e-2)
# plain steps between two looks, and how many may be to come: a Newton step costs some thirty, and
# large problems are swept in half the time; error from which others had better go on than begin
_STEPS, _SOON, _BEGUN = 4, 80, 0.5
# passes that a stage may take after its plain steps
_PASSES = 300
# the least exponent that a kernel holds, whose square is a normal number; and what scalings may
# reach: the largest lifts it to no more than e^-60 of what the smallest leaves
_FLOOR, _FAR = -340.0, math.exp(140.0)
# a least cost that is next to nothing, beside the spread
_NEXT = 0.1
# rows of single precision that are summed together, and what its scalings may be
_DEEP, _SINGLE = 256, 1e-30
_NEGLIGIBLE = 1e-150
# penalties up to which the balance of both sides has the digits of a default tolerance, over reg,
# and what masses may be for all their digits
_STIFF, _NORMAL = 1e5, 1e-290
# largest change of a scaled potential in one Newton step, doubled while such steps go well up to
# what no scaling within the drift underflows by
_CAP, _WIDEST = 6.0, 500.0


def solve_small(
    p: Problem,
    *,
    v: Tensor | None,
    tol: float,
    max_iter: int,
) -> tuple[Solution, str] | None:
    """Solve one small problem whose points have weight; a marginal may be relaxed, but not free.

    Args:
        p: The problem.
        v: Scaled column potentials to start from, (1, m); they replace the annealing.
        tol: Relative L1 marginal error to reach.
        max_iter: Passes over the cost allowed.

    Returns:
        The solution and the name of the steps that led to it; None if it did not arrive. Where only
        plain steps are affordable, what they reached is for others to go on from.
    """
    batch, n, m = p.shape
    if batch > 1 or p.a.device.type != "cpu":
        return None
    sharp = (p.bounds.high - p.bounds.low) / p.least_reg
    # others sweep sharp plans in the precision of their costs, which here is double
    most = _PLAIN if p.dtype == torch.float64 else _EASY
    more = _MANY if sharp <= most else 1 if sharp < _SHARP else 2
    few = n * m <= PAIRS * max(more, 1 if p.exact else 4)
    if not few or not (p.exact or _soft(p)):
        return None
    with np.errstate(all="ignore"):
        found = _annealed(p, v, tol, max_iter)
    if found is None:
        return None
    # from arrays, which takes a fraction of what it does from lists
    u, w = (torch.from_numpy(side[None]) for side in (found.u, found.v))
    error, n_iter = (torch.from_numpy(np.array([x])) for x in (found.error, found.n_iter))
    status = Status.CONVERGED if found.error <= tol else Status.MAX_ITER
    solution = Solution(u, w, error, n_iter, [status], scaled=found.scaled)
    return solution, "newton" if found.newton else "plain"


def _soft(p: Problem) -> bool:
    """Say whether penalties are such that both sides balance with all digits."""
    return all(0 < rho <= _STIFF * p.least_reg or rho == math.inf for rho in p.relax)


@shown
class _Answer(NamedTuple):
    u: Array
    v: Array
    error: float
    n_iter: int
    newton: bool
    scaled: Scaled | None


def _annealed(p: Problem, v: Tensor | None, tol: float, max_iter: int) -> _Answer | None:
    whole, b = p.a.numpy()[0], p.b.numpy()[0]
    log_a, reg, low, exact = np.log(whole), p.least_reg, p.bounds.low, p.exact
    # exact plans are found for a mass of one; beside penalties another mass is another plan
    mass = float(np.add.reduce(whole)) if exact else 1.0
    affordable = len(b) ** 2 * len(whole) <= HESSIAN
    factors = [1.0]
    # without Newton's steps there are plain ones alone, from anywhere
    if v is None and affordable:
        factors = _STAGES.stages(p.bounds.high - low, reg)
    psi = None if v is None else v.numpy()[0] - np.log(b)
    if v is None and not exact:
        psi = np.full(len(b), _share(p) / (factors[0] * reg))
    a, b = whole / mass, b / mass
    few = np.count_nonzero(a) < len(a) or np.count_nonzero(b) < len(b)
    if few or not (affordable or len(factors) == 1):
        return None
    # a least cost that is next to nothing need not be taken off: one pass less, and no digit
    low = 0.0 if 0 <= low <= _NEXT * (p.bounds.high - low) else low
    C = p.cost.rows(0, len(a))
    single = exact and v is None and not affordable and _in_single(p, C, tol)
    C = (C if single or C.dtype == torch.float64 else C.double()).numpy()[0]
    room = np.empty_like(C)
    spread = math.inf if p.bounds.forbids else p.bounds.high - low
    passes, newton, stage = 0, False, None
    soon = _SOON if affordable else _SOON // 2
    for factor in factors:
        goal = _STAGES.tol if factor > 1 else tol
        now = factor * reg
        R = p.relax[0] / now, p.relax[1] / now
        stage = _Stage((C, low), spread, 1 / now, a, b, psi, room, R, (low - p.shift) / now)
        stage.plain(goal, soon)
        arrived = stage.reached(goal)
        if affordable and not arrived:
            newton = True
            stage.newton(goal)
            arrived = stage.reached(goal)
        passes += stage.passes
        if not (arrived and passes <= max_iter):
            begun = exact and not affordable and tol < stage.error < _BEGUN and passes < max_iter
            return _answer(stage, log_a, passes, newton) if begun else None
        # potentials keep their units while reg shrinks
        psi = stage.psi * min(factor, _STAGES.factor) if factor > 1 else psi
    assert stage is not None
    if not exact and not stage.mass < torch.finfo(p.dtype).max ** HELD:
        return None
    # where nothing was cut off, and scalings have all their digits
    y = mass * stage.y
    if single and not min(y.min(), stage.x.min()) >= _SINGLE:
        return None
    scaled = (
        Scaled(stage.K, y, stage.x) if stage.whole and np.minimum.reduce(y) >= _NORMAL else None
    )
    return _answer(stage, log_a, passes, newton)._replace(scaled=scaled)


def _answer(stage: "_Stage", log_a: Array, passes: int, newton: bool) -> _Answer:
    return _Answer(log_a + stage.phi, stage.v, stage.error, passes, newton, None)


def _in_single(p: Problem, C: Tensor, tol: float) -> bool:
    """Say whether a kernel in single precision will do, and holds all pairs as normal numbers."""
    sharp = (p.bounds.high - p.bounds.low) / p.least_reg
    easy = sharp <= _EASY and not p.bounds.forbids
    return C.dtype == torch.float32 and easy and not p.shift and in_single(p, tol)


def _share(p: Problem) -> float:
    """Return what of the least cost the column potentials pay, where penalties split it."""
    rows, columns = (1 / rho for rho in p.relax)
    return (p.bounds.low - p.shift) * rows / (rows + columns)


class _Stage:
    """A problem at one reg: the kernel exp((low - C) / reg + base + log b - top), scaled."""

    def __init__(  # noqa: PLR0913
        self,
        cost: tuple[Array, float],
        spread: float,
        alpha: float,
        a: Array,
        b: Array,
        base: Array | None,
        room: Array,
        R: tuple[float, float],
        least: float,
    ) -> None:
        """Begin.

        Args:
            cost: Costs, (n, m), and low: the least, or nothing where that is next to it.
            spread: How far costs lie above low at most; inf if some pair is forbidden.
            alpha: 1 / reg.
            a: Source weights, (n,).
            b: Target weights, (m,).
            base: Column potentials to start from, (m,); None is zero.
            room: Where the kernel may be, (n, m).
            R: Penalties over reg; inf for exact marginals.
            least: What low is over reg.
        """
        (self.C, self.low), self.spread, self.alpha, self.K = cost, spread, alpha, room
        self.a, self.b, self.log_b, self.least = a, b, np.log(b), least
        self.R, self.exact = R, min(R) == math.inf
        # how much of what it lacks each side's potential answers
        self.elastic = [1.0 if r == math.inf else r / (1 + r) for r in R]
        # below that plain steps are fast, and potentials have too few digits
        self.levels = not self.exact and min(R) >= 1
        self.passes, self.cap = 0, _CAP
        # what is taken off each row's exponents
        self.top: Array | float = 0.0
        if base is None and self.exact and self.spread * self.alpha < -_FLOOR:
            self._build_bare()
        else:
            self.build(np.zeros(len(b)) if base is None else base)

    def _build_bare(self) -> None:
        """Exponentiate the cost alone, all of which the kernel holds: the scaling becomes b."""
        self.base, self.whole, self.row, self.column = -self.log_b, True, self.a, self.b
        np.exp(self._exponents(), out=self.K)
        self.look(self.b)

    def _exponents(self) -> Array:
        """Return (low - C) / reg, where the kernel will be."""
        if not self.low:
            return np.multiply(self.C, -self.alpha, out=self.K)
        S = np.subtract(self.low, self.C, out=self.K)
        S *= self.alpha
        return S

    def build(self, base: Array) -> None:
        """Exponentiate around column potentials, whose scaling becomes one."""
        self.base, self.top = base, 0.0
        S = self._exponents()
        shift = base + self.log_b
        S += shift
        # what bounds tell needs no pass; beside penalties potentials have a size of their own
        least = np.minimum.reduce(shift) - self.spread * self.alpha
        high = least > _FLOOR or S.min() > _FLOOR
        self.whole = bool(high and (self.exact or shift.max() < -_FLOOR))
        if not self.whole:
            self.top = top = S.max(1)
            S -= top[:, None]
            np.maximum(S, _FLOOR, out=S)
        np.exp(S, out=S)
        k, l = self.elastic
        # factors of what both sides answer that the scalings leave alone
        self.row = self.a if k == 1 else self.a * np.exp((1 - k) * (self.top - self.least))
        self.column = self.b if l == 1 else self.b**l * np.exp((l - 1) * base)
        self.want = self.b if l == 1 else self.b * np.exp(-base / self.R[1])
        x = np.empty(len(base))
        x.fill(1.0)
        self.look(x)

    def look(self, x: Array) -> None:
        """Answer the column scaling x by the rows', and see by how much columns miss their sums."""
        self.x, self.r = x, self._across(x)
        self.y = self._rows(self.r)
        self.s = self._down(self.y)
        self.t = self._wanted(x)
        self.gradient = x * self.s - self.t
        off = np.add.reduce(np.abs(self.gradient))
        self.error = float(off if self.exact else off / np.add.reduce(self.t))
        self.passes += 1

    def _across(self, x: Array) -> Array:
        """Return K x."""
        r: Array = self.K.dot(x.astype(self.K.dtype, copy=False))
        return r.astype(np.float64, copy=False)

    def _down(self, y: Array) -> Array:
        """Return K^T y; columns of single precision are summed in pieces, those in double."""
        K, deep = self.K, len(y) if self.K.dtype == np.float64 else _DEEP
        y = y.astype(K.dtype, copy=False)
        s: Array = y[:deep].dot(K[:deep]).astype(np.float64, copy=False)
        for start in range(deep, len(y), deep):
            s += y[start : start + deep].dot(K[start : start + deep])
        return s

    def _rows(self, r: Array) -> Array:
        """Return the row scaling that answers row sums before it."""
        return self.row / r if self.elastic[0] == 1 else self.row * r ** -self.elastic[0]

    def _wanted(self, x: Array) -> Array:
        """Return what columns should sum to."""
        return self.b if self.elastic[1] == 1 else self.want * x ** (-1 / self.R[1])

    def _columns(self, s: Array, y: Array, r: Array) -> Array:
        """Return the column scaling that answers column sums before it, of rows that move y r."""
        x: Array = self.column / s if self.elastic[1] == 1 else self.column * s ** -self.elastic[1]
        if self.levels:
            # the split of a constant between both sides that makes their masses agree
            excess = np.log(y @ r / self._wanted(x).sum())
            x *= np.exp(-excess / (1 / self.R[0] + 1 / self.R[1]))
        return x

    def plain(self, tol: float, soon: int) -> None:
        """Make plain steps while they are about to arrive, in so many at most."""
        steps = 1
        while self.error > tol:
            before = self.error
            x = self._columns(self.s, self.y, self.r)
            for _ in range(steps - 1):
                r = self._across(x)
                y = self._rows(r)
                x = self._columns(self._down(y), y, r)
            self.passes += steps - 1
            self.look(x)
            if not self.error > tol:
                break
            fall = (math.log(before) - math.log(self.error)) / steps
            left = math.log(self.error / tol)
            if not fall * soon > left:
                break
            steps = min(_STEPS, max(1, math.ceil(left / fall)))

    def newton(self, tol: float) -> None:
        """Make Newton's steps, around the present potentials, while they lead down."""
        most = self.passes + _PASSES
        while math.isfinite(self.error) and self.passes < most and not self.reached(tol):
            if not self._near:
                self.build(self.psi)
            elif not self._newton():
                break

    def reached(self, tol: float) -> bool:
        """Whether the error is within tol, and nothing counts that the kernel dropped."""
        return self.error <= tol and self._near and (self.exact or self._held)

    def _newton(self) -> bool:
        """Make one step, shortened until it leads down; say whether it could."""
        log_x, r, error, moved, t = np.log(self.x), self.r, self.error, self.y * self.r, self.t
        step = self._direction()
        slope, longest = float(self.gradient @ step), float(np.abs(step).max())
        if not (slope < 0 and longest < math.inf):
            return False
        length = min(1.0, self.cap / longest)
        # a capped step that goes well may be longer next time: prices far apart take many
        longer = min(2 * self.cap, _WIDEST) if length < 1 else self.cap
        while True:
            self.look(np.exp(log_x + length * step))
            if self.error <= 0.9 * error:
                break
            change = _rise(moved, np.log(self.r / r), self.R[0] + 1)
            change += _rise(t, -length * step, self.R[1])
            if change <= 1e-4 * length * slope + 1e-13:
                break
            length *= 0.3
            longer = max(_CAP, 0.3 * longer)
            if not length * longest > 1e-3:
                return False
        self.cap = longer
        # far from the solution a plain step follows: it is the globaliser
        if self.error > 0.1:
            self.look(self._columns(self.s, self.y, self.r))
        return True

    def _direction(self) -> Array:
        """Return minus the inverse Hessian times the gradient."""
        R = self.K * self.x
        R *= np.sqrt(self.y / self.r)[:, None]
        # products of small entries would be subnormal, which is slow, and count for nothing
        R *= R > _NEGLIGIBLE
        # by torch, whose threads are the caller's choice
        root = torch.from_numpy(R)
        H = torch.mm(root.t(), root).numpy()
        # `solve_laplacian` in fewer calls, which are most of what a small one costs
        diagonal = H.reshape(-1)[:: len(H) + 1]
        diagonal[:] = 0
        degree = H.sum(1)
        np.negative(H, out=H)
        diagonal[:] = degree + JOINED * self.b
        if not self.exact:
            k = self.elastic[0]
            H *= k
            diagonal += (1 - k) * self.x * self.s + self.t / self.R[1]
        factor, _ = torch.linalg.cholesky_ex(torch.from_numpy(H))
        right = torch.from_numpy(-self.gradient[:, None])
        step: Array = torch.cholesky_solve(right, factor).numpy()[:, 0]
        return step - self.b @ step if self.exact else step

    @property
    def _near(self) -> bool:
        """Whether the scalings are within what the kernel allows."""
        low, high = np.minimum.reduce(self.x), np.maximum.reduce(self.x)
        return bool(low >= 1 / _FAR and high <= _FAR)

    @property
    def mass(self) -> float:
        """What the plan carries."""
        return float(self.y @ self.r)

    @property
    def _held(self) -> bool:
        """Whether all masses are normal numbers."""
        masses = np.concatenate([self.y * self.r, self.t])
        return bool(masses.min() >= _NORMAL and masses.max() <= 1 / _NORMAL)

    @property
    def psi(self) -> Array:
        """Column potentials g / reg."""
        psi: Array = self.base + np.log(self.x)
        return psi

    @property
    def v(self) -> Array:
        """Column potentials as others take them."""
        return self.psi + self.log_b

    @property
    def phi(self) -> Array:
        """Row potentials f / reg."""
        # y itself may be too small to be a normal number
        phi: Array = -self.elastic[0] * (np.log(self.r) + self.top - self.least)
        return phi


def _rise(mass: Array, rise: Array, R: float) -> float:
    """Return R <mass, exp(rise / R) - 1>, which is <mass, rise> where R is inf."""
    return float(mass @ rise if math.isinf(R) else R * (mass @ np.expm1(rise / R)))
