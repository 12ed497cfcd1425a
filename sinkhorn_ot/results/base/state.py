"""Results as plain data: tensors, numbers and text, in dicts, which torch loads without pickles."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import (
    KL,
    L2,
    TV,
    Absent,
    Beside,
    Between,
    Bounds,
    Dense,
    GridCost,
    Moved,
    Padded,
    PointCloud,
    Problem,
    Spread,
    as_cost,
    masked,
    within,
)
from sinkhorn_ot.results.coupling import Entropic, Sparse, Stored
from sinkhorn_ot.results.status import Status, Stranded
from sinkhorn_ot.sweeps import afresh

from .parts import INSIDE, again, made, names_of, parts


_FORMAT = "sinkhorn_ot result 1"
_PLAIN = (Tensor, str, bool, int, float, type(None), torch.Size, torch.dtype)
# what results are made of, by name; each kind of result adds itself and its own parts
KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Problem, Bounds, Dense, Padded, PointCloud, GridCost, Absent, KL, TV, L2, Between, Moved),
        *(Entropic, Stored, Sparse, Stranded),
    )
}
# parts that no copy has: what derivatives end in stays where it is
_LIVE = ("derivatives", "leaves")
# numbers that a transport and its coupling keep, once they were asked for: all that reads costs
_TOLD = ("_linear", "_primal", "_dual", "_rows", "_columns")
_POTENTIALS = ("_f", "_g")
_COST = "cost holds a {}, which no file keeps: leave the cost out, .state_dict(cost=False)"


def packed(result: Any, cost: bool) -> dict[str, Any]:
    """Return what a result is made of as plain data.

    Args:
        result: The result.
        cost: Whether its cost is kept; else the numbers are that are made of it, but for the plan.

    Raises:
        ValueError: If it has parts that no plain data stand for.
    """
    state = {"format": _FORMAT}
    if cost:
        return state | {"result": again(result, _pack)}
    p = result.problem
    absent = Absent(p.cost.batch_shape, p.cost.shape, p.cost.dtype, p.reg)
    whole = again(result, lambda x, inner: inner(absent) if x is p.cost else _pack(x, inner))
    return state | {"result": whole, "sums": _sums(result)} | _told(result)


def _sums(result: Any) -> list[Tensor]:
    """Return row and column sums of a plan, by which a cost is known again."""
    k = result.coupling
    ones = (torch.ones_like(t)[..., None] for t in (k.problem.b, k.problem.a))
    return [k.apply(one, side == 1)[..., 0].detach() for side, one in enumerate(ones)]


def _pack(x: Any, inner: Callable[[Any], Any]) -> Any:
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, _PLAIN):
        return x.detach() if isinstance(x, Tensor) else x
    if isinstance(x, np.ndarray):
        return {"type": "array", "numbers": torch.from_numpy(np.array(x))}
    if isinstance(x, Status):
        return {"type": "Status", "name": x.name}
    if isinstance(x, dict):
        return {"type": "dict", "items": [[inner(k), inner(v)] for k, v in x.items()]}
    if KINDS.get(type(x).__name__) is type(x):
        return {"type": type(x).__name__} | {name: inner(part) for name, part in _kept(x).items()}
    if type(x) in (list, tuple):
        return INSIDE
    if isinstance(x, (Spread, Beside)):
        raise ValueError("a result over a group has no state: keep what it tells, such as f and g")
    raise ValueError(_COST.format(type(x).__name__))


def _kept(x: Any) -> dict[str, Any]:
    if isinstance(x, Entropic):
        # passes are made anew where it is read
        return {"problem": x.problem, "u": x.u, "v": x.v}
    return {name: part for name, part in parts(x).items() if name not in _LIVE}


def _told(result: Any) -> dict[str, Any]:
    """Return what a transport tells that is made of its cost; others hold their numbers anyway."""
    if (coupling := vars(result).get("coupling")) is None:
        return {}
    pairs = (("told", result, _TOLD), ("potentials", coupling, _POTENTIALS))
    return {
        what: {name: getattr(x, name).detach() for name in names if hasattr(x, name)}
        for what, x, names in pairs
    }


def unpacked(state: Any, cost: Any = None) -> Any:
    """Return the result that plain data stand for.

    Args:
        state: The data.
        cost: The cost, if it is not among them.

    Raises:
        ValueError: If they are no such data, or the cost does not fit.
    """
    known = isinstance(state, dict) and state.get("format") == _FORMAT
    if not known or not isinstance(state.get("result"), dict):
        raise ValueError(
            f"state must be what state_dict() of a result returned, in format {_FORMAT!r}, got "
            f"{state.get('format') if isinstance(state, dict) else type(state).__name__!r:.60}"
        )
    given: list[Any] = []

    def act(x: Any, inner: Callable[[Any], Any]) -> Any:
        if not isinstance(x, dict):
            return INSIDE
        part = _unpack(x, inner)
        if cost is not None and isinstance(part, Problem) and isinstance(part.cost, Absent):
            part = _with_cost(part, cost)
            given.append(part)
        return part

    try:
        result = again(state["result"], act)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"state must be whole, got one with other parts: {error!r}") from error
    if cost is not None and not given:
        raise ValueError("cost must be given only where the state was made with cost=False")
    if given and not all(map(_near, _sums(result), state["sums"])):
        raise ValueError("cost must be what was solved, got one that makes another plan")
    vars(result).update(state.get("told", {}))
    if "potentials" in state:
        vars(result.coupling).update(state["potentials"])
    return result


def _unpack(x: dict[str, Any], inner: Callable[[Any], Any]) -> Any:
    kind = x["type"]
    if kind == "array":
        return x["numbers"].cpu().numpy()
    if kind == "dict":
        return {inner(k): inner(v) for k, v in x["items"]}
    if kind == "Status":
        return Status[x["name"]]
    of = KINDS[kind]
    held = {name: inner(part) for name, part in x.items() if name != "type"}
    if of is Entropic:
        return Entropic(afresh(held["problem"]), held["u"], held["v"])
    names = names_of(of)
    held |= {name: None for name in names if name in _LIVE}
    if set(held) != set(names):
        raise KeyError(*set(names).symmetric_difference(held))
    return made(of, held)


def _with_cost(p: Problem, cost: Any) -> Problem:
    """Return a problem with the cost that it was kept without."""
    found = as_cost(cost)
    if found.shape != p.cost.shape or found.dtype != p.cost.dtype:
        raise ValueError(
            f"cost must be {p.cost.dtype} of {p.cost.shape} as what was solved, got {found.dtype} "
            f"of {found.shape}"
        )
    if found.device != p.a.device:
        raise ValueError(
            f"cost must be on the device of the state ({p.a.device}), got {found.device}"
        )
    within("cost", found.batch_shape, p.batch_shape)
    if p.there is not None:
        there = tuple(t.view(*p.batch_shape, -1) for t in p.there)
        found = masked(found, None, None, there)[0]
    found = found.flat(p.batch_shape)
    if isinstance(found, Dense) and p.far < math.inf:
        found = Dense(found.whole.masked_fill(p.far < found.whole, math.inf))
    if found.batch_shape != p.cost.batch_shape or not _alike(found.validate(), p.bounds):
        raise ValueError(
            f"cost must be what was solved, whose entries lie in {p.bounds}, got {found}"
        )
    return replace(p, cost=found)


def _near(here: Tensor, there: Tensor) -> bool:
    """Say whether sums are the same but for rounding."""
    there = there.to(here)
    most = there.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().amax() if len(there) else 0.0
    return torch.allclose(here, there, 1e-3, 1e-4 * float(most), equal_nan=True)


def _alike(here: Bounds, there: Bounds) -> bool:
    """Say whether bounds are the same but for rounding, or unknown."""
    pairs = ((here.low, there.low), (here.high, there.high))
    return all(math.isinf(y) or math.isclose(x, y, rel_tol=1e-5, abs_tol=1e-9) for x, y in pairs)
