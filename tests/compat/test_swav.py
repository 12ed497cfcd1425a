"""The published call of SwAV, without ranks; `adapters/test_ranks.py` has those with."""

from argparse import Namespace

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


@pytest.mark.parametrize("epsilon", [0.03, 0.05])
@pytest.mark.parametrize("used", [False, True])
def test_in_the_shape_of_the_published_loop(epsilon, used):
    """Crops below each other in the output, the queue's scores in front, the last bs codes."""
    args = Namespace(epsilon=epsilon, sinkhorn_iterations=3, crops_for_assign=[0, 1])
    g = torch.Generator().manual_seed(0)
    bs, prototypes = 16, torch.nn.Linear(8, 9, bias=False)
    with torch.no_grad():
        prototypes.weight.copy_(torch.nn.functional.normalize(prototypes.weight, dim=1))
    embedding = torch.nn.functional.normalize(torch.randn(4 * bs, 8, generator=g), dim=1)
    queue = torch.nn.functional.normalize(torch.randn(2, 32, 8, generator=g), dim=2)
    output = prototypes(embedding)
    for i, crop in enumerate(args.crops_for_assign):
        with torch.no_grad():
            out = output[bs * crop : bs * (crop + 1)].detach()
            if used:
                out = torch.cat((torch.mm(queue[i], prototypes.weight.t()), out))
            q = distributed_sinkhorn(out, args.epsilon, args.sinkhorn_iterations)[-bs:]
        assert total_variation(q, oracles.swav_codes(out, epsilon, 3)[-bs:]) < 1e-6
        assert not q.requires_grad


def test_codes_of_half_precision_scores_are_single_and_messages_use_its_names():
    out = torch.randn(40, 9, generator=torch.Generator().manual_seed(0)).half()
    Q = distributed_sinkhorn(out)
    assert Q.dtype == torch.float32
    assert total_variation(Q, oracles.swav_codes(out, 0.05, 3)) < 1e-6
    with pytest.raises(ValueError, match="epsilon must be"):
        distributed_sinkhorn(out, 0.0)
    with pytest.raises(ValueError, match="sinkhorn_iterations must be"):
        distributed_sinkhorn(out, 0.05, 0)
