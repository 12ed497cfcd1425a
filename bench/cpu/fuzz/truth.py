"""The oracle: definitions in NumPy, plain Sinkhorn, linear programs. No line of the package."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array


Array = np.ndarray[Any, np.dtype[Any]]
# more digits and exponents than any result has
LONG = np.longdouble
EPS = float(np.finfo(np.float64).eps)


class Posed(NamedTuple):
    """One problem, in float64; penalties are inf for an exact side and 0 for a free one.

    Attributes:
        blur: How far the costs that the package makes of points may be from C, by rounding.
    """

    C: Array
    a: Array
    b: Array
    reg: float
    rho_a: float = math.inf
    rho_b: float = math.inf
    blur: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether neither side is relaxed."""
        return math.isinf(self.rho_a) and math.isinf(self.rho_b)

    @property
    def open(self) -> Array:
        """Pairs that may carry mass, (n, m)."""
        return np.isfinite(self.C) & (self.a > 0)[:, None] & (self.b > 0)

    @property
    def stranded(self) -> tuple[Array, Array]:
        """Points with weight and without a partner, (n,) and (m,)."""
        return (self.a > 0) & ~self.open.any(1), (self.b > 0) & ~self.open.any(0)


def gibbs(p: Posed, f: Array, g: Array) -> Array:
    """Return a_i b_j exp((f_i + g_j - C_ij) / reg), (n, m)."""
    with np.errstate(all="ignore"):
        s = (f[:, None].astype(LONG) + g - np.where(p.open, p.C, 0)) / LONG(p.reg)
        s += np.log(p.a.astype(LONG))[:, None] + np.log(p.b.astype(LONG))
        return np.where(p.open, np.exp(s), LONG(0))


def digits(p: Posed, f: Array, g: Array, eps: float) -> Array:
    """Return the relative error of each entry of a plan whose exponents are rounded, (n, m)."""
    C = np.where(p.open, p.C, 0.0)
    logs = [np.abs(np.log(np.where(w > 0, w, 1.0))) for w in (p.a, p.b)]
    with np.errstate(over="ignore"):
        size = (np.abs(f)[:, None] + np.abs(g) + np.abs(C)) / p.reg + logs[0][:, None] + logs[1]
        return eps * (1 + size) + p.blur / p.reg


def off(p: Posed, P: Array, f: Array, g: Array) -> float:
    """Return how far marginals are from what they must be: L1, relative to that."""
    total = LONG(0)
    sides = ((P.sum(1), p.a, f, p.rho_a, 0), (P.sum(0), p.b, g, p.rho_b, 1))
    for mass, w, potential, rho, side in sides:
        if rho == 0:
            continue
        with np.errstate(all="ignore"):
            want = w if math.isinf(rho) else w * np.exp(-potential.astype(LONG) / rho)
        if not math.isinf(rho):
            want = np.where(p.stranded[side] | (w == 0), 0.0, want)
        with np.errstate(all="ignore"):
            miss = np.abs(mass - want).sum()
            total += miss / want.sum() if miss else LONG(0)
    return float(total)


def linear(p: Posed, P: Array) -> Any:
    """Return <P, C>."""
    return (P * np.where(p.open, p.C, 0.0)).sum()


def divergence(P: Array, q: Array) -> Any:
    """Return sum p log (p / q) - p + q."""
    with np.errstate(all="ignore"):
        ratio = np.where(P > 0, np.log(P.astype(LONG)) - np.log(q.astype(LONG)), 0)
    return (np.where(P > 0, P * ratio, 0) - P + q).sum()


def value(p: Posed, P: Array) -> Any:
    """Return <P, C> + reg KL(P | a b^T) + penalties."""
    a, b, P = p.a.astype(LONG), p.b.astype(LONG), P.astype(LONG)
    whole = linear(p, P) + p.reg * divergence(P, a[:, None] * b)
    for mass, w, rho in ((P.sum(1), a, p.rho_a), (P.sum(0), b, p.rho_b)):
        if 0 < rho < math.inf:
            whole += rho * divergence(mass, w)
    return whole


def dual(p: Posed, f: Array, g: Array) -> Any:
    """Return the dual objective at f, g; stranded points have the price that is best for them."""
    total = p.reg * (p.a.astype(LONG).sum() * p.b.astype(LONG).sum() - gibbs(p, f, g).sum())
    for w, t, rho, side in ((p.a, f, p.rho_a, 0), (p.b, g, p.rho_b, 1)):
        if math.isinf(rho):
            total += (w.astype(LONG) * t).sum()
        elif rho > 0:
            with np.errstate(all="ignore"):
                pull = np.where(w > 0, np.expm1(-t.astype(LONG) / rho), 0)
            total -= rho * (w * np.where(p.stranded[side], -1, pull)).sum()
    return total


