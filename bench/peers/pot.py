"""POT: Sinkhorn in three domains, in NumPy and in PyTorch, in batches, and the network simplex."""

from typing import Any

import numpy as np

from bench.cpu.cases import Case
from bench.peers.peer import Answer, Peer, Prepare, Run


_MOST = 100_000


def _sinkhorn(method: str, case: Case, reg: float, a: Any, b: Any, C: Any) -> Prepare:
    import ot

    def prepare(stop: float) -> Run:
        def run() -> Answer:
            options = {"numItermax": _MOST, "stopThr": stop, "warn": False, "log": True}
            plan, told = ot.sinkhorn(a, b, C, reg, method=method, **options)
            log_v = told[_LOG_V[method]]
            return Answer(plan, _potential(log_v if method != "sinkhorn" else _log(log_v), b, reg))

        return run

    return prepare


_LOG_V = {"sinkhorn": "v", "sinkhorn_log": "log_v", "sinkhorn_stabilized": "logv"}


def _log(v: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.log(np.asarray(v, np.float64))


def _potential(log_v: Any, b: Any, reg: float) -> np.ndarray:
    return reg * (np.asarray(log_v).reshape(b.shape) - _log(b))


def in_numpy(method: str) -> Any:
    """Return how to load a case for one of POT's methods, as NumPy arrays."""

    def load(case: Case, reg: float) -> Prepare:
        return _sinkhorn(method, case, reg, case.a.numpy(), case.b.numpy(), case.C.numpy())

    return load


def in_torch(case: Case, reg: float) -> Prepare:
    """Enter POT's default method with tensors."""
    return _sinkhorn("sinkhorn", case, reg, case.a, case.b, case.C)


def loop(case: Case, reg: float) -> Prepare:
    """Solve a batch one by one, each problem stripped of its zero weights."""
    import ot

    C, a, b = case.C.numpy(), case.a.numpy(), case.b.numpy()
    costs = np.broadcast_to(C, (*a.shape, b.shape[-1]))

    def prepare(stop: float) -> Run:
        def one(k: int) -> np.ndarray:
            rows, columns = np.ix_(a[k] > 0, b[k] > 0)
            P = np.zeros_like(costs[k])
            weights = a[k][rows[:, 0]], b[k][columns[0]]
            P[rows, columns] = ot.sinkhorn(
                *weights, costs[k][rows, columns], reg, numItermax=_MOST, stopThr=stop, warn=False
            )
            return P

        return lambda: Answer(np.stack([one(k) for k in range(len(a))]))

    return prepare


def batch(case: Case, reg: float) -> Prepare:
    """Solve a batch at once, in the log domain."""
    import ot.batch

    C = case.C.expand(*case.a.shape, case.b.shape[-1]).contiguous()

    def prepare(stop: float) -> Run:
        def run() -> Answer:
            r = ot.batch.solve_batch(
                C, reg, case.a, case.b, max_iter=_MOST, tol=stop, grad="detach"
            )
            return Answer(r.plan, _potential(_second(r.potentials), case.b, reg))

        return run

    return prepare


def _second(potentials: Any) -> Any:
    return potentials[1]


def simplex(case: Case, reg: float) -> Prepare:
    """Solve the problem without reg, exactly."""
    import ot

    a, b, C = (np.asarray(t, np.float64) for t in (case.a, case.b, case.C))
    # in float32 the totals differ, which the network simplex refuses
    b = b * (a.sum() / b.sum())

    def prepare(stop: float) -> Run:
        return lambda: Answer(ot.emd(a, b, C, numItermax=10_000_000))

    return prepare


def any_stop(error: float) -> tuple[float, ...]:
    """Return one stop for every error: there is nothing to choose."""
    return (0.0,)


PEERS = (
    Peer("POT", "ot", in_numpy("sinkhorn"), zeros=True),
    Peer("POT log", "ot", in_numpy("sinkhorn_log")),
    Peer("POT stabilized", "ot", in_numpy("sinkhorn_stabilized")),
    Peer("POT torch", "ot", in_torch),
    Peer("POT loop", "ot", loop, zeros=True),
    Peer("POT batch", "ot", batch, zeros=True),
    Peer("network simplex", "ot", simplex, any_stop, exact=True),
)
