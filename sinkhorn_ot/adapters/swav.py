"""SwAV's codes: a few Sinkhorn steps that spread a batch of samples evenly over the prototypes.

A code is a softmax of `S / eps + phi`, one `phi` per prototype, and an iteration subtracts from
`phi` the log of the mass that the codes give each prototype. Said so, in float64, nothing can
overflow (`_by_logs`). The CPU takes a shorter way to the same numbers (`_Kernel`): it exponentiates
every score once, each column from its maximum, and iterates with two products over blocks in cache;
only rows whose weight lies where float32 exponents have lost digits are taken by their logs. CUDA
takes the scores in float32 or half precision through the kernels (`_by_operator`), which read them
once an iteration and round exponents as float32 does.
"""

import importlib.util
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot import _check
from sinkhorn_ot.solve import solve


# scores of one row block: small enough for cache, large enough to hide the calls
_TILE = 1 << 18
# a float32 exponent below this has lost digits that a code would show
_FAINT = -12.0
# an exponent below this gives no code a digit, and would be slow to take: exp of it is subnormal
_FLOOR = -60.0
# looked up here: tracing cannot look into the file system
_TRITON = importlib.util.find_spec("triton") is not None


@torch.no_grad()
def swav_codes(
    scores: Any,
    *,
    eps: float = 0.05,
    n_iter: int | None = 3,
    hard: bool = False,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Return SwAV's codes for a batch of scores: constants, whether or not the scores require grad.

    Each iteration scales the prototypes to equal mass, then every sample to one. Works under
    autocast and `torch.compile`; on CUDA it never waits for the device.

    Args:
        scores: Similarity of samples and prototypes, (..., N, K). Half precision is computed in
            float32.
        eps: Temperature of the codes, the paper's epsilon.
        n_iter: Iterations, prototypes first; three are not converged transport. None iterates to
            the default tolerance of `solve`, after which every prototype has its share N / K.
        hard: Replace each code by the one-hot of its largest entry.
        out_dtype: Dtype of the codes; that of the scores by default.

    Returns:
        Codes, (..., N, K); each sample's row sums to one.

    Raises:
        ValueError: If an argument breaks a rule; for a score that is not finite, with the index of
            the first one. Values are looked at on the CPU only, and not under `torch.compile`:
            there a NaN in the scores makes every code of its problem NaN.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster
    assignments, NeurIPS 2020.
    """
    S = _check.at_least_dims("scores", _check.tensor("scores", scores), 2, "(..., N, K)")
    inv = 1.0 / _temperature(eps)
    n_iter = None if n_iter is None else _check.count("n_iter", n_iter)
    out_dtype = S.dtype if out_dtype is None else _floating(out_dtype)
    with torch.autocast(S.device.type, enabled=False):
        if n_iter is None:
            Q = _converged(S, inv)
        elif S.device.type == "cpu" and not torch.compiler.is_compiling():
            Q = _by_kernel(S, inv, n_iter)
        elif _has_kernels(S):
            Q = _by_operator(S, inv, n_iter)
        else:
            Q = _by_logs(S, inv, n_iter)
        if hard:
            Q = torch.zeros_like(Q).scatter_(-1, Q.argmax(-1, keepdim=True), 1.0)
        return Q.to(out_dtype)


def _has_kernels(S: Tensor) -> bool:
    return _TRITON and S.device.type == "cuda" and S.dtype != torch.float64


def _by_operator(S: Tensor, inv: float, n_iter: int) -> Tensor:
    """Return the codes, (..., N, K), by the operator that the kernels implement."""
    # imported here: it registers operators, which only CUDA tensors need
    from sinkhorn_ot import _ops  # noqa: F401

    problems = S.reshape(-1, *S.shape[-2:])
    inv_eps = torch.full((len(problems),), inv, device=S.device)
    codes: Tensor = torch.ops.sinkhorn_ot.codes(problems, inv_eps, n_iter)
    return codes.reshape(S.shape)


def _by_logs(S: Tensor, inv: float, n_iter: int) -> Tensor:
    """Return the codes, (..., N, K), without a look at any value."""
    peak = S.amax(-2, keepdim=True).to(_work(S))
    total = _exp((S - peak) * inv).sum(-2, keepdim=True)
    phi = total.double().log_().neg_().sub_(peak.double() * inv)
    for _ in range(1, n_iter):
        phi -= _softmax(S, inv, phi).sum(-2, keepdim=True).double().log_()
    return _softmax(S, inv, phi)


def _softmax(S: Tensor, inv: float, phi: Tensor) -> Tensor:
    """Return softmax(S * inv + phi) over the prototypes."""
    # in float64: the terms may be huge where their sum is not
    exponent = S.double().mul(inv).add_(phi)
    Q = _exp(exponent.sub_(exponent.amax(-1, keepdim=True)).to(_work(S)))
    return Q.div_(Q.sum(-1, keepdim=True))


def _exp(exponent: Tensor) -> Tensor:
    return exponent.clamp_(min=_FLOOR).exp_()


def _by_kernel(S: Tensor, inv: float, n_iter: int) -> Tensor:
    """Return the codes, (..., N, K); raise if a score is not finite."""
    N, K = S.shape[-2:]
    problems = S.reshape(-1, N, K)
    Q = torch.empty(problems.shape, dtype=_work(S))
    # small problems share the calls, a large one has the cache for itself
    many = max(1, _TILE // (N * K))
    for part, codes in zip(torch.split(problems, many), torch.split(Q, many), strict=True):
        kernel = _Kernel(part, codes, inv)
        if not torch.isfinite(kernel.lowest):
            _refuse(S)
        for _ in range(1, n_iter):
            kernel.step()
        kernel.finish()
    return Q.reshape(S.shape)


class _Kernel:
    """`E = exp((S - peak) / eps)` and the weight of its columns: codes are `E_ik alpha_k / r_i`.

    The exponents of E are rounded relative to their size, so a code may not rest on small entries.
    It cannot where `r_i = sum_k E_ik alpha_k` exceeds `exp(_FAINT) sum_k alpha_k`, all that entries
    below `exp(_FAINT)` could give. The other rows are faint, and taken by their logs.
    """

    def __init__(self, S: Tensor, E: Tensor, inv: float) -> None:
        """Take the first prototype step.

        Args:
            S: Scores, (B, N, K).
            E: Where the kernel is held, and in the end the codes, (B, N, K).
            inv: 1 / eps.
        """
        self._S, self._E, self._inv = S, E, inv
        peak = S.amax(-2, keepdim=True).to(E.dtype)
        total = torch.zeros_like(peak, dtype=torch.float64)
        # the smallest exponent, which is not finite if some score is not
        self.lowest = torch.zeros((), dtype=E.dtype)
        for rows in self._blocks():
            exponent = torch.sub(S[:, rows], peak, out=E[:, rows]).mul_(inv)
            low = exponent.amin()
            total += (exponent.exp_() if low > _FLOOR else _exp(exponent)).sum(-2, keepdim=True)
            self.lowest = torch.minimum(self.lowest, low)
        self._shift = peak.double()[:, 0] * inv
        self._log_alpha = total[:, 0].log_().neg_()

    def step(self) -> None:
        """Scale every sample to one, then every prototype to one share."""
        alpha, total = self._alpha(), torch.zeros_like(self._log_alpha)
        of_faint = torch.zeros_like(total)
        for rows, weight, faint in self._rows(alpha):
            total += _column_sums(self._E[:, rows], weight)
            if faint is not None:
                of_faint += _sums_of(self._codes(rows, faint), faint[0], len(total))
        self._log_alpha -= total.mul_(alpha).add_(of_faint).log_()

    def finish(self) -> None:
        """Turn the kernel into the codes."""
        alpha = self._alpha()
        for rows, weight, faint in self._rows(alpha):
            block = self._E[:, rows].mul_(alpha.to(weight.dtype)[:, None, :])
            block.mul_(weight[:, :, None])
            if faint is not None:
                block[faint] = self._codes(rows, faint)

    def _alpha(self) -> Tensor:
        return (self._log_alpha - self._log_alpha.amax(-1, keepdim=True)).exp_()

    def _rows(self, alpha: Tensor) -> Iterator[tuple[slice, Tensor, tuple[Tensor, ...] | None]]:
        """Yield row blocks, what scales their rows to one, and the index of the faint ones."""
        least = alpha.sum(-1, keepdim=True).mul_(math.exp(_FAINT)).to(self._E.dtype)
        alpha = alpha.to(self._E.dtype)
        for rows in self._blocks():
            mass = _row_sums(self._E[:, rows], alpha)
            faint = mass < least
            if faint.any():
                mass.masked_fill_(faint, math.inf)
                yield rows, mass.reciprocal_(), faint.nonzero(as_tuple=True)
            else:
                yield rows, mass.reciprocal_(), None

    def _codes(self, rows: slice, index: tuple[Tensor, ...]) -> Tensor:
        """Return the codes of single samples by their logs, (samples, K)."""
        phi = (self._log_alpha - self._shift)[index[0]]
        return _softmax(self._S[:, rows][index], self._inv, phi)

    def _blocks(self) -> Iterator[slice]:
        batch, N, K = self._S.shape
        step = max(1, _TILE // (batch * K))
        for start in range(0, N, step):
            yield slice(start, min(N, start + step))


def _row_sums(E: Tensor, alpha: Tensor) -> Tensor:
    """Return E @ alpha, (B, N), without matmul, whose precision users choose."""
    if len(E) == 1:
        return torch.mv(E[0], alpha[0])[None]
    return (E * alpha[:, None, :]).sum(-1)


def _column_sums(E: Tensor, weight: Tensor) -> Tensor:
    """Return E^T @ weight, (B, K), without matmul, whose precision users choose."""
    if len(E) == 1:
        return torch.mv(E[0].t(), weight[0])[None]
    return (E * weight[:, :, None]).sum(-2)


def _sums_of(codes: Tensor, problem: Tensor, batch: int) -> Tensor:
    """Return the sum of the codes of each problem, (B, K), in float64."""
    of = problem == torch.arange(batch)[:, None]
    return of.double() @ codes.double()


def _converged(S: Tensor, inv: float) -> Tensor:
    """Return the codes of converged transport: exact samples, prototypes within the tolerance."""
    if S.device.type == "cpu" and not torch.isfinite(S.sum(dtype=torch.float64)):
        _refuse(S)
    # the solver ends with the prototypes' potential, from which the last sample step is exact
    phi = solve(-S, reg=1.0 / inv).g.double() * inv
    return _softmax(S, inv, phi[..., None, :])


def _refuse(S: Tensor) -> None:
    """Raise for the first score that is not finite, if it was one and no overflow in between."""
    bad = ~torch.isfinite(S)
    if bad.any():
        _check.refuse("scores", "be finite", S, bad)


def _work(S: Tensor) -> torch.dtype:
    return torch.float64 if S.dtype == torch.float64 else torch.float32


def _temperature(eps: Any) -> float:
    value = _check.positive("eps", eps)
    # 1 / eps must be a float32 number
    if value < 1e-30:
        raise ValueError(f"eps must be at least 1e-30, got {value!r}")
    return value


def _floating(dtype: torch.dtype) -> torch.dtype:
    if dtype not in _check.FLOATS:
        raise ValueError(f"out_dtype must be a floating-point dtype, got {dtype!r}")
    return dtype
