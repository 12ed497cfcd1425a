"""Ragged batches: problems of about one size are solved together, each group cut to its largest."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem
from sinkhorn_ot.results import Solution
from sinkhorn_ot.sweeps import Group, Sweep, groups


# pairs that a batch is swept over in the time that a sweep takes to begin; and those that a group
# is to save where problems that cost less alone leave the batch anyway
SWEEP, SOLVE = 200_000, 3_000_000

Answer = tuple[Solution, Sweep | None, str]
Solve = Callable[[Problem, Tensor | None, Tensor | None], Answer]


def by_size(p: Problem, u: Tensor | None, v: Tensor | None, solve: Solve, call: int) -> Answer:
    """Return what `solve` makes of a problem and a start; of a ragged batch on a CPU, in groups.

    Args:
        p: The flat problem.
        u: Scaled row potentials to start from, (B, n), or None.
        v: Scaled column potentials, (B, m), or None.
        solve: What solves one group.
        call: Pairs of padding from which a group of its own is worth it.
    """
    parts = groups(p, call)
    if not parts:
        return solve(p, u, v)
    found, names = [], set()
    for group in parts:
        few = group.of(p)
        few = replace(few, bounds=few.cost.validate())
        start = (None if u is None else group.rows(u), None if v is None else group.columns(v))
        answer, _, name = solve(few, *start)
        found.append((group, answer))
        names.add(name)
    return _together(p, found), None, " and ".join(sorted(names))


def _together(p: Problem, parts: list[tuple[Group, Solution]]) -> Solution:
    """Return the solutions of all groups as that of the batch."""
    whole = Solution.none(p)
    if parts[0][1].error is None:
        whole = replace(whole, error=None)
    for group, few in parts:
        u, v = (
            torch.nn.functional.pad(t, (0, size - t.shape[1]), value=-math.inf)
            for t, size in zip((few.u, few.v), p.shape[1:], strict=True)
        )
        whole = whole.put(group.index, replace(few, u=u, v=v, scaled=None))
    return whole
