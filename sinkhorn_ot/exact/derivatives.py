"""Derivatives of an optimal value: by its plan and its duals, which prove it."""

from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_ot.problem import PointCloud
from sinkhorn_ot.results import Leaves, Parts, Sparse, Stored, Transport, attached, final


def differentiable(result: Transport, leaves: Leaves) -> Transport:
    """Return a result whose value is a function of the arguments that require grad."""
    return replace(result, derivatives=ByDuals(result, leaves))


class ByDuals:
    """Derivatives of the optimum of a linear program, which are one of them where there are many.

    A cost is worth what the plan moves there, a weight its potential. The plan itself jumps.

    Args:
        result: The result, without derivatives.
        leaves: The arguments that have them.
    """

    def __init__(self, result: Transport, leaves: Leaves) -> None:
        assert isinstance(result.coupling, Stored)
        self._problem, self._of, self._leaves = result.problem, result.coupling, leaves

    def link(self, kind: str, flat: Tensor, *given: Tensor) -> Tensor:
        """Return numbers of the result with their derivatives, if they have some."""
        leaves = self._leaves.tensors

        def refuse(_: Tensor) -> tuple[Tensor | None, ...]:
            raise RuntimeError(
                f"{kind} of solve_exact has no derivative, because an optimal plan jumps: use its "
                "value, or solve with a small reg"
            )

        def pull(by: Tensor) -> tuple[Tensor | None, ...]:
            parts = self._leaves.pulled(self._problem, self._worth(by))
            return final(f"{kind} of solve_exact", parts, *leaves)

        values = ("value", "value_linear", "dual_value")
        return attached(pull if kind in values else refuse, flat, *leaves)

    def _worth(self, by: Tensor) -> Parts:
        """Return derivatives of values by the parts of the problem."""
        k = self._of
        weights = {name: by[:, None] * self._of_weights(k, name) for name in ("a", "b")}
        cloud = self._leaves.cloud
        if isinstance(k, Sparse) and cloud is not None:
            return weights | self._by_pairs(by, k, cloud)
        if not cloud and "cost" not in self._leaves.given:
            return weights
        return weights | self._leaves.by_cost(self._problem, by[:, None, None] * k.full)

    def _by_pairs(self, by: Tensor, of: Sparse, cloud: PointCloud) -> Parts:
        """Return derivatives by what costs of points are made of, from the entries of a plan."""
        (k, i, j), mass = of.entries
        whose = k if self._problem.cost.batch_shape[0] > 1 else torch.zeros_like(k)
        factors = cloud.flat(self._problem.batch_shape).factors
        ends = [t[whose, at][:, None] for t, at in zip(factors, (i, j), strict=True)]
        moved = (by[k] * mass).to(factors[0].dtype)[:, None, None]
        pulled = cloud.rule.pull(ends[0], ends[1], moved)
        found = []
        for t, at, one in zip(factors, (i, j), pulled, strict=True):
            out = torch.zeros_like(t).flatten(0, 1)
            found.append(out.index_add_(0, whose * t.shape[1] + at, one[:, 0]).reshape(t.shape))
        return {"left": found[0], "right": found[1]}

    def _of_weights(self, k: Stored, name: str) -> Tensor:
        """Return what more weight at each point of a side is worth, by the dual value."""
        p, side = self._problem, "ab".index(name)
        potential, weight, penalty = (k.f, k.g)[side], (p.a, p.b)[side], p.penalties[side]
        if penalty is None:
            return potential
        with torch.enable_grad():
            held = weight.detach().requires_grad_()
            (worth,) = torch.autograd.grad(penalty.dual(potential, held).sum(), held)
        return worth
