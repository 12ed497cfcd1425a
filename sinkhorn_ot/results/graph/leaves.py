"""The arguments of a call that wait for derivatives, and how they enter the flat problem."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import Dense, PointCloud, Problem, flatten, shown


# parts of a flat problem, by which its numbers have derivatives
Parts = dict[str, Tensor]


@shown
@dataclass(frozen=True, eq=False)
class Leaves:
    """Tensors that require grad, by the argument that they are.

    Attributes:
        given: The tensors, of "cost", "x", "y", "a", "b", "reg", "rho", "rho_a", "rho_b", "alpha".
        cloud: The points, as constants, where the cost is theirs.
    """

    given: Parts
    cloud: PointCloud | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors, in the order of their names."""
        return tuple(self.given.values())

    @property
    def names(self) -> str:
        """What the tensors are called, in words."""
        return " and ".join("unbalanced" if name[:3] == "rho" else name for name in self.given)

    def parts(self, p: Problem, given: Parts) -> Parts:
        """Return the parts of the flat problem that these tensors enter, as functions of them.

        They are "C" (1 or B, n, m), or "left" and "right", the factors of a metric, "a" (B, n),
        "b" (B, m), "reg" and "alpha" (B,), "rho_a" and "rho_b" (). A missing one is constant.
        """
        found: Parts = {}
        if "cost" in given:
            C = flatten(given["cost"], p.batch_shape, p.cost.batch_shape.numel() == 1)
            found["C"] = p.cost.fill(C) if isinstance(p.cost, Dense) else C
        if "x" in given or "y" in given:
            found |= self._factors(p, given)
        for name, like in (("a", p.a), ("b", p.b), ("reg", p.reg), ("alpha", p.reg)):
            if name in given:
                t = given[name].to(p.work).expand((*p.batch_shape, *like.shape[1:]))
                found[name] = t.reshape(like.shape)
        if p.exact and ("a" in given or "b" in given):
            # masses of both sides are one number
            a, b = found.get("a", p.a), found.get("b", p.b)
            found["b"] = b * (a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True))
        for side in ("rho_a", "rho_b"):
            if (rho := given.get("rho", given.get(side))) is not None:
                found[side] = rho.to(p.work)
        return found

    def _factors(self, p: Problem, given: Parts) -> Parts:
        """Return what the costs of points are made of."""
        assert self.cloud is not None
        cloud, one = self.cloud, self.cloud.batch_shape.numel() == 1
        x, y = (
            flatten(given.get(name, points), p.batch_shape, one)
            for name, points in (("x", cloud.x), ("y", cloud.y))
        )
        left, right = cloud.factors_of(x, y)
        return {"left": left, "right": right}

    def by_cost(self, p: Problem, by: Tensor) -> Parts:
        """Return derivatives by the parts that costs are made of from those by all costs.

        Args:
            p: The flat problem.
            by: Derivatives by the costs of each problem, (B, n, m).
        """
        by = by.sum(0, keepdim=True) if p.cost.batch_shape[0] == 1 else by
        if self.cloud is None:
            return {"C": by}
        left, right = self.cloud.flat(p.batch_shape).factors
        pair = self.cloud.rule.pull(left, right, by.to(left.dtype))
        return dict(zip(("left", "right"), pair, strict=True))

    def again(self) -> Parts:
        """Return the tensors as what a function of them is differentiated by in a backward pass.

        With gradients on they are in their graph; else they begin one of their own.
        """
        if torch.is_grad_enabled():
            return {name: t.view_as(t) for name, t in self.given.items()}
        return {name: t.detach().requires_grad_() for name, t in self.given.items()}

    def pulled(self, p: Problem, grads: Parts) -> tuple[Tensor | None, ...]:
        """Return derivatives by the tensors from those by the parts that they enter."""
        twice, given = torch.is_grad_enabled(), self.again()
        with torch.enable_grad():
            parts = self.parts(p, given)
        names = [name for name in parts if name in grads and parts[name].requires_grad]
        along = [grads[name].to(parts[name].dtype) for name in names]
        found: Sequence[Tensor | None] = torch.autograd.grad(
            [parts[name] for name in names],
            list(given.values()),
            along,
            allow_unused=True,
            create_graph=twice,
        )
        return tuple(found)


def waiting(
    cost: Any, a: Any, b: Any, reg: Any = None, unbalanced: Any = None, alpha: Any = None
) -> tuple[Leaves | None, tuple[Any, ...]]:
    """Return the arguments that wait for derivatives, None if none does, and all as constants."""
    plain = cost, a, b, reg, unbalanced, alpha
    if not torch.is_grad_enabled():
        return None, plain
    given: Parts = {}
    cloud = None
    if isinstance(cost, PointCloud):
        if cost.x.requires_grad or cost.y.requires_grad:
            given |= {k: t for k, t in (("x", cost.x), ("y", cost.y)) if t.requires_grad}
            cost = cloud = replace(cost, x=cost.x.detach(), y=cost.y.detach())
    else:
        held = cost.C if isinstance(cost, Dense) else cost
        if _waits(held):
            given["cost"] = held
            cost = replace(cost, C=held.detach()) if isinstance(cost, Dense) else held.detach()
    named = (("a", a), ("b", b), ("reg", reg), ("alpha", alpha))
    a, b, reg, alpha = (_taken(given, *one) for one in named)
    unbalanced = _penalties(given, unbalanced)
    _sound(given)
    if not given:
        return None, plain
    return Leaves(given, cloud), (cost, a, b, reg, unbalanced, alpha)


def _waits(t: Any) -> bool:
    return isinstance(t, Tensor) and t.requires_grad


def _taken(given: Parts, name: str, t: Any) -> Any:
    """Note a tensor that requires grad; return it as a constant."""
    if not _waits(t):
        return t
    given[name] = t
    return t.detach()


def _penalties(given: Parts, unbalanced: Any) -> Any:
    if _waits(unbalanced) and unbalanced.ndim == 1 and len(unbalanced) == 2:
        unbalanced = tuple(unbalanced.unbind())
    if _waits(unbalanced) and unbalanced.numel() != 1:
        raise ValueError(
            f"unbalanced must be one penalty or two, got shape {tuple(unbalanced.shape)}"
        )
    if not isinstance(unbalanced, (tuple, list)) or len(unbalanced) != 2:
        return _taken(given, "rho", unbalanced)
    names = ("rho_a", "rho_b")
    return tuple(_taken(given, *one) for one in zip(names, unbalanced, strict=True))


def _sound(given: Parts) -> None:
    """Refuse derivatives by penalties at the ends of their range, where there are none."""
    for name in ("rho", "rho_a", "rho_b"):
        if name in given and not 0 < (value := float(given[name].detach())) < math.inf:
            raise ValueError(
                f"unbalanced must be above zero and finite where it requires grad, got {value:.4g}"
            )
