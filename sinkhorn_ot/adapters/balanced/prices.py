"""Prices whose argmax has nearly the counts: the dual of entropic transport, sharp but not exact.

How far it came costs repairs, and nothing else. Where prices of a part of the samples are known,
those of all follow from the few labels that each sample may still take.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import needs
from sinkhorn_ot.solve import solve
from sinkhorn_ot.solvers import SWITCH
from sinkhorn_ot.sweeps import ALONE, Ranks


# scores looked at together
TILE = 1 << 18
# reg of the dual, relative to what a label that is not the best one typically loses
SHARP = 0.01
# error of the dual's counts, relative to N, and the sweeps that it may take
_TOL = 3e-3
_SWEEPS = 300
# losses, in units of reg, beyond which a label is out of reach for a sample
_REACH = 1e9
# losses, in units of reg, up to which a label is near, and near labels of a sample that are few
_NEAR, _FEW = 15.0, 4.0
# labels from which on leaving out those that are not near saves more than it takes
_MANY = 64
# turns that prices are found in with those alone, and how far one goes beyond Sinkhorn's step
_TURNS = 60
_BEYOND = 1.8
# error of the counts at which turns end, and what it may be in the end, relative to N
_CLOSE, _USEFUL = 1e-3, 1e-2


def typical_loss(S: Tensor, ranks: Ranks = ALONE) -> float:
    """Return what a label that is not the best one typically loses, made sharp: a reg."""
    some = S[: 1 + (TILE // S.shape[1])].double()
    losses = some.amax(1, keepdim=True) - some
    losses = losses[losses < math.inf]
    loss = float(losses.median()) if len(losses) else 0.0
    if not ranks.alone:
        # the mean over those that have samples
        told = ranks.sum(torch.tensor([loss, len(losses) > 0], dtype=torch.float64, device="cpu"))
        loss = float(told[0] / told[1])
    return SHARP * loss


def dual(  # noqa: PLR0913
    S: Tensor,
    shares: Tensor,
    reg: float,
    start: Tensor | None,
    progress: bool,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Return prices by entropic transport; how far it came costs repairs, and nothing else."""
    tilt = shares.log()
    found = solve(
        _losses(S, reg),
        b=shares,
        reg=1.0,
        # a warm start is within the reach of accelerated sweeps, which are the cheaper ones
        method="auto" if start is None else SWITCH,
        tol=_TOL,
        max_iter=_SWEEPS,
        init=None if start is None else (None, start / reg - tilt),
        on_fail="ignore",
        progress=progress,
        group=ranks.group,
    )
    prices = (found.g.double() + tilt) * reg
    return torch.where(torch.isfinite(prices), prices, 0.0)


def near(
    S: Tensor, shares: Tensor, reg: float, start: Tensor, ranks: Ranks = ALONE
) -> Tensor | None:
    """Return prices of all samples from those of some; None where that is not worth its while.

    Labels that lose much beside a sample's best one, at the prices of some, are left out: of the
    others there are few, and sweeps over them cost next to nothing.
    """
    if S.shape[1] < _MANY:
        return None
    N = ranks.total(len(S))
    E, reg = _near_labels(S, reg, start, ranks)
    turned, wanted = E.T, N * shares.double().numpy()
    alpha, off = np.ones(len(wanted)), math.inf
    for turn in range(_TURNS + 1):
        ours = torch.from_numpy(turned @ (1 / (E @ alpha)))
        held = alpha * ranks.sum(ours).numpy()
        off = np.abs(held - wanted).sum() / N
        if off <= _CLOSE or turn == _TURNS or not held.min() > 0:
            break
        alpha *= (wanted / held) ** _BEYOND
        alpha /= alpha.max()
    return start + reg * torch.from_numpy(np.log(alpha)) if off <= _USEFUL else None


def _near_labels(S: Tensor, reg: float, prices: Tensor, ranks: Ranks = ALONE) -> tuple[Any, float]:
    """Return exp(-loss / reg) of labels that lose little, a sparse (N, K), and reg.

    Where many are near, a smaller reg says better which ones are taken.
    """
    # imported here: small problems never pay for it
    with needs("scipy"):
        from scipy.sparse import csr_array

    entries, columns, sizes = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(1, np.int64)]
    for _, block in blocks(S):
        block += prices
        best = block.amax(1, keepdim=True)
        pairs = np.flatnonzero((block > best - _NEAR * reg).numpy())
        i, j = np.divmod(pairs, S.shape[1])
        entries.append(block.numpy().ravel()[pairs] - best.numpy()[i, 0])
        columns.append(j)
        sizes.append(np.bincount(i, minlength=len(block)))
    losses = np.concatenate(entries)
    reg /= max(1.0, ranks.total(len(losses)) / (_FEW * ranks.total(len(S))))
    held = np.exp(losses / reg), np.concatenate(columns)
    return csr_array((*held, np.cumsum(np.concatenate(sizes))), shape=tuple(S.shape)), reg


def _losses(S: Tensor, unit: float) -> Tensor:
    """Return what each label loses beside the best one, in units: offsets cost no digits.

    In single precision: what is near is told apart as well there, and read in half the time.
    """
    loss = torch.empty(S.shape, dtype=torch.float32, device="cpu")
    for rows, block in blocks(S):
        torch.sub(block.amax(1, keepdim=True), block, out=block)
        if bool(block.amax() > _REACH * unit):
            # this far away is out of reach, and further would cost all others their digits
            block = torch.where(block < math.inf, block.clamp(max=_REACH * unit), block)
        loss[rows] = block.div_(unit)
    return loss


def blocks(S: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows and a copy of their scores in float64."""
    step = max(1, TILE // S.shape[1])
    for start in range(0, len(S), step):
        yield slice(start, start + step), S[start : start + step].to(torch.float64, copy=True)
