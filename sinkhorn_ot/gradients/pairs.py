"""One pass over all pairs, which sums what a loss makes of them by rows, columns and costs.

All that a result tells depends on the exponents E_ij = (f_i + g_j - C_ij) / reg of its plan
P_ij = a_i b_j exp(E_ij). Let M_ij be a loss's derivative by E_ij. Then its derivative by the cost
is -M_ij / reg, those by weights are the sums of rows over a_i and of columns over b_j, those by
potentials the same sums over reg, and that by reg is -sum M_ij E_ij / reg.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_ot.problem import Index, PointCloud, Problem, shown
from sinkhorn_ot.results import Entropic, Parts

from .ratios import Ratios


# rows of the pairs and their costs to what multiplies them, (B, rows, m) or what broadcasts to that
Weigh = Callable[[Index, Tensor], Tensor]


@shown
@dataclass(frozen=True, eq=False)
class Weights:
    """What a loss makes of the pairs: M = P * (of_plan - rows - columns) + Q * of_rows + added.

    Q_ij = P_ij / a_i is there for rows without weight too. What is None is zero.

    Attributes:
        of_plan: Weights of the plan's entries.
        of_rows: Weights of the entries of Q.
        added: What is added to M as it is.
        lost: Weights, instead of all others, of columns without weight, (B, m).
        own: What the loss gains with the cost itself, per unit of mass and problem, (B,).
        rows: A number per row, (B, n).
        columns: A number per column, (B, m); zero where there is no weight.
    """

    of_plan: Weigh | None = None
    of_rows: Weigh | None = None
    added: Weigh | None = None
    lost: Tensor | None = None
    own: Tensor | None = None
    rows: Tensor | None = None
    columns: Tensor | None = None


@shown
@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of M over the pairs.

    Attributes:
        rows: Sums of rows, (B, n).
        columns: Sums of columns, (B, m); of those without weight, of M / b.
        over_a: Sums of rows of M / a, what `Weights.rows` adds left out, (B, n).
        energy: sum M_ij E_ij, (B,); zero unless asked for.
        cost: Derivatives by the cost: "C", or "left" and "right"; empty unless asked for.
    """

    rows: Tensor
    columns: Tensor
    over_a: Tensor
    energy: Tensor
    cost: Parts


def summed(ratios: Ratios, w: Weights, *, costs: bool = False, energy: bool = False) -> Sums:
    """Sum M over all pairs.

    Args:
        ratios: The pairs.
        w: What a loss makes of them.
        costs: Whether to make derivatives by the cost.
        energy: Whether to sum M E.
    """
    p, weighs = ratios.problem, ratios.weighs[:, None, :]
    rows, over_a = torch.zeros_like(p.a), torch.zeros_like(p.a)
    columns, spent = torch.zeros_like(p.b), torch.zeros_like(p.reg)
    by_cost = _ByCost(p) if costs else None
    for index, C, B in ratios.blocks():
        a = p.a[:, index, None]
        T = _of_row(w, index, C, B)
        M = T.clone() if w.rows is None else torch.addcmul(T, w.rows[:, index, None], B, value=-1)
        M *= a
        each = None if w.of_rows is None else w.of_rows(index, C)
        if not ratios.all_weigh:
            over_b = M if each is None else M + each * B
            columns += torch.where(ratios.weighs, 0.0, over_b.sum(-2))
            lost = torch.zeros_like(B) if w.lost is None else w.lost[:, None, :] * B
            T, M = torch.where(weighs, T, lost), torch.where(weighs, M, a * lost)
            B = torch.where(weighs, B, 0.0)
        over_a[:, index] = T.sum(-1)
        if each is not None:
            M += each * B
        if w.added is not None:
            more = w.added(index, C)
            M += more
            over_a[:, index] += (more / torch.where(a > 0, a, math.inf)).sum(-1)
        rows[:, index] = M.sum(-1)
        columns += torch.where(ratios.weighs, M.sum(-2), 0.0)
        if energy:
            E = ratios.exponents(index, C).sub_(ratios.log_b[:, None, :])
            spent += (M * E.masked_fill_(E.isneginf(), 0.0)).sum((-2, -1))
        if by_cost is not None:
            M /= -p.reg[:, None, None]
            by_cost.add(index, M if w.own is None else M.add_((w.own[:, None, None] * a) * B))
    return Sums(rows, columns, over_a, spent, {} if by_cost is None else by_cost.parts)


def _of_row(w: Weights, index: Index, C: Tensor, B: Tensor) -> Tensor:
    """Return the plan's weights times its ratios, what rows add left out."""
    if w.of_plan is None:
        return torch.zeros_like(B) if w.columns is None else -w.columns[:, None, :] * B
    weights = w.of_plan(index, C)
    return weights * B if w.columns is None else (weights - w.columns[:, None, :]).mul_(B)


class _ByCost:
    """Derivatives by the cost, gathered block by block in the form in which the cost is given."""

    def __init__(self, p: Problem) -> None:
        self._one = p.cost.batch_shape[0] == 1
        self._cost = p.cost if isinstance(p.cost, PointCloud) else None
        batch = p.cost.batch_shape[0]
        if self._cost is None:
            self.parts: Parts = {"C": p.a.new_zeros(batch, *p.shape[1:])}
        else:
            self._left, self._right = self._cost.factors
            self._metric = self._cost.rule
            self.parts = {
                "left": torch.zeros_like(self._left),
                "right": torch.zeros_like(self._right),
            }

    def add(self, index: Index, by: Tensor) -> None:
        """Add derivatives by the costs of some rows, (B, rows, m)."""
        if self._one:
            by = by.sum(0, keepdim=True)
        if self._cost is None:
            self.parts["C"][:, index] = by
            return
        left = self._left[:, index]
        by_left, by_right = self._metric.pull(left, self._right, by.to(left.dtype))
        self.parts["left"][:, index] = by_left
        self.parts["right"] += by_right


def row_sums(k: Entropic) -> Tensor:
    """Return sum_j P_ij / a_i at the solution, (B, n), of rows without weight too."""
    rho = k.problem.relax[0]
    if rho == 0:
        return k.sweep.log_sum_rows(k.v).exp()
    return torch.ones_like(k.f) if math.isinf(rho) else (-k.f / rho).exp()


def column_sums(k: Entropic) -> Tensor:
    """Return sum_i P_ij / b_j at the solution, (B, m), likewise."""
    rho = k.problem.relax[1]
    if rho == 0:
        return k.sweep.log_sum_columns(k.u).exp()
    return torch.ones_like(k.g) if math.isinf(rho) else (-k.g / rho).exp()
