"""Judges the numbers of a result: marginals, values, bounds, and what is made of them."""

import math

import numpy as np
import torch

import sinkhorn_ot as so
from bench.cpu.fuzz import truth
from bench.cpu.fuzz.calls import Call
from bench.cpu.fuzz.draws import Array, Random, chance
from bench.cpu.fuzz.truth import Posed
from bench.cpu.fuzz.verdict import Verdict


Status = so.Status
# how many roundings a sum of products may see, beside those of its exponents
SUMS = 32


def claimed(  # noqa: PLR0913
    verdict: Verdict, p: Posed, status: Status, x: dict[str, Array], tol: float, call: Call
) -> None:
    """Judge the numbers of one problem."""
    if status is Status.NOT_FINITE:
        return None
    # of no plan at all, no number means anything
    names = ("f", "g") if status is Status.INFEASIBLE else tuple(x)
    if status is Status.FIXED and not x["plan"].max() < 1e30:
        # penalties that are cheap beside costs below zero have such plans, and nobody has looked
        return None
    bad = [name for name in names if np.isnan(x[name]).any()]
    if bad or not all(np.isfinite(x[name]).all() for name in ("f", "g")):
        return verdict.wrong(f"NaN or inf in {bad or 'potentials'}")
    if status is Status.INFEASIBLE:
        return None
    eps = float(np.finfo(np.float64 if call.dtype == torch.float64 else np.float32).eps)
    P, f, g = x["plan"], x["f"], x["g"]
    verdict.require(bool((P >= 0).all() and not P[~p.open].any()), "mass where none may be")
    if status is Status.CONVERGED:
        _arrived(verdict, p, x, tol, eps, call)
    rel = truth.digits(p, f, g, eps)
    noise = float((P * rel).sum())
    mass = float(P.sum())
    if not (noise < 0.01 * mass and mass < 1e15 * p.a.sum()):
        return None
    again = truth.gibbs(p, f, g)
    least = P.size * (1e-300 if eps < 1e-10 else 1e-37)
    verdict.near("|plan - exp(...)|", float(np.abs(P - again).sum()), 0.0, 16 * noise + least)
    _valued(verdict, p, x, again if eps < 1e-10 else P, rel, eps)
    return None


def _arrived(  # noqa: PLR0913
    verdict: Verdict, p: Posed, x: dict[str, Array], tol: float, eps: float, call: Call
) -> None:
    """Require marginals within tol, but for what the digits of plan and exponents do."""
    P, f, g = x["plan"], x["f"], x["g"]
    for t, w, rho in ((f, p.a, p.rho_a), (g, p.b, p.rho_b)):
        verdict.require(rho > 0 or not t[w > 0].any(), "the potential of a free side is not zero")
    shift = 0.0
    if max(call.rho) == math.inf and p.open.any():
        C = p.C[p.open]
        shift = float(C.min()) if abs(C.min()) > 10 * np.ptp(C) else 0.0
    # what is far from zero is taken off, which is exact, and put back to one potential
    near = (f - shift, g) if math.isinf(p.rho_a) else (f, g - shift)
    moved = p._replace(C=p.C - shift)
    total = float(P.sum()) or 1.0
    rounding = 2 * float((P * truth.digits(moved, *near, truth.EPS)).sum()) / total
    rounding += (2 if p.exact else 4) * eps
    if call.dtype == torch.float32:
        rounding += 2e-7
    if not p.exact:
        # the target of a relaxed side is an exponential as well
        for t, w, rho in ((f, p.a, p.rho_a), (g, p.b, p.rho_b)):
            if 0 < rho < math.inf:
                # a potential is what is left of a scaled one, once log w is off
                held = np.abs(t).max() + p.reg * np.abs(np.log(w[w > 0])).max()
                rounding += 4 * eps * float(held) / rho
        if P.sum() < (1e-250 if eps < 1e-10 else 1e-30):
            # a plan may underflow where penalties are dear: what it would be counts
            P = truth.gibbs(p, f, g)
            rounding += 2 * float((P * truth.digits(p, f, g, eps)).sum() / (P.sum() or 1))
        if rounding > 0.01:
            return
    error = truth.off(p, P, f, g)
    if not error <= tol * 1.001 + rounding:
        verdict.wrong(f"marginals are {error:.3g} off, tol {tol:.3g} and rounding {rounding:.2g}")


