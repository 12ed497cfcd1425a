"""GeomLoss, which anneals over a number of iterations and looks at no error."""

from bench.cpu.cases import Case
from bench.peers.peer import Answer, Peer, Prepare, Run


def load(case: Case, reg: float) -> Prepare:
    """Return how to run so many iterations."""
    from geomloss import ot  # pyright: ignore[reportMissingImports]

    C = case.C.expand(*case.a.shape, case.b.shape[-1])
    act = ot.solve if case.a.ndim == 1 else ot.solve_batch

    def prepare(stop: float) -> Run:
        def run() -> Answer:
            r = act(C, reg=reg, a=case.a, b=case.b, max_iter=int(stop))
            return Answer(r.plan, r.potential_b)

        return run

    return prepare


def counts(error: float) -> tuple[float, ...]:
    """Return numbers of iterations."""
    return (10, 30, 100, 300, 1000, 3000, 10_000)


PEERS = (Peer("GeomLoss", "geomloss", load, counts, zeros=True),)