def feasible(p: Posed, P: Array) -> Array:
    """Return a plan near P with the marginals, which may put mass on forbidden pairs.

    Source: J. Altschuler, J. Weed, P. Rigollet, NeurIPS 2017, algorithm 2.
    """
    P = P.astype(LONG)
    with np.errstate(all="ignore"):
        P = P * np.nan_to_num(np.minimum(1, p.a / P.sum(1)))[:, None]
        P = P * np.nan_to_num(np.minimum(1, p.b / P.sum(0)))
    rows, columns = p.a - P.sum(1), p.b - P.sum(0)
    missing = np.abs(rows).sum()
    return P + (rows[:, None] * np.abs(columns) / missing if missing > 0 else 0)


class Reached(NamedTuple):
    """Where plain Sinkhorn ended."""

    error: float
    f: Array
    g: Array


def plain(p: Posed, tol: float, sweeps: int, look: bool = True) -> Reached:
    """Sweep from zero, rows first, in logarithms; end within tol, or where it is out of reach."""
    shift = float(p.C[p.open].min()) if p.open.any() and max(p.rho_a, p.rho_b) == math.inf else 0.0
    with np.errstate(all="ignore"):
        S = np.where(p.open, -(p.C - shift) / p.reg, -np.inf)
        log_a, log_b = np.log(p.a), np.log(p.b)
    power = [1.0 if math.isinf(rho) else rho / (rho + p.reg) for rho in (p.rho_a, p.rho_b)]
    phi, psi, error, errors = np.zeros(len(p.a)), np.zeros(len(p.b)), math.inf, []
    for k in range(sweeps):
        phi = _answer(S + (psi + log_b), power[0], 1)
        if look and (k % 10 == 0 or k == sweeps - 1):
            error = _error(p, S, phi, psi)
            errors.append(error)
            if error <= tol or _hopeless(errors, tol, (sweeps - k) // 10):
                break
        psi = _answer(S + (phi + log_a)[:, None], power[1], 0)
    f, g = phi * p.reg, psi * p.reg
    if math.isinf(p.rho_a):
        f = f + shift
    else:
        g = g + shift
    return Reached(error, f, g)


def _answer(S: Array, power: float, axis: int) -> Array:
    """Return minus the logarithm of sums, times the step's power; what has no sum stays at zero."""
    top = S.max(axis)
    held = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(all="ignore"):
        total = held + np.log(np.exp(S - np.expand_dims(held, axis)).sum(axis))
        return np.where(np.isfinite(total), -power * total, 0.0)


def _error(p: Posed, S: Array, phi: Array, psi: Array) -> float:
    with np.errstate(all="ignore"):
        P = np.exp(S + phi[:, None] + psi + np.log(p.a)[:, None] + np.log(p.b))
    return off(p, P, phi * p.reg, psi * p.reg)


def _hopeless(errors: list[float], tol: float, looks: int) -> bool:
    """Say whether at its present pace the error will not be within tol."""
    if len(errors) < 40 or len(errors) % 20 or not errors[-1] > 0:
        return False
    fall = math.log(errors[-20] / errors[-1]) / 19 if errors[-20] < math.inf else math.inf
    return 2 * fall * looks < math.log(errors[-1] / tol)


class Program(NamedTuple):
    """A linear program's answer."""

    value: float
    short: float


def transport(p: Posed) -> Program | None:
    """Return the least <P, C> by HiGHS, and the share of mass that finds no way; None if it fails.

    What is short is found first, by the most that allowed pairs can carry.
    """
    i, j = np.nonzero(p.open)
    mass = p.a.sum()
    if len(i) == 0:
        return Program(math.inf, 1.0)
    k, n, m = np.arange(len(i)), len(p.a), len(p.b)
    A = csr_array((np.ones(2 * len(i)), (np.r_[i, n + j], np.r_[k, k])), shape=(n + m, len(i)))
    w = np.r_[p.a, p.b * (mass / p.b.sum())] / mass
    tight: dict[str, Any] = {
        "method": "highs-ds",
        "options": {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    }
    short = 0.0
    if len(i) < n * m:
        most = linprog(-np.ones(len(i)), A_ub=A, b_ub=w, **tight)
        if most.status != 0:
            return None
        short = max(0.0, 1 + most.fun)
    if short > 1e-9:
        return Program(math.inf, short)
    C = p.C[p.open]
    low, unit = C.min(), np.ptp(C) or 1.0
    best = linprog((C - low) / unit, A_eq=A, b_eq=w, **tight)
    if best.status != 0:
        return None
    return Program(float((best.fun * unit + low) * mass), short)
