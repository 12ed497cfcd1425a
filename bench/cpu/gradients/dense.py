"""The judge: potentials by Newton's method, derivatives by one dense system, all by autograd.

It shares no code with the package. Marginals are compared as logarithms, because rows that a
relaxed plan leaves with next to nothing would be below the roundings of the others.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacrev

from bench.cpu.gradients.problems import Answer, Problem, numbers, posed


STEPS = 60
# logarithms that are as good as equal
FOUND = 1e-14


class Truth(NamedTuple):
    """Derivatives of a number by the five tensors.

    Attributes:
        grads: The derivatives.
        terms: The largest entry of what each is the difference of: with potentials held, and by
            how they answer.
    """

    grads: list[Tensor]
    terms: list[float]


def gradients(p: Problem) -> dict[str, Truth]:
    """Return the derivatives of each number."""
    C, a, b = posed(*p.args)
    z = potentials(C, a, b, p)
    inverse = torch.linalg.pinv(jacrev(lambda z: _off(z, C, a, b, p))(z), rtol=1e-13)
    direct = jacrev(lambda z: numbers(_answer(z, C, a, b, p), p))(z)
    found = {}
    for name, by_z in direct.items():
        # what potentials do to a number, as what marginals do to it
        price = (inverse.mT @ by_z).detach()
        leaves = [t.clone().requires_grad_() for t in p.args]
        moved = posed(*leaves)
        held = numbers(_answer(z, *moved, p), p)[name]
        answers = price @ _off(z, *moved, p)
        # potentials that are held depend on nothing
        first = _grads(held, leaves) if held.requires_grad else list(map(torch.zeros_like, leaves))
        second = _grads(answers, leaves)
        grads = [s - t for s, t in zip(first, second, strict=True)]
        assert all(bool(torch.isfinite(t).all()) for t in grads)
        terms = [
            float(torch.maximum(s.abs(), t.abs()).max()) for s, t in zip(first, second, strict=True)
        ]
        found[name] = Truth(grads, terms)
    return found


def _grads(number: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(
        torch.autograd.grad(
            number, leaves, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )


def potentials(C: Tensor, a: Tensor, b: Tensor, p: Problem) -> Tensor:
    """Return f and g, one after the other: Newton's steps from rows and columns in turn."""
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    damp = 1.0 if p.rho is None else p.rho / (p.rho + p.reg)
    for _ in range(2000):
        f = -damp * p.reg * torch.logsumexp((g - C) / p.reg + b.log(), 1)
        g = -damp * p.reg * torch.logsumexp((f[:, None] - C) / p.reg + a.log()[:, None], 0)
    z = torch.cat([f, g])
    for _ in range(STEPS):
        off = _off(z, C, a, b, p)
        if float(off.abs().max()) < FOUND:
            break
        z = z - torch.linalg.pinv(jacrev(lambda z: _off(z, C, a, b, p))(z), rtol=1e-13) @ off
    return z


def _off(z: Tensor, C: Tensor, a: Tensor, b: Tensor, p: Problem) -> Tensor:
    """Return how far the logarithms of marginals are from what they should be, (n + m,)."""
    f, g = z[: len(a)], z[len(a) :]
    E = _exponents(f, g, C, p) + a.log()[:, None] + b.log()
    rows, columns = a.log(), b.log()
    if p.rho is not None:
        rows, columns = rows - f / p.rho, columns - g / p.rho
    return torch.cat([rows - E.logsumexp(1), columns - E.logsumexp(0)])


def _exponents(f: Tensor, g: Tensor, C: Tensor, p: Problem) -> Tensor:
    return (f[:, None] + g - C) / p.reg


def _answer(z: Tensor, C: Tensor, a: Tensor, b: Tensor, p: Problem) -> Answer:
    f, g = z[: len(a)], z[len(a) :]
    E, prior = _exponents(f, g, C, p), a[:, None] * b
    P = prior * E.exp()
    value = (P * (C + p.reg * E)).sum() + p.reg * (prior.sum() - P.sum())
    if p.rho is not None:
        for mass, w in ((P.sum(1), a), (P.sum(0), b)):
            value = value + p.rho * ((mass * (mass / w).log()).sum() - mass.sum() + w.sum())
    return Answer(value, P, f, g)
