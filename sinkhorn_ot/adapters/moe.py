"""A router for mixtures of experts: which experts a token is sent to when all are used evenly."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import ArrayLike, checks, has_triton, shown
from sinkhorn_ot.results import (
    ON_FAIL,
    ConvergenceError,
    OnFail,
    Result,
    in_words,
    missed,
    uncompiled,
)
from sinkhorn_ot.sweeps import ProcessGroup, Ranks

from .arguments import alike, at_least_single, rows_that_count, samples
from .softmaxes import first_step, masses


@shown
@dataclass(frozen=True, eq=False)
class Routing(Result):
    """A transport plan from tokens to experts, for choosing, not for mixing.

    Its columns are exact, 1 / E each; its rows are 1 / T up to what is left of the iterations. It
    is a constant: weigh the chosen experts by your own softmax or sigmoid of the logits, which has
    gradients.

    Attributes:
        log_plan: Log of the plan, (..., T, E); float32, or float64 for float64 logits. -inf where
            a token may not use an expert, or does not count.
        n_iter: Iterations taken, (...), int64.
        change: By how much the last iteration changed the experts' scalings, in the mean, (...),
            float64; nan or inf where they left the range of numbers.
        tol: The change at which to stop.
    """

    log_plan: Tensor
    n_iter: Tensor
    change: Tensor
    tol: float

    _tells = ("log_plan", "n_iter", "change", "converged")
    _precise = "what is labelled hangs on the last digit of its numbers"

    @property
    def converged(self) -> Tensor:
        """Whether the last iteration changed the scalings by `tol` or less, (...), bool."""
        return self.change <= self.tol

    @property
    def message(self) -> str:
        """One sentence on how it ended; read on the host, which waits for the device."""
        change, many = self.change.reshape(-1).cpu().nan_to_num(nan=math.inf), self.change.numel()
        if not many:
            return in_words([])
        late = int((change > self.tol).sum())
        if not late:
            return f"moe_router: the experts' scalings changed by no more than tol = {self.tol:.3g}"
        worst = int(change.argmax())
        which = "" if many == 1 else f"{late} of {many} problems: "
        return (
            f"moe_router: {which}the experts' scalings still changed by {float(change[worst]):.3g},"
            f" above tol = {self.tol:.3g}, after {int(self.n_iter.reshape(-1)[worst])} iterations: "
            "raise max_iter or tol, or scale the logits down"
        )

    def check(self) -> "Routing":
        """Return self, or raise `ConvergenceError` if some problem is above `tol`.

        It waits for the device: on CUDA, where nothing is said by itself, call it now and then.
        """
        if not bool(self.converged.all()):
            raise ConvergenceError(self.message, self)
        return self

    @property
    def _batch(self) -> torch.Size:
        return self.converged.shape

    @property
    def plan(self) -> Tensor:
        """The plan, (..., T, E); the sum of all entries is one if any token counts."""
        return self.log_plan.exp()

    def top_k(self, k: int) -> Tensor:
        """Return each token's k largest experts, the largest first, (..., T, k), int64.

        Taken in logarithms, so that experts whose share underflows are still in order. -1 stands
        where a token has no further expert: where it may use less than k, or does not count.

        Raises:
            ValueError: If there are fewer than k experts.
        """
        k, E = checks.count("k", k), self.log_plan.shape[-1]
        if k > E:
            raise ValueError(f"k must be at most the number of experts, {E}, got {k}")
        found = self.log_plan.topk(k, -1)
        return found.indices.masked_fill(found.values == -math.inf, -1)


@uncompiled
@constant
def moe_router(
    logits: ArrayLike,
    *,
    n_iter: int | None = None,
    tol: float = 1e-4,
    max_iter: int = 1_000,
    on_fail: OnFail = "warn",
    mask: ArrayLike | None = None,
    group: ProcessGroup | None = None,
) -> Routing:
    """Return a plan that spreads tokens evenly over experts: tokens first, experts last.

    From expert scalings of one, an iteration scales every token to 1 / T, then every expert to
    1 / E. It ends when the scalings change by `tol` or less, in the mean over experts.

    Args:
        logits: Of tokens and experts, (..., T, E). Half precision is computed in float32. -inf
            keeps a token from an expert, and a token needs one that is left, and so does an expert.
        n_iter: Iterations; None iterates to `tol`. On CUDA all of them are one launch, and nothing
            waits for the device. With a group, more than 4096 experts or no Triton they are PyTorch
            operations, and `tol` waits each time.
        tol: Mean change of the experts' scalings at which to stop.
        max_iter: Iterations allowed on the way to `tol`. Logits so far apart that a scaling leaves
            the range of float64 come here.
        on_fail: What to do where `tol` is not reached: "warn", "raise" `ConvergenceError`,
            "ignore". A fixed `n_iter` asks for no `tol`. On CUDA one launch knows it and the host
            does not: nothing is said unless "raise" waits for the device; call `check` of the
            result where you wait anyway.
        mask: Tokens that count, (..., T) or (T,), bool; None for all. The others, such as padding,
            may hold anything: they have no share, no expert, and no say.
        group: Process group over whose ranks the tokens are spread, in any numbers; see
            `swav_codes`. What ranks exchange is E numbers per iteration.

    Returns:
        The plan in logarithms, iterations, convergence, and `top_k`.

    Raises:
        ValueError: If an argument breaks a rule; on the CPU, for a logit that is NaN or inf, with
            the index of the first one, for a token that -inf leaves without an expert, and without
            a group for an expert that it leaves without a token. Elsewhere the plan holds NaN.
        RuntimeError: If a rank of the group cannot be reached.
        ConvergenceError: With on_fail="raise", on all ranks.

    Source: A. Clark et al., Unified scaling laws for routed language models, ICML 2022.
    """
    ranks = Ranks(group)

    def check() -> _Asked:
        return _asked(logits, mask, n_iter, tol, max_iter, on_fail, ranks)

    asked = ranks.agree(check, _Asked.terms, lasting=True)
    with torch.autocast(asked.logits.device.type, enabled=False):
        found = _route(asked, ranks)
    # one launch ends by itself, and the host goes on
    known = on_fail == "raise" or not _has_kernel(asked.logits, n_iter is not None, ranks)
    if n_iter is None and on_fail != "ignore" and known and not bool(found.converged.all()):
        missed(found.message, found, on_fail)
    return found


@shown
@dataclass(frozen=True, eq=False)
class _Asked:
    """What a call asks for, checked."""

    logits: Tensor
    mask: Tensor | None
    n_iter: int | None
    tol: float
    max_iter: int
    on_fail: str

    def terms(self) -> dict[str, object]:
        """Return what ranks must agree on."""
        return {
            "number of experts": self.logits.shape[-1],
            **alike(self, "logits", "mask"),
            "leading dimensions": tuple(self.logits.shape[:-2]),
            "device": self.logits.device.type,
        }


def _asked(  # noqa: PLR0913
    logits: Any, mask: Any, n_iter: Any, tol: Any, max_iter: Any, on_fail: Any, ranks: Ranks
) -> _Asked:
    L = checks.present("logits", samples("logits", logits, "(..., T, E)", ranks))
    keep = None if mask is None else rows_that_count(mask, L.shape, L.device)
    if keep is not None and not _has_kernel(L, n_iter is not None, ranks):
        # tokens that do not count may hold anything, and what they hold now is written nowhere
        L = L.masked_fill(~keep[..., None], 0.0)
    if (
        L.device.type == "cpu"
        and L.numel()
        and not bool(torch.isfinite(L.sum(dtype=torch.float64)))
    ):
        _open(L, keep, ranks)
    fixed = None if n_iter is None else checks.count("n_iter", n_iter)
    limits = checks.positive("tol", tol), checks.count("max_iter", max_iter)
    return _Asked(L, keep, fixed, *limits, checks.one_of("on_fail", on_fail, ON_FAIL))


def _open(L: Tensor, mask: Tensor | None, ranks: Ranks) -> None:
    """Require numbers below inf, and for every token and every expert one that is not -inf."""
    bad = ~(math.inf > L)
    if bool(bad.any()):
        checks.refuse("logits", "be a number below inf", L, bad)
    allowed = -math.inf < L
    counts = torch.ones_like(allowed) if mask is None else mask[..., None].expand(L.shape)
    for whom, line, dim in (("token some expert", "row", -1), ("expert some token", "column", -2)):
        # nobody asks for what does not count
        closed = counts.any(dim) & ~(allowed & counts).any(dim)
        # an expert that is closed to this rank may be open to another
        if (dim == -1 or ranks.alone) and bool(closed.any()):
            at = checks.first_index(closed)
            where = at[0] if len(at) == 1 else at
            raise ValueError(f"logits must allow every {whom}, got -inf all along {line} {where}")


def _has_kernel(L: Tensor, fixed: bool, ranks: Ranks) -> bool:
    """Say whether one launch routes these logits, on this process alone."""
    if L.device.type != "cuda" or not ranks.alone or not has_triton():
        return False
    # imported here: a CPU never pays for triton
    from sinkhorn_ot.kernels import router

    return router.serves(L, fixed)


def _route(asked: _Asked, ranks: Ranks) -> Routing:
    """Iterate: a loop of its own, since its end is a change of scalings and no marginal error.

    The solver ends with the rows, here the tokens, exact, and routing with the experts.
    """
    L, mask = asked.logits, asked.mask
    if _has_kernel(L, asked.n_iter is not None, ranks):
        return _by_kernel(asked)
    T = ranks.sum(_tokens(L, mask))
    # where no token counts, nothing moves
    none = T == 0
    T = T.masked_fill(none, 1.0)
    log_share = (T / L.shape[-1]).log()
    # logs of the scalings, (..., 1, E), before the last iteration and after it
    first = first_step(torch.log_softmax(L.double(), -1), 1.0, mask, ranks)
    new = (log_share + first).masked_fill(none, 0.0)
    old, taken = torch.zeros_like(new), torch.ones_like(new[..., :1], dtype=torch.int64)
    change = _change(old, new)
    for _ in range(1, asked.n_iter or asked.max_iter):
        moving = (change > asked.tol) | (asked.n_iter is not None)
        if asked.n_iter is None and not bool(moving.any()):
            break
        # no expert is left with next to no mass: each had its share before the tokens were scaled
        moved = new + log_share - masses(L, 1.0, new, mask, ranks).log()
        moved = moved.masked_fill(none, 0.0)
        old, new = torch.where(moving, new, old), torch.where(moving, moved, new)
        change, taken = _change(old, new), taken + moving
    log_plan = torch.log_softmax(L.double() + old, -1) + (new - old - T.log())
    if mask is not None:
        log_plan.masked_fill_(~mask[..., None], -math.inf)
    log_plan = log_plan.to(at_least_single(L.dtype))
    return Routing(log_plan, taken[..., 0, 0], change[..., 0, 0], asked.tol)


def _by_kernel(asked: _Asked) -> Routing:
    """Launch the same iterations."""
    from sinkhorn_ot.kernels import router

    *batch, T, E = asked.logits.shape
    L = asked.logits.reshape(-1, T, E)
    keep = None if asked.mask is None else asked.mask.reshape(-1, T)
    fixed = asked.n_iter is not None
    log_plan, *rest = router.route(L, keep, asked.n_iter or asked.max_iter, asked.tol, fixed)
    taken, change = (t.reshape(batch) for t in rest)
    return Routing(log_plan.reshape(*batch, T, E), taken, change, asked.tol)


def _tokens(L: Tensor, mask: Tensor | None) -> Tensor:
    """Return how many tokens of this rank count, (..., 1, 1)."""
    if mask is None:
        return L.new_full((*L.shape[:-2], 1, 1), L.shape[-2], dtype=torch.float64)
    return mask.sum(-1, dtype=torch.float64)[..., None, None]


def _change(old: Tensor, new: Tensor) -> Tensor:
    """Return the mean change of the scalings, (..., 1, 1); inf where they left the range."""
    return (new.exp() - old.exp()).abs().mean(-1, keepdim=True).nan_to_num(nan=math.inf)
