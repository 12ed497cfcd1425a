"""One stage of a small problem, at one reg: a kernel between two scalings, and steps of both kinds.

Beside penalties, with R = rho / reg on either side, rows answer phi = -k L where k = R / (1 + R),
columns should sum to t = b exp(-psi / R), and the Hessian is k times the Laplacian of the exact
problem plus the diagonal (1 - k) P^T 1 + t / R: it has no constant to fix.
"""

import math

import numpy as np

from sinkhorn_ot.solvers.newton import JOINED

from .systems import Array, divided, squared


# plain steps between two looks, and passes that a stage may take after its plain steps
_STEPS, _PASSES = 4, 300
# the least exponent that a kernel holds, whose square is a normal number; and what scalings may
# reach: the largest lifts it to no more than e^-60 of what the smallest leaves
_FLOOR, _FAR = -340.0, math.exp(140.0)
# rows of single precision that are summed together
_DEEP = 256
_NEGLIGIBLE = 1e-150
# what masses may be for all their digits
NORMAL = 1e-290
# largest change of a scaled potential in one Newton step, doubled while such steps go well up to
# what no scaling within the drift underflows by
_CAP, _WIDEST = 6.0, 500.0


class Scaling:
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
        H = squared(R)
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
        step = divided(-self.gradient, H, positive=True)
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
        return bool(masses.min() >= NORMAL and masses.max() <= 1 / NORMAL)

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
