"""A problem solved whole in one launch: the loop's own iterates, and what may go wrong on the way.

The interpreter runs one program, which meets nobody at a barrier; a card runs as many as it has.
"""

import math
from dataclasses import replace

import pytest
import torch

from sinkhorn_ot.problem import Problem, make
from sinkhorn_ot.results import Solution, Status
from sinkhorn_ot.solvers import Anneal, Sinkhorn
from sinkhorn_ot.solvers.acceleration import Anderson
from sinkhorn_ot.solvers.steps import fixed
from sinkhorn_ot.sweeps import Rules
from sinkhorn_ot.sweeps.reference import Reference


gpu = pytest.importorskip("sinkhorn_ot.sweeps.gpu", reason="triton is not installed")
whole = pytest.importorskip("sinkhorn_ot.kernels.whole")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RULES = Rules(1e-6, 99, 9, 1, 4.0, 0.1, 40, 15, 2.0, 4, 0.1)
FORMATS = {"float64": torch.float64, "float32": torch.float32}


def cloud(n: int, m: int, dtype: torch.dtype) -> torch.Tensor:
    """Squared distances of two clouds in a square, the largest one."""
    x, y = torch.rand(n, 2, dtype=torch.float64), torch.rand(m, 2, dtype=torch.float64)
    C = torch.cdist(x, y).square()
    return (C / C.max()).to(dtype)


def placed(p: Problem, dtype: torch.dtype) -> gpu.DenseKernels:
    """The kernels of a problem as a GPU would see it, in potentials of a dtype."""
    there = replace(
        p, a=p.a.to(DEVICE, dtype), b=p.b.to(DEVICE, dtype), reg=p.reg.to(DEVICE, dtype)
    )
    return gpu.DenseKernels(there, p.cost.C.to(DEVICE))


def off(p: Problem, found: Solution) -> torch.Tensor:
    """The relative error of both marginals in float64."""
    plan = found.u.double().cpu()[:, :, None] + found.v.double().cpu()[:, None, :]
    plan = (plan - p.cost.C.double() / p.reg.double()[:, None, None]).exp()
    error = (plan.sum(2) - p.a).abs().sum(-1) + (plan.sum(1) - p.b).abs().sum(-1)
    return error / p.a.sum(-1)


@pytest.mark.slow(2)
@pytest.mark.parametrize(("n", "m"), [(20, 24), (1, 9), (9, 1), (33, 17)])
@pytest.mark.parametrize("dtype", FORMATS.values(), ids=FORMATS)
def test_it_makes_the_iterates_of_the_loop(n: int, m: int, dtype: torch.dtype) -> None:
    p = make(cloud(n, m, dtype), reg=0.05)
    tol = 1e-9 if dtype == torch.float64 else 1e-5
    want = Sinkhorn()(Reference(p), tol=tol, max_iter=100)
    sweep = placed(p, dtype)
    # one launch and no other
    sweep.sweep = None
    found = Sinkhorn()(sweep, tol=tol, max_iter=100)
    assert found.status == [Status.CONVERGED]
    assert abs(int(found.n_iter) - int(want.n_iter)) <= (0 if dtype == torch.float64 else 1)
    assert float(off(p, found)) <= 2 * tol
    # the potentials are the same, but for a constant
    gap = found.u.cpu().double() - want.u
    torch.testing.assert_close(gap, gap[:, :1].expand_as(gap), atol=100 * tol, rtol=0)


@pytest.mark.slow(3)
def test_large_ones_in_float64_begin_with_single_exponentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = make(cloud(24, 20, torch.float64), reg=0.01)
    want = Sinkhorn()(placed(p, torch.float64), tol=1e-10, max_iter=100)
    monkeypatch.setattr(whole, "LARGE", 0)
    found = Sinkhorn()(placed(p, torch.float64), tol=1e-10, max_iter=100)
    assert found.status == [Status.CONVERGED]
    # the sweep with which single precision ends is made again
    assert 0 < int(found.n_iter) - int(want.n_iter) <= 4
    assert float(off(p, found)) <= 2e-10


@pytest.mark.slow(5)
def test_annealed_it_takes_as_many_sweeps_as_the_loop() -> None:
    p = make(cloud(24, 20, torch.float64), reg=0.002)
    solver = Sinkhorn(Anderson(memory=6), Anneal(start=0.05))
    want = solver(Reference(p), tol=1e-6, max_iter=300)
    found = solver(placed(p, torch.float64), tol=1e-6, max_iter=300)
    assert found.status == want.status == [Status.CONVERGED]
    assert abs(int(found.n_iter) - int(want.n_iter)) <= 5
    assert float(off(p, found)) <= 2e-6


