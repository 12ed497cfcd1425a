"""Annealing hands potentials on in units of cost, whatever reg they were found at."""

from dataclasses import dataclass, field

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.problem import make
from sinkhorn_ot.sweeps.reference import Reference


@dataclass(frozen=True)
class Watched:
    """Plain steps, and where each stage began and was heading, as g = psi reg."""

    stages: list = field(default_factory=list)

    def start(self, weight):
        self.stages.append([])
        return self

    def __call__(self, at):
        reg, nxt = at.sweep.problem.reg, at.psi + at.residual
        self.stages[-1].append((float(reg), at.psi * reg, nxt * reg))
        return nxt

    def select(self, index):
        return self


def test_a_stage_begins_where_the_one_before_ended():
    p, watched = testing.random(20, 15, 0.01), Watched()
    sweep = Reference(make(p.cost, p.a, p.b, p.reg))
    method = so.Sinkhorn(watched, so.Anneal(start=1.0, factor=3.0, tol=1e-3))
    method(sweep, tol=1e-6, max_iter=1000)
    assert len(watched.stages) == 5
    for before, after in zip(watched.stages, watched.stages[1:], strict=False):
        assert before[0][0] == pytest.approx(3 * after[0][0])
        torch.testing.assert_close(after[0][1], before[-1][2], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("follow", [1, 2])
def test_a_stage_begins_where_the_path_of_those_before_leads(follow):
    """A polynomial in reg through the last potentials, in units of the cost."""
    p, watched = testing.random(20, 15, 0.01), Watched()
    sweep = Reference(make(p.cost, p.a, p.b, p.reg))
    method = so.Sinkhorn(watched, so.Anneal(start=1.0, factor=3.0, tol=1e-3, follow=follow))
    method(sweep, tol=1e-6, max_iter=1000)
    reached = [(stage[-1][0], stage[-1][2]) for stage in watched.stages]
    for k in range(1, 5):
        (reg, begun, _), before = watched.stages[k][0], reached[:k][-1 - follow :]
        degree = len(before) - 1
        powers = torch.tensor([[float(r) ** d for d in range(degree + 1)] for r, _ in before])
        ends = torch.cat([g for _, g in before])
        through = torch.linalg.solve(powers.double(), ends)
        there = torch.tensor([float(reg) ** d for d in range(degree + 1)]).double()
        torch.testing.assert_close(begun[0], there @ through, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("follow", [0, 2])
@pytest.mark.parametrize("stop", [2, 4])
def test_stopped_in_a_stage_the_potentials_are_that_stages(stop, follow):
    p = testing.random(20, 15, 0.01)
    method = so.Sinkhorn(so.Plain(), so.Anneal(start=0.1, factor=3.0, tol=1e-9, follow=follow))
    sweep, factor = Reference(make(p.cost, p.a, p.b, p.reg)), 9.0
    told = []

    def callback(at):
        told.append(at)
        return at.n_iter == stop

    found = method(sweep, tol=1e-9, max_iter=1000, callback=callback)
    assert [at.reg_factor for at in told] == [factor] * stop
    assert found.status == [so.Status.STOPPED]
    g, larger = torch.zeros_like(p.b), factor * p.reg
    for _ in range(stop - 1):
        f = -larger * torch.logsumexp((g - p.cost) / larger + p.b.log(), 1)
        g = -larger * torch.logsumexp((f[:, None] - p.cost) / larger + p.a.log()[:, None], 0)
    reached = (found.v[0] - p.b.log()) * p.reg
    torch.testing.assert_close(reached, g, rtol=0, atol=1e-12)


def test_what_crawled_goes_on_by_the_slow_schedule():
    """From where the stage ended, by steps of the second kind."""
    p, first, second = testing.random(20, 15, 0.01), Watched(), Watched()
    sweep = Reference(make(p.cost, p.a, p.b, p.reg))
    switch = so.Switch(first, second, window=2, fall=1e9)
    quick, slow = (
        so.Anneal(start=1.0, factor=8.0, tol=1e-9, follow=0),
        so.Anneal(factor=2.0, tol=1e-9),
    )
    so.Sinkhorn(switch, quick, slow=slow)(sweep, tol=1e-10, max_iter=5000)
    regs = [stage[0][0] for stage in second.stages]
    assert len(first.stages) == 1
    assert regs[0] == first.stages[0][0][0] > 4 * float(p.reg)
    for larger, reg in zip(regs, regs[1:], strict=False):
        assert larger == pytest.approx(2 * reg)
    assert regs[-1] == pytest.approx(float(p.reg))


@pytest.mark.parametrize("max_iter", [1, 2, 3, 5, 8, 13])
def test_no_schedule_takes_more_sweeps_than_allowed(max_iter):
    p = testing.random(20, 15, 0.001)
    method = so.Sinkhorn(
        so.Switch(so.Plain(), so.Plain(), window=2, fall=1e9),
        so.Anneal(start=1.0, factor=8.0, tol=1e-9),
        slow=so.Anneal(factor=2.0, tol=1e-9),
    )
    told = []
    r = so.solve(
        p.cost, p.a, p.b, p.reg, method=method, max_iter=max_iter, on_fail="ignore",
        callback=lambda at: told.append(at),
    )  # fmt: skip
    assert int(r.n_iter) == max_iter == len(told)
    assert told[-1].reg_factor == 1
    # few sweeps are not spread over all halvings
    assert sum(at.reg_factor == 1 for at in told) >= (3 if max_iter == 13 else 1)
