"""Tests of codes in NumPy: as good as the oracle, wider where digits fade, or left to others."""

import math

import pytest
import torch
from adapters import oracles
from adapters.oracles import total_variation
from adapters.swav.scores import cosines, half_of, with_entry

import sinkhorn_ot as so
from sinkhorn_ot.adapters.arguments import checked
from sinkhorn_ot.adapters.swav import arrays
from sinkhorn_ot.sweeps.ranks import ALONE


def asked(S, eps=0.05, n_iter=3, mask=None, last=None):
    return arrays.by_arrays(checked(ALONE, S, eps, n_iter, mask, last), n_iter)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (17, 1), (17, 65), (1000, 30), (64, 4000)])
@pytest.mark.parametrize("n_iter", [1, 3, 50])
@pytest.mark.parametrize("eps", [0.05, 0.003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_the_oracle(shape, n_iter, eps, dtype):
    S = cosines(*shape).to(dtype)
    Q = asked(S, eps, n_iter)
    assert Q.dtype == dtype
    least = 1e-6 if dtype == torch.float32 else 1e-12
    assert total_variation(Q, oracles.swav_codes(S, eps, n_iter)) < least


def test_halves_are_computed_in_float32():
    S = cosines(64, 30).bfloat16()
    Q = asked(S)
    assert Q.dtype == torch.float32
    assert total_variation(Q, oracles.swav_codes(S.float(), 0.05, 3)) < 1e-6


@pytest.mark.parametrize("last", [0, 1, 40])
def test_only_the_last_codes(last):
    S = cosines(40, 9)[None, None]
    Q = asked(S, last=last)
    assert Q.shape == (1, 1, last, 9)
    torch.testing.assert_close(Q, asked(S)[..., 40 - last :, :], rtol=1e-6, atol=0)


def test_scores_in_any_order_stay_as_they_are():
    S = cosines(9, 40).t()
    before = S.clone()
    torch.testing.assert_close(asked(S), asked(S.contiguous()), rtol=1e-6, atol=0)
    assert torch.equal(S, before)


@pytest.mark.parametrize(
    ("eps", "kinds"), [(0.05, ["float32"]), (0.003, ["float32", "float64"]), (1e-6, None)]
)
def test_where_digits_fade_it_is_done_again_or_left(eps, kinds, monkeypatch):
    seen, truth = [], arrays._codes
    monkeypatch.setattr(arrays, "_codes", lambda S, *how: seen.append(S.dtype) or truth(S, *how))
    S = cosines(90, 40)
    Q = asked(S, eps, 20)
    assert (Q is None) == (kinds is None)
    assert seen == (kinds or ["float32", "float64"])
    found = so.swav_codes(S, eps=eps, n_iter=20)
    assert total_variation(found, oracles.swav_codes(S, eps, 20)) < 1e-6


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_no_number_is_left_to_who_says_so(value, dtype):
    S = with_entry(value).to(dtype)
    assert asked(S) is None
    with pytest.raises(ValueError, match=r"scores must be finite, got .* at index \(2, 3\)"):
        so.swav_codes(S)


def test_what_float64_does_not_hold_over_eps_is_left_to_who_says_so():
    S = cosines(8, 5).double() * 1e300
    assert asked(S, eps=1e-8) is None
    with pytest.raises(ValueError, match="eps must be at least"):
        so.swav_codes(S, eps=1e-8)


def test_masks_batches_and_large_problems_are_left():
    S = cosines(60, 6)
    assert asked(S) is not None
    assert asked(S, mask=half_of(60)) is None
    assert asked(torch.stack([S, S])) is None
    assert asked(torch.zeros(1025, 3)) is None
    assert asked(torch.zeros(3, 4097)) is None
    assert asked(torch.zeros(1000, 300)) is None
