"""Derivatives of a fixed number of sweeps: those of the steps, beside autograd through each."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import sinkhorn_ot as so

from .test_first_order import A0, COST, OUT, REG, TELLS, A, B, W, X, Y


def _leaves(*tensors):
    return [t.clone().requires_grad_() for t in tensors]


def _plainly(C, a, b, reg, n_iter):
    """Return the logarithm of the plan after plain sweeps, written out."""
    # inf / reg has no derivative by reg, and carries nothing
    allowed = torch.isfinite(C)
    K = torch.where(allowed, -torch.where(allowed, C, 0.0) / reg, -math.inf)
    psi = torch.zeros_like(b)
    for _ in range(n_iter):
        phi = -(K + psi + b.log()).logsumexp(-1)
        psi = -(K + phi[:, None] + a.log()[:, None]).logsumexp(-2)
    return K + phi[:, None] + psi + a.log()[:, None] + b.log()


@pytest.mark.parametrize("n_iter", [1, 4])
@pytest.mark.parametrize("forbids", [False, True])
def test_derivatives_are_those_of_the_steps(n_iter, forbids):
    C = COST.clone()
    if forbids:
        C[0, 0] = C[2, 1] = math.inf
    grads = []
    for act in (lambda *t: so.solve(*t, n_iter=n_iter).plan, lambda *t: _plainly(*t, n_iter).exp()):
        leaves = _leaves(COST, A, B, REG)
        cost = leaves[0].masked_fill(math.inf == C, math.inf)
        b = leaves[2] * (leaves[1].sum() / leaves[2].sum())
        grads.append(torch.autograd.grad((act(cost, leaves[1], b, leaves[3]) * W).sum(), leaves))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tell", TELLS)
def test_all_that_is_told_has_derivatives(tell):
    def call(C, a, b, reg):
        return TELLS[tell](so.solve(C, a, b * (a.sum() / b.sum()), reg, n_iter=3))

    assert gradcheck(call, _leaves(COST, A, B, REG), atol=1e-6)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cosine"])
def test_points_have_derivatives(metric):
    def call(x, y, reg):
        return (so.solve(so.PointCloud(x, y, metric), A, B, reg, n_iter=3).plan * W).sum()

    assert gradcheck(call, _leaves(X, Y, REG), atol=1e-6)


def test_batches_and_second_order():
    C = torch.stack([COST, COST.flip(0)])

    def batch(C):
        return so.solve(C, A, B, 0.3, n_iter=3).value_linear

    assert gradcheck(batch, _leaves(C))
    assert gradgradcheck(lambda C: (so.solve(C, A, B, 0.3, n_iter=2).plan * W).sum(), _leaves(COST))


def test_many_sweeps_have_the_derivatives_of_the_solution():
    grads = []
    for options in ({"n_iter": 300}, {"tol": 1e-13}):
        (C,) = _leaves(COST)
        r = so.solve(C, A, B, 0.3, on_fail="warn", **options)
        grads.append(torch.autograd.grad((r.barycentric(OUT) ** 2).sum() + r.value, C)[0])
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-10)


REFUSED = {
    "relaxed": ({"unbalanced": 1.0}, "n_iter must not be given where cost requires grad and a m"),
    "a start": ({"init": (None, 0 * B)}, "init must not be given with n_iter where cost requires"),
    "zero weights": ({"a": A0}, "where cost requires grad and a weight is zero"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_not_differentiated_is_refused(row):
    options, text = REFUSED[row]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        so.solve(*_leaves(COST), **({"reg": 0.3, "n_iter": 3} | options))
    assert text in str(caught.value)


def test_potentials_beside_forbidden_pairs_say_so():
    C = COST.clone()
    C[0, 0] = math.inf
    f = so.solve(*_leaves(C), reg=0.3, n_iter=3).f
    with pytest.raises(RuntimeError, match="f of fixed sweeps has no derivatives beside forbidden"):
        f.sum().backward()
