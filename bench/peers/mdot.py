"""MDOT-TNT, mirror descent with a truncated Newton method; its licence is for research only."""

import math

import torch

from bench.cpu.cases import Case
from bench.peers.peer import Answer, Peer, Prepare, Run


def load(case: Case, reg: float) -> Prepare:
    """Return how to solve to a stop."""
    from mdot_tnt.mdot import mdot  # pyright: ignore[reportMissingImports]

    C, a, b = (t.double() for t in (case.C, case.a, case.b))

    def prepare(stop: float) -> Run:
        # it stops at an error proportional to gamma^-p
        p = max(1.0, math.log(stop) / math.log(reg))

        def run() -> Answer:
            u, v, gamma, _, _ = mdot(a, b, C, 1 / reg, p=p)
            return Answer(torch.exp(u[:, None] + v - gamma * C), v / gamma - reg * b.log())

        return run

    return prepare


PEERS = (Peer("MDOT-TNT", "mdot_tnt", load),)
