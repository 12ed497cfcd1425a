"""Barycentres against closed forms, POT, and what must not matter."""

import math
import pickle
import warnings

import numpy as np
import ot
import pytest
import torch

import sinkhorn_ot as so


def histograms(k=4, n=20, *batch, seed=0, zeros=True):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(*batch, k, n, generator=generator, dtype=torch.float64) + 0.05
    if zeros:
        a[..., 0, :3] = a[..., 1, -2:] = 0
    return a / a.sum(-1, keepdim=True)


def line(n=20):
    x = torch.linspace(0, 1, n, dtype=torch.float64)
    return (x[:, None] - x).square()


def bumps(x, *where, width=0.06):
    a = torch.stack([(-((x - c) ** 2) / (2 * width**2)).exp() for c in where])
    return a / a.sum(-1, keepdim=True)


def peer(call, a, C, reg, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(
            call(a.T.numpy().copy(), C.numpy(), reg, numItermax=20_000, stopThr=1e-14, **options)
        )


def test_as_pot_on_a_hundred_problems():
    """With its iteration that heeds weights: the other begins where only uniform ones are kept."""
    draw, worst = np.random.default_rng(0), 0.0
    for seed in range(100):
        k, n = int(draw.integers(1, 5)), int(draw.integers(2, 12))
        reg = float(10 ** draw.uniform(-1.5, 0))
        a, C = histograms(k, n, seed=seed, zeros=False), line(n)
        found = so.barycenter(a, C, reg, tol=1e-12).histogram
        worst = max(worst, float((found - peer(ot.bregman.barycenter, a, C, reg)).abs().max()))
    assert worst < 1e-11


def test_as_pot_with_weights_and_without_bias():
    x = torch.linspace(0, 1, 20, dtype=torch.float64)
    w = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    a, heed = bumps(x, 0.3, 0.5, 0.6), {"weights": w.numpy(), "method": "sinkhorn_log"}
    for name, reg, debiased in (("barycenter", 0.02, False), ("barycenter_debiased", 0.004, True)):
        wanted = peer(getattr(ot.bregman, name), a, line(), reg, **heed)
        r = so.barycenter(a, line(), reg, weights=w, debiased=debiased, tol=1e-11)
        torch.testing.assert_close(r.histogram, wanted, atol=1e-8, rtol=0)


@pytest.mark.parametrize("debiased", [False, True])
def test_as_pot_of_images(debiased):
    x = torch.linspace(0, 1, 12, dtype=torch.float64)
    a = bumps(x, 0.3, 0.6, width=0.12)
    images = a[:, :, None] * a.flip(0)[:, None, :]
    name = "convolutional_barycenter2d" + "_debiased" * debiased
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = getattr(ot.bregman, name)(images.numpy(), 0.02, stopThr=1e-14, numItermax=5000)
    cost = so.GridCost((12, 12))
    r = so.barycenter(images.flatten(1), cost, 0.02, debiased=debiased, tol=1e-12)
    torch.testing.assert_close(
        r.histogram.view(12, 12), torch.from_numpy(wanted), atol=1e-8, rtol=0
    )
    dense = so.barycenter(
        images.flatten(1), cost.rows(0, 144)[0], 0.02, debiased=debiased, tol=1e-12
    )
    torch.testing.assert_close(r.histogram, dense.histogram, atol=1e-10, rtol=0)
    torch.testing.assert_close(r.value, dense.value, atol=1e-10, rtol=0)


def test_between_gaussians_is_a_gaussian():
    """Means and widths are averages; without debiasing the variance grows by about reg / 2."""
    x = torch.linspace(-4, 4, 161, dtype=torch.float64)
    a = torch.cat([bumps(x, -1.0, width=0.3), bumps(x, 1.0, width=0.5)])
    w, C = torch.tensor([0.25, 0.75], dtype=torch.float64), (x[:, None] - x).square()
    for debiased in (True, False):
        q = so.barycenter(a, C, 0.1, weights=w, debiased=debiased).histogram
        mean = (q * x).sum()
        torch.testing.assert_close(mean, (w * torch.tensor([-1.0, 1.0])).sum(), atol=1e-6, rtol=0)
        width = ((q * (x - mean).square()).sum()).sqrt()
        if debiased:
            wanted = bumps(x, float(mean), width=0.45)[0]
            assert float((q - wanted).abs().sum()) < 2e-3
        else:
            assert width > 0.47


def test_of_one_histogram():
    x = torch.linspace(0, 1, 30, dtype=torch.float64)
    a, C = bumps(x, 0.4), line(30)
    r = so.barycenter(a, C, 0.003, debiased=True, tol=1e-9)
    torch.testing.assert_close(r.histogram, a[0], atol=1e-6, rtol=0)
    assert abs(float(r.value)) < 1e-9
    # with bias, what blurs it twice
    K = (-C / 0.003).exp()
    blurred = K.T @ (a[0] / K.sum(1))
    torch.testing.assert_close(so.barycenter(a, C, 0.003).histogram, blurred, atol=1e-9, rtol=0)


def test_small_ones_are_as_others(monkeypatch):
    """Small ones are found in NumPy, and what does not arrive there is found by the others."""
    from sinkhorn_ot.derived.barycenters import small

    a = histograms(4, 30)
    for cost, reg in ((line(30), 0.02), (line(30).float(), 0.05), (line(30) - 3, 0.1)):
        r = so.barycenter(a, cost, reg, tol=1e-6)
        monkeypatch.setattr(small, "_MOST", 3)
        other = so.barycenter(a, cost, reg, tol=1e-6)
        monkeypatch.undo()
        assert not torch.equal(r.histogram, other.histogram)
        torch.testing.assert_close(r.histogram, other.histogram, atol=1e-6, rtol=0)
        torch.testing.assert_close(r.value, other.value, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(r.plans, other.plans, atol=1e-6, rtol=0)
        torch.testing.assert_close(r.plans.sum(-1), a.to(r.plans.dtype), atol=1e-6, rtol=0)


def test_steps_of_many_are_mixed_by_some(monkeypatch):
    from sinkhorn_ot.derived.barycenters import projections

    a, how = histograms(30, 40, 2), {"tol": 1e-11}
    wanted = so.barycenter(a, line(40), 0.01, **how)
    monkeypatch.setattr(projections, "_SAMPLE", 150)
    r = so.barycenter(a, line(40), 0.01, **how)
    assert int(r.n_iter.max()) < 2 * int(wanted.n_iter.max())
    torch.testing.assert_close(r.histogram, wanted.histogram, atol=1e-10, rtol=0)


def test_a_weight_of_zero_has_no_say():
    a = histograms()
    one = so.barycenter(a[:1], line(), 0.02, tol=1e-12)
    r = so.barycenter(a, line(), 0.02, weights=[2.0, 0, 0, 0], tol=1e-12)
    torch.testing.assert_close(r.histogram, one.histogram, atol=1e-11, rtol=0)
    torch.testing.assert_close(r.value, one.value)
    # all the same it has a plan
    torch.testing.assert_close(r.plans.sum(-2), r.histogram.expand(4, -1), atol=1e-11, rtol=0)


@pytest.mark.parametrize("debiased", [False, True])
def test_order_place_and_mass_do_not_matter(debiased):
    x = torch.linspace(0, 1, 30, dtype=torch.float64)
    a, w = bumps(x, 0.3, 0.35, 0.5), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    how = {"debiased": debiased, "tol": 1e-11}
    q = so.barycenter(a, line(30), 0.003, weights=w, **how).histogram
    # to take off a blur magnifies what is missed
    same = {"atol": 1e-7 if debiased else 1e-9, "rtol": 0}
    turned = so.barycenter(a.flip(0), line(30), 0.003, weights=w.flip(0), **how).histogram
    torch.testing.assert_close(turned, q, **same)
    mirrored = so.barycenter(a.flip(1), line(30), 0.003, weights=w, **how).histogram
    torch.testing.assert_close(mirrored.flip(0), q, **same)
    heavy = so.barycenter(7 * a, line(30), 0.003, weights=3 * w, **how)
    torch.testing.assert_close(heavy.histogram, 7 * q, **same)
    doubled = so.barycenter(torch.cat([a, a]), line(30), 0.003, weights=torch.cat([w, w]), **how)
    torch.testing.assert_close(doubled.histogram, q, **same)


def test_masses_and_values():
    a, w, reg = histograms(), torch.tensor([1, 2, 3, 4]).double() / 10, 0.02
    for scale in (1.0, 5.0):
        r = so.barycenter(scale * a, line(), reg, weights=w, tol=1e-12)
        P = r.plans
        torch.testing.assert_close(P.sum(-1), scale * a, atol=1e-12, rtol=0)
        assert bool((P[scale * a == 0] == 0).all())
        entropy = torch.special.xlogy(P, P / (scale * a)[..., None].clamp(min=1e-300))
        values = (P * line()).sum((-2, -1)) + reg * entropy.sum((-2, -1))
        torch.testing.assert_close(r.values, values, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(r.value, (w * values).sum(), atol=1e-10, rtol=1e-10)
    x, reg = torch.linspace(0, 1, 20, dtype=torch.float64), 0.004
    a = bumps(x, 0.3, 0.4, 0.5, 0.6)
    other = so.barycenter(a, line(), reg, weights=w, debiased=True, tol=1e-9)
    # each divergence, by itself
    q = other.histogram

    def own(p):
        return so.solve(line(), p, p, reg, tol=1e-12).value

    wanted = torch.stack(
        [so.solve(line(), p, q, reg, tol=1e-12).value - (own(p) + own(q)) / 2 for p in a]
    )
    torch.testing.assert_close(other.values, wanted, atol=1e-8, rtol=0)


@pytest.mark.parametrize("debiased", [False, True])
def test_the_barycentre_is_least(debiased):
    """Neighbours are worse: what transports to them cost is measured by themselves."""
    x = torch.linspace(0, 1, 20, dtype=torch.float64)
    a, C, reg = bumps(x, 0.35, 0.5), line(), 0.004
    r = so.barycenter(a, C, reg, debiased=debiased, tol=1e-11)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        move = torch.rand(20, generator=generator).double()
        q = r.histogram * (1 + 0.05 * move)
        q = q / q.sum()
        off = so.solve(C, a, q.expand(2, -1), reg, tol=1e-11).value
        if debiased:
            off = off - so.solve(C, torch.stack([*a, q]), torch.stack([*a, q]), reg).value[:2] / 2
            off = off - so.solve(C, q, q, reg).value / 2
        else:
            off = off + reg * torch.special.xlogy(q, q).sum()
        assert float(off.mean()) > float(r.value)


def test_a_batch_is_its_problems():
    a = histograms(3, 20, 2, 2)
    reg = torch.tensor([[0.02, 0.1], [0.05, 0.03]]).double()
    w = torch.rand(2, 2, 3).double()
    r = so.barycenter(a, line(), reg, weights=w, tol=1e-12)
    assert r.histogram.shape == (2, 2, 20)
    assert r.plans.shape == (2, 2, 3, 20, 20)
    assert r.value.shape == r.n_iter.shape == r.converged.shape == r.marginal_error.shape == (2, 2)
    for i in range(2):
        for j in range(2):
            one = so.barycenter(a[i, j], line(), float(reg[i, j]), weights=w[i, j], tol=1e-12)
            torch.testing.assert_close(r.histogram[i, j], one.histogram, atol=1e-11, rtol=0)
            torch.testing.assert_close(r.value[i, j], one.value)


def test_points_and_other_supports():
    x, y = torch.rand(20, 2).double(), torch.rand(15, 2).double()
    a = histograms()
    r = so.barycenter(a, so.PointCloud(x, y), 0.05, tol=1e-12)
    C = torch.cdist(x, y).square()
    torch.testing.assert_close(
        r.histogram, so.barycenter(a, C, 0.05, tol=1e-12).histogram, atol=1e-10, rtol=0
    )
    assert r.histogram.shape == (15,)


def test_dtypes_arrays_and_starts():
    a = histograms()
    r = so.barycenter(a.float(), line().float(), 0.02)
    assert r.histogram.dtype == r.value.dtype == r.f.dtype == torch.float32
    wanted = so.barycenter(a, line(), 0.02)
    torch.testing.assert_close(r.histogram.double(), wanted.histogram, atol=1e-6, rtol=0)
    array = so.barycenter(a.numpy(), line().numpy(), 0.02, weights=[1, 1, 1, 1])
    assert torch.equal(array.histogram, wanted.histogram)
    again = so.barycenter(a, line(), 0.02, init=wanted)
    assert int(again.n_iter) == 1
    assert int(so.barycenter(a, line(), 0.018, init=wanted).n_iter) <= int(wanted.n_iter)


def test_who_does_not_arrive_says_so():
    a = histograms()
    with pytest.warns(so.ConvergenceWarning, match="Ran out of iterations.*after 3 iterations"):
        r = so.barycenter(a, line(), 0.001, max_iter=3)
    assert r.status is so.Status.MAX_ITER
    assert not r.converged
    assert float(r.marginal_error) > 1e-9
    with pytest.raises(so.ConvergenceError) as told:
        so.barycenter(a, line(), 0.001, max_iter=3, on_fail="raise")
    assert isinstance(told.value.result, so.Barycenter)
    # without bias the best of jagged histograms has zeros, which logarithms never reach
    r = so.barycenter(a, line(), 0.1, debiased=True, on_fail="ignore", max_iter=800)
    assert float(r.marginal_error) < 1e-2
    assert math.isfinite(float(r.value))


NAN = math.nan


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"histograms": torch.rand(20)}, r"histograms must have shape \(..., k, 20\)"),
        ({"histograms": torch.rand(4, 19)}, r"one in each row, got \(4, 19\)"),
        ({"histograms": torch.rand(0, 20)}, "histograms must not be empty"),
        ({"histograms": -histograms()}, "histograms must be non-negative"),
        ({"histograms": histograms() * NAN}, "histograms must be finite, got nan"),
        ({"histograms": torch.zeros(4, 20)}, "histograms must have some positive weight"),
        (
            {"histograms": histograms() * torch.tensor([1.0, 1, 2, 1])[:, None]},
            r"histograms must have one mass, got 1 and 2 at index \(2,\): normalise them",
        ),
        ({"weights": [1, 2]}, r"weights must have one entry per histogram, 4, got shape \(2,\)"),
        ({"weights": [1, 2, -1, 1]}, "weights must be non-negative, got -1 at index 2"),
        ({"weights": [0, 0, 0, 0]}, "weights must have some positive weight"),
        ({"weights": torch.ones(3, 4)}, r"weights must have leading dimensions that fit"),
        ({"cost": torch.rand(2, 20, 20)}, r"cost must have shape \(n, m\), one for all"),
        ({"cost": torch.rand(20, 20).masked_fill(torch.eye(20) > 0, math.inf)}, "cost must allow"),
        (
            {"cost": torch.rand(20, 9), "debiased": True},
            "cost must be that of a support and itself",
        ),
        ({"cost": torch.rand(20, 20), "debiased": True}, "cost must be symmetric to be debiased"),
        (
            {"cost": so.GridCost((20,), (torch.arange(20).double() + 3,)), "debiased": True},
            "cost must be symmetric to be debiased",
        ),
        ({"reg": None}, "reg must be given"),
        ({"reg": -1}, "reg must be a finite number above zero"),
        ({"reg": 1e-18}, "reg must be large enough to resolve all pairs, got 1e-18"),
        ({"tol": 0}, "tol must be a finite number above zero"),
        ({"on_fail": "never"}, "on_fail must be one of"),
        ({"debiased": 1}, "debiased must be True or False"),
        ({"init": 1}, "init must be an earlier Barycenter, got int"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_bad_input_is_told(change, told):
    plain = {"histograms": histograms(), "cost": line(), "reg": 0.02}
    with pytest.raises(ValueError, match=told):
        so.barycenter(**plain | change)


def test_a_start_of_other_sizes_is_told():
    r = so.barycenter(histograms(3), line(), 0.02)
    with pytest.raises(ValueError, match=r"init must have \(4, 20\) column potentials"):
        so.barycenter(histograms(4), line(), 0.02, init=r)


def test_results_are_kept_and_shown():
    a = histograms().requires_grad_()
    r = so.barycenter(a, line(), 0.02)
    assert repr(r).startswith("Barycenter(batch=(), k=4, n=20, m=20, debiased=False")
    again = pickle.loads(pickle.dumps(r))
    assert torch.equal(again.histogram, r.histogram.detach())
    assert not again.value.requires_grad
    assert not r.detach().histogram.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_histograms_of_few_digits_are_taken(dtype):
    a = torch.rand(3, 20).softmax(-1).to(dtype)
    r = so.barycenter(a, line().to(dtype), 0.1)
    wide = a.double() / a.double().sum(-1, keepdim=True) * a[0].double().sum()
    assert r.converged
    assert r.histogram.dtype == torch.float32
    true = so.barycenter(wide, line().to(dtype).double(), 0.1).histogram
    assert torch.allclose(r.histogram.double(), true, atol=1e-5)
