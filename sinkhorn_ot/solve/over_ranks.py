"""A call of solve that all ranks of a process group make, each with rows of its own.

They compare what they pass, tell each other what their rows are, and pose one problem. From there
on they do the same, and decide on numbers that are the same everywhere.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypeAliasType

from sinkhorn_ot.problem import Problem, Share, digest, pose_share, served, shown, without_unserved
from sinkhorn_ot.results import Transport, waiting
from sinkhorn_ot.sweeps import Grid, ProcessGroup, Ranks, same

from .options import Options
from .start import warm


# process groups of rows and of columns
Groups = TypeAliasType("Groups", tuple[ProcessGroup, ProcessGroup | None])
_Looked = tuple[Share, Options]


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
        group: Their process group, or two where columns are spread too; None if the cost says it.
        given: Cost, a, b and reg, as this rank has them.
        unbalanced: Penalties on the marginals.
        refused: What cannot be asked of rows that others hold, by name; None if it is not.
        init: Where to start.
        options: How to go about it.

    Raises:
        ValueError: On all ranks, if one passes what breaks a rule, or they pass what differs.
    """
    groups, given = _of_rank(group, *given)
    ranks, beside = (Ranks(g) for g in groups)

    def look() -> _Looked:
        return _looked(given, unbalanced, refused, options)

    def look_beside() -> _Looked:
        if beside.alone:
            return look()
        (share, checked), told = beside.everywhere(look, lambda it: _with(it[0].told_beside, it[1]))
        same([t.terms for t in told])
        return share.widened(told, beside.rank, beside), checked

    def pose() -> tuple[Problem, Options]:
        (share, checked), told = ranks.everywhere(look_beside, lambda it: _with(it[0].told, it[1]))
        same([t.terms for t in told])
        holders = ranks if beside.alone else Grid(ranks, beside)
        return pose_share(share, told, holders), checked

    # what fails among those who hold the same columns is told to those who hold the same rows
    (problem, options), _ = beside.everywhere(pose, lambda _: None)
    problem = _with_partners(problem, ranks, beside)
    u, v = _started(problem, init, ranks, beside)
    bar = options.progress and ranks.rank == 0 and beside.rank == 0
    stop = ranks.any_of(beside.any_of(options.callback))
    return Posed(problem, u, v, replace(options, callback=stop, progress=bar))


def _looked(
    given: Sequence[Any], unbalanced: Any, refused: dict[str, Any], options: Options
) -> _Looked:
    """Check what this rank passes."""
    for name, value in refused.items():
        if value is not None:
            raise ValueError(f"{name} must not be given with group")
    cost, a, b, reg = given
    leaves, (cost, a, b, reg, penalties, _) = waiting(cost, a, b, reg, unbalanced)
    if leaves is not None:
        raise ValueError(
            f"{leaves.names} requires grad, and a solve over a group has no derivatives: pass "
            "what is detached, or call it under torch.no_grad()"
        )
    checked = options.checked(reg)
    return Share.read(cost, a, b, reg, penalties), checked


def _with(told: Any, options: Options) -> Any:
    """Return what is told of a share, with what must be the same of the options."""
    return replace(told, terms=told.terms | options.terms())


def settled(result: Transport) -> Transport:
    """Return a result whose numbers have been made, which takes all ranks, while all are here."""
    for number in ("f", "g", "value_linear", "value", "dual_value", "marginal_error"):
        getattr(result, number)
    result.problem.settle()
    return result


def _with_partners(p: Problem, ranks: Ranks, beside: Ranks) -> Problem:
    """Return the problem without points that have only forbidden partners, on whatever rank."""
    if not p.bounds.forbids:
        return p
    (rows, columns), _ = beside.everywhere(
        lambda: ranks.everywhere(lambda: served(p), lambda _: None)[0], lambda _: None
    )
    rows = beside.max(rows.to(torch.int32)) > 0
    columns = beside.max(ranks.max(columns.to(torch.int32))) > 0
    found, _ = ranks.everywhere(lambda: without_unserved(p, rows, columns), lambda _: None)
    # whoever has set rows aside has others set none
    return found if found.exact or found.aside is not None else found.without(~rows, ~columns)


def _started(
    p: Problem, init: Any, ranks: Ranks, beside: Ranks
) -> tuple[Tensor | None, Tensor | None]:
    """Return scaled potentials to start from, the same of columns on all ranks."""

    def look() -> tuple[Tensor | None, Tensor | None]:
        return (None, None) if init is None else warm(p, init)

    def terms(found: tuple[Tensor | None, Tensor | None]) -> dict[str, object]:
        u, v = found
        return {"init, f given": u is not None, "init, g": None if v is None else digest(v)}

    def terms_beside(found: tuple[Tensor | None, Tensor | None]) -> dict[str, object]:
        return terms(found) | {"init, f": None if found[0] is None else digest(found[0])}

    return ranks.agree(lambda: beside.agree(look, terms_beside), terms)


def _is_sharded(x: Any) -> bool:
    """Say whether something is a DTensor, which nobody can make who has not imported it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def _of_rank(group: Any, cost: Any, a: Any, b: Any, reg: Any) -> tuple[Groups, tuple[Any, ...]]:
    """Return the groups of a cost's rows and columns, and what this rank holds of them.

    None is the group of columns that are whole.
    """
    if not _is_sharded(cost):
        for name, t in (("a", a), ("b", b)):
            if _is_sharded(t):
                raise ValueError(f"{name} is a DTensor, and cost is none: pass {name}.to_local()")
        groups = tuple(group) if isinstance(group, (tuple, list)) else (group, None)
        if len(groups) != 2 or groups[0] is None:
            raise ValueError(
                "group must be a process group, or two: of the ranks that hold other rows of the "
                "same columns, and of those that hold other columns of the same rows, got "
                f"{group!r}"
            )
        return (groups[0], groups[1]), (cost, a, b, reg)
    if group is not None:
        raise ValueError("group must not be given where cost is a DTensor, whose mesh says it")
    rows, columns = _axes(cost)
    for name, t, axis in (("a", a, rows), ("b", b, columns)):
        if not _is_sharded(t):
            continue
        fits = (
            p.is_shard(t.ndim - 1) if k == axis else p.is_replicate()
            for k, p in enumerate(t.placements)
        )
        if t.device_mesh != cost.device_mesh or not all(fits):
            how = "replicated"
            if axis is not None:
                how = f"sharded as the {'rows' if name == 'a' else 'columns'} of cost are"
            raise ValueError(f"{name} must be {how}, got placements {t.placements}")
    local = [t.to_local() if _is_sharded(t) else t for t in (cost, a, b)]
    mesh = cost.device_mesh
    beside = None if columns is None else mesh.get_group(columns)
    return (mesh.get_group(rows), beside), (*local, reg)


def _axes(cost: Any) -> tuple[int, int | None]:
    """Return the dimensions of its mesh over which a DTensor's rows and columns are sharded."""
    placements = cost.placements
    rows, columns = (
        [k for k, p in enumerate(placements) if p.is_shard(cost.ndim - back)] for back in (2, 1)
    )
    others = [p for k, p in enumerate(placements) if k not in (*rows, *columns)]
    if len(rows) != 1 or len(columns) > 1 or not all(p.is_replicate() for p in others):
        raise ValueError(
            f"cost must be sharded on its rows, Shard({cost.ndim - 2}), over one dimension of its "
            f"mesh, on its columns, Shard({cost.ndim - 1}), over at most one, and replicated over "
            f"others, got placements {placements}: redistribute it, or pass what is replicated as "
            ".to_local()"
        )
    return rows[0], columns[0] if columns else None
