"""Pictures of plans: what is drawn is the plan, of any size, and what cannot be drawn is told."""

import math
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import sinkhorn_ot as so


mpl.use("Agg")
SEED = torch.Generator().manual_seed(0)
X, Y = torch.rand(9, 2, generator=SEED), torch.rand(7, 2, generator=SEED)
C = torch.rand(9, 7, generator=SEED)
A = torch.rand(9, generator=SEED).softmax(-1)
B = torch.rand(7, generator=SEED).softmax(-1)


@pytest.fixture
def ax():
    figure = Figure()
    yield figure.add_subplot()
    # what a picture holds is drawn once, so that what cannot be drawn is found
    figure.savefig("/dev/null", format="png")


def mass(ax):
    return np.asarray(ax.images[0].get_array())


@pytest.mark.parametrize(
    "solve",
    [
        lambda: so.solve(C, A, B, reg=0.05),
        lambda: so.solve_exact(C, A, B),
        lambda: so.solve_exact(C, A, B, engine="columns"),
        lambda: so.sinkhorn_distance(C, A, B, alpha=0.5),
        lambda: so.solve(C[None], A, B, reg=0.05)[0],
        lambda: so.from_state_dict(so.solve(C, A, B, reg=0.05).state_dict()),
    ],
)
def test_a_matrix_is_the_plan_between_its_marginals(ax, solve):
    r = solve()
    assert so.plot(r, ax) is ax
    np.testing.assert_allclose(mass(ax), r.plan.numpy(), atol=1e-7)
    top, side = ax.child_axes if len(ax.child_axes) == 2 else (None, None)
    np.testing.assert_allclose(top.lines[0].get_ydata(), B, atol=1e-7)
    np.testing.assert_allclose(side.lines[0].get_xdata(), A, atol=1e-7)