# a batch takes two launches a sweep, one problem a launch in all
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", FORMATS.values(), ids=FORMATS)
def test_fixed_sweeps_are_plain_ones(dtype: torch.dtype, batch: int) -> None:
    C = torch.rand(30, 140, dtype=dtype)
    C[3, 4] = C[:, 7] = math.inf
    a = torch.rand(batch, 30, dtype=torch.float64)
    b = torch.rand(batch, 140, dtype=torch.float64)
    a[:, 6] = b[:, 5] = 0
    p = make(C, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True), 0.1, values=False)
    want, found = fixed(Reference(p), 4), fixed(placed(p, dtype), 4)
    tol = 1e-12 if dtype == torch.float64 else 1e-5
    for got, truth in ((found.u, want.u), (found.v, want.v)):
        assert torch.equal(got.cpu().isinf(), truth.isinf())
        torch.testing.assert_close(got.cpu().double(), truth, atol=tol, rtol=tol)


def test_columns_that_underflow_are_summed_again() -> None:
    C = torch.rand(12, 10)
    C[:, 3] += 200
    p = make(C, reg=1.0)
    found = Sinkhorn()(placed(p, torch.float32), tol=1e-5, max_iter=50)
    assert found.status == [Status.CONVERGED]
    assert float(off(p, found)) <= 2e-5


@pytest.mark.parametrize("large", [1 << 22, 0])
def test_a_start_is_where_it_starts(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "LARGE", large)
    p = make(cloud(15, 12, torch.float64), reg=0.05)
    sweep = placed(p, torch.float64)
    first = Sinkhorn()(sweep, tol=1e-9, max_iter=100)
    again = Sinkhorn()(sweep, tol=1e-8, max_iter=100, v=first.v)
    assert int(again.n_iter) == 1
    assert again.v.equal(first.v)


@pytest.mark.slow(3)
def test_a_batch_is_solved_one_after_another() -> None:
    b = torch.rand(3, 12, dtype=torch.float64)
    p = make(cloud(10, 12, torch.float64), None, b / b.sum(-1, keepdim=True), 0.1)
    found = Sinkhorn()(placed(p, torch.float64), tol=1e-8, max_iter=100)
    assert found.status == [Status.CONVERGED] * 3
    assert (off(p, found) <= 2e-8).all()


@pytest.mark.parametrize(
    ("solver", "max_iter", "status"),
    [
        (Sinkhorn(), 3, Status.MAX_ITER),
        # in float32 no sweep comes nearer than rounding
        (Sinkhorn(patience=4), 200, Status.STALLED),
    ],
)
def test_it_says_how_it_ended(solver: Sinkhorn, max_iter: int, status: Status) -> None:
    p = make(cloud(12, 10, torch.float32), reg=0.1)
    found = solver(placed(p, torch.float32), tol=1e-12, max_iter=max_iter)
    assert found.status == [status]
    assert int(found.n_iter) <= max_iter
    # its own word for the error is the truth
    assert float(found.error) == pytest.approx(float(off(p, found)), rel=0.5, abs=1e-6)


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_what_is_no_number_is_left_to_the_loop() -> None:
    C = cloud(8, 9, torch.float64)
    p = make(C, reg=0.1)
    p.cost.C[0, 2, 3] = math.nan
    found = Sinkhorn()(placed(p, torch.float64), tol=1e-6, max_iter=50)
    assert found.status == [Status.NOT_FINITE]


def test_costs_that_lie_in_columns_are_solved_too() -> None:
    # a batch of one is not taken for a plain problem, whose costs are copied
    p = make(cloud(12, 9, torch.float64).mT.contiguous().mT[None], reg=0.1)
    assert not p.cost.C.is_contiguous()
    found = Sinkhorn()(placed(p, torch.float64), tol=1e-8, max_iter=100)
    assert found.status == [Status.CONVERGED]
    assert float(off(p, found)) <= 2e-8


def test_rows_too_long_are_left_to_sweeps() -> None:
    p = make(torch.rand(2, 40_000), reg=0.3)
    assert placed(p, torch.float32).annealed(RULES, None) is None


def test_many_small_ones_are_swept_together() -> None:
    p = make(torch.rand(17, 5, 4, dtype=torch.float64), reg=0.3)
    assert placed(p, torch.float64).annealed(RULES, None) is None
    found = Sinkhorn(check_every=1)(placed(p, torch.float64), tol=1e-8, max_iter=100)
    assert found.status == [Status.CONVERGED] * 17
    assert (off(p, found) <= 2e-8).all()


def test_more_memory_than_a_launch_has_is_left_to_the_loop() -> None:
    p = make(torch.rand(6, 5, dtype=torch.float64), reg=0.3)
    sweep = placed(p, torch.float64)
    assert sweep.annealed(replace(RULES, memory=16), None) is None
    assert sweep.moves(memory=16, growth=2.0, wait=4, begin=0.1) is None
    found = Sinkhorn(Anderson(memory=16), check_every=1)(sweep, tol=1e-8, max_iter=100)
    assert found.status == [Status.CONVERGED]
