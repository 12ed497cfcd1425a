"""The sweep of clouds in few dimensions on a GPU, over the tiles that count.

Points lie in the order of a tree, made once. In every sweep the device judges what counts, by the
sums of the sweep before and potentials that are nearly affine on a block; rows whose sums turn out
to have lost more than they may are summed over all columns in the same launch. So what is left out
is always as little as asked for, and the host never waits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sinkhorn_ot.kernels import apply as products
from sinkhorn_ot.kernels import near, point_cloud
from sinkhorn_ot.kernels.clouds import Clouds, Side, direct
from sinkhorn_ot.kernels.configs import power_of_two
from sinkhorn_ot.kernels.near import Boxes, Fitted, Live
from sinkhorn_ot.problem import PointCloud, Problem, shown
from sinkhorn_ot.sweeps.portable import by_sorts
from sinkhorn_ot.sweeps.protocol import Coarser, Sweep, move_rows

from .clouds import CloudKernels, placed
from .shared import Kernels


# points of a block at least, and blocks of a cloud at most, but for clouds that are larger
SIZE, _BLOCKS = 128, 4096
# by how much sums may fall from one sweep to the next before rows are summed over all columns
_MARGIN = 4.0
# points from which fewer are solved for first, how many of them one stands for, and the reg for
# which they do, relative to the squares of both their sizes
_MANY, _FEW, _WIDTH = 3000, 16, 0.125


@shown
@dataclass(frozen=True, eq=False)
class Tree:
    """One cloud in order.

    Attributes:
        side: The points, as kernels take them, in order.
        boxes: Their blocks.
        points: The same in blocks, the last one filled with zeros, (k, size, d).
        place: Where each of the caller's points stands in this order, (n,).
    """

    side: Side
    boxes: Boxes
    points: Tensor
    place: Tensor

    @classmethod
    def of(cls, side: Side, size: int) -> "Tree":
        """Order a cloud of few coordinates into blocks of `size`, a power of two."""
        n = side.size
        points = side.points[0, :, :n].mT.contiguous()
        order = by_sorts(points, size)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(n, device=order.device))
        points, count = points[order], -(-n // size)
        ordered = side.points.clone()
        ordered[0, :, :n] = points.mT
        # what fills the last block is one of its points
        rest = points[-1:].expand(count * size - n, -1)
        blocks = torch.cat((points, rest)).view(count, size, -1)
        low, high = (t.mT.contiguous() for t in (blocks.amin(1), blocks.amax(1)))
        boxes = Boxes(order, low, high, count, size)
        return cls(side._replace(points=ordered), boxes, blocks, place)

    def fewer(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return means (1, k, d) and masses (1, k) of a few neighbours each, and their mean square.

        Args:
            weight: What points weigh, in the caller's order, (n,).
        """
        n, w = len(weight), self.taken(weight)
        points = self.points.flatten(0, 1)[:n]
        order = by_sorts(points, _FEW)
        # what fills the last block weighs nothing
        order = torch.cat((order, order[-1:].expand(-n % _FEW)))
        here = points[order].view(-1, _FEW, points.shape[1])
        w = w[order].view(-1, _FEW)
        w = w.flatten().index_fill(0, torch.arange(n, w.numel(), device=w.device), 0.0).view_as(w)
        mass = w.sum(1)
        share = torch.where(mass[:, None] > 0, w / mass[:, None], 1 / _FEW)
        mean, size = (share[:, :, None] * here).sum(1), here.amax(1) - here.amin(1)
        return mean[None], mass[None], size.square().sum(-1).mean()

    def told(self, x: Tensor) -> Tensor:
        """Return numbers in order, (n, ...), in the caller's."""
        return x.index_select(0, self.place)

    def taken(self, x: Tensor) -> Tensor:
        """Return numbers in the caller's order, (n, ...), in this one."""
        return x.index_select(0, self.boxes.order)


