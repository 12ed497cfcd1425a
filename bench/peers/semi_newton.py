"""RegOT: the safe sparse Newton method and the sparse-plus-low-rank quasi-Newton method."""

from collections.abc import Callable

import numpy as np

from bench.cpu.cases import Case
from bench.peers.peer import Answer, Peer, Prepare, Run


def loader(name: str) -> Callable[[Case, float], Prepare]:
    """Return how to load a case for one of its solvers."""

    def load(case: Case, reg: float) -> Prepare:
        import regot  # pyright: ignore[reportMissingImports]

        a, b = (np.asarray(t, np.float64) for t in (case.a, case.b))
        C = np.asfortranarray(case.C, np.float64)
        act = getattr(regot, name)

        def prepare(stop: float) -> Run:
            def run() -> Answer:
                r = act(C, a, b, reg, tol=stop, max_iter=5000)
                # the last potential is fixed at zero and left out
                return Answer(r.plan, np.append(r.dual[len(a) :], 0.0) - reg * np.log(b))

            return run

        return prepare

    return load


PEERS = (
    Peer("RegOT SSNS", "regot", loader("sinkhorn_ssns")),
    Peer("RegOT SPLR", "regot", loader("sinkhorn_splr")),
)
