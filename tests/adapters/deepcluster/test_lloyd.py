"""The first centroids: samples drawn by their odds, wherever a place falls."""

import pytest
import torch

from sinkhorn_ot.adapters.deepcluster.lloyd import _at
from sinkhorn_ot.sweeps import ALONE


@pytest.mark.parametrize(
    ("place", "chosen"),
    # at or behind the end it is the last sample that has odds
    [(0.5, 1), (1.9, 1), (2.1, 3), (4.9, 3), (5.5, 4), (6.0, 4), (7.0, 4)],
)
def test_a_place_among_the_odds_is_a_sample(place, chosen):
    x, odds = torch.arange(6.0).double()[:, None], torch.tensor([0.0, 2, 0, 3, 1, 0]).double()
    assert _at(x, odds, place, ALONE).tolist() == [chosen]
