"""Every way to step finds the same solution; the clever ones sooner, and none is lost."""

import math
from dataclasses import dataclass

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing


STEPS = [
    so.Plain(),
    so.Nesterov(),
    so.Anderson(),
    so.Anderson(memory=1),
    so.Anderson(memory=40, growth=1.1, wait=1, begin=10.0),
    so.Newton(),
    so.Newton(direct=0),
    so.Newton(damping=1.0),
]


def run(p: testing.Random, acceleration, tol=1e-11, **options) -> so.Transport:
    method = so.Sinkhorn(acceleration, **options)
    return so.solve(p.cost, p.a, p.b, p.reg, method=method, tol=tol, max_iter=200_000)


@pytest.mark.parametrize("acceleration", STEPS, ids=str)
@pytest.mark.parametrize("anneal", [None, so.Anneal(), so.Anneal(start=1.0, factor=10.0)], ids=str)
@pytest.mark.parametrize("zeros", [False, True])
def test_every_acceleration_finds_the_solution(acceleration, anneal, zeros):
    p = testing.random(14, 11, 0.03, zeros=zeros)
    truth = testing.judge(p.cost, p.a, p.b, p.reg)
    r = run(p, acceleration, anneal=anneal)
    assert r.converged
    assert float((r.plan - truth.plan).abs().sum()) < 1e-9
    assert float(r.value) == pytest.approx(truth.value, abs=1e-10)


@pytest.mark.parametrize("acceleration", [so.Nesterov(), so.Anderson(), so.Newton()], ids=str)
def test_acceleration_pays(acceleration):
    p = testing.random(60, 50, 0.01)
    assert int(run(p, acceleration).n_iter) < 0.5 * int(run(p, so.Plain()).n_iter)


@pytest.mark.parametrize(("n", "m", "reg"), [(60, 50, 0.01), (14, 11, 0.03)])
def test_extrapolation_pays_beside_its_own_fallback(n, m, reg):
    p = testing.random(n, m, reg)
    assert int(run(p, so.Anderson()).n_iter) < 0.7 * int(run(p, so.Nesterov()).n_iter)


@pytest.mark.slow(2)
@pytest.mark.parametrize("acceleration", [so.Nesterov(), so.Anderson(), so.Newton()], ids=str)
def test_small_sharp_problems_are_not_lost(acceleration):
    """Few columns, reg 1e-3 of the costs: the error is flat for long, and steps overshoot."""
    for seed in range(25):
        n, m = 3 + seed % 17, 2 + seed % 7
        p = testing.random(n, m, 2e-3, zeros=seed % 3 == 0, seed=seed)
        assert run(p, acceleration, tol=1e-9, patience=100_000).converged


@pytest.mark.parametrize("acceleration", STEPS, ids=str)
def test_problems_of_a_batch_do_not_see_each_other(acceleration):
    drawn = [testing.random(9, 7, seed=k) for k in range(5)]
    C, a, b = (torch.stack([getattr(p, name) for p in drawn]) for name in ("cost", "a", "b"))
    reg = torch.tensor([5.0, 0.02, 0.3, 0.05, 1.0], dtype=torch.float64)
    method = so.Sinkhorn(acceleration)
    r = so.solve(C, a, b, reg, method=method, tol=1e-11, max_iter=100_000)
    assert r.converged.all()
    for k, p in enumerate(drawn):
        truth = testing.judge(p.cost, p.a, p.b, float(reg[k]))
        assert float((r.plan[k] - truth.plan).abs().sum()) < 1e-9


def test_the_stages_of_annealing_are_data():
    stages = so.Anneal(start=0.05, factor=4.0).stages(spread=1.0, reg=1e-3)
    assert stages[-1] == 1.0
    assert stages == sorted(stages, reverse=True)
    assert all(high == 4 * low for high, low in zip(stages, stages[1:], strict=False))
    assert so.Anneal().stages(spread=1.0, reg=10.0) == [1.0]
    assert so.Anneal().stages(spread=0.0, reg=1e-3) == [1.0]


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 30])
def test_sweeps_never_pass_their_limit(most):
    p = testing.random(30, 20, 1e-3)
    for name in ("sinkhorn", "newton"):
        told = []
        r = so.solve(
            p.cost, p.a, p.b, p.reg, method=name, max_iter=most, tol=1e-15, on_fail="ignore",
            callback=lambda at, told=told: told.append(at.n_iter),
        )  # fmt: skip
        assert int(r.n_iter) == told[-1] == most
        assert told == list(range(1, most + 1))
        assert r.status is so.Status.MAX_ITER


@pytest.mark.slow(1)
def test_a_tolerance_out_of_reach_is_a_stall():
    p = testing.random(30, 20, 0.01)
    with pytest.warns(so.ConvergenceWarning, match="stopped falling"):
        r = so.solve(p.cost, p.a, p.b, p.reg, tol=1e-18)
    assert r.status is so.Status.STALLED
    assert float(r.marginal_error) < 1e-13
    assert not r.converged


def test_a_fixed_number_of_steps_made_at_once():
    p = testing.random(30, 40, 0.1)
    P = p.a[:, None] * p.b[None, :] * torch.exp(-p.cost / 0.1)
    for _ in range(7):
        P = P * (p.a / P.sum(1))[:, None]
        P = P * (p.b / P.sum(0))[None, :]
    torch.testing.assert_close(
        so.solve(p.cost, p.a, p.b, 0.1, n_iter=7).plan, P, atol=1e-14, rtol=0
    )


