"""Points that move to the middle of clouds: known answers, POT, and bad input."""

import math
import warnings

import ot
import pytest
import torch

import sinkhorn_ot as so


def clouds(*sizes, d=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = [torch.randn(m, d, generator=generator).double() + k for k, m in enumerate(sizes)]
    a = [torch.rand(m, generator=generator).double() + 0.1 for m in sizes]
    return y, [w / w.sum() for w in a]


def test_small_clouds_have_the_same_barycenter():
    for seed in range(4):
        y, a = clouds(7, 5, seed=seed)
        first = so.free_barycenter(y, a, n=4)
        small = so.free_barycenter([1e-8 * t for t in y], a, n=4)
        torch.testing.assert_close(small.points / 1e-8, first.points, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_exact_steps_are_pots(seed):
    y, a = clouds(12, 9, 15, seed=seed)
    w, begin = torch.tensor([0.2, 0.5, 0.3]).double(), torch.randn(8, 2).double()
    wanted = ot.lp.free_support_barycenter(
        [k.numpy() for k in y],
        [k.numpy() for k in a],
        begin.numpy(),
        weights=(w / w.sum()).numpy(),
        stopThr=1e-16,
    )
    r = so.free_barycenter(y, a, weights=w, init=begin)
    assert r.converged
    assert all(t.status is so.Status.OPTIMAL for t in r.transports)
    torch.testing.assert_close(r.points, torch.from_numpy(wanted), atol=1e-10, rtol=0)
    values = [
        so.solve_exact(so.PointCloud(r.points, k), None, u).value for k, u in zip(y, a, strict=True)
    ]
    torch.testing.assert_close(r.values, torch.stack(values))
    torch.testing.assert_close(r.value, (w / w.sum() * torch.stack(values)).sum())


def test_entropic_steps_are_pots():
    y, a = clouds(8, 6)
    begin = torch.randn(5, 2).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = ot.bregman.free_support_sinkhorn_barycenter(
            [k.numpy() for k in y],
            [k.numpy() for k in a],
            begin.numpy(),
            1.0,
            numItermax=300,
            stopThr=1e-20,
            innerStopThr=1e-12,
            numInnerItermax=1000,
        )
    r = so.free_barycenter(y, a, 1.0, init=begin, tol=1e-9, max_iter=1000)
    assert r.converged
    torch.testing.assert_close(r.points, torch.from_numpy(wanted), atol=1e-7, rtol=0)


def test_of_one_cloud_is_the_cloud():
    y, a = clouds(10)
    r = so.free_barycenter(y, b=a[0], a=a)
    assert float(r.value) < 1e-12
    assert float(torch.cdist(r.points, y[0]).amin(1).max()) < 1e-9


@pytest.mark.parametrize("reg", [None, 0.5])
def test_clouds_that_are_moved_meet_in_the_middle(reg):
    (y,), _ = clouds(10)
    to = torch.tensor([[0.0, 0.0], [4.0, -2.0]]).double()
    w = torch.tensor([0.25, 0.75]).double()
    r = so.free_barycenter(y + to[:, None], None, reg, weights=w, max_iter=30, on_fail="ignore")
    torch.testing.assert_close(r.points.mean(0), y.mean(0) + w @ to, atol=1e-8, rtol=0)
    if reg is None:
        moved = y + w @ to
        assert float(torch.cdist(r.points, moved).amin(1).max()) < 1e-9
        torch.testing.assert_close(r.value, (w.prod() * (to[1] - to[0]).square().sum()))


@pytest.mark.parametrize("reg", [None, 0.5])
def test_points_without_weight_and_order_do_not_matter(reg):
    y, a = clouds(9, 7)
    how = {"reg": reg, "init": torch.randn(6, 2).double(), "max_iter": 20, "on_fail": "ignore"}
    r = so.free_barycenter(y, a, weights=[0.4, 0.6], **how)
    more = [torch.cat([k, 1 + k[:2]]) for k in y], [torch.cat([u, 0 * u[:2]]) for u in a]
    padded = so.free_barycenter(*more, weights=[0.4, 0.6], **how)
    torch.testing.assert_close(padded.points, r.points, atol=1e-7, rtol=0)
    turned = so.free_barycenter(y[::-1], a[::-1], weights=[0.6, 0.4], **how)
    torch.testing.assert_close(turned.points, r.points, atol=1e-7, rtol=0)
    torch.testing.assert_close(turned.values.flip(0), r.values, atol=1e-7, rtol=0)


@pytest.mark.parametrize("reg", [None, 0.3])
def test_no_step_makes_it_worse(reg):
    y, a = clouds(20, 20, 20)
    values = [
        float(so.free_barycenter(y, a, reg, max_iter=k, on_fail="ignore", n=12).value)
        for k in (1, 2, 4, 8, 16)
    ]
    assert all(later <= before + 1e-9 for before, later in zip(values, values[1:], strict=False))
    assert values[-1] < values[0]


def test_weights_of_points_shapes_and_dtypes():
    y, _ = clouds(10, 10)
    stacked = torch.stack(y).float()
    b = torch.arange(1.0, 5) / 10
    r = so.free_barycenter(stacked, b=b)
    assert r.points.shape == (4, 2)
    assert r.points.dtype == r.value.dtype == torch.float32
    assert torch.equal(r.weights, b)
    assert so.free_barycenter(stacked.numpy()).points.shape == (10, 2)
    # more points than there are: none stays with another
    many = so.free_barycenter(stacked.double(), n=25)
    assert len(many.points.unique(dim=0)) > 10
    assert repr(r).startswith("FreeBarycenter(points=float32 (4, 2)")


def test_who_does_not_come_to_rest_says_so():
    y, a = clouds(20, 20)
    with pytest.warns(so.ConvergenceWarning, match="The last of 2 steps moved the points by"):
        r = so.free_barycenter(y, a, 0.3, max_iter=2)
    assert r.status is so.Status.MAX_ITER
    with pytest.raises(so.ConvergenceError):
        so.free_barycenter(y, a, 0.3, max_iter=2, on_fail="raise")


Y = torch.zeros(2, 3, 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"clouds": []}, "clouds must hold at least one cloud"),
        ({"clouds": torch.rand(3, 2)}, r"clouds must have shape \(k, m, d\) or be a list"),
        ({"clouds": [Y[0], torch.rand(3, 3)]}, r"clouds\[1\] must have shape \(m, 2\)"),
        ({"clouds": [Y[0], torch.zeros(0, 2)]}, r"clouds\[1\] must not be empty"),
        ({"clouds": [Y[0], Y[1] * math.nan]}, r"clouds\[1\] must be finite, got nan"),
        ({"clouds": [Y[0], Y[1].double()]}, r"clouds\[1\] must have the dtype of the first"),
        ({"clouds": Y.clone().requires_grad_()}, "clouds requires grad"),
        ({"a": [torch.ones(3)]}, "a must have weights for each of 2 clouds, got 1"),
        ({"a": [torch.ones(3), torch.ones(2)]}, r"a\[1\] must have shape \(3,\), got \(2,\)"),
        ({"a": [torch.ones(3), 2 * torch.ones(3)]}, "a must have one mass for all clouds, got 3"),
        ({"a": [torch.ones(3), -torch.ones(3)]}, r"a\[1\] must be non-negative"),
        ({"weights": [1, 2, 3]}, r"weights must have one entry per cloud, \(2,\), got \(3,\)"),
        ({"n": 0}, "n must be a whole number of at least 1"),
        ({"n": 4, "init": torch.rand(3, 2)}, "must agree on the number of points, got 4 by n, 3"),
        ({"init": torch.rand(3, 3)}, r"init must have shape \(n, 2\), got \(3, 3\)"),
        ({"b": torch.ones(3)}, "b must have the mass of the clouds, 1, got 3"),
        ({"b": torch.ones(3, 3)}, r"b must have shape \(n,\)"),
        ({"reg": -1}, "reg must be a finite number above zero"),
        ({"tol": 0}, "tol must be a finite number above zero"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_bad_input_is_told(change, told):
    with pytest.raises(ValueError, match=told):
        so.free_barycenter(**{"clouds": Y} | change)


@pytest.mark.parametrize("reg", [None, 0.1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_points_of_few_digits_are_read_as_they_are(dtype, reg):
    clouds = [torch.rand(6, 2).to(dtype), torch.rand(5, 2).to(dtype)]
    r = so.free_barycenter(clouds, reg=reg, n=4, tol=1e-2)
    assert r.points.dtype == torch.float32
    wide = so.free_barycenter([y.float() for y in clouds], reg=reg, n=4, tol=1e-2)
    assert torch.equal(r.points, wide.points)
