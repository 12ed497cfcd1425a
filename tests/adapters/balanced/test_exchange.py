"""The repair of counts: what it must keep, on labels that no path joins."""

import numpy as np

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
