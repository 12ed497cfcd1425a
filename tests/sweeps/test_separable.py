"""Sums axis by axis are those over all pairs, however sharp the kernels are."""

import math

import numpy as np
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.problem import make
from sinkhorn_ot.sweeps import choose
from sinkhorn_ot.sweeps.portable import Separable
from sinkhorn_ot.sweeps.portable.along import Extreme, Mild
from sinkhorn_ot.sweeps.reference import Reference


INF = math.inf
GRIDS = [((3, 4, 2), None), ((5, 6), (4, 7)), ((9,), None), ((1, 5), (6, 1))]
# one step for all axes, one for each, one line after the other, and each problem its own
REGS = [0.1, 2.5e-3, 1e-3, (0.1, 0.02, 1e-3)]


def assert_same(got, want, rtol):
    """Compare potentials: infinities must match, and what is finite up to its plan's error."""
    assert torch.equal(torch.isinf(got), torch.isinf(want))
    finite = torch.isfinite(want)
    slack = rtol + 1e-15 * want[finite].abs().amax()
    assert ((got - want)[finite].abs() <= slack).all()


def problem(cost, reg, unbalanced=None, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(batch, k, generator=generator).double() for k in cost.shape)
    a[0, 0] = b[-1, -1] = 0 if min(cost.shape) > 1 else 1
    reg = torch.tensor(reg).double() if isinstance(reg, tuple) else reg
    a, b = (w / w.sum(-1, keepdim=True) for w in (a, b))
    return make(cost, a, b, reg, unbalanced)


def check(p, rtol=1e-13):
    sweep, reference = choose(p, 1e-9), Reference(p)
    assert isinstance(sweep, Separable)
    generator, slack = torch.Generator().manual_seed(1), rtol + 10 * p.resolution
    x, y = (torch.randn(*w.shape, 2, generator=generator).double() for w in (p.b, p.a))
    for far in (0.0, 1.0, 900.0):
        v = p.b.log() + far * torch.randn(p.b.shape, generator=generator).double()
        wanted = reference.sweep(None, v)
        for got, want in zip(sweep.sweep(None, v), wanted, strict=True):
            assert_same(got, want, slack)
        u = wanted[0]
        same = {"rtol": slack, "atol": slack}
        for k in (x, y):
            pair = (s.apply(u, v, k, k is y) for s in (sweep, reference))
            torch.testing.assert_close(*pair, **same)
        torch.testing.assert_close(sweep.linear(u, v), reference.linear(u, v), **same)
        times, curve = sweep.curve_product(u, v), reference.curve(u, v)
        torch.testing.assert_close(times(x[:, :, 0]), (curve @ x)[:, :, 0], **same)
        torch.testing.assert_close(sweep.curve(u, v), curve, **same)


@pytest.mark.parametrize("reg", REGS, ids=str)
@pytest.mark.parametrize(("axes", "targets"), GRIDS, ids=str)
def test_as_all_pairs_are(axes, targets, reg):
    for p in (2, 1):
        check(problem(so.GridCost(axes, targets, p), reg))


def test_axes_take_turns_as_their_exponents_allow():
    kinds = {0.1: [Mild], 2.5e-3: [Mild, Mild], 1e-3: [Extreme, Extreme]}
    for reg, wanted in kinds.items():
        sweep = Separable(problem(so.GridCost((5, 6)), reg))
        assert [type(step) for step in sweep._to_rows] == wanted


@pytest.mark.parametrize("unbalanced", [(0.4, None), (0.4, 2.0), (None, 0.0)], ids=str)
def test_relaxed_marginals(unbalanced):
    check(problem(so.GridCost((5, 6)), 0.05, unbalanced))


def test_forbidden_pairs_and_offsets():
    A = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)).double()
    A[(torch.arange(5)[:, None] - torch.arange(5)).abs() > 1] = INF
    check(problem(so.GridCost((A, 4)), 0.1))
    check(problem(so.GridCost((A, 4)), 1e-3))
    far = problem(so.GridCost((1e4 + A.clamp(max=1), 1e4 + A.T.clamp(max=1))), 0.1)
    assert far.shift
    check(far)


@pytest.mark.parametrize("reg", [0.1, 2.5e-3])
def test_single_precision(reg):
    """As an accelerator keeps potentials: where float64 is asked for, a CPU uses that."""
    p = problem(so.GridCost((5, 6)), reg)
    single = {k: t.float() for k, t in vars(p).items() if isinstance(t, torch.Tensor)}
    object.__setattr__(q := problem(so.GridCost((5, 6)), reg), "a", single["a"])
    for name in ("b", "reg"):
        object.__setattr__(q, name, single[name])
    v = q.b.log()
    for got, want in zip(
        Separable(q).sweep(None, v), Reference(p).sweep(None, v.double()), strict=True
    ):
        assert got.dtype == torch.float32
        assert_same(got.double(), want, 2e-4)


@pytest.mark.parametrize("reg", [0.1, 2e-3])
def test_a_solve_is_that_of_the_stored_cost(reg):
    generator = torch.Generator().manual_seed(0)
    cost = so.GridCost((9, 8), (7, 10))
    a, b = (torch.rand(2, n, generator=generator).double() for n in cost.shape)
    a[:, 3] = 0
    a, b = (w / w.sum(-1, keepdim=True) for w in (a, b))
    C = cost.rows(0, 72)[0]
    for one in (slice(None), 0):
        r, wanted = (so.solve(c, a[one], b[one], reg, tol=1e-12) for c in (cost, C))
        assert bool(r.converged.all())
        for name in ("plan", "value", "value_linear", "f", "g"):
            torch.testing.assert_close(getattr(r, name), getattr(wanted, name), atol=1e-10, rtol=0)
    exact = so.solve_exact(cost, a[0], b[0])
    torch.testing.assert_close(exact.value, so.solve_exact(C, a[0], b[0]).value)
    assert r.certificate().lower <= exact.value <= r.certificate().upper


def test_weights_have_derivatives():
    cost = so.GridCost((5, 6))
    a, b = (torch.rand(30).double() for _ in range(2))
    a, b = (a / a.sum()).requires_grad_(), b / b.sum()
    y = torch.rand(30).double()
    found = []
    for c in (cost, cost.rows(0, 30)[0]):
        r = so.solve(c, a, b, 0.05, tol=1e-13)
        found.append(
            torch.autograd.grad(r.value + r.apply_transpose(y).square().sum() + (r.g * y).sum(), a)[
                0
            ]
        )
    torch.testing.assert_close(*found, atol=1e-9, rtol=0)


def test_images_take_no_matrix():
    """A hundred pixels a side: the matrix would take 800 MB."""
    cost = so.GridCost((100, 100))
    x = np.linspace(0, 1, 100)
    a, b = (
        torch.from_numpy(np.exp(-((x[:, None] - s) ** 2 + (x - s) ** 2) / 0.02)).flatten()
        for s in (0.4, 0.6)
    )
    r = so.solve(cost, a / a.sum(), b / b.sum(), 0.01)
    assert r.converged
    # two blobs of one shape, but for what the frame cuts off
    assert abs(float(r.value_linear) - 2 * 0.2**2) < 0.02