class NearKernels(Kernels):
    """Costs made on chip where they count: O(n + m) memory, and a bit for each pair of blocks."""

    def __init__(
        self, problem: Problem, lost: float, clouds: Clouds, trees: tuple[Tree, Tree]
    ) -> None:
        """Begin.

        Args:
            problem: One problem between clouds, by squared distances.
            lost: Logarithm of what may be left out of a row or column, relative to its sum.
            clouds: The clouds, in the caller's order.
            trees: Both in order.
        """
        super().__init__(problem)
        self._lost, self._clouds, self.trees = lost, clouds, trees
        # sums of rows and of columns at the last sweep, and what the last passes left out
        self._sums: list[Fitted | None] = [None, None]
        self._left: tuple[Tensor, ...] = ()

    @classmethod
    def of_clouds(cls, problem: Problem, lost: float, size: int | None = None) -> "NearKernels":
        """Order the clouds of a problem, by blocks of `size` or what suits them."""
        clouds = placed(problem.cost, problem.work)
        size = size or max(SIZE, power_of_two(-(-max(problem.shape[1:]) // _BLOCKS), 1))
        trees = Tree.of(clouds.rows, size), Tree.of(clouds.columns, size)
        return cls(problem, lost, clouds, trees)

    @property
    def dropped(self) -> float:
        """At most what the last sweep or pass left out, of any row or column; asking waits."""
        return math.exp(float(torch.cat(self._left).amax()) if self._left else self._lost)

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns, over the tiles that count."""
        p, (rows, columns) = self.problem, self.trees
        t = self.taken(1, v)
        sums, before, live = self._summed(0, t, self._sums[0])
        known = p.penalties[0] is None
        weight = p.a[0] if known else None
        moved = near.settle(
            rows.side, rows.boxes, sums, before, live, weight=weight, kappa=self._kappa
        )
        new, s = moved.told[None], moved.moved
        if s is None:
            # a penalty that no kernel knows
            new = move_rows(p, p.a.log(), rows.told(sums)[None])
            s = self.taken(0, new)
        sums, before, live = self._summed(1, s, self._sums[1])
        mass = near.settle(columns.side, columns.boxes, sums, before, live, base=t.values)
        self._sums, self._left = [moved.sums, mass.sums], (moved.left, mass.left)
        return new, mass.told[None]

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg)."""
        return self._log_sums(0, v)

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg)."""
        return self._log_sums(1, u)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        return Plan(self, u, v).apply(x, transpose)

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C>."""
        return Plan(self, u, v).linear()

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by P^T diag(1 / P 1) P, over what counts at u and v."""
        plan = Plan(self, u, v)
        mass = plan.apply(torch.ones_like(v)[:, :, None], False)

        def product(x: Tensor) -> Tensor:
            y = torch.where(mass > 0, plan.apply(x[:, :, None], False) / mass, 0.0)
            return plan.apply(y, True)[:, :, 0]

        return product

    def coarser(self) -> Coarser | None:
        """Return the problem of the means of small blocks, whose reg is about their size."""
        p, (rows, columns) = self.problem, self.trees
        if min(p.shape[1:]) < _MANY:
            return None
        (x, a, one), (y, b, other) = rows.fewer(p.a[0]), columns.fewer(p.b[0])
        reg = max(p.least_reg, _WIDTH * float(one + other))
        assert isinstance(p.cost, PointCloud)
        cost = replace(p.cost, x=x, y=y, scale=None)
        few = replace(p, cost=cost, a=a, b=b, reg=torch.full_like(p.reg, reg), one_reg=reg)
        sweep = CloudKernels(few, self._between(direct(x), direct(y)))

        def extend(psi: Tensor) -> Tensor:
            u, _ = sweep.sweep(None, psi + few.b.log())
            across = self._between(columns.side, direct(x))
            return -columns.told(point_cloud.log_sum_rows(across, u, 1.0 / few.reg)[0])[None]

        return Coarser(sweep, reg / p.least_reg, extend)

    def of(self, problem: Problem) -> Sweep:
        """Return the kernels of a problem with the same clouds, either way round."""
        mine, other = self.problem.cost, problem.cost
        assert isinstance(mine, PointCloud)
        assert isinstance(other, PointCloud)
        if mine.x is other.x and mine.y is other.y:
            return NearKernels(problem, self._lost, self._clouds, self.trees)
        rows, columns = self.trees
        return NearKernels(problem, self._lost, self._clouds.swapped(), (columns, rows))

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problem at another `reg`."""
        return NearKernels(self.problem.at(reg), self._lost, self._clouds, self.trees)

    def select(self, index: Tensor) -> Sweep:
        """Return the problem, which is one."""
        return self

    def clouds(self, side: int) -> Clouds:
        """Return the clouds in order, rows or columns first."""
        return self._between(self.trees[side].side, self.trees[1 - side].side)

    def _between(self, rows: Side, columns: Side) -> Clouds:
        return replace(self._clouds, rows=rows, columns=columns)

    def live(self, side: int, t: Fitted, sums: Fitted) -> Live:
        """Return what counts for rows or columns beside their sums, at the others' potential."""
        mine, other = self.trees[side].boxes, self.trees[1 - side].boxes
        return near.judge((mine, sums.above), (other, t.above), self.inv_reg, self._lost, _MARGIN)

    def taken(self, side: int, potential: Tensor) -> Fitted:
        """Return a potential (1, n) of rows or columns in order."""
        tree = self.trees[side]
        return near.take(tree.side, tree.boxes, potential[0].contiguous())

    def counting(self, side: int, t: Fitted) -> Live:
        """Return what counts for rows or columns, of whose sums nothing is known."""
        live = self.live(side, t, self.least(side, t))
        self._left = (live.cut,)
        return live

    def least(self, side: int, t: Fitted) -> Fitted:
        """Return sums below those of rows or columns, from the means of the others' blocks.

        Of all points of a block the mean of the exponent is that of their mean less their variance,
        and by Jensen's inequality a mean of exponentials is more than that of the mean.
        """
        mine, other = self.trees[side], self.trees[1 - side]
        count, size = other.boxes.many, other.boxes.size
        rest = count * size - len(t.values)
        w = torch.nn.functional.pad(t.values, (0, rest), value=-math.inf).view(count, size)
        share = w.softmax(-1).nan_to_num(nan=0.0)[:, :, None]
        mean = (share * other.points).sum(1)
        spread = (share * (other.points - mean[:, None]).square()).sum((1, 2))
        v = w.logsumexp(-1) - spread * self.inv_reg
        few = self._between(mine.side, direct(mean[None]))
        sums = point_cloud.log_sum_rows(few, v[None], self.inv_reg)[0]
        return near.known(mine.side, mine.boxes, sums)

    def _summed(self, side: int, t: Fitted, known: Fitted | None) -> tuple[Tensor, Tensor, Live]:
        """Return sums of rows or columns, what they were thought to be, and over what they are."""
        sums = self.least(side, t) if known is None else known
        live = self.live(side, t, sums)
        guess = None if known is None else sums.values[None]
        found = point_cloud.log_sum_rows(
            self.clouds(side), t.values[None], self.inv_reg, guess=guess, live=live
        )
        return found[0], sums.values, live

    def _log_sums(self, side: int, potential: Tensor) -> Tensor:
        """Return the sums of rows or columns, of which nothing is known."""
        found, _, live = self._summed(side, self.taken(1 - side, potential), None)
        self._left = (live.cut,)
        return self.trees[side].told(found)[None]


class Plan:
    """The plan at two potentials: what counts of it, either way round, is found once."""

    def __init__(self, sweep: NearKernels, u: Tensor, v: Tensor) -> None:
        self._sweep = sweep
        self._potentials = sweep.taken(0, u), sweep.taken(1, v)
        self._found: list[Live | None] = [None, None]

    def apply(self, x: Tensor, transpose: bool) -> Tensor:
        """Return P @ x or P^T @ x."""
        sweep, side = self._sweep, int(transpose)
        rows, columns = (sweep.trees[k] for k in (side, 1 - side))
        u, v = (self._potentials[k].values[None] for k in (side, 1 - side))
        found = products.apply(
            sweep.clouds(side), u, v, columns.taken(x[0])[None], sweep.inv_reg, self._live(side)
        )
        return rows.told(found[0])[None]

    def linear(self) -> Tensor:
        """Return <P, C>."""
        sweep, (u, v) = self._sweep, self._potentials
        paid = products.linear(
            sweep.clouds(0), u.values[None], v.values[None], sweep.inv_reg, self._live(0)
        )
        return paid.sum(-1)

    def _live(self, side: int) -> Live:
        """Return what counts for rows or for columns."""
        if (live := self._found[side]) is None:
            live = self._found[side] = self._sweep.counting(side, self._potentials[1 - side])
        return live
