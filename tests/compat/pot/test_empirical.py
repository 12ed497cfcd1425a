"""POT's `empirical_sinkhorn` and relatives: what POT's own tests say of them, and POT beside."""

import numpy as np
import ot as theirs
import pytest
import torch
from compat.pot.problems import clouds

import sinkhorn_ot.compat.pot as ot


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("weights", [False, True])
def test_gives_the_numbers_of_pot(metric, weights):
    x, y = clouds()
    g = np.random.default_rng(0)
    a, b = (g.random(n) + 0.1 for n in (12, 9)) if weights else (None, None)
    a, b = (None if w is None else w / w.sum() for w in (a, b))
    how = {"metric": metric, "a": a, "b": b}
    P = ot.bregman.empirical_sinkhorn(x, y, 0.1, **how)
    Q = theirs.bregman.empirical_sinkhorn(x, y, 0.1, stopThr=1e-14, **how)
    np.testing.assert_allclose(P, Q, atol=1e-9)
    cost, log = ot.bregman.empirical_sinkhorn2(x, y, 0.1, log=True, **how)
    other = theirs.bregman.empirical_sinkhorn2(x, y, 0.1, stopThr=1e-14, **how)
    assert cost == pytest.approx(float(other), abs=1e-9)
    K = np.exp(-theirs.dist(x, y, metric) / 0.1)
    np.testing.assert_allclose(log["u"][:, None] * K * log["v"], P, atol=1e-9)
    apart = ot.bregman.empirical_sinkhorn_divergence(x, y, 0.1, **how)
    other = theirs.bregman.empirical_sinkhorn_divergence(x, y, 0.1, stopThr=1e-14, **how)
    assert apart == pytest.approx(float(other), abs=1e-8)


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_lazy_is_the_same(metric, tensors):
    given = [torch.tensor(t) for t in clouds()] if tensors else list(clouds())
    P = ot.bregman.empirical_sinkhorn(*given, 0.1, metric=metric)
    f, g = ot.bregman.empirical_sinkhorn(*given, 0.1, metric=metric, isLazy=True, batchSize=(3, 5))
    M = theirs.dist(*clouds(), metric)
    f2, g2, log = ot.bregman.empirical_sinkhorn(*given, 0.1, metric=metric, isLazy=True, log=True)
    for u, v in ((f, g), (f2, g2), (log["u"], log["v"])):
        plan = np.exp(np.asarray(u)[:, None] + np.asarray(v) - M / 0.1)
        np.testing.assert_allclose(plan, P, atol=1e-9)
    np.testing.assert_allclose(log["lazy_plan"][:], P, atol=1e-9)
    cost, log = ot.bregman.empirical_sinkhorn2(*given, 0.1, metric=metric, isLazy=True, log=True)
    assert float(cost) == pytest.approx(float((np.asarray(P) * M).sum()), rel=1e-8)
    assert isinstance(f, torch.Tensor) == tensors


@pytest.mark.parametrize("lazy", [False, True])
def test_starts_where_it_ended(lazy):
    x, y = clouds(30, 20)
    *_, log = ot.bregman.empirical_sinkhorn(x, y, 0.02, isLazy=lazy, log=True)
    start = log["warmstart"]
    *_, warm = ot.bregman.empirical_sinkhorn(x, y, 0.02, isLazy=lazy, log=True, warmstart=start)
    assert warm["niter"] <= 2 < log["niter"]


def test_the_divergence_writes_down_three_problems():
    x, y = clouds()
    value, log = ot.bregman.empirical_sinkhorn_divergence(x, y, 0.1, log=True)
    parts = [log[f"sinkhorn_loss_{k}"] for k in ("ab", "a", "b")]
    assert value == pytest.approx(parts[0] - (parts[1] + parts[2]) / 2)
    assert log["log_sinkhorn_a"]["niter"] > 0
    start = log["log_sinkhorn_ab"]["warmstart"]
    again = ot.bregman.empirical_sinkhorn_divergence(x, y, 0.1, warmstart=start)
    assert again == pytest.approx(float(value), abs=1e-9)
    assert ot.bregman.empirical_sinkhorn_divergence(x, x, 0.1) == 0


def test_derivatives_by_points():
    x, y = (torch.tensor(t, requires_grad=True) for t in clouds(4, 3))
    for lazy in (False, True):

        def cost(x, y, lazy=lazy):
            return ot.bregman.empirical_sinkhorn2(x, y, 0.3, isLazy=lazy, stopThr=1e-13)

        assert torch.autograd.gradcheck(cost, (x, y), fast_mode=True)

    def apart(x, y):
        return ot.bregman.empirical_sinkhorn_divergence(x, y, 0.3, stopThr=1e-13)

    assert torch.autograd.gradcheck(apart, (x, y), fast_mode=True)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"metric": "canberra", "isLazy": True}, "metric must be one of 'sqeuclidean'"),
        ({"numIterMax": 0}, "numIterMax must be a whole number"),
        ({"method": "sinkhron"}, "method must be one of"),
        ({"X_s": np.full((12, 2), np.inf)}, "X_s must be finite"),
    ],
)
def test_bad_arguments_are_named(more, why):
    x, y = clouds()
    with pytest.raises(ValueError, match=why):
        ot.bregman.empirical_sinkhorn(**({"X_s": x, "X_t": y, "reg": 0.1} | more))


def test_a_lazy_plan_says_what_it_is():
    x = np.random.default_rng(0).random((6, 2))
    *_, log = ot.bregman.empirical_sinkhorn(x, x[:4], 0.3, isLazy=True, log=True)
    said = repr(log["lazy_plan"])
    assert said.startswith("LazyPlan(shape=(6, 4), ")
    assert "CONVERGED" in said
