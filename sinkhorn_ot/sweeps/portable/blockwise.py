"""What the portable implementations have in common: log-domain passes over row blocks.

Exponents are formed in float64.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from sinkhorn_ot.problem import Block, Problem, at_once

from .cpu import exp_


# entries of one block on a CPU: small enough for cache, large enough to hide the call
TILE = 1 << 16
# sums below this have lost digits to underflow and are taken again from their maximum
TINY = 1e-30


class Blockwise:
    """A problem and its passes; an implementation adds the sweep."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        single = problem.shape[0] == 1 and problem.a.device.type == "cpu"
        self._alpha = 1.0 / problem.least_reg if single else None

    @cached_property
    def log_a(self) -> Tensor:
        """Logarithm of the row weights, (B, n)."""
        return self.problem.a.log()

    @cached_property
    def _scale(self) -> Tensor:
        return (1.0 / self.problem.reg)[:, None, None]

    def _tiles(self, entries: int = TILE) -> Iterator[Block]:
        batch, _, m = self.problem.shape
        entries = at_once(self.problem.a.device, entries)
        return self.problem.cost.tiles(max(1, entries // (m * max(1, batch))))

    def _exponent(self, C: Tensor, u: Tensor | None, v: Tensor) -> Tensor:
        """Return u_i + v_j - C_ij / reg for a block of rows, (B, rows, m), with u (B, rows)."""
        if self.problem.shift:
            C = C.to(v.dtype) - self.problem.shift
        return exponent(C, self._scale if self._alpha is None else self._alpha, u, v)

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg)."""
        out = torch.empty_like(self.problem.a)
        for rows, C in self._tiles():
            s = self._exponent(C, None, v)
            peak = s.amax(-1)
            peak.masked_fill_(peak == -math.inf, 0.0)
            out[:, rows] = exp_(s.sub_(peak[..., None])).sum(-1).log_().add_(peak)
        return out

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg), one running maximum per column."""
        peak = torch.full_like(self.problem.b, -math.inf)
        total = torch.zeros_like(peak)
        for rows, C in self._tiles():
            s = self._exponent(C, u[:, rows], torch.zeros_like(peak))
            higher = torch.maximum(peak, s.amax(-2))
            shift = higher.masked_fill(higher == -math.inf, 0.0)
            total = total * (peak - shift).exp() + exp_(s.sub_(shift[:, None, :])).sum(-2)
            peak = higher
        return torch.where(total > 0, peak + total.log(), -math.inf)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        if transpose:
            out = x.new_zeros(x.shape[0], v.shape[-1], x.shape[-1])
            for rows, C in self._tiles():
                out += exp_(self._exponent(C, u[:, rows], v)).mT @ x[:, rows]
            return out
        out = x.new_empty(*self.problem.a.shape, x.shape[-1])
        for rows, C in self._tiles():
            out[:, rows] = exp_(self._exponent(C, u[:, rows], v)) @ x
        return out

    def curve(self, u: Tensor, v: Tensor) -> Tensor:
        """Return P^T diag(1 / P 1) P."""
        out = square(v)
        # a square to sum asks for blocks as large
        for rows, C in self._tiles(max(TILE, v.shape[1] ** 2)):
            P = exp_(self._exponent(C, u[:, rows], v))
            mass = P.sum(-1, keepdim=True)
            out += P.mT @ torch.where(mass > 0, P / mass, 0.0)
        return out

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by P^T diag(1 / P 1) P."""

        def product(x: Tensor) -> Tensor:
            out = torch.zeros_like(x)
            for rows, C in self._tiles():
                P = exp_(self._exponent(C, u[:, rows], v))
                mass = P.sum(-1)
                y = (P @ x[:, :, None])[:, :, 0]
                out += (P.mT @ torch.where(mass > 0, y / mass, 0.0)[:, :, None])[:, :, 0]
            return out

        return product

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C>; a forbidden pair carries nothing."""
        total = torch.zeros_like(self.problem.reg)
        for rows, C in self._tiles():
            P = exp_(self._exponent(C, u[:, rows], v))
            total += torch.where(P > 0, P * C, 0.0).sum((-2, -1))
        return total

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x (B, n) over the rows, (B,)."""
        return x.sum(-1)

    def _rescued(self, u: Tensor, v: Tensor, s: Tensor, share: float = 0.0) -> Tensor:
        """Return log column sums; those out of range are taken again from their maximum.

        So are those below a share of the whole mass, which may have lost what a kernel drops.
        """
        total = float(s.sum())
        if total < math.inf and float(s.amin()) >= max(TINY, share * total):
            return s.log()
        # relaxed rows may carry more than can be held
        lost = (s < (share * s.sum(-1, keepdim=True)).clamp_(min=TINY)) | ~(s < math.inf)
        lost &= v > -math.inf
        if not bool(lost.any()):
            return s.log()
        return torch.where(lost, self.log_sum_columns(u) + v, s.log())


def exponent(
    C: Tensor, scale: float | Tensor, u: Tensor | None, v: Tensor, out: Tensor | None = None
) -> Tensor:
    """Return u_i + v_j - scale C_ij for a block of rows, (B, rows, m); or write it to `out`.

    Args:
        C: Costs of the rows, (1 or B, rows, m).
        scale: 1 / reg, one number or (B, 1, 1).
        u: Potentials of the rows, (B, rows), or None for zero.
        v: Column potentials, (B, m).
        out: Where to write.
    """
    # a conversion by itself is quicker than one within the difference
    costs = C.to(v.dtype)
    if isinstance(scale, Tensor):
        s = torch.addcmul(v[:, None, :], costs, scale, value=-1, out=out)
        return s if u is None else s.add_(u[:, :, None])
    # a batch that shares a cost has more exponents than costs
    own = costs if costs is not C and costs.shape[0] == v.shape[0] else None
    s = torch.sub(v[:, None, :], costs, alpha=scale, out=own if out is None else out)
    return s if u is None else s.add_(u[:, :, None])


def square(v: Tensor) -> Tensor:
    """Return zeros, (B, m, m)."""
    return v.new_zeros(v.shape[0], v.shape[1], v.shape[1])
