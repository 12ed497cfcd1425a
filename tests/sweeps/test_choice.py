"""Whatever is chosen is as good as the tolerance that it was chosen for."""

import pytest
import torch

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
