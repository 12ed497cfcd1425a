"""Codes as softmaxes: one at a time by their logs, or all from exponentials that stay in cache.

A code is a softmax of `S / eps + phi`, one `phi` per prototype, and an iteration subtracts from
`phi` the log of the mass that the codes give each prototype. Formed in float64, no exponent can
overflow, and `softmax` is all that is needed: `by_logs`. `by_products` is a shorter way to the same
numbers: it exponentiates every score once, each column from its maximum, and iterates with two
products over blocks in cache; only rows whose weight lies where exponents have lost digits are
taken by their logs. Where those are many it goes on in float64, which loses none.

Samples that a mask leaves out have no weight and codes of zeros. Samples of other ranks are met in
the sums and maxima per prototype, and nowhere else.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sinkhorn_ot.sweeps import Ranks, column_sums, empty

from .arguments import HELD, Asked, at_least_single, not_finite


# scores of one row block: small enough for cache, large enough to hide the calls
TILE = 1 << 18
# terms of a float32 sum that one product adds up without a loss that a code would show
_LONG = 4096
# an exponent below this has lost digits that a code would show: to rounding in float32, and in
# float64 to the floor
FAINT = {torch.float32: -12.0, torch.float64: -660.0}
# an exponent below this gives no code a digit, and would be slow to take: exp of it is subnormal
FLOOR = {torch.float32: -60.0, torch.float64: -700.0}
# rows taken by their logs that cost more than all rows in float64, per row
_DEAR = 0.5


def by_logs(p: Asked, n_iter: int) -> Tensor:
    """Return codes, (..., N - start, K), without a look at any value."""
    return codes_at(p, stepped(p, n_iter))


def stepped(p: Asked, n_iter: int) -> Tensor:
    """Return phi after `n_iter` prototype steps, (..., 1, K), float64; -inf for no share."""
    inv = 1.0 / p.eps
    wanted = 0.0 if p.shares is None else p.shares.log()[..., None, :]
    phi = first_step(p.S, inv, p.mask, p.ranks) + wanted
    for _ in range(1, n_iter):
        phi += wanted - masses(p.S, inv, phi, p.mask, p.ranks).log_()
    return phi


def by_products(p: Asked, n_iter: int) -> Tensor:
    """Return codes, (..., N - start, K), on a CPU; raise if a score is not finite."""
    batch, (N, K) = p.S.shape[:-2], p.S.shape[-2:]
    problems = p.S.reshape(math.prod(batch), N, K)
    mask = None if p.mask is None else p.mask.reshape(problems.shape[:2])
    Q = empty((len(problems), N - p.start, K), at_least_single(p.S.dtype), p.S.device)
    # small problems share the calls, a large one has the cache for itself; ranks share them all
    many = max(1, TILE // (N * K)) if p.ranks.alone else len(problems)
    for at in range(0, len(problems), many):
        part = slice(at, at + many)
        S, keep = problems[part], None if mask is None else mask[part]
        E = empty(S.shape, Q.dtype, Q.device) if p.start else Q[part]
        scaled = ScaledScores(S, E, 1.0 / p.eps, keep, p.ranks)
        if not scaled.sound:
            p.ranks.agree(p.require_sound)
        for left in range(n_iter - 1, 0, -1):
            scaled.step()
            if Q.dtype == torch.float32 and scaled.faint * left > _DEAR * S.shape[0] * N:
                scaled.widen()
        codes = scaled.finish(p.start)
        if p.start or codes.dtype != Q.dtype:
            Q[part] = codes
    return Q.reshape(*batch, N - p.start, K)


def first_step(S: Tensor, inv: float, mask: Tensor | None, ranks: Ranks) -> Tensor:
    """Return phi after the first prototype step, (..., 1, K), float64."""
    peak = _peaks(S, mask, ranks)
    E = cleared(_exp((S - peak) * inv), mask)
    total = ranks.sum(E.sum(-2, keepdim=True, dtype=torch.float64))
    return total.log_().neg_().sub_(peak.double() * inv)


def masses(S: Tensor, inv: float, phi: Tensor, mask: Tensor | None, ranks: Ranks) -> Tensor:
    """Return what the codes give each prototype, (..., 1, K), float64."""
    Q = cleared(softmax(S, inv, phi), mask)
    return ranks.sum(Q.sum(-2, keepdim=True, dtype=torch.float64))


def codes_at(p: Asked, phi: Tensor) -> Tensor:
    """Take the samples' last step where codes are asked for, (..., N - start, K)."""
    return cleared(softmax(p.S[..., p.start :, :], 1.0 / p.eps, phi), p.kept)


