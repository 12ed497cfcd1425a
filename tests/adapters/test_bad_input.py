"""Bad input of every adapter: an error that names the first bad index, or what is said happens.

What is specific to one call stands in its own file; what can happen to all of them stands here.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot import adapters


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def bank(S: Tensor) -> so.LabelBank:
    found = so.LabelBank(S.shape[-2], S.shape[-1])
    found.update(S)
    return found


# each takes scores (N, K) and returns codes (N, K), a plan (N, K) or labels (N,)
SOFT: dict[str, Callable[[Tensor], Tensor]] = {
    "swav_codes": so.swav_codes,
    "swav_codes to tolerance": lambda S: so.swav_codes(S, n_iter=None),
    "dino_codes": lambda S: adapters.dino_codes(S, 0.05),
    "capi_codes": lambda S: adapters.capi_codes(S[:, None])[:, 0],
    "msn_codes": adapters.msn_codes,
    "moe_router": lambda S: adapters.moe_router(S).plan * len(S),
    "clot_labels": adapters.clot_labels,
}
HARD: dict[str, Callable[[Tensor], Tensor]] = {
    "sela_labels": lambda S: so.sela_labels(S).labels,
    "sela_labels of blocks": lambda S: so.sela_labels([*S.split(4)]).labels,
    "sela_labels balanced": lambda S: so.sela_labels(S, rounding="balanced").labels,
    "LabelBank": lambda S: bank(S).labels,
    "balanced_labels": lambda S: so.balanced_labels(S).labels,
}
ALL = SOFT | HARD


def spoiled(row: int, value: float, whole: bool = False) -> Tensor:
    S = randn(10, 4)
    S[row, slice(None) if whole else 2] = value
    return S


@pytest.mark.parametrize("name", ALL)
def test_a_row_with_nan(name):
    with pytest.raises(ValueError, match=r"nan at index \(7,( 0,)? 2\)"):
        ALL[name](spoiled(7, math.nan))


@pytest.mark.parametrize("name", ALL)
def test_the_first_of_several_is_named(name):
    S = spoiled(7, math.nan)
    S[3, 1] = S[9, 0] = math.nan
    with pytest.raises(ValueError, match=r"nan at index \(3,( 0,)? 1\)"):
        ALL[name](S)


@pytest.mark.parametrize("name", ALL)
def test_a_row_of_nothing_but_minus_infinity(name):
    with pytest.raises(ValueError, match=r"-inf at index \(7,( 0,)? 0\)|-inf all along row 7"):
        ALL[name](spoiled(7, -math.inf, whole=True))


@pytest.mark.parametrize("name", ALL)
def test_plus_infinity(name):
    with pytest.raises(ValueError, match=r"inf at index \(7,( 0,)? 2\)"):
        ALL[name](spoiled(7, math.inf))


@pytest.mark.parametrize("name", SOFT)
def test_more_labels_than_samples_share_the_samples(name):
    codes = SOFT[name](randn(3, 8))
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes.sum(-1), torch.ones(3).to(codes), atol=5e-2, rtol=0)


@pytest.mark.parametrize("name", HARD)
def test_more_labels_than_samples_leave_some_without(name):
    labels = HARD[name](randn(3, 8))
    assert labels.shape == (3,)
    assert int(torch.bincount(labels, minlength=8).max()) <= 2


@pytest.mark.parametrize("name", ALL)
def test_one_label_is_everyones(name):
    found = ALL[name](randn(6, 1))
    want = torch.zeros(6).long() if name in HARD else torch.ones_like(found)
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(6, 0), (0, 4)], ids=str)
def test_no_label_or_no_sample(name, shape):
    with pytest.raises(ValueError, match="must not be empty|at least 1"):
        ALL[name](torch.zeros(shape))


@pytest.mark.parametrize("name", SOFT)
def test_shares_that_do_not_divide_the_samples(name):
    codes = SOFT[name](randn(11, 4))
    assert torch.isfinite(codes).all()
    if name in ("swav_codes to tolerance", "clot_labels", "moe_router"):
        torch.testing.assert_close(
            codes.sum(0), torch.full((4,), 2.75).to(codes), atol=2e-3, rtol=0
        )


@pytest.mark.parametrize("name", HARD)
def test_labels_of_samples_that_do_not_divide(name):
    counts = torch.bincount(HARD[name](randn(11, 4)), minlength=4)
    assert int(counts.sum()) == 11
    if "balanced" in name:
        assert sorted(counts.tolist()) == [2, 3, 3, 3]


@pytest.mark.parametrize("name", ALL)
def test_words_and_whole_numbers(name):
    with pytest.raises(ValueError, match="must be floating point"):
        ALL[name](torch.ones(6, 4).long())


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


ELSEWHERE: dict[str, Callable[[], Any]] = {
    "marginal": lambda: so.sela_labels(randn(9, 4), marginal=meta(4)),
    "align": lambda: so.sela_labels(randn(9, 4), align=meta(4)),
    "init": lambda: so.sela_labels(randn(9, 4), init=meta(4)),
    "mask": lambda: so.swav_codes(randn(9, 4), mask=meta(9, dtype=torch.bool)),
    "prototypes": lambda: so.swav_codes_from_features(randn(9, 4), meta(5, 4)),
    "centroids": lambda: adapters.deepcluster_labels(randn(9, 4), meta(5, 4)),
    "z2": lambda: adapters.nt_xent(randn(9, 4), meta(9, 4)),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_something_on_another_device(name):
    with pytest.raises(ValueError, match=rf"{name}.* must be on .*cpu.*, got meta"):
        ELSEWHERE[name]()


@pytest.mark.parametrize("full", [False, True])
def test_a_queue_of_another_width(full):
    queue = so.SwAVQueue(8, 6)
    if full:
        queue.push(randn(8, 6))
    with pytest.raises(ValueError, match="features of width 4, got a queue of width 6"):
        so.swav_codes_from_features(randn(9, 4), randn(5, 4), queue)
    with pytest.raises(ValueError, match=r"features must have shape \(B, 6\), got \(9, 4\)"):
        queue.push(randn(9, 4))
