"""Calls what makes labels and codes, and judges it by an assignment and by the formulas."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

import sinkhorn_ot as so
from bench.cpu.fuzz import draws
from bench.cpu.fuzz.asking import asked
from bench.cpu.fuzz.draws import Array, Random, chance, pick, power
from bench.cpu.fuzz.verdict import Verdict


# forbidden, in an assignment
NEVER = 1e30


def _scores(rng: Random, batch: tuple[int, ...], N: int, K: int) -> tuple[Any, Array, str]:
    """Return scores as they are handed over, what they are, and their dtype; many are tied."""
    dtype = pick(rng, *draws.DTYPES, p=(0.5, 0.3, 0.1, 0.1))
    S = -draws.costs(rng, batch, N, K)
    if chance(rng, 0.3):
        S = rng.standard_normal(S.shape) * power(rng, -2, 2)
    if chance(rng, 0.2):
        S = np.log(rng.dirichlet(np.full(K, 0.3), (*batch, N)) + 1e-30)
    if chance(rng, 0.15):
        S = S + 100 * rng.standard_normal((*batch, N, 1))
    given = draws.handed(rng, S, dtype)
    return given, draws.truth(given), str(dtype).removeprefix("torch.")


def _barred(rng: Random, given: Any, S: Array) -> tuple[Any, Array]:
    """Forbid some labels by -inf."""
    N, K = S.shape[-2:]
    shut = ~draws.allowed(rng, N, K)
    t = torch.as_tensor(given).masked_fill(torch.from_numpy(shut), -math.inf)
    return t, draws.truth(t)


def balanced(rng: Random) -> Verdict:
    """Label in exact counts, and compare with an assignment."""
    N, K = draws.size(rng, 50), draws.size(rng, 12)
    batch = pick(rng, (), (2,), p=(0.85, 0.15))
    given, S, name = _scores(rng, batch, N, K)
    if chance(rng, 0.25):
        given, S = _barred(rng, given, S)
    counts = None
    if chance(rng, 0.6):
        share = rng.dirichlet(np.full(K, pick(rng, 0.2, 1.0, 10.0)))
        counts = rng.multinomial(N, share)
    mode = pick(rng, "exact", "fast", p=(0.8, 0.2))
    init = torch.from_numpy(rng.standard_normal(K)) if chance(rng, 0.15) else None
    sizes = "x".join(map(str, S.shape))
    verdict = Verdict(told=f"balanced_labels({name} {sizes}, {counts}, {mode=}, {init=})")
    problems = S.reshape(-1, N, K)
    best = [_assigned(one, counts) for one in problems]
    r = asked(
        verdict,
        lambda: so.balanced_labels(given, counts, mode=mode, init=init),
        lambda text: None in best,
        [given, counts, init],
    )
    if r is None:
        return verdict
    labels, got = r.labels.numpy().reshape(-1, N), r.counts.numpy().reshape(-1, K)
    value, gap = (t.numpy().reshape(-1) for t in (r.value, r.gap))
    for k, (one, most) in enumerate(zip(problems, best, strict=True)):
        if most is None:
            verdict.wrong("a labelling of what has none")
            continue
        made = np.bincount(labels[k], minlength=K)
        verdict.require(bool((made == got[k]).all()), "counts are not the labels'")
        right = counts is None and set(made) <= {N // K, -(-N // K)}
        verdict.require(right or (counts is not None and (made == counts).all()), f"counts {made}")
        rounding = 1e-13 * (np.abs(one[np.isfinite(one)]).max() + 1) * N
        verdict.near("value", value[k], float(one[np.arange(N), labels[k]].sum()), rounding)
        verdict.require(value[k] <= most + rounding, "better than the best")
        verdict.require(value[k] + gap[k] >= most - rounding, "the bound is below the best")
        if mode == "exact":
            verdict.near("value beside an assignment", value[k], most, rounding)
            verdict.require(abs(gap[k]) <= 10 * rounding, f"the gap is {gap[k]:.3g}")
    return verdict


def _assigned(S: Array, counts: Array | None) -> float | None:
    """Return the largest sum of scores in such counts, or None if there is no labelling."""
    N, K = S.shape
    low = np.full(K, N // K) if counts is None else counts
    spare = N - int(low.sum())
    places = np.repeat(np.arange(K), low)
    columns = np.r_[places, np.arange(K)] if spare else places
    # where K does not divide N, all labels have one more place, of which some stay empty
    rows = np.vstack([S, np.zeros((len(columns) - N, K))])[:, columns]
    rows = np.where(np.isfinite(rows), rows, -NEVER)
    rows[N:, : len(places)] = -NEVER
    i, j = linear_sum_assignment(rows, maximize=True)
    chosen = rows[i, j]
    return None if (chosen <= -NEVER).any() else float(chosen[i < N].sum())


def sela(rng: Random) -> Verdict:
    """Label a data set by shares, and judge the potentials."""
    N, K = draws.size(rng), draws.size(rng, 12)
    batch = pick(rng, (), (2,), p=(0.8, 0.2))
    given, S, name = _scores(rng, batch, N, K)
    if chance(rng, 0.15):
        given, S = _barred(rng, given, S)
    lamb = pick(rng, 25.0, power(rng, -1, 2))
    marginal = None if chance(rng, 0.5) else draws.weights(rng, (), K)
    options: dict[str, Any] = {"tol": power(rng, -9, -2)} if chance(rng, 0.3) else {}
    sizes = "x".join(map(str, S.shape))
    verdict = Verdict(told=f"sela_labels({name} {sizes}, {lamb=:.4g}, {marginal=}, {options})")
    share = np.full(K, 1 / K) if marginal is None else marginal / marginal.sum()
    # a sample needs a label with a share, and a label with a share a sample
    shut = not (np.isfinite(S) & (share > 0)).any(-1).all()
    shut |= not (np.isfinite(S).any(-2) | (share == 0)).all()
    r = asked(
        verdict,
        lambda: so.sela_labels(given, lamb=lamb, marginal=marginal, **options),
        lambda text: shut,
        [given, marginal],
    )
    if r is None:
        return verdict
    labels, potentials = r.labels.numpy().reshape(-1, N), r.potentials.numpy().reshape(-1, K)
    for k, one in enumerate(S.reshape(-1, N, K)):
        with np.errstate(all="ignore"):
            shifted = one + potentials[k]
        verdict.require(not np.isnan(shifted).any(), "NaN in potentials")
        chosen = shifted[np.arange(N), labels[k]]
        rounding = 1e-14 * (1 + np.abs(shifted[np.isfinite(shifted)]).max())
        verdict.require(bool((chosen >= shifted.max(1) - rounding).all()), "labels are no argmax")
        made = np.bincount(labels[k], minlength=K)
        verdict.require(bool((made == r.counts.reshape(-1, K)[k].numpy()).all()), "counts")
        plan = _softmax(lamb * shifted) / N
        error = float(np.abs(plan.sum(0) - share).sum())
        tol = options.get("tol", 1e-6)
        rounding = 1e-14 * lamb * (1 + np.abs(shifted[np.isfinite(shifted)]).max())
        # samples alike are rounded alike, in single precision a dozen times
        rounding += 0 if name == "float64" else 8e-7
        if bool(r.converged.reshape(-1)[k]):
            verdict.require(error <= 1.001 * tol + rounding, f"shares are {error:.3g} off, {tol=}")
        else:
            verdict.at_least("missed")
    return verdict


def _softmax(S: Array) -> Array:
    with np.errstate(all="ignore"):
        e = np.exp(S - S.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def swav(rng: Random) -> Verdict:
    """Make codes, and compare with the loop of the paper, in logarithms."""
    N, K = draws.size(rng), draws.size(rng, 20)
    batch = pick(rng, (), (2,), p=(0.8, 0.2))
    given, S, name = _scores(rng, batch, N, K)
    eps = pick(rng, 0.05, power(rng, -2, 1))
    n_iter = pick(rng, 3, 1, 10, None)
    mask = rng.random(N) < 0.7 if chance(rng, 0.3) else None
    hard = chance(rng, 0.15)
    sizes = "x".join(map(str, S.shape))
    verdict = Verdict(told=f"swav_codes({name} {sizes}, {eps=:.4g}, {n_iter=}, {hard=}, {mask=})")
    keep = np.ones(N, bool) if mask is None else mask

    def act() -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", so.ConvergenceWarning)
            return so.swav_codes(given, eps=eps, n_iter=n_iter, mask=mask, hard=hard)

    Q = asked(verdict, act, lambda text: not keep.any(), [given, mask])
    if Q is None:
        return verdict
    verdict.require(Q.dtype == torch.as_tensor(given).dtype, f"codes are {Q.dtype}")
    codes = Q.double().numpy().reshape(-1, N, K)
    digit = float(torch.finfo(Q.dtype).eps)
    for one, code in zip(S.reshape(-1, N, K), codes, strict=True):
        verdict.require(not code[~keep].any(), "codes where the mask is false")
        if not keep.any():
            continue
        verdict.near("a row's sum", float(np.abs(code[keep].sum(1) - 1).max()), 0.0, 4 * digit)
        if n_iter is None or hard:
            continue
        want = _codes(one[keep] / eps, n_iter)
        spread = float(np.abs(one[keep] / eps).max())
        work = 2.2e-16 if name == "float64" else 1.2e-7
        # an exponent keeps so many digits
        allowed = 4 * digit + 16 * n_iter * work * (1 + spread)
        verdict.near("|codes - the loop's|", float(np.abs(code[keep] - want).max()), 0.0, allowed)
    return verdict


def _codes(S: Array, n_iter: int) -> Array:
    """Return the codes of the paper's loop: prototypes to equal mass, then every sample to one."""
    phi = np.zeros(S.shape[1])
    for k in range(n_iter):
        rows = np.zeros(len(S)) if k == 0 else _log_sum(S + phi, 1)
        phi = -_log_sum(S - rows[:, None], 0)
    return _softmax(S + phi)


