"""Exact transport: an engine finds the plan, and dual potentials prove it to the last digits."""

from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import (
    ArrayLike,
    Cost,
    Dense,
    Mask,
    Problem,
    There,
    Unbalanced,
    checks,
    make,
    make_plain,
    masked,
)
from sinkhorn_ot.results import (
    ON_FAIL,
    OnFail,
    Status,
    Stored,
    Transport,
    missed,
    transformable,
    uncompiled,
    waiting,
)

from .beyond import Budget, on_demand, solved_on_demand
from .derivatives import differentiable
from .engines import EQUAL, EngineName
from .line import line_cost, solved_on_line
from .plain import SMALL, is_plain, solved_plain
from .proof import MARGINAL
from .rounds import Answers, Weights, attempted, costs, solved
from .routes import NoPlan, alone, not_too_narrow, routable
from .slack import slack_of


# whoever chooses, those of the table, and what gives them few pairs at a time
Chosen = Literal["auto", EngineName, "columns"]


@uncompiled
@transformable
def solve_exact(  # noqa: PLR0913
    cost: ArrayLike | Cost,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    mask: Mask | None = None,
    unbalanced: Unbalanced | None = None,
    mass: float | ArrayLike | None = None,
    engine: Chosen = "auto",
    max_iter: int | None = None,
    memory: int | None = None,
    seconds: float | None = None,
    on_fail: OnFail = "warn",
) -> Transport:
    """Find an optimal plan of min `<P, C>`, P 1 = a, P^T 1 = b, and potentials that prove it.

    The potentials satisfy f_i + g_j <= C_ij to the last digit, so `dual_value` bounds the optimum
    from below whatever the engine did. The status is `OPTIMAL` only where the gap is rounding. The
    work is done in float64 on the CPU.

    Points on a line need no engine: those of a `PointCloud` with d = 1 whose metric is a distance,
    to a power of at least one, or "dot" are sorted, a million in a second. Their plan is held
    sparse, as `.coupling.P`, until `.plan` is asked for.

    Large problems need no matrix, `engine="columns"`: few pairs are given to the simplex, all are
    looked at in blocks, and those that its potentials undercut are added until there is none. Costs
    of a `PointCloud` are computed as they are looked at, those of a `Streamed` cost read again.
    Plans are held sparse too.

    With `mass=` that much is moved, where it costs least: P 1 <= a, P^T 1 <= b, sum P = mass. With
    `unbalanced=` marginals may be missed at a price: sum rho |P 1 - a| is added for `TV(rho)`. As
    in `solve`, points of weight zero neither send nor take mass.

    Without weights and with n other than m the mass is spread: 1/n from each source, 1/m to each
    target, so that sources share targets. To match min(n, m) pairs instead give weights of one,
    `solve_exact(cost, ones(n), ones(m), mass=min(n, m))`; `balanced_labels(scores, k=)` labels k
    samples.

    Args:
        cost: Tensor or array (..., n, m), `PointCloud` or `Streamed`; inf forbids a pair.
        a: Source weights (..., n); None means 1/n each.
        b: Target weights (..., m); None means 1/m each.
        mask: Which points of a padded batch are there, (rows, columns), as in `solve`.
        unbalanced: None for exact marginals; or one entry for both, or a pair: `TV(rho)`, rho a
            number or one per point, 0 for a side that is free, None for one that is exact. Other
            penalties are no linear programs.
        mass: What is moved in all, a number or one per problem (...), at most what either side has.
        engine: "network simplex" (POT), "highs" (SciPy), "assignment" (SciPy; as many sources as
            targets, all of one weight), "columns" (POT's on few pairs, more on demand), or "auto":
            columns from sixteen million pairs on, with a thousand points a side; else assignment
            where it applies and is predicted to be quicker, otherwise network simplex; where that
            fails, network simplex, then HiGHS. Assignment and columns have no place for what is
            left over by `mass` or `unbalanced`.
        max_iter: Pivots at most, of each plan that columns try; None sets a limit far above need.
            Assignment has no pivots.
        memory: Bytes that columns may hold beside the cost; None is a gigabyte, or more where that
            is less than 64 pairs a point.
        seconds: How long columns may take. It is looked at in between, not within a run of the
            simplex. What is known then, a plan and bounds, is returned with the status `BUDGET`.
        on_fail: What to do where a plan is not proved optimal: "warn", "raise" `ConvergenceError`,
            "ignore".

    Returns:
        A `Transport`. Where an argument requires grad, its values have derivatives by the plan and
        the duals, one of them where there are many; the plan has none.

    Raises:
        ValueError: If an argument breaks a rule, or the forbidden pairs leave no plan.
        ConvergenceError: With on_fail="raise".
    """
    checks.one_of("on_fail", on_fail, ON_FAIL)
    checks.one_of("engine", engine, get_args(Chosen))
    max_iter = None if max_iter is None else checks.count("max_iter", max_iter)
    budget = _budget(engine, memory, seconds)
    there = None
    if mask is not None:
        cost, a, b, there = masked(cost, a, b, mask)
    leaves, (cost, a, b, *_) = waiting(cost, a, b)
    if there is not None and not (unbalanced is None and mass is None):
        raise ValueError(
            "mask must not be given with unbalanced or mass: give what is padded a weight of zero"
        )
    result = _solved(cost, a, b, (unbalanced, mass), engine, max_iter, there, budget)
    _say(result, on_fail)
    return result if leaves is None else differentiable(result, leaves)


