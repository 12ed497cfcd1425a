"""Calls `sinkhorn_distance`, and judges it by plans within alpha and by the dual at its reg."""

import math

import numpy as np
import torch

import sinkhorn_ot as so
from bench.cpu.fuzz import calls, draws, exact, truth
from bench.cpu.fuzz.asking import asked
from bench.cpu.fuzz.draws import Array, Random, chance, pick, power
from bench.cpu.fuzz.numbers import SUMS
from bench.cpu.fuzz.truth import LONG, Posed
from bench.cpu.fuzz.verdict import Verdict


def bounded(rng: Random) -> Verdict:
    """Ask for a distance, and judge."""
    call = pick(rng, calls.stored, calls.stored, calls.forbidding, calls.clouds)(rng)
    problems = call.problems()
    alpha = _alpha(rng, problems[0])
    verdict = Verdict(told=f"sinkhorn_distance({call}, alpha={alpha:.6g})")
    best = [truth.transport(p) for p in problems]
    r = asked(
        verdict,
        lambda: so.sinkhorn_distance(call.cost, call.a, call.b, alpha=alpha, on_fail="ignore"),
        lambda text: (
            exact.rightly(text, call, problems, best)
            or (text.startswith("alpha must be at least") and _too_little(problems, alpha))
        ),
        [call.cost, call.a, call.b, *call.held],
    )
    if r is None:
        return verdict
    n, m = call.C.shape[-2:]
    P = r.plan.double().numpy().reshape(-1, n, m)
    value, gap, reg, kl, cost = (
        t.double().numpy().reshape(-1) for t in (r.value, r.gap, r.reg, r.kl, r.value_linear)
    )
    eps = float(torch.finfo(call.dtype).eps)
    for k, p in enumerate(problems):
        one, status = Verdict(), r.statuses[k]
        if status in (so.Status.CONVERGED, so.Status.OPTIMAL):
            numbers = (float(value[k]), float(gap[k]), float(reg[k]), float(kl[k]), float(cost[k]))
            _one(one, p, P[k], numbers, alpha, eps)
        else:
            one.at_least("gave up" if best[k] is not None else "missed")
        verdict.faults += [f"problem {k} {status.name}: {fault}" for fault in one.faults]
        verdict.at_least(one.outcome)
    return verdict


def _alpha(rng: Random, p: Posed) -> float:
    """Draw a bound: as a rule between independence and where it binds no more."""
    most = min(_entropy(p.a), _entropy(p.b))
    if chance(rng, 0.15):
        return pick(rng, 0.0, math.inf, most, 1e-12, 1e3)
    return most * pick(rng, float(rng.random()), power(rng, -8, 0), 1 - power(rng, -8, 0))


def _entropy(w: Array) -> float:
    q = w[w > 0] / w.sum()
    return float(max(0.0, -(q * np.log(q)).sum()))


def _too_little(problems: list[Posed], alpha: float) -> bool:
    """Say whether some problem has no plan of allowed pairs within alpha, as far as one can see."""
    for p in problems:
        # on allowed pairs nothing costs anything: the plan of least divergence
        free = p._replace(C=np.where(p.open, 0.0, np.inf), reg=1.0)
        at = truth.plain(free, 1e-10, draws.LARGEST * 100)
        P = truth.gibbs(free, at.f, at.g)
        mass = p.a.sum()
        unlike = float(truth.divergence(P / mass, _product(p)))
        # what misses its marginals by a little may be that much less unlike
        slack = 4 * at.error * (1 + abs(math.log(float(P[P > 0].min() / mass))))
        if not unlike + slack <= alpha * (1 + 1e-9) or at.error > 1e-9:
            return True
    return False


def _product(p: Posed) -> Array:
    return (p.a / p.a.sum()).astype(LONG)[:, None] * (p.b / p.b.sum())


