"""Whatever is chosen is as good as the tolerance that it was chosen for."""

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.problem import at_once, make
from sinkhorn_ot.sweeps import choose
from sinkhorn_ot.sweeps.reference import Reference


@pytest.mark.parametrize("tol", [1e-6, 1e-8, 1e-9])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_kernel_of_single_precision_is_good_to_tol(batch, tol):
    drawn = [testing.random(70, 90, seed=k) for k in range(batch)]
    a, b = (torch.stack([getattr(p, name) for p in drawn]) for name in ("a", "b"))
    p = make(drawn[0].cost.float(), a, b, 0.1)
    sweep, v = choose(p, tol), p.b.log()
    # the second sweep reads what the first has stored
    for _ in range(2):
        u, log_s = sweep.sweep(None, v)
    want = Reference(p).sweep(None, v)
    off = (log_s.exp() - want[1].exp()).abs().sum(-1) + (u.exp() - want[0].exp()).abs().sum(-1)
    assert float(off.max()) < tol


def test_an_accelerator_reads_few_large_blocks():
    assert at_once(torch.device("cpu"), 1 << 16) == 1 << 16
    assert at_once(torch.device("cuda"), 1 << 16) >= 10_000**2


@pytest.mark.parametrize("method", ["sinkhorn", "newton"])
def test_where_one_pair_carries_nearly_all_its_rounding_is_not_hidden(method: str):
    """Its exponent is rounded once, which neither marginal of the same kernel can see."""
    inf = float("inf")
    C = torch.tensor([[0.85, 0.83, 0.0], [0.963, inf, 0.579], [0.0, 0.944, 0.684]]).half()
    a = torch.tensor([2.89526279e-05, 4.67296716e-04, 9.99503751e-01], dtype=torch.float64)
    b = torch.tensor([1.33832356e-03, 9.98171387e-01, 4.90289584e-04], dtype=torch.float64)
    for reg in torch.linspace(0.02, 0.2, 19).tolist():
        r = so.solve(so.Streamed([C]), a, b, reg, method=method, on_fail="raise")
        p = make(C.double(), a, b, reg)
        plan = (r.coupling.u[0, :, None] + r.coupling.v[0] - p.cost.C[0] / reg).exp()
        off = (plan.sum(1) - p.a[0]).abs().sum() + (plan.sum(0) - p.b[0]).abs().sum()
        assert float(off) == pytest.approx(float(r.marginal_error), abs=2e-8)
