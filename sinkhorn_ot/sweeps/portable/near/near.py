"""Clouds in few dimensions: pairs of blocks that cannot count are never looked at."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import PointCloud, Problem
from sinkhorn_ot.sweeps.portable.cpu import exp_
from sinkhorn_ot.sweeps.portable.on_the_fly import OnTheFly
from sinkhorn_ot.sweeps.portable.stored import StoredKernel
from sinkhorn_ot.sweeps.protocol import LEFT_OUT, Coarser, Sweep, move_rows, sweep_apart

from .curve import Curve
from .fewer import fewer, tree
from .gauss import Gauss, quicker
from .live import Live, Part
from .tree import Blocks


# points from which fewer are solved for first, and the reg for which they do, relative to the
# squares of both their sizes
_MANY, _WIDTH = 3000, 0.125
# logarithm of what may be left out from which single precision will do, and the error down to which
# it does for the while
_ROUGH, _CLOSE = math.log(1e-7), 1e-4
# the error down to which polynomials, which have five digits, lead
_LED = 3e-4
# beside its row's sum, the logarithm of an entry that a product with the curve can miss, where
# memory is short
_FAINT = -14.0
# that which no number in double precision holds beside its row's sum
_NONE = -37.0
# pairs of a row that count up to which the curve is factorised, in dimensions up to which that
# fills little, and of columns up to which it does in any
_SHORT, _PLANAR, _COLUMNS = 16, 2, 1 << 13


class Near(OnTheFly):
    """Nothing stored but the points, in the order of a tree."""

    def __init__(
        self,
        problem: Problem,
        lost: float,
        trees: tuple[Blocks, Blocks] | None = None,
        sums: Tensor | None = None,
        *,
        roughly: bool = False,
    ) -> None:
        """Begin.

        Args:
            problem: One problem between clouds, by squared distances, whose costs are not shifted.
            lost: Logarithm of what may be left out of a row, relative to its sum.
            trees: Both clouds in order, where they are known.
            sums: Logarithms of row sums that are about right, (n,), in order.
            roughly: Whether sweeps may be made by polynomials, and in single precision, while that
                does not show, far from the solution.
        """
        super().__init__(problem)
        assert isinstance(problem.cost, PointCloud)
        self._cost, self._lost, self._reg = problem.cost, lost, problem.least_reg
        self._trees = trees or (tree(self._cost, 0), tree(self._cost, 1))
        self._rows, self._columns = self._trees
        self._live = Live(self._trees, self._reg, lost, sums)
        self._roughly = roughly
        self._curve: tuple[Tensor, Curve | None] | None = None
        # whether polynomials lead, while what they cannot tell does not show
        self._led = roughly and problem.exact and self._quicker
        # for good, where more is left out than single precision rounds, or else for now
        self._single = roughly and (lost >= _ROUGH or problem.exact)

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns, over the blocks that count."""
        p, t = self.problem, v[0][self._columns.order]
        if p.penalties[0] is not None:
            return sweep_apart(self, self.log_a, v)
        if self._led and (found := self._leading(v)) is not None:
            return found
        # for good
        self._led = False
        log_a, s = self.log_a[:, self._rows.order], torch.empty_like(t)

        def carried(rows: slice, columns: Tensor, base: Tensor, e: Tensor, sums: Tensor) -> None:
            moved = move_rows(p, log_a[:, rows], sums[None])[0]
            s.index_add_(0, columns, ((moved + base).exp_().to(e.dtype) @ e).to(s.dtype))

        while True:
            dtype = torch.float32 if self._single else torch.float64
            sums = self._live.row_sums(t, dtype, carried, s.zero_)
            s.masked_fill_(t == -math.inf, 0.0)
            if not self._single or self._lost >= _ROUGH or self._wrong(s) > _CLOSE:
                break
            self._single = False
        new = move_rows(p, log_a, sums[None])[:, self._rows.place]
        return new, self._rescued(new, v, s[self._columns.place][None], self._share)

    def _leading(self, v: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return a sweep by polynomials; None where pairs must be looked at."""
        if not math.isfinite(float(v.amax())):
            return None
        if (sums := self._gauss.log_sums(1, v[0])) is None:
            return None
        u = move_rows(self.problem, self.log_a, sums[None])
        if (sums := self._gauss.log_sums(0, u[0])) is None:
            return None
        s = sums + v
        close = self._wrong(s[0].exp()[self._columns.order]) <= max(_LED, self._tol)
        return None if close else (u, s)

    def _wrong(self, s: Tensor) -> float:
        """Return how far column sums are from their weights, relative to all of these."""
        b = self.problem.b[0][self._columns.order]
        return float((s - b).abs().sum() / b.sum())

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg)."""
        return self._live.row_sums(v[0][self._columns.order])[self._rows.place][None]

    def about_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg) to some digits."""
        if self._quicker and (sums := self._gauss.log_sums(1, v[0])) is not None:
            return sums[None]
        sums = self._live.row_sums(v[0][self._columns.order], torch.float32)
        return sums[self._rows.place][None]

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg)."""
        trees = self._columns, self._rows
        return Near(self.problem.transposed(), self._lost, trees).log_sum_rows(u)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        ends = (self._rows, self._columns) if transpose else (self._columns, self._rows)
        given = x[0][ends[0].order]
        out = x.new_zeros(len(ends[1].order), x.shape[2])
        for rows, _, columns, P in self._plan(u, v):
            if transpose:
                out.index_add_(0, columns, P.T @ given[rows])
            else:
                out[rows] = P @ given[columns]
        return out[ends[1].place][None]

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C>."""
        total = torch.zeros_like(self.problem.reg)
        left, right = (
            t[0][at.order] for t, at in zip(self._cost.factors, self._trees, strict=True)
        )
        for rows, _, columns, P in self._plan(u, v):
            total += P.mul_((left[rows] @ right[columns].T).clamp_(min=0)).sum()
        return total

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by P^T diag(1 / P 1) P, of the pairs that count."""
        order, place = self._columns.order, self._columns.place
        curve = Curve.build(self._plan(u, v), self._columns, _NONE, self._cost.memory // 2)
        if curve is not None:
            return lambda x: curve.product(x[0][order])[place][None]

        def product(x: Tensor) -> Tensor:
            given = x[0][order]
            out = torch.zeros_like(given)
            for _, _, columns, P in self._plan(u, v):
                mass = P.sum(1)
                y = torch.where(mass > 0, P @ given[columns] / mass, 0.0)
                out.index_add_(0, columns, P.T @ y)
            return out[place][None]

        return product

    def rough_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by P^T diag(1 / P 1) P, to the digits that lead a step."""
        if self._led:
            a = self.problem.a[0]
            share = torch.where(a > 0, 1 / a, 0.0)
            times = self._gauss.product(u[0], v[0], share)
            return lambda x: times(x[0])[None]
        if (curve := self._curve_at(u, v)) is None:
            return self.curve_product(u, v)
        order, place = self._columns.order, self._columns.place
        return lambda x: curve.product(x[0][order])[place][None]

    def gathered_curve(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return P^T diag(1 / P 1) P summed over blocks of columns, and the block of each."""
        if self._led or (curve := self._curve_at(u, v)) is None:
            return None
        return curve.gathered[None], self._columns.block[self._columns.place]

    def sparse_curve(self, u: Tensor, v: Tensor) -> tuple[Any, Tensor] | None:
        """Return P^T diag(1 / P 1) P, where rows are so short that it is easily factorised."""
        m = self.problem.shape[2]
        # in more dimensions factors of many columns fill
        if m > _COLUMNS and self._cost.x.shape[-1] > _PLANAR:
            return None
        curve = self._curve_at(u, v)
        W = None if curve is None else curve.sparse(_SHORT**2 * m)
        return None if W is None else (W, self._columns.order)

    def _curve_at(self, u: Tensor, v: Tensor) -> Curve | None:
        """Return the curve, which is held until another is asked for."""
        if self._curve is not None and torch.equal(self._curve[0], v):
            return self._curve[1]
        self._curve = None
        for faint in (min(self._lost, _FAINT), _FAINT):
            parts = self._plan(u, v, torch.float32)
            curve = Curve.build(parts, self._columns, faint, self._cost.memory // 2)
            if curve is not None:
                break
        self._curve = v, curve
        return curve

    def coarser(self) -> Coarser | None:
        """Return the problem of the means of small blocks, whose reg is about their size."""
        p, cost = self.problem, self._cost
        if min(p.shape[1:]) < _MANY:
            return None
        (x, a, one), (y, b, other) = (fewer(cost, k, w[0]) for k, w in enumerate((p.a, p.b)))
        reg = max(self._reg, _WIDTH * (one + other))
        means = replace(cost, x=x[None], y=y[None], scale=None)
        few = replace(p, cost=means, a=a[None], b=b[None], reg=p.reg.new_tensor([reg]), one_reg=reg)
        held = len(a) * len(b) * 8 <= cost.memory // 4
        sweep = StoredKernel(few, torch.float64) if held else Near(few, self._lost, roughly=True)

        def extend(psi: Tensor) -> Tensor:
            u, _ = sweep.at(few.reg).sweep(None, psi + few.b.log())
            across = replace(few, cost=replace(means, x=cost.placed[1], y=x[None]), a=p.b, b=few.a)
            return -Near(across, self._lost, roughly=True).about_rows(u)

        return Coarser(sweep, reg / self._reg, extend)

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problem at another `reg`, where sums are about as far from zero."""
        sums = self._live.sums
        sums = None if sums is None else sums * (self._reg / float(reg[0]))
        return Near(self.problem.at(reg), self._lost, self._trees, sums, roughly=self._roughly)

    def select(self, index: Tensor) -> Sweep:
        """Return the problem, which is one."""
        return self

    def of(self, problem: Problem) -> Sweep:
        """Return the same for a problem that has this one's cost, or its transpose."""
        return Near(problem, self._lost)

    def told(self) -> dict[str, Any]:
        """Return which blocks were judged to count, and by which potentials."""
        return self._live.told() | {"single": self._single, "led": self._led}

    def take(self, memory: dict[str, Any]) -> None:
        """Take the same blocks to count."""
        self._single, self._led = memory["single"], memory["led"]
        self._live.take(memory)

    @property
    def dropped(self) -> float:
        """At most what a pass leaves out of the plan, relative to all mass."""
        return math.exp(self._lost if self._live.left is None else self._live.left)

    @property
    def _tol(self) -> float:
        """The error to reach, of which a share may be left out."""
        return math.exp(self._lost) / LEFT_OUT

    @property
    def _share(self) -> float:
        """The share of all mass below which a column may have lost what counts."""
        return self._tol / self.problem.shape[2]

    @property
    def _quicker(self) -> bool:
        """Whether polynomials take less time than pairs."""
        return quicker(self._trees, self._reg, self._lost, self._cost.memory // 2)

    @functools.cached_property
    def _gauss(self) -> Gauss:
        """Sums by polynomials."""
        return Gauss([t[0] for t in self._cost.placed], self._reg)

    def _plan(self, u: Tensor, v: Tensor, dtype: torch.dtype = torch.float64) -> Iterator[Part]:
        """Yield parts of all that counts, exponentiated to the plan."""
        ends = u[0][self._rows.order], v[0][self._columns.order]
        for part in self._live.parts(*ends, dtype):
            yield part._replace(exponents=exp_(part.exponents))
