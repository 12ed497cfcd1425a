"""Axes of a grid, along which potentials are summed: what a separable sweep is made of.

Tensors hold the axis to be summed first, (B, m, rest); the sums go to the end, (B, rest, n). So an
axis after the other takes its turn, and all stand in their order again after the last.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from sinkhorn_ot.problem import at_once

from .blockwise import TILE
from .cpu import exp_


# exponents that the product of some axes' kernels may span: what is lost beside the largest is less
# than a rounding, for a number below the least normal one is multiplied by none that is above one
SPAN = {torch.float64: 600.0, torch.float32: 60.0}


class Axes(Protocol):
    """Neighbouring axes of a grid, at one `reg` per problem."""

    def log_sum(self, x: Tensor) -> Tensor:
        """Return log sum_j exp(x_j - C_ij / reg) of x (B, m * rest), as (B, rest * n)."""
        ...

    def mean(self, x: Tensor, log_sum: Tensor, y: Tensor) -> Tensor:
        """Return the mean of y (B, k, m * rest) under those exponents, (B, k, rest * n)."""
        ...

    def cost(self, x: Tensor, log_sum: Tensor) -> Tensor:
        """Return the mean of C_ij likewise, (B, rest * n)."""
        ...


class Mild:
    """Axes that allow all pairs and whose kernel a format holds: sums are products."""

    def __init__(self, costs: Sequence[Tensor], reg: Tensor) -> None:
        """Exponentiate.

        Args:
            costs: Costs along each axis, (n, m), the least of which are zero.
            reg: Regularisation, (1,) for all problems or (B,).
        """
        self._costs = costs
        kernels = [exp_(C / -reg[:, None, None]) for C in costs]
        # one matrix for all is one product
        self._kernels = [K[0] if len(K) == 1 else K[:, None] for K in kernels]
        self._m = math.prod(C.shape[1] for C in costs)

    def log_sum(self, x: Tensor) -> Tensor:
        """Return the logarithm of a product with the kernel."""
        top, w = self._scaled(x)
        s = self._product(w[:, None], self._kernels)[:, 0]
        return s.log_().add_(top.mT).flatten(1)

    def mean(self, x: Tensor, log_sum: Tensor, y: Tensor) -> Tensor:
        """Return what products make of y, over what they make of one."""
        top, w = self._scaled(x)
        y = y.view(*y.shape[:2], *w.shape[1:])
        s = self._product(w[:, None] * y, self._kernels)
        return (s * self._share(top, log_sum)[:, None]).flatten(2)

    def cost(self, x: Tensor, log_sum: Tensor) -> Tensor:
        """Return what products with the kernel of one axis times its costs make."""
        top, w = self._scaled(x)
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for k, C in enumerate(self._costs):
            kernels = list(self._kernels)
            kernels[k] = kernels[k] * C
            total = total + self._product(w[:, None], kernels)[:, 0]
        return (total * self._share(top, log_sum)).flatten(1)

    def _scaled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest exponent of each line, (B, 1, rest), and exponentials below it."""
        x = x.view(len(x), self._m, -1)
        top = x.amax(1, keepdim=True)
        top = top.masked_fill(top == -math.inf, 0.0)
        return top, exp_(x - top)

    def _share(self, top: Tensor, log_sum: Tensor) -> Tensor:
        """Return what a product of exponentials is multiplied by to be one of shares."""
        log_sum = log_sum.view(len(log_sum), top.shape[2], -1)
        return torch.where(log_sum > -math.inf, (top.mT - log_sum).exp_(), 0.0)

    @staticmethod
    def _product(w: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        """Return the sums of w (B, k, m, rest) along all axes, (B, k, rest, n)."""
        rest = w.shape[-1]
        for K in kernels:
            # turned first: one product of all lines is quicker than what matmul makes of views
            lines = w.reshape(*w.shape[:2], K.shape[-1], -1).mT.contiguous()
            w = torch.matmul(lines, K.mT)
        return w.reshape(*w.shape[:2], rest, -1)


class Extreme:
    """One axis that forbids pairs or is sharper: exponents are formed line by line."""

    def __init__(self, C: Tensor, reg: Tensor) -> None:
        self._C, self._scaled = C, C / reg[:, None, None]

    def log_sum(self, x: Tensor) -> Tensor:
        """Return the logarithm of sums, each from its largest exponent."""
        x = self._lines(x)
        out = x.new_empty(*x.shape[:2], self._C.shape[0])
        for at in self._parts(x):
            s = x[:, at, None, :] - self._scaled[:, None]
            top = s.amax(-1)
            top.masked_fill_(top == -math.inf, 0.0)
            out[:, at] = exp_(s.sub_(top[..., None])).sum(-1).log_().add_(top)
        return out.flatten(1)

    def mean(self, x: Tensor, log_sum: Tensor, y: Tensor) -> Tensor:
        """Return the mean of y under each line's shares."""
        x, out = self._lines(x), y.new_empty(*y.shape[:2], log_sum.shape[1])
        y = y.view(*y.shape[:2], self._C.shape[1], -1).permute(0, 3, 2, 1)
        told = out.view(*out.shape[:2], x.shape[1], -1)
        for at, share in self._shares(x, log_sum):
            told[:, :, at] = torch.matmul(share, y[:, at]).permute(0, 3, 1, 2)
        return out

    def cost(self, x: Tensor, log_sum: Tensor) -> Tensor:
        """Return the mean of the costs under each line's shares."""
        x, out = self._lines(x), torch.empty_like(log_sum)
        told = out.view(*x.shape[:2], -1)
        for at, share in self._shares(x, log_sum):
            told[:, at] = torch.where(share > 0, share * self._C, 0.0).sum(-1)
        return out

    def _lines(self, x: Tensor) -> Tensor:
        return x.view(len(x), self._C.shape[1], -1).mT

    def _parts(self, x: Tensor) -> Iterator[slice]:
        """Yield lines whose exponents fit a cache."""
        step = max(1, at_once(x.device, TILE) // (len(x) * self._C.numel()))
        for start in range(0, x.shape[1], step):
            yield slice(start, start + step)

    def _shares(self, x: Tensor, log_sum: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield what pairs of some lines carry of each sum, (B, lines, n, m)."""
        log_sum = log_sum.view(*x.shape[:2], -1)
        log_sum = log_sum.masked_fill(log_sum == -math.inf, 0.0)
        for at in self._parts(x):
            s = x[:, at, None, :] - self._scaled[:, None]
            yield at, exp_(s.sub_(log_sum[:, at, :, None]))
