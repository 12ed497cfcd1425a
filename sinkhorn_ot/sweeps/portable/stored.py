"""The portable implementation: kernels exponentiated once and swept as matrix-vector products.

`StoredKernel` holds `exp(u0 + v0 - C / reg)` per problem and sweeps by two products over row blocks
that fit in cache, so that the kernel is read once. When a potential drifts away from `u0, v0` it
is built again, in log domain, with a row maximum.

Exponents are formed in float64; only the stored kernel may be float32.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import Block, Dense, Problem, at_once
from sinkhorn_ot.sweeps.protocol import Sweep, move_rows

from .blockwise import TILE, TINY, Blockwise, square
from .cpu import (
    batch_column_sums,
    batch_row_sums,
    column_sums,
    empty,
    exp_,
    normal_exp_,
    row_sums,
)
from .sparse import SparseKernel, may_be_sparse


# spread of a cost over reg, and of potentials, up to which a kernel needs no row maxima
_MILD, _CLOSE = 20.0, 40.0
# sweeps beyond what is sparse after which it is looked for there
_ASTRAY = 4
# squares of numbers below this are not normal
_NEGLIGIBLE = {torch.float64: 1e-150, torch.float32: 1e-18}


class StoredKernel(Blockwise):
    """The kernel of every problem, stored around the potentials of its last building."""

    # per storage: exponents below `cut` of their row's maximum are zero, and potentials may move by
    # `drift` before the kernel is built again; no product of the two leaves the format's range
    _LIMITS = {torch.float64: (-650.0, 250.0), torch.float32: (-60.0, 6.0)}
    # exponents that a kernel may span if it is to be scaled without looking
    _SPAN = {torch.float64: 100.0, torch.float32: 30.0}

    def __init__(self, problem: Problem, store: torch.dtype, kernel: Tensor | None = None) -> None:
        super().__init__(problem)
        self._store, self._spare = store, kernel
        self._cut, self._drift = self._LIMITS[store]
        # the share of the mass beside which what is cut of a column is rounding
        self._least = math.exp(self._cut) / torch.finfo(store).eps
        self._kernel: Tensor | None = None
        self._sparse: SparseKernel | None = None
        self._try_sparse = may_be_sparse(problem)
        # sweeps in a row that it did not serve, and where a column lived on what it lacks
        self._astray = 0
        self._missed: Tensor | None = None
        # builds to come without a try, and after the next failure
        self._wait, self._penalty = 0, 1
        self._fused = problem.shape[0] == 1 and math.isinf(problem.relax[0])
        # single precision cannot hold every mass
        mass = problem.a.sum(-1, keepdim=True)
        self._mass = torch.where(mass > 0, mass, 1.0)
        self._share = (problem.a / self._mass)[0].to(store)

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns."""
        if sparse := self._serving(v):
            if (answer := sparse.sweep(v)) is not None:
                self._astray = 0
                return answer
            self._missed = v
        # a step that left what is sparse may be taken back, but not many
        self._astray += 1
        if self._kernel is None or (self._sparse and self._astray % _ASTRAY == 0):
            return self._build(v)
        moved = v - self._v0
        # a column without weight stays at -inf
        drift = moved if self._all_weigh else moved.masked_fill(moved == -math.inf, 0.0)
        if float(drift.abs().amax()) > self._drift:
            return self._build(v)
        beta = moved.exp()
        r, u, s = self._product(beta)
        low = r < TINY
        if bool(low.any()) and bool((low & self._live).any()):
            return self._build(v)
        s *= beta
        if self._misses(s, drift):
            return self._build(v)
        return u, self._rescued(u, v, s, self._least)

    def _misses(self, s: Tensor, drift: Tensor) -> bool:
        """Say whether some column misses what it would not, were the kernel built again.

        What is cut of a column gains as much as potentials have moved apart.
        """
        # in double precision that is nothing for all the moves that there may be
        if self._least * math.exp(2 * self._drift) <= TINY:
            return False
        lowest, highest = torch.aminmax(drift, dim=-1, keepdim=True)
        now = self._least * (highest - lowest).exp_()
        if float(s.amin()) >= float(now.amax() * s.sum()):
            return False
        share = s / s.sum(-1, keepdim=True)
        return bool(((share >= self._least) & (share < now)).any())

    def repeat(self, v: Tensor, count: int) -> tuple[Tensor, int]:
        """Make plain steps of one small problem in the scaling domain, unless numbers span much."""
        p = self.problem
        span = (p.bounds.high - p.bounds.low) / float(p.reg[0])
        exact = self._fused and math.isinf(p.relax[1])
        if not (exact and p.shape[1] * p.shape[2] <= 2 * TILE and span <= self._SPAN[self._store]):
            return v, 0
        if self._kernel is None:
            self._build(v)
        assert self._kernel is not None
        kernel = self._kernel[0]
        a, b = ((w[0] / self._mass[0]).to(self._store) for w in (p.a, p.b))
        beta = (v[0] - self._v0[0]).exp_().to(self._store)
        # rows and columns that carry nothing would be 0 / 0
        some_empty = p.bounds.forbids or not self._all_weigh
        least = torch.finfo(self._store).tiny if some_empty else 0.0
        s = b
        for _ in range(count):
            r = row_sums(kernel, beta).to(self._store)
            s = column_sums(kernel, a / (r.clamp_(min=least) if some_empty else r))
            s = s.to(self._store)
            beta = b / (s.clamp(min=least) if some_empty else s)
        moved = beta.to(v.dtype).log_()
        # a column whose kernel is below what the format holds has led the others astray
        live = p.b[0] > 0
        lowest, highest = torch.aminmax(moved[live])
        known = (self._least * (highest - lowest).exp_()).clamp_(min=TINY)
        if not bool((torch.minimum(s, b)[live] >= known).all()):
            return v, 0
        return self._v0 + moved, count

    def _product(
        self, beta: Tensor, blocks: Iterator[Block] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return row sums, new row potentials, and column sums before their factor `beta`.

        Blocks of the kernel, where they are given, are those that are only now exponentiated.
        """
        kernel, x = self._kernel, beta.to(self._store)
        assert kernel is not None
        if self._fused and blocks is None:
            step = max(1, _cached(kernel) // kernel.shape[2])
            parts = zip(torch.split(kernel[0], step), torch.split(self._share, step), strict=True)
            return self._product_fused(x[0], parts)
        # rows of other costs may come in any order
        if self._fused and blocks is not None and isinstance(self.problem.cost, Dense):
            fresh = ((block[0], self._share[rows]) for rows, block in blocks)
            return self._product_fused(x[0], fresh)
        for _ in blocks or ():
            pass
        r = batch_row_sums(kernel, x).to(beta.dtype)
        u = move_rows(self.problem, self.log_a, r.log() - self._u0)
        weight = ((u - self._u0).exp_() / self._mass).to(self._store)
        s = batch_column_sums(kernel, weight).to(beta.dtype)
        return r, u, s * self._mass

    def _product_fused(
        self, x: Tensor, parts: Iterable[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One problem with exact rows: both products over a block while it is in cache."""
        a = self.problem.a[0]
        s, sums, least = torch.zeros_like(x, dtype=a.dtype), [], torch.finfo(self._store).tiny
        for block, mass in parts:
            sums.append(row_sums(block, x).to(self._store).clamp_(min=least))
            s += column_sums(block, mass / sums[-1])
        r = torch.cat(sums).to(a.dtype)
        return r[None], self._u0 + (a / r).log_(), s[None] * self._mass

    def curve(self, u: Tensor, v: Tensor) -> Tensor:
        """Return P^T diag(1 / P 1) P, by products with the kernel."""
        if sparse := self._serving(v):
            return sparse.curve(u, v)
        if self._kernel is None:
            return super().curve(u, v)
        out, (factor, beta) = square(v), self._scaled(u, v)
        root_of = factor.to(self._store).sqrt_()[:, :, None]
        single = beta.to(self._store)[:, None, :]
        for some, rows in self._cached_parts(self._kernel):
            root = (self._kernel[some, rows] * single[some]).mul_(root_of[some, rows])
            # products of small entries would be subnormal, which is slow, and count for nothing
            torch.threshold_(root, _NEGLIGIBLE[self._store], 0.0)
            out[some] += torch.matmul(root.mT, root)
        return out

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by that."""
        if sparse := self._serving(v):
            return sparse.curve_product(u, v)
        if self._kernel is None:
            return super().curve_product(u, v)
        kernel, (factor, beta) = self._kernel, self._scaled(u, v)

        def product(x: Tensor) -> Tensor:
            out, scaled = torch.zeros_like(x), (beta * x).to(self._store)
            for some, rows in self._cached_parts(kernel):
                block = kernel[some, rows]
                y = batch_row_sums(block, scaled[some]) * factor[some, rows]
                out[some] += batch_column_sums(block, y.to(self._store))
            return out.mul_(beta)

        return product

    def share(self, v: Tensor) -> float:
        """Return what a product with the curve at v costs beside one that takes every pair."""
        sparse = self._serving(v)
        return 1.0 if sparse is None else sparse.share

    def _scaled(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the kernel's rows and columns are multiplied by in between and outside."""
        assert self._kernel is not None
        beta = torch.where(v > -math.inf, (v - self._v0).exp_(), 0.0)
        mass = batch_row_sums(self._kernel, beta.to(self._store))
        # P / (P 1) has no row factor, P has exp(u - u0)
        return torch.where(mass > 0, (u - self._u0).exp_() / mass, 0.0), beta

    @staticmethod
    def _cached_parts(kernel: Tensor) -> Iterator[tuple[slice, slice]]:
        """Yield problems and rows whose kernel fits in cache: rows of one, or whole problems."""
        batch, n, m = kernel.shape
        fit = max(1, _cached(kernel) // m)
        many, height = max(1, fit // max(1, n)), max(1, min(n, fit))
        for first in range(0, batch, many):
            for start in range(0, n, height):
                yield slice(first, first + many), slice(start, start + height)

    def _build(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Exponentiate around minus the row maxima, then sweep."""
        if (answer := self._build_sparse(v)) is not None:
            self._kernel = self._spare = None
            return answer
        return self._build_whole(v)

    def _build_whole(self, v: Tensor) -> tuple[Tensor, Tensor]:
        p, self._built = self.problem, v
        kernel = empty(p.shape, self._store, v.device) if self._spare is None else self._spare
        self._kernel = self._spare = kernel
        low, high = (float(x) for x in torch.aminmax(v))
        self._all_weigh = low > -math.inf
        if self._mild and high - low <= _CLOSE:
            self._v0 = torch.full_like(v, (low + high) / 2)
            blocks = self._lowered(kernel)
        else:
            # a point without weight has an empty column; keep its base finite
            self._v0 = v.masked_fill(v == -math.inf, 0.0)
            blocks = self._raised(kernel, v, low, high)
        # rows of the second kind learn their bases as blocks are read
        least = (p.bounds.low - p.shift) / float(p.reg[0])
        self._u0 = torch.full_like(p.a, least - float(self._v0[0, 0]))
        beta = (v - self._v0).exp_()
        r, u, s = self._product(beta, blocks)
        # a row whose every pair is forbidden stays empty, whatever is built
        self._live = (p.a > 0) & (r > 0)
        return u, self._rescued(u, v, s.mul_(beta), self._least)

    def _build_sparse(self, v: Tensor) -> tuple[Tensor, Tensor] | None:
        """Gather the few entries that count around v, then sweep; None where they are not few."""
        self._wait -= 1
        if not self._try_sparse or self._wait >= 0:
            return None
        found = self._few(v)
        if found is None:
            self._try_sparse = self._sparse is not None
            return None
        if (answer := found.sweep(v)) is None:
            # some column lives on what was dropped, and may for some time
            self._wait, self._penalty = self._penalty, 2 * self._penalty
        else:
            self._sparse, self._astray = found, 0
        return answer

    def _few(self, v: Tensor) -> SparseKernel | None:
        """Return the few entries that count around v; None where they are not few."""
        exponents = ((rows, self._exponent(C, None, v)) for rows, C in self._tiles())
        return SparseKernel.build(self.problem, exponents, v)

    def told(self) -> dict[str, Any]:
        """Return around which potentials kernels were built, and what sweeps have made of them."""
        return {
            "built": None if self._kernel is None else self._built,
            "few": None if self._sparse is None else self._sparse.around,
            "rest": [self._astray, self._wait, self._penalty, self._try_sparse, self._missed],
        }

    def take(self, memory: dict[str, Any]) -> None:
        """Build the same kernels."""
        if memory["few"] is not None:
            wide, close = memory["few"]
            self._sparse = self._few(wide)
            assert self._sparse is not None
            self._sparse.focus(close)
        if memory["built"] is not None:
            self._build_whole(memory["built"])
        self._astray, self._wait, self._penalty, self._try_sparse, self._missed = memory["rest"]

    def _serving(self, v: Tensor) -> SparseKernel | None:
        """Return the sparse kernel if it serves v."""
        sparse, missed = self._sparse, self._missed
        if sparse is None or (missed is not None and torch.equal(v, missed)):
            return None
        return sparse if sparse.serves(v) else None

    def _lowered(self, kernel: Tensor) -> Iterator[Block]:
        """Exponentiate the cost below its least entry: one base for all, few passes."""
        assert self._alpha is not None
        least = kernel.new_tensor(self.problem.bounds.low)
        for rows, C in self._tiles(TILE * 8 // kernel.element_size()):
            block = kernel[:, rows]
            # a difference of costs is exact to its last digit, so that single precision will do
            yield rows, normal_exp_(torch.sub(least, C, out=block).mul_(self._alpha))

    def _raised(self, kernel: Tensor, v: Tensor, low: float, high: float) -> Iterator[Block]:
        """Exponentiate below the maximum of every row at `v`, which lies between low and high."""
        p = self.problem
        spread = (p.bounds.high - p.bounds.low) / float(p.reg.min())
        cuts = p.bounds.forbids or not spread + high - low <= -self._cut
        for rows, C in self._tiles():
            # written once: its first touch is what memory costs
            if isinstance(rows, slice):
                block = kernel[:, rows]
            else:
                # problems that share a cost have a kernel each
                block = kernel.new_empty(len(kernel), *C.shape[1:])
            if low == high and self._moderate and C.dtype == self._store:
                peak = self._differences(C, low, block)
            else:
                exponent = self._exponent(C, None, v)
                peak = exponent.amax(-1)
                peak.masked_fill_(peak == -math.inf, 0.0)
                if exponent.dtype == self._store:
                    torch.sub(exponent, peak[..., None], out=block)
                else:
                    block.copy_(exponent.sub_(peak[..., None]))
            self._u0[:, rows] = -peak
            exp_(block, self._cut) if cuts else normal_exp_(block)
            if not isinstance(rows, slice):
                kernel[:, rows] = block
            yield rows, block

    @property
    def _mild(self) -> bool:
        """Whether one problem's exponents are so few that they need no row maxima."""
        p = self.problem
        spread = (p.bounds.high - p.bounds.low) / float(p.reg[0])
        fits = isinstance(p.cost, Dense) and p.cost.dtype == self._store and not p.bounds.forbids
        return fits and self._moderate and spread <= _MILD

    @property
    def _moderate(self) -> bool:
        """Whether one problem's numbers stay well within single precision's range."""
        spread = self.problem.bounds.high - self.problem.bounds.low
        return self._alpha is not None and 1e-20 < self._alpha < 1e20 and spread < 1e18

    def _differences(self, C: Tensor, v: float, out: Tensor) -> Tensor:
        """Make exponents below their row's maximum, and return that; for columns of one potential.

        A difference of costs is exact to its last digit, so that single precision will do.
        """
        alpha = self._alpha
        assert alpha is not None
        least = C.amin(-1, keepdim=True)
        least.masked_fill_(least == math.inf, 0.0)
        torch.sub(least, C, out=out).mul_(alpha)
        base = least[..., 0].to(self.problem.work) - self.problem.shift
        return v - base * alpha

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`, in the same storage."""
        return StoredKernel(self.problem.at(reg), self._store, self._spare)

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`, moved to the front of the same storage."""
        kept = StoredKernel(self.problem.select(index), self._store)
        if self._kernel is not None:
            step = max(1, (1 << 22) // max(1, self._kernel[0].numel()))
            for start in range(0, len(index), step):
                # indices rise, so what is overwritten has been read
                part = index[start : start + step]
                self._kernel[start : start + len(part)] = self._kernel[part]
            kept._kernel = kept._spare = self._kernel[: len(index)]
            kept._u0, kept._v0 = self._u0[index], self._v0[index]
            kept._live, kept._all_weigh = self._live[index], self._all_weigh
        return kept


def _cached(kernel: Tensor) -> int:
    """Return how many entries of a kernel to read at a time, so that a CPU finds them in cache."""
    return at_once(kernel.device, (1 << 20) // kernel.element_size())
