"""The repair of counts: what it must keep, on labels that no path joins."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sinkhorn_ot.adapters.balanced.exchange import Exchange


def test_prices_keep_up_with_labels_that_no_sample_can_reach():
    """Label 1 becomes dear; the samples of label 2, which nobody may join, must not want it."""
    inf = np.inf
    S = np.array([[0.0, -1.0, -inf]] * 4 + [[-inf, -0.2, 0.0]] * 2)
    counts, prices = np.array([2, 2, 2]), np.zeros(3)
    exchange = Exchange(S, S.argmax(1), counts, np.zeros(3, bool), prices, 1.0)
    left = []
    assert exchange.repair(left.append)
    assert left == [0]
    assert np.bincount(exchange.labels).tolist() == counts.tolist()
    # that proves the labelling optimal: every sample has its best label
    priced = S + exchange.prices
    assert (priced.max(1) == priced[np.arange(6), exchange.labels]).all()


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("N", "K"), [(7, 3), (23, 5), (29, 10), (6, 9)])
def test_any_start_under_fair_prices_is_repaired_to_the_best(N, K, spread):
    """Prices of zero, labels that many want, and places dealt to whomever: all must be mended."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        S = rng.normal(size=(N, K)) + spread * rng.normal(size=K)
        low, dealt = np.full(K, N // K), rng.permutation(K) < N % K
        exchange = Exchange(S, S.argmax(1), low, dealt.copy(), np.zeros(K), np.abs(S).max())
        assert exchange.repair(lambda left: None)
        counts = np.bincount(exchange.labels, minlength=K)
        assert (counts == low + exchange.dealt).all()
        assert exchange.dealt.sum() == N % K
        # samples take places: the sure ones, and any N % K of those beyond, one per label
        more = S if N % K else S[:, :0]
        spare = np.zeros((max(0, more.shape[1] - N % K), N - N % K + more.shape[1]))
        spare[:, : N - N % K] = -1e6
        places = np.vstack([np.hstack([S.repeat(N // K, 1), more]), spare])
        best = places[linear_sum_assignment(-places)].sum()
        assert S[np.arange(N), exchange.labels].sum() == pytest.approx(best, rel=1e-12, abs=1e-12)
        priced = S + exchange.prices
        assert (priced.max(1) - priced[np.arange(N), exchange.labels]).max() < 1e-12
        # and no place would be cheaper elsewhere
        if N % K:
            p, taken = exchange.prices, exchange.dealt
            assert p[taken].max() <= p[~taken].min() + 1e-12


@pytest.mark.parametrize("ties", [False, True])
def test_losses_are_those_of_the_samples_that_stayed(ties: bool) -> None:
    """After every round, by brute force: also of labels that gave samples away and got others."""
    rng = np.random.default_rng(0)
    S = rng.integers(0, 4, (300, 6)).astype(float) if ties else rng.normal(size=(300, 6))
    S[:, 4][rng.random(300) < 0.8] = -np.inf
    labels, counts = S.argmax(1), np.array([10, 120, 50, 50, 20, 50])
    exchange = Exchange(S, labels, counts, np.zeros(6, bool), np.zeros(6), 5.0)
    rounds = []

    def told(left: int) -> None:
        rounds.append(left)
        exchange._paths()
        for j in range(6):
            mine = S[labels == j]
            with np.errstate(invalid="ignore"):
                loss = (mine[:, j, None] - mine).min(0, initial=np.inf)
            loss[j] = np.inf
            np.testing.assert_array_equal(exchange._loss[j], loss)

    assert exchange.repair(told)
    assert len(rounds) > 1
    np.testing.assert_array_equal(np.bincount(labels), counts)