def _log_sum(S: Array, axis: int) -> Array:
    top = S.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return (top + np.log(np.exp(S - top).sum(axis, keepdims=True))).squeeze(axis)


def moe(rng: Random) -> Verdict:
    """Route tokens, and compare with the iteration written out."""
    T, E = draws.size(rng), draws.size(rng, 12)
    batch = pick(rng, (), (2,), p=(0.8, 0.2))
    given, L, name = _scores(rng, batch, T, E)
    if chance(rng, 0.2):
        given, L = _barred(rng, given, L)
    n_iter = pick(rng, None, 1, 5)
    sizes = "x".join(map(str, L.shape))
    verdict = Verdict(told=f"moe_router({name} {sizes}, {n_iter=})")
    shut = not (np.isfinite(L).any(-1).all() and np.isfinite(L).any(-2).all())
    r = asked(
        verdict,
        lambda: so.adapters.moe_router(given, n_iter=n_iter, on_fail="ignore"),
        lambda text: shut,
        [given],
    )
    if r is None:
        return verdict
    plans, done = r.plan.double().numpy().reshape(-1, T, E), r.converged.reshape(-1)
    taken = r.n_iter.reshape(-1)
    digit = float(torch.finfo(r.plan.dtype).eps)
    top = r.top_k(E).numpy().reshape(-1, T, E)
    for k, one in enumerate(L.reshape(-1, T, E)):
        P = plans[k]
        if n_iter is None and not bool(done[k]):
            verdict.at_least("missed")
            continue
        if np.isnan(P).any():
            verdict.wrong("NaN in the plan")
            continue
        spread = float(np.ptp(one[np.isfinite(one)]))
        allowed = 8 * digit * (1 + (spread if digit > 1e-10 else 0)) + 1e-13 * (1 + spread)
        verdict.near("an expert's mass", float(np.abs(P.sum(0) * E - 1).max()), 0.0, allowed)
        want = _routed(one, int(taken[k]))
        verdict.near("|plan - the loop's|", float(np.abs(P - want).max()) * T, 0.0, 100 * allowed)
        # an expert that a token may not use is told as -1
        every = np.sort(np.where(one > -math.inf, np.arange(E), -1), 1)
        verdict.require(bool((np.sort(top[k], 1) == every).all()), "top_k of all is not all")
    return verdict


def _routed(L: Array, n_iter: int) -> Array:
    """Return the plan of so many iterations: tokens to 1 / T, then experts to 1 / E."""
    T, E = L.shape
    psi = np.zeros(E)
    phi = np.zeros(T)
    for _ in range(n_iter):
        phi = -math.log(T) - _log_sum(L + psi, 1)
        psi = -math.log(E) - _log_sum(L + phi[:, None], 0)
    return np.exp(L + phi[:, None] + psi)
