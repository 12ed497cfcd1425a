"""The judge is judged: closed forms that it must reproduce."""

import math

import pytest
import torch

from sinkhorn_ot import testing


@pytest.mark.parametrize(
    ("known", "rho"),
    [
        (testing.permutation(), (math.inf, math.inf)),
        (testing.two_points(), (math.inf, math.inf)),
        (testing.two_points(distance=3.0, reg=0.1), (math.inf, math.inf)),
        (testing.gaussians(), (math.inf, math.inf)),
        (testing.free_columns(), (math.inf, 0.0)),
    ],
    ids=["permutation", "two points", "two far points", "gaussians", "free columns"],
)
def test_the_judge_knows_the_closed_forms(known, rho):
    got = testing.judge(known.cost, known.a, known.b, known.reg, rho)
    # the Gaussians are cut off at seven deviations
    assert float((got.plan - known.plan).abs().sum()) < 1e-11
    assert got.value == pytest.approx(known.value, abs=1e-10)


@pytest.mark.parametrize("reg", [1e-3, 1e-1, 10.0])
@pytest.mark.parametrize("rho", [(math.inf, math.inf), (0.5, math.inf), (0.3, 1.0), (0.0, 0.2)])
def test_the_judge_is_stationary(reg, rho):
    """No small step in any direction that keeps the exact marginals lowers the objective."""
    p = testing.random(9, 13, reg, zeros=True, seed=1)
    got = testing.judge(p.cost, p.a, p.b, reg, rho)
    P, C, a, b = (t.numpy() for t in (got.plan, p.cost, p.a, p.b))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        D = torch.randn(9, 13, generator=generator, dtype=torch.float64) * got.plan.sqrt()
        D *= got.plan > 1e-8
        if math.isinf(rho[0]):
            D -= got.plan * (D.sum(1) / got.plan.sum(1).clamp(min=1e-300))[:, None]
        if math.isinf(rho[1]):
            D = _centred(D, got.plan)
        step = 1e-4 * (got.plan[D != 0] / D[D != 0].abs()).amin() * D
        assert testing.objective(P + step.numpy(), C, a, b, reg, rho) >= got.value - 1e-12


def _centred(D: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
    """Take out of D, by least squares in the metric of P, what moves the marginals."""
    n, m = P.shape
    rows = torch.kron(torch.eye(n), torch.ones(1, m)).double()
    columns = torch.kron(torch.ones(1, n), torch.eye(m)).double()
    A = torch.cat([rows, columns])
    W = P.reshape(-1)
    x = torch.linalg.lstsq(A * W @ A.T, A @ D.reshape(-1), driver="gelsd").solution
    return D - (W * (A.T @ x)).reshape(n, m)


def test_line_is_feasible_and_monotone():
    known = testing.line()
    torch.testing.assert_close(known.plan.sum(1), known.a)
    torch.testing.assert_close(known.plan.sum(0), known.b)
    used = known.plan > 1e-12
    first = [int(row.nonzero()[0]) for row in used]
    last = [int(row.nonzero()[-1]) for row in used]
    assert all(low <= high for high, low in zip(first[1:], last, strict=False))


@pytest.mark.parametrize("zeros", [False, True])
def test_random_problems_are_problems(zeros):
    p = testing.random(40, 50, zeros=zeros)
    assert float(p.a.sum()) == pytest.approx(1)
    assert float(p.b.sum()) == pytest.approx(1)
    assert bool((p.a == 0).any()) is zeros


def test_the_judge_says_when_it_errs():
    C = torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    C[:2, 1:] = math.inf
    with pytest.raises(ArithmeticError, match="missed the conditions of optimality by 0.6"):
        testing.judge(C, testing.uniform(3), testing.uniform(3), 0.1)
