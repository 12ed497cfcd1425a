"""A batch is its problems: same answers, one by one or together, whatever is shared."""

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.problem import make
from sinkhorn_ot.solvers.price import Price


def marginals(count: int, n: int, m: int, *, zeros: bool = False):
    drawn = [testing.random(n, m, zeros=zeros, seed=k) for k in range(count)]
    costs, a, b = (torch.stack([getattr(p, name) for p in drawn]) for name in ("cost", "a", "b"))
    return costs, a, b


def loop(C, a, b, reg, **options):
    return [so.solve(*args, **options).plan for args in zip(C, a, b, reg, strict=True)]


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("method", ["sinkhorn", "newton"])
def test_a_batch_equals_a_loop(share, zeros, method):
    C, a, b = marginals(6, 9, 13, zeros=zeros)
    C = C[:1].expand_as(C) if share else C
    together = so.solve(C[0] if share else C, a, b, 0.05, tol=1e-12, method=method)
    alone = loop(C, a, b, [0.05] * 6, tol=1e-12, method=method)
    torch.testing.assert_close(together.plan, torch.stack(alone), atol=1e-11, rtol=0)
    assert together.converged.shape == (6,)
    assert together.converged.all()


@pytest.mark.parametrize("share", [True, False])
def test_every_problem_has_its_reg(share):
    C, a, b = marginals(5, 9, 13)
    C = C[:1].expand_as(C) if share else C
    reg = torch.tensor([3e-3, 0.02, 0.1, 1.0, 10.0], dtype=torch.float64)
    together = so.solve(C[0] if share else C, a, b, reg, tol=1e-12)
    alone = loop(C, a, b, reg.tolist(), tol=1e-12)
    torch.testing.assert_close(together.plan, torch.stack(alone), atol=1e-10, rtol=0)


def test_finished_problems_stop_costing():
    """Easy problems leave; the hard one is swept on alone, and every one tells its own sweeps."""
    C, a, b = marginals(40, 12, 15)
    reg = torch.full((40,), 5.0, dtype=torch.float64)
    reg[7] = 3e-3
    running = []
    r = so.solve(
        C, a, b, reg, tol=1e-10, method="sinkhorn",
        callback=lambda told: running.append(told.running),
    )  # fmt: skip
    assert r.converged.all()
    assert running[0] == 40
    assert running[-1] == 1
    assert running == sorted(running, reverse=True) or min(running) == 1
    assert int(r.n_iter[7]) == int(r.n_iter.max()) > 3 * int(r.n_iter.median())
    truth = testing.judge(C[7], a[7], b[7], 3e-3)
    torch.testing.assert_close(r.plan[7], truth.plan, atol=1e-8, rtol=0)


def test_each_problem_tells_how_it_ended():
    C, a, b = marginals(3, 12, 15)
    reg = torch.tensor([5.0, 1e-3, 5.0], dtype=torch.float64)
    with pytest.warns(so.ConvergenceWarning, match="1 of 3 problems"):
        r = so.solve(C, a, b, reg, method="sinkhorn", max_iter=60)
    assert r.converged.tolist() == [True, False, True]
    assert r.status is so.Status.MAX_ITER
    assert (r.n_iter <= 60).all()
    assert float(r.marginal_error[1]) > 1e-9 >= float(r.marginal_error[0])


@pytest.mark.parametrize(
    ("cost", "a", "b", "batch"),
    [
        ((4, 5), (3, 4), (5,), (3,)),
        ((4, 5), (4,), (2, 5), (2,)),
        ((2, 1, 4, 5), (3, 4), (5,), (2, 3)),
        ((3, 4, 5), (2, 1, 4), (1, 5), (2, 3)),
        ((1, 4, 5), (4,), (5,), (1,)),
    ],
    ids=str,
)
def test_leading_dimensions_broadcast(cost, a, b, batch):
    g = torch.Generator().manual_seed(0)
    C, wa, wb = (torch.rand(s, generator=g, dtype=torch.float64) + 0.1 for s in (cost, a, b))
    wa, wb = wa / wa.sum(-1, keepdim=True), wb / wb.sum(-1, keepdim=True)
    r = so.solve(C, wa, wb, 0.3, tol=1e-11)
    assert r.plan.shape == (*batch, 4, 5)
    assert r.f.shape == (*batch, 4)
    assert r.g.shape == (*batch, 5)
    assert r.value.shape == r.n_iter.shape == r.converged.shape == batch
    full = so.solve(
        C.expand(*batch, 4, 5), wa.expand(*batch, 4), wb.expand(*batch, 5), 0.3, tol=1e-11
    )
    torch.testing.assert_close(r.plan, full.plan, atol=1e-10, rtol=0)