@pytest.mark.parametrize(
    ("far", "dtype"), [(3.0, torch.float64), (200.0, torch.float64), (3.0, torch.float32)]
)
def test_a_fixed_number_of_steps_from_far_away(far, dtype):
    """Potentials that no kernel holds: the log domain does."""
    p = testing.random(30, 40, 0.1)
    C = p.cost.to(dtype)
    g = far * torch.randn(40, generator=torch.Generator().manual_seed(1)).double()
    v = g / 0.1 + p.b.log()
    s = -C.double() / 0.1
    for _ in range(5):
        u = p.a.log() - torch.logsumexp(s + v, 1)
        v = p.b.log() - torch.logsumexp(s + u[:, None], 0)
    r = so.solve(C, p.a, p.b, 0.1, n_iter=5, init=(None, g))
    plan = (s + u[:, None] + v).exp()
    # single precision keeps seven digits of the kernel
    atol = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(r.plan.double(), plan, atol=atol, rtol=0)


@pytest.mark.parametrize("mass", [1e-17, 1e17])
@pytest.mark.parametrize("options", [{}, {"n_iter": 30}, {"method": "sinkhorn"}], ids=str)
def test_single_precision_takes_masses_whose_products_it_holds(mass, options):
    """A plan scales with its masses, also where the kernel's products could not."""
    p = testing.random(30, 40, 0.1)
    C = p.cost.float()
    one = so.solve(C, p.a, p.b, 0.1, **options)
    r = so.solve(C, mass * p.a, mass * p.b, 0.1, **options)
    assert r.converged.all() or "n_iter" in options
    # in double precision: the plan itself is given back in single
    u, v = r.coupling.u[0] - math.log(mass), r.coupling.v[0]
    plan = (u[:, None] + v - C.double() / 0.1).exp()
    torch.testing.assert_close(plan, one.plan.double(), atol=1e-7, rtol=0)
    torch.testing.assert_close(r.plan / mass, one.plan, atol=1e-7, rtol=0)
    assert torch.isfinite(r.value)


@pytest.mark.slow(1)
@pytest.mark.parametrize(("n", "m"), [(5, 2), (5, 3), (40, 3), (7, 4), (9, 9)])
@pytest.mark.parametrize("acceleration", [so.Anderson(), so.Switch()])
def test_few_columns_do_not_run_away(n, m, acceleration):
    """With fewer columns than differences a combination is free to add any constant."""
    drawn = [testing.random(n, m, seed=seed, zeros=seed % 2 == 0) for seed in range(60)]
    C, a, b = (torch.stack([getattr(p, name) for p in drawn]) for name in ("cost", "a", "b"))
    method = so.Sinkhorn(acceleration, anneal=None)
    for reg in (0.3, 0.03, 0.003):
        r = so.solve(C, a, b, reg, method=method, tol=1e-10)
        assert r.converged.all()
        assert float(r.g.abs().max()) < 1e3
        off = (r.plan.sum(2) - a).abs().sum(1) + (r.plan.sum(1) - b).abs().sum(1)
        assert float(off.max()) < 2e-10


def test_parts_that_nothing_joins_do_not_run_away():
    """Two problems in one matrix have two free constants."""
    p, q = testing.random(4, 3, seed=1), testing.random(5, 2, seed=2)
    C = torch.full((9, 5), torch.inf, dtype=torch.float64)
    C[:4, :3], C[4:, 3:] = p.cost, q.cost
    a, b = torch.cat([p.a, q.a]) / 2, torch.cat([p.b, q.b]) / 2
    r = so.solve(C, a, b, 0.05, method=so.Sinkhorn(so.Anderson(), anneal=None), tol=1e-10)
    assert r.converged
    torch.testing.assert_close(2 * r.plan[:4, :3], so.solve(p.cost, p.a, p.b, 0.05, tol=1e-12).plan)
    assert float(r.g.abs().max()) < 1e6


@dataclass(frozen=True)
class Picky:
    """A user's acceleration that says what it needs."""

    needs_exact: bool

    def start(self, weight):
        return so.Plain().start(weight)


@pytest.mark.parametrize(
    ("acceleration", "name"),
    [
        (so.Newton(), "newton"),
        (so.Switch(), "anderson, newton where it crawls"),
        (so.Switch(so.Plain(), Picky(True)), "anderson, newton where it crawls"),
        (Picky(True), "picky"),
    ],
    ids=str,
)
def test_an_acceleration_says_that_it_needs_exact_marginals(acceleration, name):
    message = rf"method '{name}' needs exact marginals, got unbalanced=\(inf, 1.0\)"
    C, method = torch.rand(4, 5), so.Sinkhorn(acceleration)
    with pytest.raises(ValueError, match=message):
        so.solve(C, reg=0.1, unbalanced=(None, 1.0), method=method)


@pytest.mark.parametrize("acceleration", [so.Nesterov(), Picky(False)], ids=str)
def test_an_acceleration_that_needs_nothing_serves_relaxed_marginals(acceleration):
    C = torch.rand(4, 5, dtype=torch.float64)
    assert so.solve(C, reg=0.1, unbalanced=1.0, method=so.Sinkhorn(acceleration)).converged
