"""Derivatives by the cost in 50 digits: marginals and one linear system, written out."""

import mpmath as mp
import torch
from torch import Tensor

from bench.cpu.gradients import dense
from bench.cpu.gradients.problems import Problem, posed


def by_cost(p: Problem, number: str) -> Tensor:
    """Return the derivative of the plan's or the potentials' number by the cost, (n, m)."""
    with mp.workdps(50):
        return torch.tensor(_by_cost(p, number), dtype=torch.float64)


def _by_cost(p: Problem, number: str) -> list[list[float]]:
    (n, m), reg = p.W.shape, mp.mpf(p.reg)
    soft = mp.mpf(0) if p.rho is None else 1 / mp.mpf(p.rho)
    x, y = ([_exact(row) for row in t] for t in p.args[1:3])
    a, b = (_softmax(_exact(t)) for t in p.args[3:])
    C = [[sum((s - t) ** 2 for s, t in zip(u, v, strict=True)) for v in y] for u in x]
    z = mp.matrix(_exact(dense.potentials(*posed(*p.args), p)))
    for _ in range(6):
        P = [
            [a[i] * b[j] * mp.exp((z[i] + z[n + j] - C[i][j]) / reg) for j in range(m)]
            for i in range(n)
        ]
        sums = [sum(row) for row in P] + [sum(column) for column in zip(*P, strict=True)]
        J, F = mp.zeros(n + m), mp.zeros(n + m, 1)
        for k, (w, mass) in enumerate(zip(a + b, sums, strict=True)):
            F[k], J[k, k] = mp.log(w) - mp.log(mass) - z[k] * soft, -1 / reg - soft
        for i in range(n):
            for j in range(m):
                J[i, n + j], J[n + j, i] = (-P[i][j] / s / reg for s in (sums[i], sums[n + j]))
        if not soft:
            # one equation follows from the others: hold a constant instead
            for k in range(n + m):
                J[0, k] = mp.mpf(k == 0)
            F[0] = 0
        z -= mp.lu_solve(J, F)
    W = [_exact(row) for row in p.W]
    on_plan = [[W[i][j] * P[i][j] / reg * (number == "plan") for j in range(m)] for i in range(n)]
    if number == "plan":
        by_z = [sum(row) for row in on_plan] + [sum(c) for c in zip(*on_plan, strict=True)]
    else:
        by_z = _exact(torch.cat(p.w))
    price = list(mp.lu_solve(J.T, mp.matrix(by_z)))
    if not soft:
        price[0] = mp.mpf(0)
    return [
        [
            float(
                -on_plan[i][j] - (price[i] / sums[i] + price[n + j] / sums[n + j]) * P[i][j] / reg
            )
            for j in range(m)
        ]
        for i in range(n)
    ]


def _exact(t: Tensor) -> list[mp.mpf]:
    return [mp.mpf(v) for v in t.tolist()]


def _softmax(logits: list[mp.mpf]) -> list[mp.mpf]:
    powers = [mp.exp(v) for v in logits]
    return [v / sum(powers) for v in powers]
