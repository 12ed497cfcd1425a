"""How potentials answer: the linear system of the marginals, solved once for each derivative.

At the solution the potentials make F = (a phi(f) - P 1, b phi(g) - P^T 1) zero, where phi is 1 for
an exact side and exp(-f / rho) for a relaxed one. A loss with derivatives (s, t) by (f, g) changes
with anything else as <z, F> does, for z with H z = (s, t) and H minus the derivative of F. Without
the rows, which are solved for, that is one system of the columns: diag less what a sweep calls its
curve, by conjugate gradients or a factorisation.
"""

import torch
from torch import Tensor

from sinkhorn_ot.results import attached
from sinkhorn_ot.solvers import JOINED, by_diagonal, conjugate_gradients, factorised
from sinkhorn_ot.sweeps import elasticity

from .ratios import Ratios


# entries of matrices that are factorised at once; larger systems take products alone
_MATRICES = 1 << 26
# columns up to which a factor is quicker than any products
_SMALL = 64
# columns per product that a factorisation costs
_FACTOR = 16
# products at most, with a factor and without one
_MENDED, _MOST = 12, 20_000
# what is added to the diagonal of a system, relative to the column sums: parts that nothing joins
# have a constant each, which rounding alone would decide where marginals are exact
_HELD = 1e-14
# residual of a solution relative to the right side, in the preconditioner's norm
_TARGETS = {torch.float64: 1e-13, torch.float32: 1e-6}
# residual above which a solution is none
_FAILED = 1e-3
# roundings that a right side may be made of
_ROUNDED = 1e3


class System:
    """The linear system of one solved problem, or of a batch.

    Attributes:
        mass: Sums of the plan's rows and columns.
        amplified: How many times larger the last solution was than without any off-diagonal, (B,):
            by as much potentials, and their derivatives, may be further off than marginals.
    """

    def __init__(self, ratios: Ratios) -> None:
        self._ratios, p = ratios, ratios.problem
        self._problem = p
        one_a, one_b = torch.ones_like(p.a), torch.ones_like(p.b)
        self.mass = ratios.apply(one_b), ratios.apply(one_a, transpose=True)
        self._kappa = elasticity(p, 0)[:, None], elasticity(p, 1)[:, None]
        self.amplified = torch.zeros_like(p.reg)

    def solve(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return z of the rows (B, n) and of the columns (B, m); zero where there is no weight.

        Args:
            s: Derivatives by f, (B, n).
            t: Derivatives by g, (B, m).
        """
        z = self._solved(s.detach(), t.detach())
        if not (torch.is_grad_enabled() and (s.requires_grad or t.requires_grad)):
            return z
        n = s.shape[1]

        # the system is symmetric
        def pull(by: Tensor) -> tuple[Tensor]:
            return (torch.cat(self.solve(by[:, :n], by[:, n:]), -1),)

        both = attached(pull, torch.cat(z, -1), torch.cat((s, t), -1))
        return both[:, :n], both[:, n:]

    def _solved(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        p, (r, c), kappa = self._problem, self.mass, self._kappa[0]
        share = kappa * torch.where(r > 0, s / r, 0.0)
        down = self._ratios.apply(share, transpose=True)
        right = torch.where(c > 0, p.reg[:, None] * (t - down), 0.0)
        scale = p.reg * (s.abs().sum(-1) + t.abs().sum(-1))
        columns = torch.zeros_like(c)
        if p.relax[1] > 0:
            whole = p.reg[:, None] * t.abs()
            columns = torch.where(c > 0, self._columns(right, whole, scale), 0.0)
        across = self._ratios.apply(columns)
        return kappa * torch.where(r > 0, (p.reg[:, None] * s - across) / r, 0.0), columns

    def _columns(self, right: Tensor, whole: Tensor, scale: Tensor) -> Tensor:
        """Return x with (diag(c / kappa_b) - kappa_a curve) x = right, (B, m).

        Args:
            right: The right side.
            whole: How large its numbers were before rows were taken off, (B, m).
            scale: How large the numbers were of which it is the rest, (B,).
        """
        p, (_, c), (kappa, other) = self._problem, self.mass, self._kappa
        if p.exact:
            # what is off is the error of the marginals, and has no answer
            right = right - c * (right.sum(-1, keepdim=True) / c.sum(-1, keepdim=True))
        # relaxed marginals leave no constant open, and what is added would be off by costs far away
        diagonal = c / other + _HELD * c if p.exact else c / other
        if p.relax[0] == 0:
            return torch.where(c > 0, right / diagonal, 0.0)
        mass = self.mass[0]
        times = self._ratios.curve_product(mass)

        def product(x: Tensor) -> Tensor:
            return diagonal * x - kappa * times(x)

        batch, m = c.shape
        fits = batch * m * m <= _MATRICES
        first = 0 if m <= _SMALL else 1 + m // _FACTOR
        target = torch.full_like(p.reg, _TARGETS[p.work])
        divide = by_diagonal(diagonal)
        few = torch.full_like(p.reg, first if fits else _MOST)
        x, arrived = torch.zeros_like(right), torch.zeros_like(p.reg, dtype=torch.bool)
        if first or not fits:
            x, arrived = conjugate_gradients(
                product, lambda y: self._levelled(divide(y)), right, target, few
            )
        if fits and not bool(arrived.all()):
            W = self._ratios.curve(mass).mul_(kappa[..., None])
            factor = factorised(W, diagonal - kappa * c + JOINED * c)
            mended = conjugate_gradients(
                product,
                lambda y: self._levelled(torch.cholesky_solve(y[..., None], factor)[..., 0]),
                right,
                target,
                torch.full_like(p.reg, _MENDED),
            )[0]
            x = torch.where(arrived[:, None] | ~torch.isfinite(mended), x, mended)
        # beside what the right side is the rest of
        plain = torch.where(c > 0, right.abs().maximum(whole) / diagonal, 0.0).amax(-1)
        self.amplified = torch.where(plain > 0, x.abs().amax(-1) / plain, 0.0)
        return self._sound(right - product(x), right, scale, x)

    def _levelled(self, x: Tensor) -> Tensor:
        """Return x without its constant, where that means nothing."""
        if not self._problem.exact:
            return x
        c = self.mass[1]
        return x - (c * x).sum(-1, keepdim=True) / c.sum(-1, keepdim=True)

    def _sound(self, off: Tensor, right: Tensor, scale: Tensor, x: Tensor) -> Tensor:
        """Return a solution, or raise if it is none."""
        rounding = _ROUNDED * torch.finfo(x.dtype).eps * scale
        missed, whole = off.abs().sum(-1), right.abs().sum(-1)
        # what comes in as no number goes out as one, as everywhere in torch
        bad = ~(missed <= _FAILED * whole + rounding) & torch.isfinite(whole)
        if bool(bad.any()):
            k = int(bad.nonzero()[0])
            where = f" of problem {k}" if len(bad) > 1 else ""
            raise RuntimeError(
                f"gradients{where} through the plan were not found: their linear system was solved "
                f"to {float(missed[k] / whole[k]):.2g} of its right side. Either the loss depends "
                "on constants of f and g that forbidden pairs leave open, one for each group of "
                "points that serve only each other, or reg is too small for this precision"
            )
        return x