def _solved(  # noqa: PLR0913
    cost: Any,
    a: Any,
    b: Any,
    relaxed: tuple[Any, Any],
    engine: str,
    max_iter: int | None,
    points: There | None,
    budget: Budget,
) -> Transport:
    plain = engine == "auto" and max_iter is None
    if plain and all(side is None for side in relaxed):
        small = make_plain(cost, a, b, SMALL)
        if small is not None and (answer := solved_plain(small)) is not None:
            return answer
    given = make(cost, a, b, unbalanced=relaxed[0], mass=relaxed[1], there=points)
    if engine == "auto" and (kept := line_cost(given)) is not None:
        return solved_on_line(given, kept)
    if not given.exact and engine in ("assignment", "columns"):
        raise ValueError(f"engine {engine!r} must move all weights: use engine='network simplex'")
    if engine == "columns" or (engine == "auto" and on_demand(given)):
        return solved_on_demand(given, budget, max_iter)
    p = _in_float64(given)
    slack = None if p.exact else slack_of(p)
    asked = p if slack is None else slack.widened()
    found = solved_plain(asked) if slack and plain and is_plain(asked) else None
    try:
        found = found or _proved(asked, engine, max_iter)
    except NoPlan as none:
        raise none if slack is None else slack.told(none) from None
    p, of, measured = found.problem, found.coupling, found.measured
    assert isinstance(of, Stored)
    assert measured is not None
    P, f, g = of.P, of.f, of.g
    if slack is not None:
        p = slack.problem
        P, f, g = map(torch.from_numpy, slack.narrowed(P.numpy(), f.numpy(), g.numpy()))
    home, on = _moved(p, given.a.device), given.a.device
    there = Stored(home, P.to(on), f.to(on), g.to(on))
    return replace(
        found, problem=home, coupling=there, sweeps=found.sweeps.to(on), measured=measured.to(on)
    )


def _proved(p: Problem, engine: str, max_iter: int | None) -> Transport:
    """Return the answer to problems in float64 on the CPU."""
    p, found = _answered(p, engine, max_iter)
    return Transport(
        problem=p,
        coupling=Stored(p, *map(torch.from_numpy, (found.P, found.f, found.g))),
        method="exact: " + " and ".join(sorted(set(found.engine))),
        statuses=found.statuses,
        sweeps=torch.from_numpy(np.asarray(found.n_iter)),
        measured=torch.from_numpy(found.measured.marginal_error),
    )


def _budget(engine: str, memory: Any, seconds: Any) -> Budget:
    """Return what may be taken, which only columns look at."""
    given = [k for k, t in (("memory", memory), ("seconds", seconds)) if t is not None]
    if given and engine not in ("auto", "columns"):
        raise ValueError(
            f"{given[0]} must be given with engine='columns' or 'auto' only, got {engine!r}"
        )
    memory = None if memory is None else checks.count("memory", memory)
    return Budget(memory, None if seconds is None else checks.positive("seconds", seconds))


