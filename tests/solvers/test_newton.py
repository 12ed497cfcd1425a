"""The linear algebra of Newton's steps, beside dense solutions; how they go on; when they begin."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from scipy import sparse

import sinkhorn_ot as so
from sinkhorn_ot.problem import make
from sinkhorn_ot.solvers import NEWTON, Iterate, by_diagonal, conjugate_gradients
from sinkhorn_ot.solvers.newton import factorised, solve_laplacian, solve_sparse
from sinkhorn_ot.sweeps.reference import Reference


def test_conjugate_gradients_of_a_batch_stop_each_by_itself():
    """One problem is solved before it begins, and one in a single step: the third goes on."""
    R = torch.randn(3, 8, 8, dtype=torch.float64)
    M = R @ R.mT + torch.eye(8, dtype=torch.float64)
    M[1] = torch.diag(torch.arange(1.0, 9.0))
    right = torch.randn(3, 8, dtype=torch.float64)
    right[0] = 0
    target = torch.full((3,), 1e-12, dtype=torch.float64)
    most = torch.tensor([60, 60, 60])
    divide = by_diagonal(M.diagonal(dim1=1, dim2=2))
    x, arrived = conjugate_gradients(
        lambda y: (M @ y[:, :, None])[:, :, 0], divide, right, target, most
    )
    assert arrived.all()
    assert (x[0] == 0).all()
    torch.testing.assert_close(x, torch.linalg.solve(M, right), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["joined", "in parts", "without weight"])
def test_a_sparse_system_is_solved_as_a_dense_one(kind):
    """Whatever holds its parts together."""
    P = sparse.random_array((60, 40), density=0.1, rng=0)
    if kind == "joined":
        P = P + sparse.eye_array(60, 40) + sparse.eye_array(60, 40, k=1)
    else:
        # three columns are alone, and each half
        P = sparse.block_diag([P, P, sparse.eye_array(3)])
    W, b = (P.T @ P).tocsc(), torch.rand(P.shape[1], dtype=torch.float64) + 0.1
    lone = torch.from_numpy(W.sum(0) == W.diagonal())
    right = torch.rand(P.shape[1], dtype=torch.float64)
    if kind == "without weight":
        b[lone] = right[lone] = 0
    right -= b * (right.sum() / b.sum())
    joined = 1e-3 * b
    factor = factorised(torch.from_numpy(W.toarray())[None], joined[None])
    want = solve_laplacian(factor, right[None], b[None])[0]
    torch.testing.assert_close(solve_sparse(W, joined, right, b), want, rtol=1e-10, atol=1e-10)
    assert bool(lone.any()) == (kind != "joined")


def test_a_sparse_system_without_a_solution_has_none():
    W = sparse.csc_array([[0.0, math.nan], [math.nan, 0.0]])
    one = torch.ones(2, dtype=torch.float64)
    assert solve_sparse(W, 0 * one, one, one).isnan().all()
    # what rounding makes of a joint may be none
    W = sparse.csc_array([[0.0, 1.0], [1.0, 0.0]])
    assert not torch.isfinite(
        solve_sparse(W, 0 * one, torch.tensor([1.0, -1.0]).double(), one)
    ).any()


def city_block(side, reg):
    """Return a problem whose plan nearly falls into parts: distances tie on a grid of pixels."""
    at = torch.cartesian_prod(*[torch.arange(float(side), dtype=torch.float64)] * 2)
    C = torch.cdist(at, at, p=1)
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, side * side, generator=g, dtype=torch.float64) + 1e-2
    return make(C / C.max(), a / a.sum(), b / b.sum(), reg)


@pytest.mark.parametrize("direct", [0, 1000], ids=["products", "factors"])
@pytest.mark.parametrize("reg", [1e-3, 1e-4])
def test_costs_that_tie_are_solved_in_few_steps(reg, direct):
    """Undamped directions go far along what joins the parts, and most of them are taken back."""
    p = city_block(12, reg)
    method = replace(NEWTON, acceleration=so.Newton(direct=direct))
    found = method(Reference(p), tol=1e-9, max_iter=1000)
    assert found.status == [so.Status.CONVERGED]
    stages = len(NEWTON.anneal.stages(float(p.bounds.high - p.bounds.low), reg))
    assert int(found.n_iter) <= 12 + 5 * stages


def test_a_factor_serves_later_steps():
    """What conjugate gradients do not solve is factorised once, and few products follow."""
    p = city_block(12, 1e-4)
    made = {"curve": 0, "curve_product": 0}

    class Counted(Reference):
        def curve(self, u, v):
            made["curve"] += 1
            return super().curve(u, v)

        def curve_product(self, u, v):
            made["curve_product"] += 1
            W = super().curve(u, v)
            return lambda x: (W @ x[:, :, None])[:, :, 0]

        def at(self, reg):
            return Counted(self.problem.at(reg))

    method = replace(NEWTON, acceleration=so.Newton(direct=0))
    found = method(Counted(p), tol=1e-9, max_iter=1000)
    assert found.status == [so.Status.CONVERGED]
    assert 0 < made["curve"] <= made["curve_product"] / 3


@dataclass
class Named:
    """Steps that say who made them."""

    name: float

    def start(self, weight):
        return self

    def __call__(self, at):
        return torch.full_like(at.psi, self.name)

    def select(self, index):
        return self


def switched_at(errors, **options):
    """Return the step, from 1 on, that is the first of the second kind; 0 if none is."""
    weight = torch.ones(len(errors[0]), 3, dtype=torch.float64)
    steps = so.Switch(Named(1.0), Named(2.0), **options).start(weight)
    sweep = Reference(make(torch.zeros(3, 3, dtype=torch.float64), reg=1.0))
    made = [
        float(steps(Iterate(weight, weight, torch.tensor(e).double(), weight, sweep)).amax())
        for e in errors
    ]
    assert made == sorted(made)
    return made.index(2.0) + 1 if 2.0 in made else 0


def test_steps_change_where_the_least_error_falls_too_little_over_a_window():
    flat, falling = [[0.5]] * 20, [[0.5**k] for k in range(20)]
    # the first window has nothing before it
    assert switched_at(flat, window=4, fall=10.0) == 8
    assert switched_at(falling, window=4, fall=10.0) == 0
    assert switched_at(falling, window=4, fall=17.0) == 8
    # an error that swings is as good as the least that it has been
    assert switched_at([[e * 3.0 ** (k % 2)] for k, [e] in enumerate(falling)], window=4) == 0
    assert switched_at([[0.5**k] if k < 7 else [0.5**7] for k in range(20)], window=4) == 12
    # one problem that crawls is enough
    assert switched_at([[e, 0.5] for [e] in falling], window=4) == 8


def test_what_crawls_at_one_reg_begins_the_next_by_the_second_kind():
    weight = torch.ones(1, 3, dtype=torch.float64)
    options = so.Switch(Named(1.0), Named(2.0), window=4)
    steps, sweep = options.start(weight), Reference(make(torch.zeros(3, 3).double(), reg=1.0))
    assert steps.heir == options
    for _ in range(8):
        steps(Iterate(weight, weight, torch.ones(1).double(), weight, sweep))
    assert steps.heir == Named(2.0)
