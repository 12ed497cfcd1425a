"""Calls `solve_exact`, and judges it by a linear program and by its own dual potentials."""

import warnings

import numpy as np
import torch

import sinkhorn_ot as so
from bench.cpu.fuzz import calls, draws, truth
from bench.cpu.fuzz.asking import asked
from bench.cpu.fuzz.draws import Random, chance, pick
from bench.cpu.fuzz.numbers import SUMS
from bench.cpu.fuzz.truth import Posed, Program
from bench.cpu.fuzz.verdict import Verdict


def optimal(rng: Random) -> Verdict:
    """Solve exactly, and judge."""
    call = pick(rng, calls.stored, calls.forbidding, calls.clouds)(rng)
    if chance(rng, 0.3):
        call.options["engine"] = pick(rng, "highs", "network simplex")
    verdict = Verdict(told=f"solve_exact({call})")
    problems = call.problems()
    best = [truth.transport(p) for p in problems]

    def act() -> so.Transport:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", so.ConvergenceWarning)
            return so.solve_exact(call.cost, call.a, call.b, **call.options)

    held = [call.cost, call.a, call.b, *call.held]
    r = asked(verdict, act, lambda text: rightly(text, call, problems, best), held)
    if r is None:
        return verdict
    eps = float(torch.finfo(call.dtype).eps)
    n, m = call.C.shape[-2:]
    plans, f, g, values, duals, errors = (
        t.double().numpy().reshape(len(problems), *shape)
        for t, shape in (
            (r.plan, (n, m)),
            (r.f, (n,)),
            (r.g, (m,)),
            (r.value, ()),
            (r.dual_value, ()),
            (r.marginal_error, ()),
        )
    )
    for k, p in enumerate(problems):
        one = Verdict()
        _proved(one, p, plans[k], f[k], g[k], call, eps)
        C = np.where(p.open, p.C, 0.0)
        scale = float((plans[k] * np.abs(C)).sum() + np.abs(f[k]) @ p.a + np.abs(g[k]) @ p.b)
        scale += p.blur / truth.EPS * p.a.sum()
        one.near("value", values[k], float(truth.linear(p, plans[k])), SUMS * eps * scale)
        one.near("dual_value", duals[k], float(f[k] @ p.a + g[k] @ p.b), SUMS * eps * scale)
        found, status = best[k], r.statuses[k]
        if status is not so.Status.OPTIMAL:
            one.at_least("missed" if found is None or found.short > 1e-12 else "gave up")
        else:
            one.require(errors[k] <= 1e-12, f"marginal_error is {errors[k]:.3g}")
            # the last digit of a marginal, at the price it has
            digit = SUMS * eps * p.a.sum() * (np.abs(f[k]).max() + np.abs(g[k]).max())
            one.near("gap", values[k] - duals[k], 0.0, 2e-12 * scale + SUMS * eps * scale + digit)
            if found is not None and found.short < 1e-12:
                allowed = 1e-8 * np.ptp(C) * p.a.sum() + SUMS * eps * scale
                one.near("value beside HiGHS", values[k], found.value, allowed)
        verdict.faults += [f"problem {k} {status.name} ({r.method}): {x}" for x in one.faults]
        verdict.at_least(one.outcome)
    return verdict


def rightly(text: str, call: calls.Call, problems: list[Posed], best: list[Program | None]) -> bool:
    """Say whether no plan exists, if that is what is told."""
    if text.startswith("cost must allow some pair"):
        return not np.isfinite(call.C).any()
    if not text.startswith("cost must leave"):
        return False
    single = any(w is not None and draws.single(w) for w in (call.a, call.b))
    rounding = 1e-6 if single else 1e-9
    stranded = any(side.any() for p in problems for side in p.stranded)
    return stranded or any(x is None or x.short > rounding for x in best)


def _proved(  # noqa: PLR0913
    verdict: Verdict,
    p: Posed,
    P: np.ndarray,
    f: np.ndarray,
    g: np.ndarray,
    call: calls.Call,
    eps: float,
) -> None:
    """Require a plan with the marginals, and potentials below every cost to the last digit."""
    for name, x in (("plan", P), ("f", f), ("g", g)):
        if not np.isfinite(x).all():
            return verdict.wrong(f"{name} is not finite")
    verdict.require(bool((P >= 0).all() and not P[~p.open].any()), "mass where none may be")
    error = truth.off(p, P, f, g)
    allowed = 4 * eps + (1e-12 if np.isfinite(p.C).all() else 1e-7)
    verdict.require(error <= allowed, f"marginals are {error:.3g} off")
    with np.errstate(all="ignore"):
        over = f[:, None].astype(truth.LONG) + g - p.C
    slack = 16 * truth.EPS * call.most if "cloud" in call.about else 0.0
    slack += 4 * eps * float(np.abs(f).max() + np.abs(g).max()) if eps > 1e-10 else 0.0
    verdict.require(bool((over <= slack).all()), "f + g is above a cost")
    return None
