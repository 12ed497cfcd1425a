"""The linear algebra of Newton's steps, beside dense solutions, and when they begin."""

from dataclasses import dataclass

import torch

import sinkhorn_ot as so
from sinkhorn_ot.problem import make
from sinkhorn_ot.solvers import Iterate, conjugate_gradients
from sinkhorn_ot.sweeps.reference import Reference


def test_conjugate_gradients_of_a_batch_stop_each_by_itself():
    """One problem is solved before it begins, and one in a single step: the third goes on."""
    R = torch.randn(3, 8, 8, dtype=torch.float64)
    M = R @ R.mT + torch.eye(8, dtype=torch.float64)
    M[1] = torch.diag(torch.arange(1.0, 9.0))
    right = torch.randn(3, 8, dtype=torch.float64)
    right[0] = 0
    target = torch.full((3,), 1e-12, dtype=torch.float64)
    x = conjugate_gradients(
        lambda y: (M @ y[:, :, None])[:, :, 0], M.diagonal(dim1=1, dim2=2), right, target, 60
    )
    assert (x[0] == 0).all()
    torch.testing.assert_close(x, torch.linalg.solve(M, right), rtol=1e-9, atol=1e-10)


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
