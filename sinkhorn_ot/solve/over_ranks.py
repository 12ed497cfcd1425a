"""A call of solve that all ranks of a process group make, each with rows of its own.

They compare what they pass, tell each other what their rows are, and pose one problem. From there
on they do the same, and decide on numbers that are the same everywhere.
"""

import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, Share, digest, pose_share, served, shown, without_unserved
from sinkhorn_ot.results import Transport, waiting
from sinkhorn_ot.sweeps import Ranks, same

from .options import Options
from .start import warm


@shown
@dataclass(frozen=True, eq=False)
class Posed:
    """A problem over ranks, as this one holds it.

    Attributes:
        problem: The problem of its rows.
        u: Scaled row potentials to start from, (B, n), or None.
        v: Scaled column potentials, (B, m), or None.
        options: How to go about it: who shows progress, and when all stop.
    """

    problem: Problem
    u: Tensor | None
    v: Tensor | None
    options: Options


def are_spread(group: Any, *given: Any) -> bool:
    """Say whether a call, by its group or by what it is given, is one that ranks make together."""
    return group is not None or any(map(_is_sharded, given))


def posed_over_ranks(  # noqa: PLR0913
    group: Any,
    given: tuple[Any, Any, Any, Any],
    unbalanced: Any,
    refused: dict[str, Any],
    init: Any,
    options: Options,
) -> Posed:
    """Return the problem that all ranks pose.

    Args:
        group: Their process group; None if the cost says it.
        given: Cost, a, b and reg, as this rank has them.
        unbalanced: Penalties on the marginals.
        refused: What cannot be asked of rows that others hold, by name; None if it is not.
        init: Where to start.
        options: How to go about it.

    Raises:
        ValueError: On all ranks, if one passes what breaks a rule, or they pass what differs.
    """
    group, given = _of_rank(group, *given)
    ranks = Ranks(group)

    def look() -> tuple[Share, Options]:
        for name, value in refused.items():
            if value is not None:
                raise ValueError(f"{name} must not be given with group, got {value!r:.60}")
        leaves, (cost, a, b, reg, penalties, _) = waiting(*given, unbalanced)
        if leaves is not None:
            raise ValueError(
                f"{leaves.names} requires grad, and a solve over a group has no derivatives: pass "
                "what is detached, or call it under torch.no_grad()"
            )
        found = options.checked(reg)
        return Share.read(cost, a, b, reg, penalties), found

    def tell(found: tuple[Share, Options]) -> Any:
        share, checked = found
        told = share.told
        return replace(told, terms=told.terms | checked.terms())

    (share, options), told = ranks.everywhere(look, tell)
    same([t.terms for t in told])
    problem = _with_partners(pose_share(share, told, ranks), ranks)
    u, v = _started(problem, init, ranks)
    stop, bar = ranks.any_of(options.callback), options.progress and ranks.rank == 0
    return Posed(problem, u, v, replace(options, callback=stop, progress=bar))


def settled(result: Transport) -> Transport:
    """Return a result whose numbers have been made, which takes all ranks, while all are here."""
    for number in ("f", "g", "value_linear", "value", "dual_value", "marginal_error"):
        getattr(result, number)
    result.problem.settle()
    return result


def _with_partners(p: Problem, ranks: Ranks) -> Problem:
    """Return the problem without points that have only forbidden partners, on whatever rank."""
    if not p.bounds.forbids:
        return p
    (rows, columns), _ = ranks.everywhere(lambda: served(p), lambda _: None)
    columns = ranks.max(columns.to(torch.int32)) > 0
    found, _ = ranks.everywhere(lambda: without_unserved(p, rows, columns), lambda _: None)
    # whoever has set rows aside has others set none
    return found if found.exact or found.aside is not None else found.without(~rows, ~columns)


def _started(p: Problem, init: Any, ranks: Ranks) -> tuple[Tensor | None, Tensor | None]:
    """Return scaled potentials to start from, the same of columns on all ranks."""

    def look() -> tuple[Tensor | None, Tensor | None]:
        return (None, None) if init is None else warm(p, init)

    def terms(found: tuple[Tensor | None, Tensor | None]) -> dict[str, object]:
        u, v = found
        return {"init, f given": u is not None, "init, g": None if v is None else digest(v)}

    return ranks.agree(look, terms)


def _is_sharded(x: Any) -> bool:
    """Say whether something is a DTensor, which nobody can make who has not imported it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def _of_rank(group: Any, cost: Any, a: Any, b: Any, reg: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the group of a cost's rows and what this rank holds of them, if they are sharded."""
    if not _is_sharded(cost):
        for name, t in (("a", a), ("b", b)):
            if _is_sharded(t):
                raise ValueError(f"{name} is a DTensor, and cost is none: pass {name}.to_local()")
        return group, (cost, a, b, reg)
    if group is not None:
        raise ValueError("group must not be given where cost is a DTensor, whose mesh says it")
    axis = _axis(cost)
    for name, t, shard in (("a", a, True), ("b", b, False)):
        if _is_sharded(t):
            want = [
                p.is_shard(t.ndim - 1) if k == axis and shard else p.is_replicate()
                for k, p in enumerate(t.placements)
            ]
            if t.device_mesh != cost.device_mesh or not all(want):
                how = "sharded as the rows of cost are" if shard else "replicated"
                raise ValueError(f"{name} must be {how}, got placements {t.placements}")
    local = [t.to_local() if _is_sharded(t) else t for t in (cost, a, b)]
    return cost.device_mesh.get_group(axis), (*local, reg)


def _axis(cost: Any) -> int:
    """Return the dimension of its mesh over which the rows of a DTensor are sharded."""
    placements = cost.placements
    rows = [k for k, p in enumerate(placements) if p.is_shard(cost.ndim - 2)]
    others = [p for k, p in enumerate(placements) if k not in rows]
    if len(rows) != 1 or not all(p.is_replicate() for p in others):
        raise ValueError(
            f"cost must be sharded on its rows, Shard({cost.ndim - 2}), over one dimension of its "
            f"mesh and replicated over others, got placements {placements}: redistribute it, or "
            "pass what is replicated as .to_local()"
        )
    return rows[0]
