"""GeomLoss's call: closed forms, dense float64 references, and GeomLoss itself where it is."""

import copy
import importlib.util
import math
import pickle

import pytest
import torch
from derived.divergence import oracle

from sinkhorn_ot.compat.geomloss import SamplesLoss


D = torch.float64


def cloud(n, seed=0, at=0.0, batch=()):
    return torch.rand(*batch, n, 3, dtype=D, generator=torch.Generator().manual_seed(seed)) + at


def weights(n, seed=0, mass=1.0, batch=()):
    w = torch.rand(*batch, n, dtype=D, generator=torch.Generator().manual_seed(seed)) + 0.1
    return mass * w / w.sum(-1, keepdim=True)


X, Y, A, B = cloud(8, 1), cloud(6, 2, 0.2), weights(8, 3), weights(6, 4)


def costs(x, y, p):
    apart = (x[:, None] - y).norm(dim=-1)
    return apart if p == 1 else apart.square() / 2


def geomloss_value(x, y, a, b, p, blur, reach, debias):
    """Return GeomLoss's numbers from converged potentials, by the formulas of its papers."""
    eps, rho = blur**p, math.inf if reach is None else reach**p
    pairs = [((x, y, a, b), 1.0)]
    if debias:
        pairs += [((x, x, a, a), -0.5), ((y, y, b, b), -0.5)]
    total = 0.0
    for (s, t, u, v), sign in pairs:
        f, g = oracle.potentials(costs(s, t, p), u, v, eps, rho)
        if reach is None:
            total = total + sign * (u @ f + v @ g)
        else:
            each = [w @ (1 - (-h / rho).exp()) for w, h in ((u, f), (v, g))]
            total = total + sign * (rho + eps / 2) * (each[0] + each[1])
    return total


@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("reach", [None, 0.5])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("mass", [1.0, 1.7])
def test_gives_the_numbers_of_converged_potentials(p, reach, debias, mass):
    a, b = mass * A, mass * B * (1.0 if reach is None else 1.2)
    loss = SamplesLoss(p=p, blur=0.3, reach=reach, debias=debias)
    want = geomloss_value(X, Y, a, b, p, 0.3, reach, debias)
    assert float(loss(a, X, b, Y)) == pytest.approx(float(want), rel=1e-8)


def test_a_translation_costs_half_its_square():
    value = SamplesLoss("sinkhorn", 2, 0.05)(X, X + 2)
    assert value.shape == ()
    assert float(value) == pytest.approx(6.0)


def test_points_within_reach_are_moved():
    x, y = torch.zeros(1, 3, dtype=D), torch.ones(1, 3, dtype=D)
    rho, eps = 0.8**2, 0.1**2
    value = SamplesLoss(p=2, blur=0.1, reach=0.8)(x, y)
    assert float(value) == pytest.approx((2 * rho + eps) * -math.expm1(-1.5 / (2 * rho + eps)))


@pytest.mark.parametrize("p", [1, 2])
def test_batches_are_their_pairs(p):
    x, y = cloud(8, 1, batch=(3,)), cloud(6, 2, batch=(3,))
    a, b = weights(8, 3, batch=(3,)), weights(6, 4, batch=(3,))
    loss = SamplesLoss(p=p, blur=0.2)
    found = loss(a[..., None], x, b[..., None], y)
    assert found.shape == (3,)
    for k in range(3):
        torch.testing.assert_close(found[k], loss(a[k], x[k], b[k], y[k]))
    torch.testing.assert_close(loss(x, y)[1], loss(x[1], y[1]))


@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("p", [1, 2])
def test_potentials_weigh_what_the_value_is(p, debias):
    options = {"p": p, "blur": 0.2, "debias": debias}
    f, g = SamplesLoss(**options, potentials=True)(A[:, None], X, B, Y)
    assert f.shape == (8, 1)
    assert g.shape == (6,)
    value = SamplesLoss(**options)(A, X, B, Y)
    assert float(A @ f[:, 0] + B @ g) == pytest.approx(float(value))
    f, g = SamplesLoss(**options, potentials=True)(X[None], Y[None])
    assert (f.shape, g.shape) == ((1, 8), (1, 6))


@pytest.mark.parametrize("reach", [None, 0.5])
def test_derivatives_are_those_of_the_value(reach):
    def call(x, y, a, b):
        b = b * (a.sum() / b.sum())
        return SamplesLoss(blur=0.4, reach=reach, tol=1e-12)(a, x, b, y)

    args = [t.clone().requires_grad_() for t in (X[:4], Y[:3], A[:4], B[:3])]
    assert torch.autograd.gradcheck(call, args)


