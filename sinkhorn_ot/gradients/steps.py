"""Derivatives of a fixed number of sweeps: of the steps that were made, not of a solution.

Ten sweeps are a function like any other. They are those of the layer `normalize` on the logits
log b_j - C_ij / reg, rows first, and are taken back with it: nothing but its input is kept.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_ot.results import Leaves, Parts, Transport, attached

from .layer import normalize


def stepwise(result: Transport, leaves: Leaves, n_iter: int) -> Transport:
    """Return a result of fixed sweeps whose numbers are functions of what requires grad.

    Raises:
        ValueError: If a marginal is relaxed, or a weight that may be looked at is zero.
    """
    p = result.problem
    if not p.exact:
        raise ValueError(
            f"n_iter must not be given where {leaves.names} requires grad and a marginal is "
            "relaxed: leave it out, and the solution is differentiated"
        )
    looks = p.a.device.type == "cpu"
    if looks and not (bool((p.a > 0).all()) and bool((p.b > 0).all())):
        raise ValueError(
            f"n_iter must not be given where {leaves.names} requires grad and a weight is zero: "
            "leave it out, and the solution is differentiated"
        )
    return replace(result, derivatives=Steps(result, leaves, n_iter))


class Steps:
    """Derivatives of what fixed sweeps tell, by the arguments of their problem.

    Args:
        result: The result, without derivatives.
        leaves: The arguments that have them.
        n_iter: How many sweeps there were.
    """

    def __init__(self, result: Transport, leaves: Leaves, n_iter: int) -> None:
        self._problem, self._leaves, self._count = result.problem, leaves, n_iter

    def link(self, kind: str, flat: Tensor, *given: Tensor) -> Tensor:
        """Return numbers of the result with their derivatives."""

        def pull(by: Tensor) -> tuple[Tensor | None, ...]:
            twice, at = torch.is_grad_enabled(), self._leaves.again()
            with torch.enable_grad():
                told = self._told(kind, self._leaves.parts(self._problem, at), *given)
            if not told.requires_grad:
                return (None,) * len(at)
            return torch.autograd.grad(
                told, list(at.values()), by.to(told.dtype), allow_unused=True, create_graph=twice
            )

        return attached(pull, flat, *self._leaves.tensors)

    def _told(self, kind: str, parts: Parts, *given: Tensor) -> Tensor:
        """Return numbers of a kind as functions of the parts of the problem."""
        p = self._problem
        a, b = parts.get("a", p.a), parts.get("b", p.b)
        reg = parts.get("reg", p.reg)[:, None, None]
        C = self._costs(parts)
        allowed = math.inf > C
        C = torch.where(allowed, C, 0.0)
        logits = torch.where(allowed, b.log()[:, None, :] - C / reg, -math.inf)
        log_P = normalize(logits, self._count, a, b, log=True)
        P = log_P.exp()
        if kind in ("plan", "log_plan"):
            return P if kind == "plan" else log_P
        if kind == "value_linear":
            return (P * C).sum((-2, -1))
        if kind in ("apply", "barycentric"):
            return P @ given[0] / (P.sum(-1, keepdim=True) if kind == "barycentric" else 1.0)
        if kind == "apply_transpose":
            return P.mT @ given[0]
        # reg E + C = f + g, pair by pair
        weights = a[:, :, None] * b[:, None, :]
        E = torch.where(allowed, log_P - weights.log(), 0.0)
        slack = reg[:, 0, 0] * (weights - P).sum((-2, -1))
        if kind == "value":
            return (P * (C + reg * E)).sum((-2, -1)) + slack
        if not bool(allowed.all()):
            raise RuntimeError(f"{kind} of fixed sweeps has no derivatives beside forbidden pairs")
        both, mass = C + reg * E, b.sum(-1)[:, None]
        if kind == "dual_value":
            return (weights * both).sum((-2, -1)) / mass[:, 0] + slack
        f = (b[:, None, :] * both).sum(-1) / mass
        if kind == "f":
            return f
        return (a[:, :, None] * both).sum(-2) / mass - (a * f).sum(-1, keepdim=True) / mass

    def _costs(self, parts: Parts) -> Tensor:
        """Return the costs, (1 or B, n, m), in the working dtype."""
        p = self._problem
        if "C" in parts:
            C = parts["C"]
        elif "left" in parts:
            assert self._leaves.cloud is not None
            C = self._leaves.cloud.rule.join(parts["left"], parts["right"])
        else:
            C = p.cost.rows(0, p.shape[1])
        return C.to(p.work)
