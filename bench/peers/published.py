"""The loops that SeLa and SwAV publish, written again from their formulas."""

import torch

from bench.cpu.cases import Case
from bench.peers.peer import Answer, Peer, Prepare, Run


_MOST = 3000


def load(case: Case, reg: float) -> Prepare:
    """Scale rows and columns of exp(-C / reg) in turn until sum |c / c' - 1| is small."""

    def prepare(stop: float) -> Run:
        def run() -> Answer:
            Q = torch.exp(case.C / -reg)
            c = torch.ones_like(case.a)
            r = torch.ones_like(case.b)
            for _ in range(_MOST):
                r = case.b / (Q.T @ c)
                fresh = case.a / (Q @ r)
                off = float((c / fresh - 1).abs().sum())
                c = fresh
                if off <= stop * len(c):
                    break
            return Answer(c[:, None] * Q * r, reg * (r.log() - case.b.log()))

        return run

    return prepare


PEERS = (Peer("published loop", "torch", load),)