def cleared(x: Tensor, mask: Tensor | None) -> Tensor:
    """Write zeros where a sample does not count."""
    return x if mask is None else x.masked_fill_(~mask[..., None], 0.0)


def closed(Q: Tensor, phi: Tensor) -> Tensor:
    """Write zeros where a prototype has no share."""
    return Q.masked_fill_(phi == -math.inf, 0.0)


def softmax(S: Tensor, inv: float, phi: Tensor) -> Tensor:
    """Return the softmax over the prototypes of S * inv + phi, for phi in float64."""
    # in float64: the terms may be huge where their sum is not
    exponent = S.double().mul(inv).add_(phi)
    exponent -= exponent.amax(-1, keepdim=True)
    Q = _exp(exponent.to(at_least_single(S.dtype)))
    return Q.div_(Q.sum(-1, keepdim=True))


def _exp(exponent: Tensor) -> Tensor:
    """Return exp of exponents up to zero, in their place."""
    return exponent.clamp_(min=FLOOR[exponent.dtype]).exp_()


def _peaks(S: Tensor, mask: Tensor | None, ranks: Ranks) -> Tensor:
    """Return the largest score of each prototype, (..., 1, K); -inf if no sample counts."""
    if mask is not None:
        S = S.masked_fill(~mask[..., None], -math.inf)
    # a rank without samples has no maximum of its own
    peak = S.amax(-2, keepdim=True) if S.shape[-2] else S.new_full(_row(S), -math.inf)
    return ranks.max(peak.to(at_least_single(S.dtype)))


def _row(S: Tensor) -> tuple[int, ...]:
    return (*S.shape[:-2], 1, S.shape[-1])


