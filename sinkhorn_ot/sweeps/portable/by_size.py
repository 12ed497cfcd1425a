"""Problems of about one size together: a ragged batch in groups, each cut to its largest problem.

What is padded is then neither read nor exponentiated, but for what a call saves.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.problem import Dense, PointCloud, Problem, shown

from .on_the_fly import OnTheFly


Sizes = npt.NDArray[np.intp]

# pairs that a pass takes as long for as its call does
PASS = 50_000
# sizes of a side that are told apart
_SIZES = 8


@shown
@dataclass(frozen=True, eq=False)
class Group:
    """Some problems of a ragged batch, whose points that are there are among the first.

    Attributes:
        index: Their numbers in the flat batch.
        n: The first rows, beyond which they have none.
        m: The first columns.
    """

    index: Tensor
    n: int
    m: int

    def of(self, p: Problem) -> Problem:
        """Return these problems of a batch, cut."""
        cost, there = p.cost, p.there
        assert isinstance(cost, (Dense, PointCloud))
        assert there is not None
        aside = p.aside and (p.aside[0][:, : self.n], p.aside[1][:, : self.m])
        first, second = p.penalties
        n, m = ((slice(None), slice(size)) for size in (self.n, self.m))
        cut = replace(
            p,
            cost=cost.first(self.n, self.m),
            a=p.a[:, : self.n],
            b=p.b[:, : self.m],
            there=(there[0][:, : self.n], there[1][:, : self.m]),
            aside=aside,
            penalties=(first and first.select(n), second and second.select(m)),
        )
        return cut.select(self.index)

    def rows(self, x: Tensor) -> Tensor:
        """Return these problems' part of what a batch has of each row, (B, n, ...)."""
        return x[self.index, : self.n]

    def columns(self, x: Tensor) -> Tensor:
        """Return these problems' part of what a batch has of each column, (B, m, ...)."""
        return x[self.index, : self.m]


def groups(p: Problem, call: int) -> list[Group]:
    """Return the groups of a ragged batch on a CPU; none where all had better stay as they are.

    Args:
        p: The batch.
        call: Pairs that take as long as it takes to have one more group.
    """
    batch, *sizes = p.shape
    if p.there is None or batch == 1 or p.a.device.type != "cpu":
        return []
    # the last point that is there is the first from behind
    n, m = (
        size - side.numpy()[:, ::-1].argmax(-1) for size, side in zip(sizes, p.there, strict=True)
    )
    if batch * sizes[0] * sizes[1] - (n * m).sum() <= call:
        return []
    kinds = _coarse(n) * (_SIZES + 1) + _coarse(m)
    parts = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    merged = _merged(parts, n, m, call)
    return [Group(torch.from_numpy(k), int(n[k].max()), int(m[k].max())) for k in merged]


def _coarse(size: Sizes) -> Sizes:
    """Return sizes in steps of an eighth of the largest."""
    coarse: Sizes = -(-size * _SIZES // size.max())
    return coarse


def _merged(parts: list[Sizes], n: Sizes, m: Sizes, call: int) -> list[Sizes]:
    """Join kinds, the largest first, until what is padded would take longer than a call."""
    parts = sorted(parts, key=lambda k: -int(n[k].max() * m[k].max()))
    merged = parts[:1]
    for part in parts[1:]:
        both = np.concatenate((merged[-1], part))
        padded = len(both) * n[both].max() * m[both].max() - (n[both] * m[both]).sum()
        if padded > call:
            merged.append(part)
        else:
            merged[-1] = both
    return merged


class BySize(OnTheFly):
    """The passes of a ragged batch, group by group."""

    def __init__(self, problem: Problem, parts: list[Group]) -> None:
        super().__init__(problem)
        self._groups = parts

    @cached_property
    def parts(self) -> list[tuple[Group, OnTheFly]]:
        """Each group, and the passes of its problems."""
        return [(group, OnTheFly(group.of(self.problem))) for group in self._groups]

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg); -inf where no problem of a group has a row."""
        out = torch.full_like(self.problem.a, -math.inf)
        for group, part in self.parts:
            out[group.index, : group.n] = part.log_sum_rows(group.columns(v))
        return out

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg), likewise."""
        out = torch.full_like(self.problem.b, -math.inf)
        for group, part in self.parts:
            out[group.index, : group.m] = part.log_sum_columns(group.rows(u))
        return out

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        like = self.problem.b if transpose else self.problem.a
        out = x.new_zeros(*like.shape, x.shape[-1])
        for group, part in self.parts:
            few = group.rows(x) if transpose else group.columns(x)
            size = group.m if transpose else group.n
            out[group.index, :size] = part.apply(group.rows(u), group.columns(v), few, transpose)
        return out

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C>."""
        out = torch.zeros_like(self.problem.reg)
        for group, part in self.parts:
            out[group.index] = part.linear(group.rows(u), group.columns(v))
        return out
