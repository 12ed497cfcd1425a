"""The making of a problem: every argument is checked, once."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import checks
from .costs import Bounds, Cost, Dense, as_cost, broadcast
from .marginals import (
    HELD,
    Array,
    There,
    equal_mass,
    even,
    flat,
    held,
    mass_rtol,
    tensor,
    total,
    uniform,
    weights,
)
from .problem import EXACT, Beside, Penalties, Problem, Relax, Spread
from .regularisation import (
    UNRESOLVED,
    finest,
    least_cost,
    regularisation,
    resolved,
    without_far,
)
from .relaxation import possible, relaxation
from .rows import at_once


# what plain costs are at most beside their spread, what that is at least, and how far plain masses
# may be apart
_OFFSET, _SPREAD, _PLAIN = 10.0, 1e-100, 1e-7
# pairs up to which a short look takes less than the rest
_FEW = 1 << 14


def make(
    cost: Any,
    a: Any = None,
    b: Any = None,
    reg: Any = None,
    unbalanced: Any = None,
    *,
    mass: Any = None,
    values: bool = True,
    there: There | None = None,
) -> Problem:
    """Check every argument and return the flat problem.

    Args:
        cost: Tensor or array (..., n, m), or a cost object.
        a: Source weights (..., n); None means 1/n each.
        b: Target weights (..., m); None means 1/m each.
        reg: A number above zero or one per problem; None for exact transport.
        unbalanced: None, one penalty for both marginals, or one for each.
        mass: What is to be moved in all, None for what the marginals say.
        values: Whether to look at the numbers too, which on CUDA waits for the device.
        there: Which points are, (..., n) and (..., m), if `masked` made cost and weights.

    Raises:
        Unresolved: If reg is too small for the numbers.
        ValueError: If an argument breaks a rule; the message names it.
    """
    plainly = values and unbalanced is None and mass is None and there is None
    if plainly and isinstance(reg, (float, int)):
        p = _small(cost, a, b, reg)
        if p is not None:
            return p
    cost = as_cost(cost)
    if cost.device.type == "meta":
        raise ValueError("cost must hold numbers, got a tensor on the meta device")
    n, m = cost.shape
    relax, penalties = relaxation(unbalanced, mass)
    a, b, batch, rounded = _weights(a, b, cost, relax == EXACT, values)
    bounds = cost.validate() if values else Bounds(-math.inf, math.inf)
    reg, one_reg = regularisation(reg, batch, values, like=a)
    known: dict[str, Any] = {"rounded": rounded, "one_reg": one_reg}
    if there is not None:
        known["there"] = tuple(t.expand(*batch, -1).reshape(len(a), -1) for t in there)
    p = Problem(cost.flat(batch), a, b, reg, relax, batch, dtypes(cost)[0], bounds, **known)
    if penalties != (None, None):
        p = _penalised(p, penalties, values)
    if values and p.least_reg < finest(p):
        p = resolved(without_far(p))
    shift = least_cost(p)
    p = replace(p, shift=shift) if shift else p
    p = _evened(_parted(p))
    return possible(p) if p.penalised and values else p


def _penalised(p: Problem, penalties: Penalties, values: bool) -> Problem:
    """Return the problem with penalties of other kinds, less points that must carry nothing."""
    sides = zip(penalties, (p.a, p.b), p.there or (None, None), strict=True)
    first, second = (
        None if side is None else side.flat(w, p.batch_shape, values, there)
        for side, w, there in sides
    )
    p = replace(p, penalties=(first, second))
    closed = [None if side is None else side.closed() for side in p.penalties]
    if not values or all(off is None or not bool(off.any()) for off in closed):
        return p
    rows, columns = (
        torch.zeros_like(w, dtype=torch.bool) if off is None else off
        for off, w in zip(closed, (p.a, p.b), strict=True)
    )
    p = p.without(rows, columns)
    # nor can anybody move whose partners are all closed
    alone = ((w.amax(-1, keepdim=True) == 0) for w in (p.b, p.a))
    rows, columns = (none & ~_moves(p, side) for side, none in enumerate(alone))
    return p.without(rows, columns)


def _small(cost: Any, a: Any, b: Any, reg: Any) -> Problem | None:
    """Return one problem so small that looking at it takes longer than solving it, if plain."""
    p = make_plain(cost, a, b, _FEW, checks.positive("reg", reg))
    return p if p is not None and p.least_reg >= finest(p) else None


def make_plain(cost: Any, a: Any, b: Any, most: int, reg: float = 0.0) -> Problem | None:
    """Return one small problem of exact marginals, if a short look shows it as plain as most are.

    What it makes is what `make` does. It leaves to that whatever has more to it: a cost object, a
    batch, other dtypes and devices, forbidden pairs, bad input.

    Args:
        cost: As in `make`.
        a: Source weights.
        b: Target weights.
        most: The largest number of pairs that is small.
        reg: Regularisation, checked; 0 is exact transport.
    """
    if hasattr(cost, "tiles"):
        return None
    C = _array("cost", cost)
    if C is None or C.ndim != 2 or not 0 < C.size <= most:
        return None
    low, high = float(np.minimum.reduce(C, None)), float(np.maximum.reduce(C, None))
    # nan compares as false
    if not (_SPREAD < high - low < math.inf and max(-low, high) <= _OFFSET * (high - low)):
        return None
    pair = _plain_pair(a, b, C.shape, True)
    if pair is None or not all(np.minimum.reduce(w.numpy(), None) > 0 for w in pair):
        return None
    left, right = pair
    known = EXACT, torch.Size(), torch.float64, Bounds(low, high)
    at = torch.from_numpy(np.array([reg]))
    return Problem(Dense(torch.from_numpy(C[None])), left, right, at, *known, one_reg=reg)


def _plain_pair(
    a: Any, b: Any, shape: tuple[int, ...], exact: bool
) -> tuple[Tensor, Tensor] | None:
    """Return flat copies of weights in float64, if a short look shows that they are that.

    Those of an exact problem get one mass.
    """
    left, right = _plain_weights("a", a, shape[0]), _plain_weights("b", b, shape[1])
    if left is None or right is None:
        return None
    if exact:
        ratio = left[1] / right[1]
        if not abs(ratio - 1) <= _PLAIN:
            return None
        np.multiply(right[0], ratio, out=right[0])
    return torch.from_numpy(left[0][None]), torch.from_numpy(right[0][None])


def _plain_weights(name: str, w: Any, size: int) -> tuple[Array, float] | None:
    """Return a copy of weights and their sum, if that is plain too."""
    t = np.full(size, 1.0 / size) if w is None else _array(name, w)
    if t is None or t.shape != (size,):
        return None
    # nan compares as false, and a sum of what is larger may overflow
    if not (np.minimum.reduce(t) >= 0 and np.maximum.reduce(t) < HELD[1]):
        return None
    total = float(np.add.reduce(t))
    return (t, total) if HELD[0] < total < HELD[1] else None


def _array(name: str, x: Any) -> Any:
    """Return a copy of an array, or of a tensor on the CPU, of float64."""
    if isinstance(x, Tensor):
        # what else is taken, and how, is told by `make`
        return np.array(checks.tensor(name, x).numpy(), order="C") if _on_host(x) else None
    return np.array(x, order="C") if type(x) is np.ndarray and x.dtype == np.float64 else None


def _on_host(t: Tensor) -> bool:
    return t.dtype == torch.float64 and t.device.type == "cpu"


def _weights(
    a: Any, b: Any, cost: Cost, exact: bool, values: bool
) -> tuple[Tensor, Tensor, torch.Size, float]:
    """Return flat weights of their own, the batch, and how far their sums may be off."""
    (n, m), (dtype, work) = cost.shape, dtypes(cost)
    if a is None and b is None:
        # nothing has to be compared of weights that are uniform on both sides
        batch = cost.batch_shape
        size = batch.numel()
        return uniform((size, n), work, cost), uniform((size, m), work, cost), batch, 0.0
    if values and not cost.batch_shape and cost.device.type == "cpu":
        # most weights are plain, and a small problem takes no longer than to look at them twice
        plain = _plain_pair(a, b, (n, m), exact)
        if plain is not None:
            return *plain, cost.batch_shape, 0.0
    a, b = weights("a", a, n, cost, values), weights("b", b, m, cost, values)
    batch = broadcast("cost", cost.batch_shape, "a", a.shape[:-1])
    batch = broadcast("cost and a", batch, "b", b.shape[:-1])
    rtol = mass_rtol(a, b) if values else math.inf
    # float64 has digits to spare
    rounded = rtol if rtol < math.inf and {a.dtype, b.dtype} != {torch.float64} else 0.0
    # copies: who changes weights in place later must not change a result
    flat_a, flat_b = flat(a, batch, work, True), flat(b, batch, work, not exact)
    single = dtype == torch.float32 and values
    if single or exact:
        masses = total(flat_a, flat_b)
        if single:
            held(masses)
        if exact:
            flat_b = equal_mass(masses, flat_b, rtol)
    return tensor(flat_a), tensor(flat_b), batch, rounded


def make_share(  # noqa: PLR0913
    cost: Cost,
    a: Tensor,
    b: Tensor,
    reg: Any,
    bounds: Bounds,
    spread: Spread | None,
    *,
    beside: Beside | None = None,
    relax: Relax = EXACT,
    rounded: float = 0.0,
    otherwise: str = UNRESOLVED,
) -> Problem:
    """Return the problem of some rows, whose others are held elsewhere, as by other ranks.

    What it takes all rows to see, that each point with weight has a partner, is left to `served`.

    Args:
        cost: Costs of the rows held here, which may be none, (..., n, m).
        a: Source weights of the rows held here, (..., n).
        b: Target weights, (..., m), of the mass that all rows have if both marginals are exact.
        reg: Regularisation in units of the cost, above zero; one number or one per problem.
        bounds: Where the costs of all rows lie.
        spread: Who holds the others; None if nobody does.
        beside: Who holds costs of other columns; None if these are all.
        relax: KL penalty of each marginal.
        rounded: How far sums of the weights may be off.
        otherwise: What `resolved` raises, in the caller's words.
    """
    batch, n, (dtype, work) = b.shape[:-1], cost.shape[0], dtypes(cost)
    b = b.to(work).reshape(-1, b.shape[-1])
    a = a.to(work).expand(*batch, n).reshape(len(b), n)
    at, one_reg = regularisation(reg, batch, True, like=b)
    known: dict[str, Any] = {
        "rounded": rounded,
        "one_reg": one_reg,
        "spread": spread,
        "beside": beside,
    }
    p = Problem(cost.flat(batch), a, b, at, relax, batch, dtype, bounds, **known)
    p = resolved(p, otherwise)
    return replace(p, shift=least_cost(p))


def dtypes(cost: Cost) -> tuple[torch.dtype, torch.dtype]:
    """Return the dtype of what the caller is given back, and of weights and potentials inside."""
    dtype = torch.float64 if cost.dtype == torch.float64 else torch.float32
    return dtype, torch.float64 if cost.device.type == "cpu" else dtype


def _evened(p: Problem) -> Problem:
    """Return the problem with masses that agree wherever points only serve each other."""
    plain = p.bounds.forbids and p.rounded and p.exact
    if not (plain and isinstance(p.cost, Dense) and p.a.device.type == "cpu"):
        return p
    C = p.cost.whole.expand(p.shape)
    parts = [even(*one, p.rounded) for one in zip(p.a, p.b, math.inf > C, strict=True)]
    return replace(p, b=torch.stack(parts))


def _parted(p: Problem) -> Problem:
    """Return the problem without what has only forbidden partners; raise where that must move."""
    return without_unserved(p, *served(p)) if p.bounds.forbids else p


def served(p: Problem) -> tuple[Tensor, Tensor]:
    """Return which rows, (B, n), and columns, (B, m), some allowed partner with weight serves."""
    rows, columns = (torch.zeros_like(w, dtype=torch.bool) for w in (p.a, p.b))
    for index, C in p.cost.tiles(max(1, at_once(p.a.device, 1 << 20) // p.shape[2])):
        allowed, weighs = math.inf > C, p.a[:, index] > 0
        rows[:, index] = (allowed & (p.b[:, p.columns] > 0)[:, None, :]).any(-1)
        columns[:, p.columns] |= (allowed & weighs[:, :, None]).any(-2)
    return rows, columns


def without_unserved(p: Problem, rows: Tensor, columns: Tensor) -> Problem:
    """Return the problem without rows and columns that nobody serves; raise where they must move.

    Args:
        p: The problem.
        rows: Which rows are served, (B, n).
        columns: Which columns are, by whichever rows, (B, m).
    """
    rows, columns = ~rows & (p.a > 0), ~columns & (p.b > 0)
    alone = [bool(side.any()) for side in (rows, columns)]
    for side, (kind, off) in enumerate((("row", rows), ("column", columns))):
        if alone[side] and bool((held := off & _moves(p, side)).any()):
            _stranded(kind, "ab"[side], checks.first_index(held), p)
    return p.without(rows, columns) if any(alone) else p


def _moves(p: Problem, side: int) -> Tensor:
    """Say which points of a side must carry something, (B, n), or whether all must, ()."""
    penalty = p.penalties[side]
    return torch.tensor(math.isinf(p.relax[side])) if penalty is None else ~penalty.rests()


def _stranded(kind: str, weight: str, at: tuple[int, ...], p: Problem) -> None:
    k, i = at
    where = f" of problem {k}" if p.shape[0] > 1 else ""
    raise ValueError(
        f"cost must leave every point with weight a partner: {kind} {i}{where} has positive "
        f"{weight} but only infinite costs, so no plan exists"
    )