def test_lines_lead_where_most_mass_moves(ax):
    r = so.solve(so.PointCloud(X, Y), A, B, reg=0.01)
    r.plot(ax)
    (lines,), P = ax.collections[:1], r.plan
    ends, order = lines.get_segments(), P.flatten().argsort(descending=True)
    assert len(ends) == int((1e-3 * P.max() < P).sum())
    for end, k in zip(ends, order.tolist(), strict=False):
        np.testing.assert_allclose(end, torch.stack([X[k // 7], Y[k % 7]]), atol=1e-6)
    sources, targets = ax.collections[1:]
    np.testing.assert_allclose(sources.get_offsets(), X, atol=1e-6)
    np.testing.assert_allclose(targets.get_sizes() / targets.get_sizes().sum(), B, rtol=1e-4)


def test_many_points_are_drawn_without_their_plan(ax, monkeypatch):
    monkeypatch.setattr(so.Transport, "plan", property(lambda r: pytest.fail("the plan")))
    x, y = torch.rand(3000, 2, generator=SEED), torch.rand(2000, 2, generator=SEED)
    r = so.solve(so.PointCloud(x, y), reg=0.1, n_iter=2)
    r.plot(ax)
    assert len(ax.collections[0].get_segments()) == 1000
    ax.clear()
    r.plot(ax, kind="matrix")
    assert mass(ax).shape == (256, 256)
    assert mass(ax).sum() == pytest.approx(float(r.apply(torch.ones(2000)).sum()), rel=1e-4)


def test_a_line_and_a_circle_are_drawn_by_their_entries(ax):
    x, y = X[:, 0], Y[:, 0]
    so.plot(so.solve_1d(x, y), ax)
    ends = np.array(ax.collections[0].get_segments())
    assert set(ends[:, 0, 0].tolist()) <= set(x.numpy().tolist())
    assert len(set(ends[:, :, 1].flatten().tolist())) == 2
    ax.clear()
    r = so.solve_1d(x, y, period=1.0)
    r.plot(ax)
    assert np.linalg.norm(ax.collections[1].get_offsets(), axis=1) == pytest.approx(1.0)
    ax.clear()
    r.plot(ax, kind="matrix")
    np.testing.assert_allclose(mass(ax), r.plan, atol=1e-7)


def test_points_in_space_are_seen_where_they_differ_most(ax):
    flat = torch.cat([torch.rand(9, 2, generator=SEED), torch.zeros(9, 1)], 1)
    r = so.solve(so.PointCloud(flat, flat[:7]), reg=0.1)
    r.plot(ax)
    seen = torch.as_tensor(np.asarray(ax.collections[1].get_offsets()))
    torch.testing.assert_close(torch.cdist(seen, seen), torch.cdist(flat, flat).double())


def test_points_may_be_given(ax):
    r = so.solve_exact(C)
    r.plot(ax, points=(X, Y.numpy()))
    assert len(ax.collections[0].get_segments()) == int((r.plan > 1e-9).sum())
    high = so.solve(so.PointCloud(torch.rand(9, 5), torch.rand(7, 5)), reg=0.1)
    assert high.plot().images
    for wrong in (X, (X,), (X, X), (X[:, 0], Y[:, 0]), (X, Y[:, :1]), ("a", "b"), 3):
        with pytest.raises(ValueError, match="^points must"):
            r.plot(ax, points=wrong)
    for call in (lambda: high.plot(ax, kind="lines"), lambda: r.plot(ax, kind="lines")):
        with pytest.raises(ValueError, match="points must have 1 to 3 dimensions to be drawn"):
            call()


def test_points_of_a_matrix_and_of_no_mass(ax):
    x, y = torch.rand(9, 2), torch.rand(8, 2)
    r = so.solve(torch.cdist(x, y), reg=0.05)
    lines = r.plot(ax, points=(x, y)).collections[0]
    assert 0 < len(lines.get_segments()) <= 72
    apart = so.solve(so.PointCloud(x, y + 100), reg=0.05, unbalanced=0.1)
    assert len(apart.plot().collections) == 2


@pytest.mark.filterwarnings("ignore::sinkhorn_ot.ConvergenceWarning")
def test_what_cannot_be_drawn_is_told(ax):
    r = so.solve(C, reg=0.1)
    with pytest.raises(ValueError, match=r"plot shows one problem, got a batch of \(2,\): plot r"):
        so.solve(torch.stack([C, C]), reg=0.1).plot(ax)
    for wrong in (C, r.plan, None, so.PointCloud(X, Y)):
        with pytest.raises(ValueError, match="result must be one, as solve returns it, got a"):
            so.plot(wrong)
    with pytest.raises(ValueError, match="a Divergence has no plan to plot: plot one of its trans"):
        so.plot(so.sinkhorn_divergence(X, Y, reg=0.1))
    with pytest.raises(ValueError, match="a SlicedDistance has no plan to plot$"):
        so.plot(so.sliced_distance(X, Y))
    with pytest.raises(ValueError, match="kind must be one of 'matrix', 'lines', got 'heat'"):
        r.plot(ax, kind="heat")
    with pytest.raises(ValueError, match="ax must be matplotlib's Axes, got 3"):
        r.plot(3)
    bare = so.from_state_dict(r.state_dict(cost=False))
    with pytest.raises(ValueError, match="cost was not kept with this result"):
        bare.plot(ax)
    nan = so.solve(C, reg=0.1)
    nan.coupling.u[:] = math.nan
    with pytest.raises(ValueError, match="the plan must be numbers to be drawn"):
        nan.plot(ax)


def test_failures_padding_and_derivatives_are_drawn_as_far_as_they_go(ax):
    blocked = torch.ones(3, 3)
    blocked[1:, 1:] = math.inf
    r = so.solve(blocked, reg=0.1, on_fail="ignore")
    assert r.status is so.Status.INFEASIBLE
    r.plot(ax)
    ax.clear()
    r = so.solve(so.PointCloud(X[None], Y[None]), reg=0.1, mask=(torch.tensor([4]), None))[0]
    r.plot(ax)
    assert not ax.collections[1].get_sizes()[4:].any()
    ax.clear()
    so.solve(C.requires_grad_(), reg=0.1).plot(ax)
    C.requires_grad_(False)


def test_without_matplotlib_the_call_says_what_is_missing(monkeypatch):
    r = so.solve(C, reg=0.1)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="plot needs matplotlib: pip install matplotlib"):
        r.plot()