def test_a_cost_is_a_function_of_batches():
    def cost(x, y):
        return (x[:, :, None] - y[:, None]).square().sum(-1) / 2

    want = SamplesLoss(blur=0.2)(A, X, B, Y)
    torch.testing.assert_close(SamplesLoss(blur=0.2, cost=cost)(A, X, B, Y), want)


def test_single_precision_comes_back():
    loss = SamplesLoss(blur=0.1)
    found = loss(X.float(), Y.float())
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(loss(X, Y)), rel=1e-5)


def test_what_decides_nothing_is_taken():
    plain = SamplesLoss(blur=0.2)(X, Y)
    other = SamplesLoss(
        "sinkhorn", 2, 0.2, None, 3.0, 0.9, None, verbose=True, backend="multiscale"
    )
    assert torch.equal(other(X, Y), plain)


def test_is_copied_and_shows_itself():
    loss = SamplesLoss(p=1, blur=0.1, reach=2.0)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(other(X, Y), loss(X, Y))
    assert "p=1, blur=0.1, reach=2.0" in repr(loss)
    assert not loss.state_dict()


REFUSED = {
    "gaussian": ({"loss": "gaussian"}, "loss must be 'sinkhorn', got 'gaussian': .* geomloss"),
    "laplacian": ({"loss": "laplacian"}, "geomloss"),
    "energy": ({"loss": "energy"}, "geomloss"),
    "hausdorff": ({"loss": "hausdorff"}, "geomloss"),
    "kernel": ({"kernel": abs}, "beside a kernel: .* geomloss"),
    "clusters": ({"cluster_scale": 0.1}, "cluster_scale must be None, got 0.1: .* geomloss"),
    "a word": ({"loss": "sinkorn"}, "loss must be one of 'sinkhorn', got 'sinkorn'"),
    "p": ({"p": 3}, "p must be 1 or 2, got 3"),
    "formula": ({"cost": "Norm2(X-Y)"}, "formulas are geomloss's own"),
    "blur": ({"blur": 0}, "blur must be a finite number above zero"),
    "reach": ({"reach": -1}, "reach must be a finite number above zero"),
    "scaling": ({"scaling": 1.0}, "scaling must be below 1"),
    "diameter": ({"diameter": 0}, "diameter must be a finite number above zero"),
    "backend": ({"backend": "keops"}, "backend must be one of"),
    "debias": ({"debias": 1}, "debias must be True or False"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_named(name):
    given, why = REFUSED[name]
    with pytest.raises(ValueError, match=why):
        SamplesLoss(**given)


CALLS = {
    "labels": ((A, A, X, B, B, Y), "labels of clusters are for geomloss itself"),
    "one": ((X,), r"takes \(x, y\) or \(α, x, β, y\), got 1"),
    "batches": ((X[None], Y), "x and y must have as many clouds"),
    "a vector": ((X[0], Y[0]), r"x must be a tensor \(N, D\) or \(B, N, D\), got \(3,\)"),
    "weights": ((A[:3], X, B, Y), r"α must be a tensor \(8,\), one weight a point, got \(3,\)"),
    "no weights": (([0.5], X, B, Y), "α must be a tensor"),
    "masses": ((A, X, 2 * B, Y), "a and b must have the same total mass"),
    "dimensions": ((X, Y[:, :2]), "points of one dimension"),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_calls_are_named(name):
    measures, why = CALLS[name]
    with pytest.raises(ValueError, match=why):
        SamplesLoss(blur=0.2)(*measures)


@pytest.mark.slow(3)
@pytest.mark.skipif(importlib.util.find_spec("geomloss") is None, reason="geomloss is absent")
@pytest.mark.parametrize("reach", [None, 0.5])
@pytest.mark.parametrize("debias", [True, False])
def test_geomloss_comes_near_as_it_anneals_slowly(reach, debias):
    import geomloss

    a, b = 1.5 * A, 1.5 * B * (1.0 if reach is None else 1.2)
    options = {"p": 2, "blur": 0.1, "reach": reach, "debias": debias}

    def told(loss):
        x = X.clone().requires_grad_()
        value = loss(a, x, b, Y)
        return value.detach(), torch.autograd.grad(value, x)[0]

    value, grad = told(SamplesLoss(**options))
    off = []
    for scaling in (0.5, 0.9, 0.99, 0.999):
        near, theirs = told(geomloss.SamplesLoss(**options, scaling=scaling))
        off.append(float((near / value - 1).abs()))
    assert off[0] > off[1] > off[2] > off[3]
    assert off[3] < 1e-4
    # beside a reach it gives this much less than the derivative
    eps, rho = 0.1**2, math.inf if reach is None else reach**2
    less = 1.0 if reach is None else (rho + eps / 2) / (rho + eps)
    torch.testing.assert_close(theirs, less * grad, rtol=0, atol=2e-2 * float(grad.abs().max()))
