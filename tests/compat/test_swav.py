"""The published call of SwAV, without ranks; `adapters/test_ranks.py` has those with."""

import pytest
import torch
from adapters import oracles
from adapters.oracles import total_variation

from sinkhorn_ot.compat.swav import distributed_sinkhorn


def test_is_the_published_call():
    out = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    before = out.clone()
    assert total_variation(distributed_sinkhorn(out), oracles.swav_codes(out, 0.05, 3)) < 1e-6
    Q = distributed_sinkhorn(out, 0.1, 5, world_size=1)
    assert total_variation(Q, oracles.swav_codes(out, 0.1, 5)) < 1e-6
    assert torch.equal(out, before)


def test_refuses_ranks_that_are_not_there():
    with pytest.raises(ValueError, match="world_size must be the number of ranks, 1, got 2"):
        distributed_sinkhorn(torch.ones(3, 4), world_size=2)
    with pytest.raises(ValueError, match=r"out must have shape \(B, K\), got \(2, 3, 4\)"):
        distributed_sinkhorn(torch.ones(2, 3, 4))
