"""POT's `barycenter`: what POT's own tests say of it, and POT beside."""

import numpy as np
import ot as theirs
import pytest
import torch

import sinkhorn_ot as so
import sinkhorn_ot.compat.pot as ot


def histograms(n=12, k=3, seed=0):
    """Return k histograms, (n, k), and the squared distances of points on a line, (n, n)."""
    g = np.random.default_rng(seed)
    A = g.random((n, k)) + 0.05
    x = np.linspace(0, 1, n)
    return A / A.sum(0), (x[:, None] - x) ** 2


@pytest.mark.parametrize("reg", [0.1, 0.05])
def test_gives_the_barycentres_of_pot(reg):
    for seed in range(8):
        A, M = histograms(6 + seed % 8, 2 + seed % 3, seed)
        weights = np.random.default_rng(seed).dirichlet(np.ones(A.shape[1]))
        how = {"stopThr": 1e-12, "numItermax": 100_000}
        for w, method in ((None, "sinkhorn"), (weights, "sinkhorn_log")):
            q = ot.barycenter(A, M, reg, w, stopThr=1e-11)
            other = theirs.barycenter(A, M, reg, w, method, **how)
            np.testing.assert_allclose(q, other, atol=1e-8)
    # the first of POT's methods starts where unequal weights lead elsewhere
    apart = np.abs(theirs.barycenter(A, M, reg, weights, "sinkhorn", **how) - other).max()
    assert apart > 1e-4


@pytest.mark.parametrize("method", ["sinkhorn", "Sinkhorn_Stabilized", "sinkhorn_log"])
def test_all_methods_have_one_answer(method):
    A, M = histograms()
    q, log = ot.bregman.barycenter(A, M, 0.05, method=method, log=True)
    np.testing.assert_array_equal(q, ot.barycenter(A, M, 0.05))
    assert q.sum() == pytest.approx(1)
    assert log["niter"] > 0
    assert log["err"][-1] < 1e-4
    assert log["result"].converged


def test_costs_need_not_be_symmetric():
    A, M = histograms()
    M = M + np.random.default_rng(0).random(M.shape) / 5
    q = ot.barycenter(A, M, 0.1, stopThr=1e-11)
    other = theirs.barycenter(A, M, 0.1, stopThr=1e-14, numItermax=100_000)
    np.testing.assert_allclose(q, other, atol=1e-8)


@pytest.mark.parametrize("method", ["sinkhorn", "sinkhorn_log"])
def test_debiased(method):
    x = np.linspace(0, 1, 15)
    A = np.exp(-((x[:, None] - np.array([0.3, 0.6])) ** 2) / 0.02)
    A, M = A / A.sum(0), (x[:, None] - x) ** 2
    q = ot.bregman.barycenter_debiased(A, M, 0.01, method=method, stopThr=1e-8)
    other = theirs.bregman.barycenter_debiased(A, M, 0.01, stopThr=1e-12, numItermax=100_000)
    np.testing.assert_allclose(q, other, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, torch.float32, torch.float64])
def test_answers_in_the_kind_that_came(kind):
    tensors = isinstance(kind, torch.dtype)
    A, M = (torch.tensor(t, dtype=kind) if tensors else t.astype(kind) for t in histograms())
    q = ot.barycenter(A, M, 0.1)
    assert q.dtype == kind
    np.testing.assert_allclose(np.asarray(q), ot.barycenter(*histograms(), 0.1), atol=1e-4)


def test_derivatives():
    A, M = (torch.tensor(t) for t in histograms(4, 2))
    A.requires_grad_()

    def square(A):
        return ot.barycenter(A / A.sum(0), M, 0.2, stopThr=1e-13).square().sum()

    assert torch.autograd.gradcheck(square, (A,), fast_mode=True)


def test_warns_where_it_did_not_arrive():
    A, M = histograms()
    with pytest.warns(so.ConvergenceWarning, match="Sinkhorn did not converge"):
        ot.barycenter(A, M, 1e-3, numItermax=1, stopThr=0)
    ot.barycenter(A, M, 1e-3, numItermax=1, stopThr=0, warn=False)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"method": "foo"}, "method must be one of 'sinkhorn'"),
        ({"A": np.ones(12)}, r"A must hold histograms as columns, \(n, k\), got \(12,\)"),
        ({"A": np.ones((5, 2))}, "A must"),
        ({"reg": 0.0}, "reg must be"),
        ({"weights": np.ones(5)}, "weights must"),
        ({"numItermax": 0}, "numItermax must be"),
    ],
)
def test_bad_arguments_are_named(more, why):
    A, M = histograms()
    with pytest.raises(ValueError, match=why):
        ot.barycenter(**({"A": A, "M": M, "reg": 0.1} | more))
