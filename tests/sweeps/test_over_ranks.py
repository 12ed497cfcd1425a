"""Rows spread over ranks: what one process computes, the same on every rank, and errors on all."""

import pytest
import torch
from ranks import run


pytestmark = pytest.mark.slow(3)
BODY = """
from sinkhorn_ot.sweeps.over_ranks import OverRanks
from sinkhorn_ot.sweeps.ranks import Ranks
from sinkhorn_ot.sweeps.portable.stored import StoredKernel
from sinkhorn_ot.sweeps.portable.on_the_fly import OnTheFly
from sinkhorn_ot.solvers.automatic import METHODS, NEWTON, SWITCH
from sinkhorn_ot.problem import make
from dataclasses import replace

g = torch.Generator().manual_seed(0)
C = torch.rand(61, 9, generator=g, dtype=torch.float64)
whole = make(C, None, None, 0.02)
# unequal parts, one of them empty
cuts = {2: [0, 47, 61], 4: [0, 20, 20, 60, 61]}[world]
own = slice(cuts[rank], cuts[rank + 1])
facts, ranks = so.Streamed(C).facts, Ranks(group)
cost = so.Streamed([C[own]], facts=replace(facts, shape=(len(C[own]), 9)))
part = replace(whole, cost=cost.flat(torch.Size()), a=whole.a[:, own])

for kind in (OnTheFly, lambda p: StoredKernel(p, torch.float64)):
    ours, want = OverRanks(kind(part), ranks), kind(whole)
    v = whole.b.log() + torch.randn(1, 9, generator=g).double()
    (u, s), (all_u, all_s) = ours.sweep(None, v), want.sweep(None, v)
    x, y = torch.rand(1, 9, 2, generator=g).double(), torch.rand(1, 61, 2, generator=g).double()
    pairs = {
        "rows": (u, all_u[:, own]),
        "columns": (s, all_s),
        "curve": (ours.curve(u, v), want.curve(all_u, v)),
        "product": (ours.curve_product(u, v)(x[:, :, 0]), want.curve_product(all_u, v)(x[:, :, 0])),
        "apply": (ours.apply(u, v, x), want.apply(all_u, v, x)[:, own]),
        "back": (
            ours.apply(u, v, y[:, own], transpose=True), want.apply(all_u, v, y, transpose=True)
        ),
        "row sums": (ours.log_sum_rows(v), want.log_sum_rows(v)[:, own]),
        "column sums": (ours.log_sum_columns(u), want.log_sum_columns(all_u)),
        "linear": (ours.linear(u, v), want.linear(all_u, v)),
        "total": (ours.total(u), want.total(all_u)),
    }
    for name, (a, b) in pairs.items():
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, msg=name)
    # sums that underflow on every rank
    low = v - torch.tensor([0.0] * 8 + [1e4]).double()
    (_, s), (_, all_s) = ours.sweep(None, low), want.sweep(None, low)
    torch.testing.assert_close(s, all_s, rtol=1e-12, atol=1e-12)

for method in (METHODS["sinkhorn"], NEWTON, SWITCH):
    found = method(OverRanks(OnTheFly(part), ranks), tol=1e-8, max_iter=200)
    alone = method(OnTheFly(whole), tol=1e-8, max_iter=200)
    torch.testing.assert_close(found.v, alone.v, rtol=0, atol=1e-8)
    assert found.n_iter == alone.n_iter
    said[method.name] = found.v
"""


@pytest.mark.parametrize("world", [2, 4])
def test_is_one_process_and_alike_on_all_ranks(world):
    said = run(world, BODY)
    assert len(said[0]) == 3
    for other in said[1:]:
        assert all(torch.equal(other[name], v) for name, v in said[0].items())
