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


@pytest.mark.parametrize("call", [so.swav_codes, so.balanced_labels], ids=lambda f: f.__name__)
def test_scores_that_require_grad_give_constants_in_inference_mode_too(call):
    S = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    expected = call(S)
    with torch.inference_mode():
        found = call(S.clone().requires_grad_())
    one, other = (getattr(r, "labels", r) for r in (expected, found))
    assert torch.equal(one, other)
    assert not other.requires_grad


def test_scores_that_are_only_marked_as_negated_are_read_as_what_they_are():
    z = torch.randn(8, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    S = torch.imag(z.conj())
    assert S.is_neg()
    assert torch.equal(so.swav_codes(S), so.swav_codes(-torch.imag(z)))
    assert torch.equal(so.solve(S, reg=1.0).plan, so.solve(-torch.imag(z), reg=1.0).plan)
