"""Random problems as functions of five tensors, and three numbers that are differentiated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


ARGUMENTS = ("cost", "x", "y", "a", "b")
NUMBERS = ("value", "plan", "f and g")
# few shapes, because some peers compile for each
SHAPES = ((5, 7), (20, 30), (40, 12))
# penalty of relaxed marginals, in units of reg
RELAXED = 5.0


class Answer(NamedTuple):
    """What a solver tells, in torch or JAX, with its derivatives.

    Attributes:
        value: The objective <P, C> + reg KL(P | a b^T), penalties included.
        plan: The plan, (n, m), or None.
        f: Row potentials for P = a b^T exp((f + g - C) / reg), (n,), or None.
        g: Column potentials, (m,), or None.
    """

    value: Any
    plan: Any = None
    f: Any = None
    g: Any = None


@dataclass(frozen=True)
class Problem:
    """Points with weights, and what is made of the answer.

    Attributes:
        args: What is differentiated by: what is added to the costs, points of both sides, and
            logits of both weights, so that every direction keeps the masses.
        reg: Regularisation.
        rho: Penalty of both marginals, None where they are exact.
        W: Weights of the plan's entries, (n, m).
        w: Weights of the potentials of rows and columns, whose sums agree: a constant that moves
            from one to the other does not count.
    """

    args: tuple[Tensor, ...]
    reg: float
    rho: float | None
    W: Tensor
    w: tuple[Tensor, Tensor]


# from costs, weights, reg and rho to an answer
Solve = Callable[[Tensor, Tensor, Tensor, float, float | None], Answer]


def draw(k: int) -> Problem:
    """Problem k: squared distances in the plane, uneven weights, every third one relaxed."""
    rng = np.random.default_rng(k)
    n, m = SHAPES[k % len(SHAPES)]
    x, y = rng.standard_normal((n, 2)), rng.standard_normal((m, 2)) + 0.5
    logits = rng.standard_normal(n), rng.standard_normal(m)
    reg = float(10 ** rng.uniform(-1.5, 0.5))
    rho = RELAXED * reg if k // len(SHAPES) % 3 == 2 else None
    W, w_f, w_g = rng.standard_normal((n, m)), rng.standard_normal(n), rng.standard_normal(m)
    w_g += (w_f.sum() - w_g.sum()) / m
    args = tuple(map(torch.from_numpy, (np.zeros((n, m)), x, y, *logits)))
    w = torch.from_numpy(w_f), torch.from_numpy(w_g)
    return Problem(args, reg, rho, torch.from_numpy(W), w)


def posed(cost: Tensor, x: Tensor, y: Tensor, *logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return costs and weights as functions of the five tensors."""
    C = cost + (x[:, None] - y[None]).square().sum(-1)
    a, b = (z.softmax(-1) for z in logits)
    return C, a, b


def numbers(answer: Answer, p: Problem) -> dict[str, Tensor]:
    """Return the numbers that an answer has."""
    found = {"value": answer.value}
    if answer.plan is not None:
        found["plan"] = (answer.plan * p.W).sum()
    if answer.f is not None:
        found["f and g"] = answer.f @ p.w[0] + answer.g @ p.w[1]
    return found


def gradients(p: Problem, solve: Solve) -> dict[str, list[Tensor]]:
    """Return the derivatives of each number by the five tensors."""
    leaves = [t.clone().requires_grad_() for t in p.args]
    found = numbers(solve(*posed(*leaves), p.reg, p.rho), p)
    return {
        name: list(
            torch.autograd.grad(
                number, leaves, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        )
        for name, number in found.items()
    }