def test_a_shared_cost_is_not_copied():
    C, a, b = marginals(50, 9, 13)
    p = make(C[0], a, b, 0.1)
    assert p.shared
    assert p.cost.rows(0, 9).data_ptr() == C.data_ptr()
    # nor where the sharing is an expanded dimension of size one
    assert make(C[:1], a, b, 0.1).shared


def test_points_in_batches():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 1, 8, 2, generator=g).double(), torch.randn(4, 9, 2, generator=g).double()
    r = so.solve(so.PointCloud(x, y), reg=0.5, tol=1e-11)
    assert r.plan.shape == (3, 4, 8, 9)
    for i in range(3):
        for j in range(4):
            alone = so.solve(so.PointCloud(x[i, 0], y[j]), reg=0.5, tol=1e-11)
            torch.testing.assert_close(r.plan[i, j], alone.plan, atol=1e-10, rtol=0)


def test_one_bad_problem_is_named():
    C, a, b = marginals(3, 4, 5)
    C[1, 2] = torch.inf
    with pytest.raises(ValueError, match="row 2 of problem 1"):
        so.solve(C, a, b, 0.1)


def test_shared_kernels_at_the_edge_of_their_range():
    """From shared kernels in float32 and float64 to kernels of their own, the answer is one."""
    C, a, b = marginals(4, 9, 13, zeros=True)
    for reg in (0.03, 0.02, 5e-3, 3e-3):
        for dtype, atol in ((torch.float64, 1e-9), (torch.float32, 2e-6)):
            r = so.solve(C[0].to(dtype), a, b, reg)
            assert r.converged.all()
            for k in range(4):
                truth = testing.judge(C[0].to(dtype), a[k], b[k], reg)
                assert float((r.plan[k] - truth.plan).abs().sum()) < 10 * atol


def impossible() -> torch.Tensor:
    """Every point has a partner, and yet no plan exists: two rows share one small column."""
    C = testing.random(4, 4).cost.clone()
    C[:2, 1:] = torch.inf
    return C


@pytest.mark.parametrize("acceleration", [so.Plain(), so.Anderson()])
def test_one_lost_problem_does_not_end_the_others(acceleration):
    """What cannot be solved is given up alone; slow ones go on long after."""
    slow = testing.random(4, 4, seed=3).cost
    reg = torch.tensor([1.0, 1.0, 0.03], dtype=torch.float64)
    C = torch.stack([impossible(), testing.random(4, 4, seed=2).cost, slow])
    method = so.Sinkhorn(acceleration, anneal=None, patience=15)
    r = so.solve(C, reg=reg, method=method, on_fail="ignore")
    assert r.converged.tolist() == [False, True, True]
    assert r.statuses[0] is so.Status.INFEASIBLE
    assert int(r.n_iter[0]) < int(r.n_iter[2])
    assert "1 of 3 problems" in r.message


@pytest.mark.slow(1)
def test_a_start_that_is_lost_is_lost_alone():
    """Potentials whose sums overflow are nobody else's matter."""
    p = testing.random(6, 7, 0.1)
    C = torch.stack([p.cost] * 3)
    g = torch.zeros(3, 7, dtype=torch.float64)
    g[1] = torch.tensor([1e307, -1e307] * 3 + [0.0], dtype=torch.float64)
    r = so.solve(C, p.a, p.b, 0.1, init=(None, g), method="sinkhorn", on_fail="ignore")
    assert r.converged[[0, 2]].all()
    assert not r.converged[1]
    # who may choose begins again without it
    helped = so.solve(C, p.a, p.b, 0.1, init=(None, g))
    torch.testing.assert_close(helped.plan[1], helped.plan[0], atol=1e-8, rtol=0)


def large(count: int, n: int = 50, *, zeros: bool = False):
    """Problems that are not so small that a batch of them is always one."""
    return marginals(count, n, n + 3, zeros=zeros)