class ScaledScores:
    """`E = exp((S - peak) / eps)` and the weight of its columns: codes are `E_ik alpha_k / r_i`.

    The exponents of E are rounded relative to their size, so a code may not rest on small entries.
    It cannot where `r_i = sum_k E_ik alpha_k` exceeds `exp(FAINT) sum_k alpha_k`, all that entries
    below `exp(FAINT)` could give. The other rows are faint, and taken by their logs.

    Attributes:
        sound: Whether every score is a number.
        faint: How many rows were faint in the last step.
    """

    def __init__(self, S: Tensor, E: Tensor, inv: float, mask: Tensor | None, ranks: Ranks) -> None:
        """Take the first prototype step.

        Args:
            S: Scores, (B, N, K).
            E: Where the exponentials are held, and in the end the codes, (B, N, K).
            inv: 1 / eps.
            mask: Samples that count, (B, N); None for all.
            ranks: Who holds the other samples.
        """
        self._S, self._E, self._inv, self._ranks = S, E, inv, ranks
        self._out = None if mask is None else ~mask
        self._peak = peak = _peaks(S, mask, ranks)
        total = torch.zeros_like(peak, dtype=torch.float64)
        # the smallest exponent, which is not finite if some score is not
        lowest = E.new_zeros(())
        for rows in self._blocks():
            lowest = torch.minimum(lowest, self._exponentiate(rows))
            total += E[:, rows].sum(-2, keepdim=True)
        if self._overflows(peak, lowest) or (
            not torch.isfinite(lowest) and bool(not_finite(S, mask).any())
        ):
            # tells every rank
            total.fill_(math.nan)
        total = ranks.sum(total[:, 0])
        self.sound = not bool(total.isnan().any())
        self.faint = 0
        self._shift = peak.double()[:, 0] * inv
        self._log_alpha = total.log_().neg_()

    def _exponentiate(self, rows: slice) -> Tensor:
        """Write E, and return the smallest exponent."""
        E = self._E[:, rows]
        exponent = torch.sub(self._S[:, rows].to(E.dtype), self._peak, out=E).mul_(self._inv)
        self._clear(rows)
        low = exponent.amin()
        exponent.exp_() if low > FLOOR[E.dtype] else _exp(exponent)
        self._clear(rows)
        return low

    def widen(self) -> None:
        """Go on in float64."""
        self._E, self.faint = empty(self._S.shape, torch.float64, self._S.device), 0
        for rows in self._blocks():
            self._exponentiate(rows)

    def _overflows(self, peak: Tensor, lowest: Tensor) -> bool:
        """Say whether some score over eps is none that float64 holds; of others none is."""
        if self._S.dtype != torch.float64:
            return False
        largest = peak.masked_fill(peak == -math.inf, 0.0).abs().amax() * self._inv
        return bool((largest > HELD) | (lowest < -2 * HELD))

    def step(self) -> None:
        """Scale every sample to one, then every prototype to one share."""
        alpha, total = self._alpha(), torch.zeros_like(self._log_alpha)
        of_faint, self.faint = torch.zeros_like(total), 0
        for rows, weight, faint in self._rows(alpha):
            total += _column_sums(self._E[:, rows], weight)
            if faint is not None:
                self.faint += len(faint[0])
                of_faint += _sums_of(self._codes(rows, faint), faint[0], len(total))
        self._log_alpha -= self._ranks.sum(total.mul_(alpha).add_(of_faint)).log_()

    def finish(self, start: int) -> Tensor:
        """Turn the exponentials into codes from row `start` on; return those, (B, N - start, K)."""
        alpha = self._alpha()
        for rows, weight, faint in self._rows(alpha, start):
            block = self._E[:, rows].mul_(alpha.to(weight.dtype)[:, None, :])
            block.mul_(weight[:, :, None])
            if faint is not None:
                block[faint] = self._codes(rows, faint).to(block.dtype)
            self._clear(rows)
        return self._E[:, start:]

    def _alpha(self) -> Tensor:
        return (self._log_alpha - self._log_alpha.amax(-1, keepdim=True)).exp_()

    def _rows(
        self, alpha: Tensor, start: int = 0
    ) -> Iterator[tuple[slice, Tensor, tuple[Tensor, ...] | None]]:
        """Yield row blocks, what scales their rows to one, and the index of the faint ones."""
        least = alpha.sum(-1, keepdim=True).mul_(math.exp(FAINT[self._E.dtype]))
        least = least.to(self._E.dtype)
        alpha = alpha.to(self._E.dtype)
        for rows in self._blocks(start):
            mass = _row_sums(self._E[:, rows], alpha)
            if self._out is not None:
                mass.masked_fill_(self._out[:, rows], math.inf)
            faint = mass < least
            if faint.any():
                mass.masked_fill_(faint, math.inf)
                yield rows, mass.reciprocal_(), faint.nonzero(as_tuple=True)
            else:
                yield rows, mass.reciprocal_(), None

    def _codes(self, rows: slice, index: tuple[Tensor, ...]) -> Tensor:
        """Return the codes of single samples by their logs, (samples, K)."""
        phi = (self._log_alpha - self._shift)[index[0]]
        return softmax(self._S[:, rows][index], self._inv, phi)

    def _clear(self, rows: slice) -> None:
        """Write zeros where a sample does not count."""
        if self._out is not None:
            self._E[:, rows].masked_fill_(self._out[:, rows, None], 0.0)

    def _blocks(self, start: int = 0) -> Iterator[slice]:
        batch, N, K = self._S.shape
        step = max(1, TILE // (batch * K))
        for at in range(start, N, step):
            yield slice(at, min(N, at + step))


def _row_sums(E: Tensor, alpha: Tensor) -> Tensor:
    """Return E @ alpha, (B, N), without matmul, whose precision users choose."""
    if len(E) == 1 and E.shape[2] <= _LONG:
        return torch.mv(E[0], alpha[0])[None]
    # summed in pairs, whatever the length
    return (E * alpha[:, None, :]).sum(-1)


def _column_sums(E: Tensor, weight: Tensor) -> Tensor:
    """Return E^T @ weight, (B, K), without matmul, whose precision users choose."""
    if len(E) == 1:
        return column_sums(E[0], weight[0])[None]
    return (E * weight[:, :, None]).sum(-2)


def _sums_of(codes: Tensor, problem: Tensor, batch: int) -> Tensor:
    """Return the sum of the codes of each problem, (B, K), in float64."""
    of = problem == torch.arange(batch, device=problem.device)[:, None]
    return of.double() @ codes.double()