def _valued(  # noqa: PLR0913
    verdict: Verdict, p: Posed, x: dict[str, Array], P: Array, rel: Array, eps: float
) -> None:
    """Require values that are those of the definitions, and a dual that is no more than either."""
    f, g = x["f"], x["g"]
    price = np.abs(f)[:, None] + np.abs(g)
    terms = float((P * (price + np.abs(np.where(p.open, p.C, 0.0)))).sum())
    terms += float(np.abs(f) @ p.a + np.abs(g) @ p.b) + p.reg * float(
        p.a.sum() * p.b.sum() + P.sum()
    )
    noise = float((P * rel * (price + p.reg)).sum())
    for mass, w, t, rho in ((P.sum(1), p.a, f, p.rho_a), (P.sum(0), p.b, g, p.rho_b)):
        if 0 < rho < math.inf:
            terms += rho * float(mass.sum() + w.sum())
            with np.errstate(all="ignore"):
                ratio = np.where(mass > 0, np.abs(np.log(np.where(w > 0, mass / w, 1.0))), 0.0)
            noise += rho * float((P * rel).sum() * ratio.max())
            with np.errstate(all="ignore"):
                pull = np.where(w > 0, w * np.exp(-t.astype(truth.LONG) / rho), 0)
            terms += float((pull * np.abs(t)).sum())
    allowed = SUMS * eps * terms + 8 * noise
    if not math.isfinite(allowed):
        return
    value, dual = float(truth.value(p, P)), float(truth.dual(p, f, g))
    largest = float(np.finfo(np.float64 if eps < 1e-10 else np.float32).max)
    if not max(abs(value), abs(dual)) < largest:
        # after few sweeps beside a small penalty the answer's dtype may not hold them
        return
    verdict.near("value", float(x["value"]), value, allowed)
    verdict.near("dual_value", float(x["dual_value"]), dual, allowed)
    verdict.near("gap", float(x["gap"]), value - dual, 2 * allowed)
    verdict.near("value_linear", float(x["value_linear"]), float(truth.linear(p, P)), allowed)
    if p.exact:
        P = truth.feasible(p, P)
        best = float(truth.value(p, P)) if not P[~p.open].any() else math.inf
        allowed += SUMS * eps * float(np.abs(f).max() + np.abs(g).max()) * p.a.sum()
    else:
        best = value if math.inf not in (p.rho_a, p.rho_b) else math.inf
    if not float(x["dual_value"]) <= best + allowed:
        verdict.wrong(f"dual_value {float(x['dual_value']):.12g} is above a plan's {best:.12g}")


def used(rng: Random, verdict: Verdict, r: so.Transport, call: Call, problems: list[Posed]) -> None:
    """Judge what is made of a result: products, a feasible plan, a certificate."""
    n, m = call.C.shape[-2:]
    if any(s in (Status.NOT_FINITE, Status.INFEASIBLE) for s in r.statuses):
        return
    eps = float(torch.finfo(call.dtype).eps)
    P = r.plan.double().numpy().reshape(-1, n, m)
    if not P.max() < 1e30:
        return
    x = rng.standard_normal(m)
    got = r.apply(torch.from_numpy(x)).double().numpy().reshape(-1, n)
    f, g = (t.double().numpy().reshape(len(P), -1) for t in (r.f, r.g))
    for k, p in enumerate(problems):
        rel = truth.digits(p, f[k], g[k], eps) + SUMS * eps
        allowed = 8 * float((P[k] * rel @ np.abs(x)).sum())
        allowed += P[k].size * (1e-300 if eps < 1e-10 else 1e-37)
        verdict.near("|apply - plan @ x|", float(np.abs(got[k] - P[k] @ x).sum()), 0.0, allowed)
    if problems[0].exact and all(s is Status.CONVERGED for s in r.statuses):
        _certified(rng, verdict, r, call, problems)


def _certified(
    rng: Random, verdict: Verdict, r: so.Transport, call: Call, problems: list[Posed]
) -> None:
    n, m = call.C.shape[-2:]
    eps = float(torch.finfo(call.dtype).eps)
    R, c = r.round().double().numpy().reshape(-1, n, m), r.certificate()
    f, g = (t.double().numpy().reshape(len(R), -1) for t in (c.f, c.g))
    low, high = (t.double().numpy().reshape(-1) for t in (c.lower, c.upper))
    for k, p in enumerate(problems):
        error = truth.off(p, R[k], f[k], g[k])
        verdict.require(error <= 8 * eps + 1e-13, f"round() is {error:.3g} off its marginals")
        with np.errstate(all="ignore"):
            over = f[k][:, None].astype(truth.LONG) + g[k] - p.C
        cloud = "cloud" in call.about
        slack = 16 * truth.EPS * (call.most if cloud else 0.0)
        if cloud or call.dtype == torch.float64:
            verdict.require(bool((over <= slack).all()), "certificate's duals are not feasible")
        C = np.where(p.open, p.C, 0.0)
        scale = float(np.abs(f[k]) @ p.a + np.abs(g[k]) @ p.b + np.abs(C).max() * p.a.sum())
        best = truth.transport(p) if chance(rng, 0.3) else None
        least = low[k] if best is None or best.short > 1e-12 else best.value
        allowed = SUMS * eps * scale + p.blur * p.a.sum()
        allowed += 0 if best is None else 1e-8 * np.ptp(C) * p.a.sum()
        if not low[k] - allowed <= least <= high[k] + allowed:
            verdict.wrong(f"certificate {low[k]:.12g} to {high[k]:.12g} is not around {least:.12g}")