@pytest.mark.parametrize("reg", [0.3, 3e-3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("share", [True, False])
def test_auto_on_a_batch_is_auto_on_each(share, dtype, reg):
    C, a, b = (t.to(dtype) for t in large(5, zeros=True))
    C = C[:1].expand_as(C) if share else C
    tol = 1e-10 if dtype == torch.float64 else 1e-6
    together = so.solve(C[0] if share else C, a, b, reg, tol=tol)
    assert together.converged.all()
    alone = torch.stack(loop(C, a, b, [reg] * 5, tol=tol))
    torch.testing.assert_close(together.plan, alone, atol=10 * tol, rtol=0)
    assert not together.plan[(a == 0)].any()


def leave_at_once(monkeypatch):
    """Let every problem of a batch crawl as soon as that can be known."""
    monkeypatch.setattr(Price, "apart", property(lambda self: self.alone < 0))
    monkeypatch.setattr(Price, "sweeps", lambda self, _: torch.zeros_like(self.alone))


@pytest.mark.parametrize("share", [True, False])
def test_who_leaves_a_batch_goes_on_from_where_it_was(share, monkeypatch):
    C, a, b = large(4, zeros=True)
    leave_at_once(monkeypatch)
    r = so.solve(C[0] if share else C, a, b, 0.01, tol=1e-10)
    assert r.converged.all()
    assert (r.n_iter > 16).all()
    for k in range(4):
        truth = testing.judge(C[0 if share else k], a[k], b[k], 0.01)
        torch.testing.assert_close(r.plan[k], truth.plan, atol=1e-9, rtol=0)


@pytest.mark.parametrize("most", [1, 5, 17, 40])
def test_who_leaves_a_batch_has_no_more_sweeps_than_were_allowed(most, monkeypatch):
    C, a, b = large(4)
    leave_at_once(monkeypatch)
    r = so.solve(C, a, b, 0.01, tol=1e-14, max_iter=most, on_fail="ignore")
    assert (r.n_iter <= most).all()
    assert all(torch.isfinite(r.marginal_error))


def test_stopping_a_batch_stops_who_left_it_too(monkeypatch):
    C, a, b = large(4)
    leave_at_once(monkeypatch)
    seen = []

    def told(now):
        seen.append(now.n_iter)
        return len(seen) == 25

    r = so.solve(C, a, b, 0.01, callback=told)
    assert len(seen) == 25
    assert seen == sorted(seen)
    assert set(r.statuses) == {so.Status.STOPPED}


def test_nobody_waits_for_who_is_lost_or_crawls():
    """One without a plan, one so sharp that it crawls: the others take the sweeps they took."""
    C, a, b = large(8)
    a = torch.full_like(a, 1 / 50)
    b = torch.full_like(b, 1 / 53)
    reg = torch.full((8,), 0.5, dtype=torch.float64)
    easy = so.solve(C, a, b, reg)
    reg[2] = 3e-4
    # two rows that share one column, which cannot hold both
    C[5, :2, 1:] = torch.inf
    r = so.solve(C, a, b, reg, on_fail="ignore")
    assert r.converged.tolist() == [True] * 5 + [False] + [True] * 2
    assert r.statuses[5] is so.Status.INFEASIBLE
    assert "1 of 8 problems" in r.message
    others = [0, 1, 3, 4, 6, 7]
    torch.testing.assert_close(r.plan[others], easy.plan[others], atol=1e-8, rtol=0)
    # a batch anneals with its sharpest, or leaves it out
    assert int(r.n_iter[others].max()) <= 2 * int(easy.n_iter.max())


def test_a_batch_of_which_all_are_lost_names_all():
    C, a, b = large(3)
    a, b = torch.full_like(a, 1 / 50), torch.full_like(b, 1 / 53)
    C[:, :2, 1:] = torch.inf
    r = so.solve(C, a, b, 0.1, on_fail="ignore")
    assert set(r.statuses) == {so.Status.INFEASIBLE}
    assert "3 of 3 problems" in r.message


@pytest.mark.parametrize("rho", [0.5, (0.5, None)])
def test_relaxed_batches_are_their_loops(rho):
    C, a, b = large(4, zeros=True)
    r = so.solve(C[0], a, b, 0.01, unbalanced=rho, tol=1e-10)
    assert r.converged.all()
    for k in range(4):
        one = so.solve(C[0], a[k], b[k], 0.01, unbalanced=rho, tol=1e-10)
        torch.testing.assert_close(r.plan[k], one.plan, atol=1e-8, rtol=0)


def test_a_batch_goes_on_from_a_result():
    C, a, b = large(4)
    first = so.solve(C, a, b, 0.02, tol=1e-10)
    again = so.solve(C, a, b, 0.02, tol=1e-10, init=first)
    assert int(again.n_iter.max()) <= 3
    torch.testing.assert_close(again.plan, first.plan, atol=1e-9, rtol=0)


def test_problems_that_go_alone_hand_on_the_memory_of_their_kernels(monkeypatch):
    from sinkhorn_ot.solvers import automatic

    alone, ends = automatic._alone, []

    def noted(*args):
        ends.append(alone(*args))
        return ends[-1]

    monkeypatch.setattr(automatic, "_alone", noted)
    C = torch.rand(3, 300, 300, dtype=torch.float64)
    assert bool(so.solve(C, reg=0.1).converged.all())
    assert len(ends) == 3
    assert all(end.scaled is None for end, _ in ends)
