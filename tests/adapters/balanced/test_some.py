"""balanced_labels that label k samples and leave the others: beside assignments, and proved."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import sinkhorn_ot as so


def problem(seed: int) -> tuple[Tensor, int, Tensor | None]:
    rng = np.random.default_rng(seed)
    N, K = int(rng.integers(2, 20)), int(rng.integers(1, 6))
    # scores of both signs: leaving a sample is worth zero
    S = torch.from_numpy(rng.normal(size=(N, K)) + seed % 3 - 1)
    k = int(rng.integers(1, N))
    counts = torch.from_numpy(rng.multinomial(k, np.ones(K) / K)) if seed % 2 else None
    if seed % 4 == 0:
        S[torch.from_numpy(rng.random((N, K)) < 0.1)] = -math.inf
    return S, k, counts


def by_matching(S: Tensor, k: int, counts: Tensor | None) -> float:
    """The largest value, from a matching of samples with places, N - k of them worth nothing."""
    N, K = S.shape
    never = -1e6
    sure = S.repeat_interleave(counts, 1) if counts is not None else S.repeat_interleave(k // K, 1)
    dealt = S if counts is None and k % K else S[:, :0]
    table = torch.cat([sure, dealt, S.new_zeros(N, N - k)], 1).clamp(min=never).numpy()
    # of the places that may be dealt some stay empty
    empty = np.full((table.shape[1] - N, table.shape[1]), never)
    empty[:, sure.shape[1] : sure.shape[1] + dealt.shape[1]] = 0
    table = np.vstack([table, empty])
    return float(table[linear_sum_assignment(-table)].sum())


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_hundred_problems_are_those_of_matchings(mode: str) -> None:
    for seed in range(100):
        S, k, counts = problem(seed)
        best = by_matching(S, k, counts)
        if best < -1e5:
            with pytest.raises(ValueError, match="scores must"):
                so.balanced_labels(S, counts, k=k, mode=mode)
            continue
        found = so.balanced_labels(S, counts, k=k, mode=mode)
        here, K = found.labels >= 0, S.shape[1]
        assert int(here.sum()) == k
        assert torch.equal(torch.bincount(found.labels[here], minlength=K), found.counts)
        if counts is None:
            assert int(found.counts.max()) <= -(-k // K)
            assert int(found.counts.min()) >= k // K or seed % 4 == 0
        else:
            assert torch.equal(found.counts, counts)
        value = float(found.value)
        assert value == pytest.approx(float(S[here, found.labels[here]].sum()), abs=1e-12)
        assert best <= float(found.bound) + 1e-9
        if mode == "exact":
            assert value == pytest.approx(best, abs=1e-9)
            assert float(found.gap) < 1e-9
            top = (S + found.potentials).amax(1)
            assert (top[here] > -1e-9).all()
            assert (top[~here] < 1e-9).all()


def test_who_may_take_no_label_is_left() -> None:
    S = torch.tensor([[1.0, 2.0], [-math.inf, -math.inf], [3.0, 0.0]])
    found = so.balanced_labels(S, k=2)
    assert found.labels.tolist() == [1, -1, 0]
    assert found.counts.tolist() == [1, 1]


def test_all_samples_are_what_no_k_is() -> None:
    S = torch.randn(3, 12, 4)
    one, other = so.balanced_labels(S), so.balanced_labels(S, k=12)
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.potentials, other.potentials)


def test_batches_and_warm_starts() -> None:
    S = torch.randn(2, 3, 30, 4)
    first = so.balanced_labels(S, k=20)
    again = so.balanced_labels(S, k=20, init=first)
    assert torch.equal((first.labels >= 0).sum(-1), torch.full((2, 3), 20))
    torch.testing.assert_close(again.value, first.value)
    alone = so.balanced_labels(S[1, 2], k=20)
    torch.testing.assert_close(first.value[1, 2], alone.value)


def test_many_samples_few_of_which_are_labelled() -> None:
    S = torch.log_softmax(3 * torch.randn(4000, 20, generator=torch.Generator().manual_seed(0)), -1)
    found, rough = (so.balanced_labels(S, k=200, mode=mode) for mode in ("exact", "fast"))
    assert float(found.gap) < 1e-9
    assert found.counts.tolist() == [10] * 20
    # within a third of a score for each label that is given
    assert float(rough.gap) < 0.3 * 200
    assert float(rough.bound) >= float(found.value) - 1e-9


BAD = [
    ({"k": 0}, "k must be a whole number of at least 1"),
    ({"k": 1.5}, "k must be a whole number"),
    ({"k": 7}, "k must be at most the 6 samples, got 7"),
    ({"k": 3, "counts": [2, 2]}, "counts must sum to k = 3, got a sum of 4"),
    ({"counts": [1, 2]}, "got a sum of 3: k=3 leaves the other samples without a label"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_bad_input_is_told(given, message) -> None:
    with pytest.raises(ValueError, match=message):
        so.balanced_labels(torch.zeros(6, 2), **given)


def test_samples_that_do_not_count() -> None:
    S = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(3, 40, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[2] = False
    junk = torch.where(mask[..., None], S, math.nan)
    found = so.balanced_labels(junk, mask=mask)
    assert bool((found.labels[~mask] == -1).all())
    for at in range(2):
        alone = so.balanced_labels(S[at, mask[at]])
        assert torch.equal(found.labels[at, mask[at]], alone.labels)
        assert torch.equal(found.potentials[at], alone.potentials)
        assert float(found.value[at]) == float(alone.value)
    assert found.counts[2].tolist() == [0] * 5
    with pytest.raises(ValueError, match="k must be at most the 0 samples, got 3"):
        so.balanced_labels(junk, mask=mask, k=3)
    with pytest.raises(ValueError, match="counts must sum to the 0 samples, got a sum of 40"):
        so.balanced_labels(junk[2], [8] * 5, mask=mask[2])
    with pytest.raises(ValueError, match="got nan at index"):
        so.balanced_labels(junk, mask=~mask)
    with pytest.raises(ValueError, match=r"mask must have shape \(3, 40\)"):
        so.balanced_labels(junk, mask=mask[:, :3])
