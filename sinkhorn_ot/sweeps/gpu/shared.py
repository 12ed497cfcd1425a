"""What the kernels of stored costs and of clouds have in common."""

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from sinkhorn_ot.kernels import steps
from sinkhorn_ot.kernels.whole_steps import HELD_STEPS
from sinkhorn_ot.problem import Problem
from sinkhorn_ot.sweeps.protocol import Moves, elasticity


class Kernels:
    """What a sweep by kernels does, whatever the cost."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @cached_property
    def _kappa(self) -> Tensor | None:
        """Return the elasticity of relaxed rows, (B,), as kernels take it; None for exact ones."""
        return None if math.isinf(self.problem.relax[0]) else elasticity(self.problem, 0)

    @cached_property
    def inv_reg(self) -> Tensor:
        """Return 1 / reg of each problem, (B,), as kernels take it; most results need none."""
        return 1.0 / self.problem.reg

    def curve(self, u: Tensor, v: Tensor) -> Tensor:
        """Return P^T diag(1 / P 1) P."""
        one = torch.eye(v.shape[1], device=v.device, dtype=v.dtype).expand(len(v), -1, -1)
        return self._curved(u, v, one, self._masses(u, v))

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by P^T diag(1 / P 1) P."""
        mass = self._masses(u, v)
        return lambda x: self._curved(u, v, x[:, :, None], mass)[:, :, 0]

    def _masses(self, u: Tensor, v: Tensor) -> Tensor:
        return self.apply(u, v, torch.ones_like(v)[:, :, None])

    def _curved(self, u: Tensor, v: Tensor, x: Tensor, mass: Tensor) -> Tensor:
        y = torch.where(mass > 0, self.apply(u, v, x) / mass, 0.0)
        return self.apply(u, v, y, transpose=True)

    def moves(self, *, memory: int, growth: float, wait: int, begin: float) -> Moves | None:
        """Return a run of Anderson's steps, two launches each, or three for relaxed marginals.

        None too where a column's penalty is none that kernels know.
        """
        if memory > HELD_STEPS.value or self.problem.penalised:
            return None
        p = self.problem
        relaxed = None if p.exact else steps.Relaxed(p.a, p.reg, p.relax, p.dtype)
        return steps.Run(p.b, relaxed, memory=memory, growth=growth, wait=wait, begin=begin)

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x (B, n) over the rows, (B,)."""
        return x.sum(-1)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        raise NotImplementedError


def lengths(problem: Problem) -> Tensor | None:
    """Return after how many first rows and columns each problem has no more, (B, 2), int32.

    None where there is no padding. Nothing waits for the device.
    """
    if problem.there is None:
        return None
    ends = torch.empty(problem.shape[0], 2, dtype=torch.int32, device=problem.a.device)
    for there, end in zip(problem.there, ends.unbind(-1), strict=True):
        numbers = torch.arange(1, there.shape[1] + 1, dtype=torch.int32, device=there.device)
        torch.amax(there * numbers, -1, out=end)
    return ends