def _one(  # noqa: PLR0913
    verdict: Verdict,
    p: Posed,
    P: Array,
    numbers: tuple[float, float, float, float, float],
    alpha: float,
    eps: float,
) -> None:
    """Judge one distance: no plan within alpha may cost less, and some plan costs no more."""
    value, gap, reg, kl, cost = numbers
    if not (np.isfinite(P).all() and math.isfinite(value) and math.isfinite(gap)):
        return verdict.wrong(f"plan, value {value} or gap {gap} is not finite")
    mass = p.a.sum()
    zero = np.zeros(max(P.shape))
    error = truth.off(p, P, zero[: len(p.a)], zero[: len(p.b)])
    C = np.where(p.open, p.C, 0.0)
    size = float((np.abs(C).max() + p.blur / truth.EPS) * mass)
    exponents = 4 * truth.EPS * size / mass / reg if reg > 0 else 0.0
    allowed = 1.001e-9 + 4 * eps + 1e-12 + exponents
    verdict.require(error <= allowed, f"marginals are {error:.3g} off, {allowed:.3g} given")
    rounding = SUMS * eps * size + error * size
    verdict.near("value_linear", cost, float(truth.linear(p, P)), rounding)
    q = _product(p)
    # the divergence of a plan that misses marginals by a little
    loose = 4 * (error + eps) * (1 + abs(math.log(float(P[P > 0].min() / mass)))) + SUMS * eps
    verdict.near("kl", kl, float(truth.divergence(P / mass, q)), loose + 1e-9)
    # beyond alpha reg is what a unit of divergence is worth, and tol of the distance may be missed
    more = 4e-9 * abs(value) / (reg * mass) if reg > 0 else 0.0
    allowed = alpha * (1 + 4 * eps) + more + 1e-12
    # mixed with independence it is within alpha, and may still cost no more than tol allows
    dear = float(truth.linear(p, q) * mass) if not q[~p.open].any() else math.inf
    free = kl > alpha and (1 - alpha / kl) * (dear - value) <= 2e-9 * abs(value) + rounding
    verdict.require(
        free or kl <= allowed, f"kl {kl:.12g} is above alpha {alpha:.12g}: {allowed:.12g}"
    )
    verdict.require(gap >= -rounding, f"the gap is {gap:.3g}")
    full = truth.feasible(p, P) / mass
    if not full[~p.open].any():
        spent = float(truth.divergence(full, q))
        # divergence is convex: so much of independence brings it within alpha
        share = 0.0 if spent <= alpha else 1 - alpha / spent
        mixed = (1 - share) * full + share * q
        if not mixed[~p.open].any():
            upper = float(truth.linear(p, mixed) * mass)
            if not value <= upper + rounding + 1e-9 * size * (share > 0):
                verdict.wrong(f"value {value:.12g} is above a plan's {upper:.12g}")
            _from_below(verdict, p, numbers, alpha, rounding)
    return None


def _from_below(
    verdict: Verdict,
    p: Posed,
    numbers: tuple[float, float, float, float, float],
    alpha: float,
    rounding: float,
) -> None:
    """Require that value + gap is not below the dual, at the reg that is told."""
    value, gap, reg, *_ = numbers
    mass = p.a.sum()
    if not (0 < reg < math.inf) or alpha == math.inf:
        return
    one = p._replace(a=p.a / mass, b=p.b / mass, reg=reg)
    at = truth.plain(one, 1e-9, 500)
    if max(np.abs(at.f).max(), np.abs(at.g).max()) * truth.EPS / reg > 1e-3:
        return
    lower = float(truth.dual(one, at.f, at.g) - reg * alpha) * mass
    slack = rounding + SUMS * truth.EPS * float(np.abs(at.f).max() + np.abs(at.g).max()) * mass
    if not value + gap >= lower - slack - 1e-9 * abs(value):
        verdict.wrong(f"value + gap {value + gap:.12g} is below the dual's {lower:.12g}")
