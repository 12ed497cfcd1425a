"""Calls `solve`, and judges every number that it gives back."""

import math
from typing import Any

import numpy as np
import torch

import sinkhorn_ot as so
from bench.cpu.fuzz import truth
from bench.cpu.fuzz.asking import asked
from bench.cpu.fuzz.calls import Call
from bench.cpu.fuzz.draws import Random, chance, power
from bench.cpu.fuzz.numbers import claimed, used
from bench.cpu.fuzz.truth import Posed
from bench.cpu.fuzz.verdict import Verdict


Status = so.Status
ENOUGH = 10_000


def solved(rng: Random, call: Call) -> Verdict:
    """Solve it, and judge."""
    verdict = Verdict(told=f"solve({call})")
    problems = call.problems()
    held = [call.cost, call.a, call.b, call.reg, *call.held]
    r = asked(
        verdict,
        lambda: so.solve(call.cost, call.a, call.b, call.reg, on_fail="ignore", **call.options),
        lambda text: _rightly(text, call, problems),
        held,
    )
    if r is not None:
        judged(verdict, r, call, problems)
        if chance(rng, 0.3):
            used(rng, verdict, r, call, problems)
    return verdict


def _rightly(text: str, call: Call, problems: list[Posed]) -> bool:
    """Say whether a call may be refused with this text."""
    if text.startswith("reg must be at least"):
        # 0.01 is what rounded exponents may do; a factor for bounds that are seen otherwise
        return truth.EPS * call.most / float(np.min(call.reg)) > 0.01 * 0.999
    if text.startswith("cost must leave every point with weight a partner"):
        return any(
            side.any()
            for p in problems
            for side, rho in zip(p.stranded, call.rho, strict=True)
            if math.isinf(rho)
        )
    if text.startswith("cost must allow some pair"):
        return not np.isfinite(call.C).any()
    return False


def judged(verdict: Verdict, r: so.Transport, call: Call, problems: list[Posed]) -> None:
    """Judge a result, problem by problem."""
    n, m = call.C.shape[-2:]
    shapes = {"plan": (n, m), "f": (n,), "g": (m,), "log_plan": (n, m)}
    shapes |= dict.fromkeys(("value", "dual_value", "gap", "value_linear", "marginal_error"), ())
    got = {}
    for name, shape in shapes.items():
        t = getattr(r, name)
        if t.shape != (*call.batch, *shape) or t.dtype != call.dtype:
            verdict.wrong(f"{name} is {t.dtype} {tuple(t.shape)}")
            return
        got[name] = t.double().numpy().reshape(-1, *shape)
    good = [s is Status.CONVERGED for s in r.statuses]
    verdict.require(r.converged.reshape(-1).tolist() == good, "converged is not the statuses'")
    most = call.options.get("max_iter", ENOUGH)
    verdict.require(int(r.n_iter.max()) <= most, f"{int(r.n_iter.max())} sweeps of {most}")
    tol = call.options.get("tol", 1e-9 if call.dtype == torch.float64 else 1e-6)
    for k, (p, status) in enumerate(zip(problems, r.statuses, strict=True)):
        one = Verdict()
        claimed(one, p, status, {name: t[k] for name, t in got.items()}, tol, call)
        if status is not Status.CONVERGED and "n_iter" not in call.options:
            _excused(one, p, status, tol, call)
        where = f"problem {k} {status.name} ({r.method}): "
        verdict.faults += [where + fault for fault in one.faults]
        verdict.at_least(one.outcome)


def _excused(verdict: Verdict, p: Posed, status: Status, tol: float, call: Call) -> None:
    """Say of a problem that was not solved whether it could have been."""
    verdict.at_least("missed")
    if status is Status.INFEASIBLE:
        found = truth.transport(p)
        if not p.exact or (found is not None and found.short < 0.5 * tol):
            verdict.wrong("told infeasible, but a plan exists")
        return
    if {"max_iter", "callback"} & set(call.options):
        return
    if p.exact and np.isinf(p.C).any():
        found = truth.transport(p)
        if found is None or found.short > 0.1 * tol:
            if found and found.short > max(2 * tol, 1e-6) and "method" not in call.options:
                verdict.at_least("gave up")
                verdict.told = "not told infeasible"
            return
    at = truth.plain(p, tol, ENOUGH)
    mass = truth.gibbs(p, at.f, at.g).sum()
    # what no number of the answer's dtype holds is rightly told
    held = 1e-30 < mass < 1e30 if call.dtype == torch.float32 else 1e-150 < mass < 1e150
    if at.error <= tol and (held or status is not Status.NOT_FINITE):
        verdict.at_least("gave up")


def repeated(rng: Random, call: Call) -> Verdict:
    """Run a fixed number of sweeps, and compare with plain ones."""
    call.options = {k: v for k, v in call.options.items() if k == "unbalanced"}
    call.options["n_iter"] = int(power(rng, 0, 1.8))
    verdict = Verdict(told=f"solve({call})")
    problems = call.problems()
    r = asked(
        verdict,
        lambda: so.solve(call.cost, call.a, call.b, call.reg, **call.options),
        lambda text: _rightly(text, call, problems),
        [call.cost, call.a, call.b, *call.held],
    )
    if r is None:
        return verdict
    judged(verdict, r, call, problems)
    verdict.require(set(r.statuses) == {Status.FIXED}, f"status is {r.status.name}")
    n, m = call.C.shape[-2:]
    plans = r.plan.double().numpy().reshape(-1, n, m)
    eps = float(torch.finfo(call.dtype).eps)
    for k, (p, P) in enumerate(zip(problems, plans, strict=True)):
        # beside a penalty a plain step moves a constant as well
        if p.exact or 0 in (p.rho_a, p.rho_b):
            at = truth.plain(p, 0.0, call.options["n_iter"], look=False)
            want = truth.gibbs(p, at.f, at.g)
            rel = truth.digits(p, at.f, at.g, truth.EPS) * call.options["n_iter"] + 64 * eps
            noise = float((want * rel).sum())
            if noise < 0.01 * want.sum() and want.max() < 1e30:
                off = float(np.abs(P - want).sum())
                allowed = 16 * noise + 1e-37 * P.size * (eps > truth.EPS)
                verdict.near(f"problem {k}: |plan - plain sweeps'|", off, 0.0, allowed)
    return verdict


def warmed(rng: Random, call: Call) -> Verdict:
    """Start somewhere: at an earlier answer, near it, or far from it."""
    n, m = call.C.shape[-2:]
    scale = float(np.min(call.reg)) * power(rng, -2, 4)
    own = call.batch if chance(rng, 0.5) else ()
    f, g = (scale * rng.standard_normal((*own, k)) for k in (n, m))
    kind = int(rng.integers(4))
    if kind == 3:
        before = Verdict()
        r = asked(
            before,
            lambda: so.solve(
                call.cost,
                call.a,
                call.b,
                call.reg * 2,
                max_iter=50,
                on_fail="ignore",
                unbalanced=call.options.get("unbalanced"),
            ),
            lambda text: True,
            [],
        )
        if r is None:
            before.told = f"solve({call}), for a start"
            return before
        start: Any = r if chance(rng, 0.5) else (r.f, r.g)
    else:
        start = ((f, g), (f, None), (None, torch.from_numpy(g)))[kind]
    call.options["init"] = start
    call.about += f", start {('pair', 'f', 'g', 'earlier')[kind]} x {scale:.2g}"
    call.held += [f, g]
    return solved(rng, call)