def _in_float64(p: Problem) -> Problem:
    """Return the problem in float64 on the CPU, with its costs stored and its masses equal."""
    cost = Dense(p.cost.rows(0, p.shape[1]).double())
    a, b, reg = p.a.double(), p.b.double(), p.reg.double()
    if p.exact:
        b = b * (a.sum(-1) / b.sum(-1))[:, None]
    return _moved(replace(p, cost=cost, a=a, b=b, reg=reg), torch.device("cpu"))


def _moved(p: Problem, device: torch.device) -> Problem:
    a, b, reg = (t.to(device) for t in (p.a, p.b, p.reg))
    there = p.there and (p.there[0].to(device), p.there[1].to(device))
    return replace(p, cost=Dense(costs(p).to(device)), a=a, b=b, reg=reg, there=there)


def _answered(p: Problem, engine: str, max_iter: int | None) -> tuple[Problem, Answers]:
    """Return the problems as they were solved, and their answers.

    A proved plan shows that allowed pairs carry all weights. Only where the simplex, whose price
    keeps it from forbidden pairs, finds none is it asked what they can carry.
    """
    if not p.bounds.forbids or engine not in ("auto", "network simplex"):
        p, weights = _posed(p, engine)
        return p, solved(p, weights, engine, max_iter)
    for k in range(p.shape[0]):
        not_too_narrow(*alone(p, k))
    found = attempted(p, (p.a, p.b), engine, max_iter)
    bad = np.flatnonzero(~found.proved)
    if len(bad):
        index = torch.from_numpy(bad)
        parts = [_posed_one(p, k, engine) for k in bad.tolist()]
        a, b, left, right = (torch.cat(t) for t in zip(*parts, strict=True))
        # index_copy makes new weights
        p = replace(p, a=p.a.index_copy(0, index, a), b=p.b.index_copy(0, index, b))
        found.put(bad, solved(p.select(index), (left, right), engine, max_iter))
    return p, found


def _posed(p: Problem, engine: str) -> tuple[Problem, Weights]:
    """Return the problems and the weights that their allowed pairs can carry.

    Groups of points that only serve each other are like all points: where their masses differ by
    the rounding of the weights, they are made equal.
    """
    if engine != "assignment" and not p.bounds.forbids:
        return p, (p.a, p.b)
    parts = [_posed_one(p, k, engine) for k in range(p.shape[0])]
    a, b, left, right = (torch.cat(t) for t in zip(*parts, strict=True))
    return replace(p, a=a, b=b), (left, right)


def _posed_one(batch: Problem, k: int, engine: str) -> tuple[Tensor, ...]:
    p, where = alone(batch, k)
    if engine == "assignment":
        _matchable(p, where)
    a, b = routable(p, where)
    off = float((a - p.a).abs().sum() + (b - p.b).abs().sum())
    even = MARGINAL < off / float(p.a.sum()) <= 2 * p.rounded
    return (*((a, b) if even else (p.a, p.b)), a, b)


def _matchable(p: Problem, where: str) -> None:
    """Raise unless as many sources as targets have weight, and all the same."""
    rows, columns = p.a[p.a > 0], p.b[p.b > 0]
    spread = max(float(w.max() / w.min()) for w in (rows, columns))
    if len(rows) != len(columns) or spread > EQUAL:
        raise ValueError(
            "engine 'assignment' must have as many sources as targets, all of one weight, got "
            f"{len(rows)} and {len(columns)} with weights up to a factor of {spread:.9g} apart"
            f"{where}: use engine='network simplex'"
        )


def _say(x: Transport, on_fail: str) -> None:
    """Raise or warn if some problem is not proved optimal, and say by how much."""
    bad = [k for k, status in enumerate(x.statuses) if status is not Status.OPTIMAL]
    if bad:
        gap, off = x.gap.reshape(-1), x.marginal_error.reshape(-1)
        k = max(bad, key=lambda k: float(gap[k]))
        hints = {Status.MAX_ITER: ": raise max_iter", Status.BUDGET: ": raise seconds"}
        said = (
            f"solve_exact: {len(bad)} of {len(x.statuses)} problems are not proved optimal, at "
            f"worst a gap of {float(gap[k]):.3g} and a marginal_error of {float(off[k]):.3g} by "
            f"{x.method.removeprefix('exact: ')}{hints.get(x.statuses[k], '')}"
        )
        missed(said, x, on_fail)
