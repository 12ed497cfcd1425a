"""Whether forbidden pairs leave a plan, beside a linear program, and proofs that there is none."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import sinkhorn_ot as so
from sinkhorn_ot.exact.hall import stranded


def carried(allowed, a, b):
    """The most mass that allowed pairs can carry, by a linear program."""
    i, j = np.nonzero(allowed)
    A = np.zeros((len(a) + len(b), len(i)))
    A[i, np.arange(len(i))] = 1
    A[len(a) + j, np.arange(len(i))] = 1
    return -linprog(-np.ones(len(i)), A_ub=A, b_ub=np.r_[a, b]).fun if len(i) else 0.0


@pytest.mark.parametrize("share", [0.15, 0.3, 0.5])
def test_is_the_linear_program_and_proves_what_it_says(share):
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(40):
        n, m = rng.integers(2, 12, 2)
        allowed = rng.random((n, m)) < share
        a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
        why = stranded(allowed, a, b)
        assert (why is None) == (carried(allowed, a, b) > 1 - 1e-6)
        seen.append(why is None)
        if why is not None:
            assert set(np.flatnonzero(allowed[why.rows].any(0))) <= set(why.columns)
            assert why.held == pytest.approx(a[why.rows].sum())
            assert why.taken == pytest.approx(b[why.columns].sum())
            assert why.held > why.taken
    assert share == 0.3 or len(set(seen)) >= 1


def blocked(n=4, m=9, seed=0):
    """Costs of which the first two rows may use column 3 alone."""
    C = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    C[:2] = math.inf
    C[:2, 3] = 0.5
    return C


@pytest.mark.parametrize("method", ["auto", "sinkhorn", "newton"])
def test_a_solve_without_a_plan_says_so_at_once(method):
    with pytest.warns(so.ConvergenceWarning, match=r"No plan exists.*Rows \[0, 1\] hold 0\.5"):
        r = so.solve(blocked(), reg=0.1, method=method)
    assert r.status is so.Status.INFEASIBLE
    assert int(r.n_iter) <= 20
    with pytest.raises(so.ConvergenceError, match="No plan exists"):
        so.solve(blocked(), reg=0.1, method=method, on_fail="raise")


def test_who_is_named_is_who_the_caller_knows():
    """Also where the problem was turned round, or solved among its points with weight."""
    wide = blocked(4, 30)
    with pytest.warns(so.ConvergenceWarning, match="No plan exists"):
        why = so.solve(wide, reg=0.1).notes[0]
    held, taken = (set(map(int, t)) for t in (why.rows, why.columns))
    C, allowed = ("rows", "columns"), wide.isfinite().numpy()
    allowed = allowed if why.kinds == C else allowed.T
    assert {int(j) for j in np.flatnonzero(allowed[sorted(held)].any(0))} <= taken
    assert len(held) / len(allowed) > len(taken) / len(allowed.T)
    C, a = blocked(6, 9), torch.tensor([0.0, 0.3, 0.3, 0.2, 0.1, 0.1], dtype=torch.float64)
    C = torch.cat([torch.zeros(1, 9, dtype=torch.float64), C[:5]])
    C[0] = 0
    b = torch.tensor([0, 0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1], dtype=torch.float64)
    with pytest.warns(so.ConvergenceWarning, match=r"Rows \[1, 2\] .*\[3\], take only 0\.1"):
        so.solve(C, a, b, reg=0.1)


def test_in_a_batch_the_others_are_solved():
    C = torch.stack([blocked(), blocked().nan_to_num(posinf=1.0)])
    with pytest.warns(
        so.ConvergenceWarning, match="1 of 2 problems did not converge. No plan exists"
    ):
        r = so.solve(C, reg=0.1)
    assert r.statuses == [so.Status.INFEASIBLE, so.Status.CONVERGED]


@pytest.mark.parametrize("method", ["newton", "sinkhorn"])
@pytest.mark.parametrize("options", [{}, {"max_iter": 30}], ids=str)
def test_whoever_solves_a_batch_says_it(method, options):
    C = torch.stack([blocked(), blocked().nan_to_num(posinf=1.0)])
    r = so.solve(C, reg=0.1, method=method, on_fail="ignore", **options)
    assert r.statuses == [so.Status.INFEASIBLE, so.Status.CONVERGED]


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn"])
def test_what_is_stranded_within_tol_is_no_matter(method):
    """Two blocks whose masses differ by 1e-4: no exact plan, and many within a tol of 1e-2."""
    inf = math.inf
    C = torch.tensor(
        [[0.1, 0.2, inf, inf], [0.3, 0.1, inf, inf], [inf, inf, 0.2, 0.4], [inf, inf, 0.1, 0.3]]
    )
    b = torch.tensor([0.2501, 0.25, 0.2499, 0.25], dtype=torch.float64)
    r = so.solve(C.double(), None, b, reg=0.1, tol=1e-2, method=method)
    assert r.converged
    told = so.solve(C.double(), None, b, reg=0.1, tol=1e-2, callback=lambda p: None)
    assert told.converged


def test_without_a_plan_what_comes_nearest_is_handed_back():
    F = torch.rand(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    F[0, 1:] = math.inf
    found = so.solve(F, reg=0.05, on_fail="ignore")
    assert found.status is so.Status.INFEASIBLE
    assert float(found.marginal_error) < 0.1


def test_columns_of_next_to_no_weight_are_named_too():
    allowed = np.array([[1, 0, 1], [1, 0, 1], [0, 1, 0]], dtype=bool)
    a, b = np.array([0.5, 0.5 - 3e-8, 3e-8]), np.array([1 - 7e-10, 7e-10, 0.0])
    why = stranded(allowed, a, b)
    assert why is not None
    assert why.rows.tolist() == [2]
    assert why.columns.tolist() == [1]
    assert why.held == 3e-8
    assert why.taken == 7e-10
