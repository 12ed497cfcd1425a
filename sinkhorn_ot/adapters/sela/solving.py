"""How SeLa's labels find their potentials: a sample of the rows first, then all of them."""

from typing import Any

import torch

from sinkhorn_ot.problem import Problem, Spread, make_share
from sinkhorn_ot.results import Solution
from sinkhorn_ot.solve import Checkpoint
from sinkhorn_ot.solve.checkpoints import fingerprint, opened
from sinkhorn_ot.solvers import (
    NEWTON,
    SWITCH,
    Callback,
    Keeper,
    Progress,
    Sinkhorn,
    suitable,
)
from sinkhorn_ot.sweeps import Sweep, choose

from .arguments import Asked
from .data import Scores


# where plans are sharper than this, a sample of the rows is solved first: of this many rows per
# label and in all at least, if the whole is as many times larger, and of so many entries at most
_SHARP, _PER_LABEL, _LEAST, _LARGER, _MOST = 50.0, 32, 4096, 4, 1 << 26
# Newton's steps read the data least, if their K x K matrices are not too large; where the kernel is
# held, sweeps are cheap and win up to this sharpness
_SQUARE, _SHARPER = 1024, 300.0


def solved(
    scores: Scores,
    asked: Asked,
    callback: Callback | None = None,
    checkpoint: Checkpoint | None = None,
) -> Solution:
    """Solve for the labels' potentials."""
    stopped = False

    def told(progress: Progress) -> bool:
        nonlocal stopped
        # whoever stops the sample's solve stops the whole
        stopped = stopped or bool(callback and callback(progress))
        return stopped

    # a solve that nobody watches may be one launch
    watcher = told if callback else None

    sweep = _posed(scores, asked)
    b, limits = sweep.problem.b, (asked.tol, asked.max_iter)
    keeper = None if checkpoint is None else _keeper(checkpoint, scores, sweep.problem, asked)
    if keeper and (known := keeper.answer(*limits)):
        return known[0]
    v = None
    if asked.init is not None:
        v = asked.init.to(b.dtype).reshape(b.shape) * asked.lamb
    elif _worth_a_sample(scores, asked.lamb):
        few = _posed(scores.sample(_sample_size(scores)), asked)
        solver = suitable(few.problem)
        v = solver(few, tol=1e-2, max_iter=200, callback=watcher, keeper=keeper).v
    if v is not None:
        # a label without share had no potential, or has none now
        v = torch.where(torch.isfinite(v), v, b.log())
    solver = _solver(scores, sweep.problem)
    most: dict[str, Any] = {"tol": asked.tol, "max_iter": asked.max_iter}
    found = solver(sweep, v=v, callback=watcher, keeper=keeper, **most)
    if keeper:
        keeper.finish(found, solver.name, *limits)
    return found


def _keeper(checkpoint: Checkpoint, scores: Scores, p: Problem, asked: Asked) -> Keeper:
    """Return who keeps where the solve stands."""
    ranks = scores.ranks
    said = ranks.agree(lambda: fingerprint(p, samples=str(scores.N), init=asked.init))
    return opened(checkpoint, said, p.a.device, ranks)


def _solver(scores: Scores, p: Problem) -> Sinkhorn:
    """Return what needs the least time: few sweeps where data are read, cheap ones elsewhere."""
    sharp = (p.bounds.high - p.bounds.low) * float(1 / p.reg[0])
    if p.a.device.type != "cpu" or scores.K > _SQUARE:
        return suitable(p)
    return SWITCH if scores.stored and sharp <= _SHARPER else NEWTON


def _worth_a_sample(scores: Scores, lamb: float) -> bool:
    bounds, size = scores.facts.bounds, _sample_size(scores)
    sharp = lamb * (bounds.high - bounds.low) > _SHARP and not bounds.forbids
    entries = size * scores.K * scores.facts.batch_shape.numel()
    return sharp and _LARGER * size <= scores.N and entries <= _MOST


def _sample_size(scores: Scores) -> int:
    return max(_LEAST, _PER_LABEL * scores.K)


def _posed(scores: Scores, asked: Asked) -> Sweep:
    """Return the transport of samples, the rows, onto labels, at reg = 1 / lamb, over all ranks."""
    ranks, shares = scores.ranks, asked.marginal
    # weights have a sum of one
    mass = shares.new_ones(shares[..., 0].numel())
    spread = None if ranks.alone else Spread(ranks, scores.N, mass)
    p = make_share(
        scores.cost,
        scores.weights(),
        shares,
        1.0 / asked.lamb,
        scores.facts.bounds,
        spread,
        otherwise=asked.unresolved,
    )
    return choose(p, asked.tol)
