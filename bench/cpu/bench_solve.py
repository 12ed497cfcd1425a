"""Single cases under pytest-benchmark: `python -m pytest bench/cpu/bench_solve.py`.

Every benchmark checks its answer outside the clock: nothing is timed that is not solved.
"""

import pytest
import torch

import sinkhorn_ot as so
from bench.cpu.cases import Problem, dense, digit_histograms
from bench.cpu.judge import judged
from bench.cpu.measure import marginal_error
from bench.peers import ALL


KINDS = ("points", "random", "mixtures", "euclidean")
# one of each package; the grid has them all
PEERS = ("sinkhorn_ot", "POT", "OTT momentum", "MDOT-TNT", "RegOT SSNS")


@pytest.fixture(autouse=True)
def _one_core() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("reg", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("kind", KINDS)
def test_dense_to_1e_6(benchmark, kind: str, reg: float, name: str) -> None:
    if not ALL[name].installed:
        pytest.skip(f"{ALL[name].package} is not installed")
    case = Problem(kind, 1000, reg).case()
    prepare = ALL[name].load(case, reg)
    for stop in ALL[name].stops(1e-6):
        run = prepare(stop)
        if judged(case, reg, run().plan, None)[0] <= 1e-6:
            benchmark.pedantic(run, rounds=3)
            return
    pytest.fail("does not get there")


@pytest.mark.parametrize("reg", [1e-1, 1e-2])
def test_a_thousand_digits_to_1e_6(benchmark, reg: float) -> None:
    case = digit_histograms(1000)
    r = benchmark(so.solve, case.C, case.a, case.b, reg, tol=0.9e-6)
    assert marginal_error(r.plan, case.a, case.b) <= 1e-6


def test_a_small_solve(benchmark) -> None:
    case = dense("points", 30)
    r = benchmark(so.solve, case.C, case.a, case.b, 0.05)
    assert marginal_error(r.plan, case.a, case.b) <= 1e-8


def test_points_without_a_matrix(benchmark) -> None:
    x, y = torch.rand(2, 5000, 3, dtype=torch.float64)
    r = benchmark.pedantic(
        so.solve, (so.PointCloud(x, y),), {"reg": 0.1, "tol": 1e-6}, rounds=3, warmup_rounds=0
    )
    assert bool(r.converged)


def test_exact(benchmark) -> None:
    case = dense("points", 1000)
    r = benchmark.pedantic(so.solve_exact, (case.C, case.a, case.b), rounds=3)
    assert r.status is so.Status.OPTIMAL


def test_swav_codes_4096x3000(benchmark) -> None:
    scores = torch.nn.functional.normalize(torch.randn(4096, 128), dim=1)
    scores = scores @ torch.nn.functional.normalize(torch.randn(3000, 128), dim=1).T
    codes = benchmark.pedantic(so.swav_codes, (scores,), rounds=5, warmup_rounds=1)
    torch.testing.assert_close(codes.sum(-1), torch.ones(4096))
