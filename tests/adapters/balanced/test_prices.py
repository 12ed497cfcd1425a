"""Tests of prices that follow from few labels: near the counts, or none at all."""

import math

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.adapters.balanced import prices, task


def scores(N, K, seed=0):
    return torch.randn(N, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def off(S, found, shares):
    """Return how far the counts of the argmax are off, relative to N."""
    counts = torch.bincount((S + found).argmax(1), minlength=S.shape[1])
    return float((counts - len(S) * shares).abs().sum() / len(S))


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_are_nearly_right(even, dtype):
    S, shares = scores(6000, 80).to(dtype), torch.full((80,), 1 / 80)
    if not even:
        shares = torch.linspace(1, 3, 80)
        shares /= shares.sum()
    start = prices.dual(S[:1000], shares, 0.03, None, False)
    found = prices.near(S, shares, 0.03, start)
    assert found.dtype == torch.float64
    assert off(S.double(), found, shares) < 0.03 < off(S.double(), start, shares)


def test_where_many_labels_are_near_prices_are_sharper():
    S, shares = scores(6000, 80), torch.full((80,), 1 / 80)
    start = prices.dual(S[:1000], shares, 0.3, None, False)
    E, reg = prices._near_labels(S, 0.3, start)
    assert reg == pytest.approx(0.3 * prices._FEW * 6000 / E.nnz)
    assert reg < 0.1
    best = (S + start).amax(1)
    dense = torch.exp((S + start - best[:, None]) / reg)
    near = S + start > best[:, None] - prices._NEAR * 0.3
    torch.testing.assert_close(torch.from_numpy(E.toarray()), torch.where(near, dense, 0.0))


def test_prices_too_far_off_lead_nowhere():
    S, shares = scores(3000, 70), torch.full((70,), 1 / 70)
    far = torch.zeros(70, dtype=torch.float64)
    far[0] = 50.0
    assert prices.near(S, shares, 0.01, far) is None
    assert prices.near(S[:, :60], shares[:60], 0.01, far[:60]) is None


@pytest.mark.parametrize("found", [None, "zero"])
def test_labels_are_the_best_whatever_the_prices(monkeypatch, found):
    S = scores(4000, 70)
    best = so.balanced_labels(S)
    bad = None if found is None else torch.zeros(70, dtype=torch.float64)
    monkeypatch.setattr(task, "near", lambda *_: bad)
    again = so.balanced_labels(S)
    assert float(again.value) == pytest.approx(float(best.value), rel=1e-13)
    assert float(best.gap) <= 1e-9
    assert torch.equal(again.counts, best.counts)


def test_forbidden_labels_are_never_near():
    S, shares = scores(5000, 70), torch.full((70,), 1 / 70)
    S[::3, 5] = -math.inf
    E, _ = prices._near_labels(S, 0.03, torch.zeros(70, dtype=torch.float64))
    assert E.toarray()[::3, 5].max() == 0
    assert so.balanced_labels(S).gap <= 1e-9
    assert prices.near(S, shares, 0.03, torch.zeros(70, dtype=torch.float64)) is not None
