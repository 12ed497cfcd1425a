"""How `unbalanced=` and `mass=` are read, and whether what they ask can be had."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeAliasType

from . import checks
from .penalties import KL, Moved, Penalty
from .problem import EXACT, Penalties, Problem, Relax
from .rows import Array


# what is asked of one marginal: the strength of a KL penalty, a penalty, or None for exact
_Side = float | Penalty | None
# of both alike, or of each; numbers may be in an array
Unbalanced = TypeAliasType("Unbalanced", _Side | Tensor | Array | tuple[_Side, _Side])

# how far totals that must agree may be apart by rounding
_RTOL = 2e-7


def asked(unbalanced: Any) -> Any:
    """Return `unbalanced` with KL penalties of one number as that number."""
    if isinstance(unbalanced, (tuple, list)):
        return type(unbalanced)(map(asked, unbalanced))
    if not isinstance(unbalanced, KL) or isinstance(rho := unbalanced.rho, (tuple, list)):
        return unbalanced
    if isinstance(rho, Tensor) and rho.ndim == 0 and rho.is_floating_point():
        return rho
    if isinstance(rho, Tensor):
        return unbalanced if rho.ndim else _strength("rho of KL", rho.item())
    return unbalanced if np.ndim(rho) else _strength("rho of KL", rho)


def relaxation(unbalanced: Any, mass: Any = None) -> tuple[Relax, Penalties]:
    """Return the KL penalty of each marginal, inf for an exact one, and penalties of other kinds.

    A side with such a penalty has no number: its entry is nan, which nobody can take for one.
    """
    if mass is not None:
        if unbalanced is not None:
            raise ValueError(
                f"mass must not be given with unbalanced, got mass={mass!r:.60} and "
                f"unbalanced={unbalanced!r:.200}: give one or the other"
            )
        return (math.nan, math.nan), (Moved(mass), Moved(mass))
    if unbalanced is None:
        return EXACT, (None, None)
    if isinstance(unbalanced, Tensor):
        unbalanced = checks.constant("unbalanced", checks.plain("unbalanced", unbalanced))
        checks.present("unbalanced", unbalanced)
    if isinstance(unbalanced, (Tensor, np.ndarray)):
        unbalanced = unbalanced.tolist()
    unbalanced = asked(unbalanced)
    pair = unbalanced if isinstance(unbalanced, (tuple, list)) else (unbalanced, unbalanced)
    if len(pair) != 2:
        raise ValueError(f"unbalanced must be one penalty or two, got {unbalanced!r}")
    (first, second), (one, other) = map(_number, pair), map(_penalty, pair)
    return (first, second), (one, other)


def _number(rho: Any) -> float:
    """Return the number of an entry: inf for an exact side, nan for a penalty of another kind."""
    if isinstance(rho, Penalty):
        return math.nan
    if isinstance(rho, type) and issubclass(rho, Penalty):
        kind = rho.__name__
        raise ValueError(
            f"unbalanced must be penalties, got the class {kind}: give it numbers, such as "
            f"{kind}(0.1)"
        )
    return math.inf if rho is None else _strength("unbalanced", rho, ", or None for exact")


def _strength(name: str, rho: Any, more: str = "") -> float:
    found = checks.number(name, rho)
    if not found >= 0:
        raise ValueError(f"{name} must be at least zero{more}, got {found!r}")
    return found


def _penalty(rho: Any) -> Penalty | None:
    return rho if isinstance(rho, Penalty) else None


def possible(p: Problem) -> Problem:
    """Return the problem; raise unless both marginals can have one total."""
    rows, columns = _extent(p, 0), _extent(p, 1)
    for (_, most), (least, _), few, many in (
        (rows, columns, "a", "b"),
        (columns, rows, "b", "a"),
    ):
        if bool((bad := least > most * (1 + max(_RTOL, p.rounded))).any()):
            k = checks.first_index(bad)[0]
            where = f" in problem {k}" if p.shape[0] > 1 else ""
            raise ValueError(
                f"unbalanced must let both marginals have one total mass, but that of {many} is at "
                f"least {float(least[k]):.9g} and that of {few} at most {float(most[k]):.9g}{where}"
            )
    first, second = p.penalties
    first = None if first is None else first.fitted(p.a, *columns)
    second = None if second is None else second.fitted(p.b, *rows)
    same = (first, second) == p.penalties
    return p if same else replace(p, penalties=(first, second))


def _extent(p: Problem, side: int) -> tuple[Tensor, Tensor]:
    """Return the least and the largest total of one marginal, (B,)."""
    weight, penalty = (p.a, p.b)[side], p.penalties[side]
    total = weight.sum(-1)
    if isinstance(penalty, Moved):
        name = "ab"[side]
        most = total * (1 + max(_RTOL, p.rounded))
        if bool((bad := penalty.mass[:, 0] > most).any()):
            k = checks.first_index(bad)[0]
            where = f" of problem {k}" if p.shape[0] > 1 else ""
            raise ValueError(
                f"mass must be at most what {name} has and can move, {float(total[k]):.9g}{where}, "
                f"got {float(penalty.mass[k]):.9g}"
            )
    if penalty is not None:
        return penalty.extent(weight)
    if math.isinf(p.relax[side]):
        return total, total
    return torch.zeros_like(total), torch.full_like(total, math.inf)
