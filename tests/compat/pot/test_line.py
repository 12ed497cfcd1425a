"""POT's calls for points on lines: what POT's own tests say of them, and POT beside."""

import numpy as np
import ot as theirs
import pytest
import torch
from compat.pot.problems import clouds

import sinkhorn_ot.compat.pot as ot


def line(seed=0, n=12, m=9):
    g = np.random.default_rng(seed)
    a, b = g.random(n) + 0.1, g.random(m) + 0.1
    return g.standard_normal(n), g.standard_normal(m), a / a.sum(), b / b.sum()


METRICS = [("sqeuclidean", 1.0), ("euclidean", 1.0), ("cityblock", 1.0), ("minkowski", 1.5)]


@pytest.mark.parametrize(("metric", "p"), METRICS)
def test_gives_the_plans_of_pot(metric, p):
    for seed in range(25):
        x, y, a, b = line(seed, 3 + seed, 12)
        how = {"metric": metric, "p": p}
        P, log = ot.emd_1d(x, y, a, b, log=True, **how)
        Q, other = theirs.emd_1d(x, y, a, b, log=True, **how)
        np.testing.assert_allclose(P, Q, atol=1e-12)
        cost = ot.emd2_1d(x, y, a, b, **how)
        assert log["cost"] == pytest.approx(other["cost"])
        assert cost == pytest.approx(theirs.emd2_1d(x, y, a, b, **how))
        entries = P[log["perms_x_a"], log["perms_x_b"]]
        assert entries.sum() == pytest.approx(1)


def test_forms_of_points_and_plans():
    x, y, a, b = line()
    P = ot.emd_1d(x, y, a, b)
    np.testing.assert_array_equal(ot.emd_1d(x[:, None], y[:, None], a, b), P)
    sparse = ot.emd_1d(x, y, a, b, dense=False)
    np.testing.assert_array_equal(sparse.toarray(), P)
    t = [torch.tensor(v) for v in (x, y, a, b)]
    np.testing.assert_array_equal(ot.emd_1d(*t, dense=False).to_dense(), P)
    np.testing.assert_array_equal(ot.emd_1d(*t), P)
    cost, log = ot.emd2_1d(x, y, a, b, log=True)
    np.testing.assert_array_equal(log["G"], P)
    uniform = ot.emd_1d(x, y)
    np.testing.assert_allclose(ot.emd_1d(x, y, [], []), uniform)
    np.testing.assert_allclose(uniform, theirs.emd_1d(x, y), atol=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_gives_the_distances_of_pot(p):
    x, y, a, b = line()
    assert ot.wasserstein_1d(x, y, a, b, p) == pytest.approx(theirs.wasserstein_1d(x, y, a, b, p))
    assert ot.wasserstein_1d(x, y, p=p) == pytest.approx(theirs.wasserstein_1d(x, y, p=p))
    u, v = clouds()
    for weights in ((None, None), (a, b), (np.stack([a, a], 1), np.stack([b, b], 1))):
        got = ot.wasserstein_1d(u, v, *weights, p=p)
        assert got.shape == (2,)
        np.testing.assert_allclose(got, theirs.wasserstein_1d(u, v, *weights, p=p))
        cost, plans = ot.wasserstein_1d(u, v, *weights, p=p, return_plans=True)
        _, others = theirs.wasserstein_1d(u, v, *weights, p=p, return_plans=True)
        for plan, other in zip(plans, others, strict=True):
            np.testing.assert_allclose(plan.toarray(), other.toarray(), atol=1e-12)
    _, plans = ot.wasserstein_1d(u, v, return_plans="coo_tuple")
    assert plans[0].data.sum() == pytest.approx(1)
    assert plans[0].rows.max() == 11


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("p", [1, 2])
def test_gives_the_sliced_distances_of_pot(tensors, p):
    x, y = clouds()
    a, b = line()[2:]
    given = [torch.tensor(t) for t in (x, y, a, b)] if tensors else [x, y, a, b]
    for weights in (given[2:], (None, None)):
        args = (*given[:2], *weights)
        value, log = ot.sliced_wasserstein_distance(*args, p=p, seed=3, log=True)
        other, theirs_log = theirs.sliced_wasserstein_distance(*args, p=p, seed=3, log=True)
        np.testing.assert_allclose(value, other, rtol=1e-9)
        np.testing.assert_allclose(log["projections"], theirs_log["projections"])
        np.testing.assert_allclose(log["projected_emds"], theirs_log["projected_emds"], rtol=1e-8)
    # lines of any length
    lines = 2.5 * np.random.default_rng(0).standard_normal((2, 7))
    lines = torch.tensor(lines) if tensors else lines
    got = ot.sliced_wasserstein_distance(*given[:2], projections=lines, p=p)
    want = theirs.sliced_wasserstein_distance(*given[:2], projections=lines, p=p)
    np.testing.assert_allclose(got, want, rtol=1e-9)
    assert float(ot.sliced_wasserstein_distance(given[0], given[0], seed=0, p=p)) < 1e-12


def test_derivatives():
    x, y, a, b = (torch.tensor(t, requires_grad=True) for t in line(n=5, m=4))

    def cost(x, y, a, b):
        return ot.wasserstein_1d(x, y, a, b * (a.sum() / b.sum()), p=2)

    assert torch.autograd.gradcheck(cost, (x, y, a, b), fast_mode=True)
    u, v = (torch.tensor(t, requires_grad=True) for t in clouds(5, 4))

    def sliced(u, v):
        return ot.sliced_wasserstein_distance(u, v, seed=0, n_projections=5)

    assert torch.autograd.gradcheck(sliced, (u, v), fast_mode=True)
    (by_u,) = torch.autograd.grad(ot.sliced_wasserstein_distance(u, u.detach(), seed=0), u)
    assert bool(torch.isfinite(by_u).all())


def test_solve_sample_on_lines():
    x, y = clouds()
    got = ot.solve_sample(x, y, method="1d")
    np.testing.assert_allclose(got.value, theirs.solve_sample(x, y, method="1d").value)
    got = ot.solve_sample(x, y, method="sliced", random_state=0)
    want = theirs.solve_sample(x, y, method="sliced", random_state=0)
    assert got.value == pytest.approx(float(want.value))
    assert got.plan is None


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda x, y: ot.emd_1d(np.ones((4, 2)), y), "x_a must be points on a line"),
        (lambda x, y: ot.emd_1d(x, y, metric="cosine"), "metric must be one of 'sqeuclidean'"),
        (lambda x, y: ot.emd_1d(x, y, np.ones(12)), "a and b must have the same total mass"),
        (lambda x, y: ot.wasserstein_1d(x, y, p=0.5), "p must be a finite number of at least 1"),
        (lambda x, y: ot.wasserstein_1d(x, y, np.ones(3)), "u_weights must"),
        (lambda x, y: ot.sliced_wasserstein_distance(x, y, scaler=1), "scaler must be None"),
        (
            lambda x, y: ot.sliced_wasserstein_distance(np.ones((4, 2)), np.ones((4, 3))),
            "X_s and X_t must have points of one dimension",
        ),
    ],
)
def test_bad_arguments_are_named(call, why):
    x, y, *_ = line()
    with pytest.raises(ValueError, match=why):
        call(x, y)
