"""What is made in inference mode enters a loss outside of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot import adapters
from sinkhorn_ot.adapters.swav import assign
from sinkhorn_ot.compat.swav import distributed_sinkhorn


S = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
KEPT = so.solve(S.abs(), reg=0.1)
MADE: dict[str, Callable[[], Any]] = {
    "swav_codes": lambda: so.swav_codes(S),
    "to tolerance": lambda: so.swav_codes(S, n_iter=None),
    "assign": lambda: assign(S).codes,
    "swav_codes_from_features": lambda: so.swav_codes_from_features(S, S[:3]),
    "dino_codes": lambda: adapters.dino_codes(S, 0.1),
    "capi_codes": lambda: adapters.capi_codes(S[:, None]),
    "msn_codes": lambda: adapters.msn_codes(S),
    "clot_labels": lambda: adapters.clot_labels(S),
    "moe_router": lambda: adapters.moe_router(S).log_plan,
    "sela_labels": lambda: so.sela_labels(S).potentials,
    "balanced_labels": lambda: so.balanced_labels(S).potentials,
    "k_means": lambda: adapters.k_means(S, 2).sums,
    "distributed_sinkhorn": lambda: distributed_sinkhorn(S),
    "solve, plan": lambda: so.solve(S.abs(), reg=0.1).plan,
    "solve, value": lambda: so.solve(S.abs(), reg=0.1).value,
    "plan first read there": lambda: KEPT.plan,
    "potentials": lambda: so.solve(S.abs(), reg=0.1).f,
}


@pytest.mark.parametrize("name", MADE)
def test_made_in_inference_mode_and_used_in_a_loss(name):
    with torch.inference_mode():
        made: Tensor = MADE[name]()
    weight = torch.ones(made.shape, requires_grad=True)
    (weight * made).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, made.to(weight.dtype))
