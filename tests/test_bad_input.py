"""Every mistake gets an error that names the argument, the rule and what came; the rest works."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing


INF, NAN = math.inf, math.nan
P = testing.random(4, 5)
C, A, B = P.cost, P.a, P.b
X, Y = torch.rand(4, 3), torch.rand(5, 3)
BATCH = torch.stack([C, C])


def put(t: torch.Tensor, at: Any, value: float) -> torch.Tensor:
    t = t.clone()
    t[at] = value
    return t


def solve(cost=C, a=None, b=None, reg=0.1, **options) -> so.Transport:
    return so.solve(cost, a, b, reg, **options)


def cloud(x=X, y=Y, metric="sqeuclidean") -> so.Transport:
    return so.solve(so.PointCloud(x, y, metric), reg=0.1)


def sinkhorn(*args, **options) -> so.Transport:
    return solve(method=so.Sinkhorn(*args, **options))


def result() -> so.Transport:
    return solve()


# what is called, and the text that its ValueError must hold
ROWS: dict[str, tuple[Callable[[], Any], str]] = {
    # the cost
    "no cost": (lambda: solve(None), "cost must hold real numbers, got dtype object"),
    "a word": (lambda: solve("cost"), "cost must hold real numbers, got dtype <U4"),
    "ragged lists": (lambda: solve([[1.0, 2.0], [3.0]]), "cost must be a tensor, an array or"),
    "a number": (lambda: solve(1.0), "cost must have shape (..., n, m), got ()"),
    "one dimension": (lambda: solve(C[0]), "cost must have shape (..., n, m), got (5,)"),
    "no rows": (lambda: solve(C[:0]), "cost must not be empty, got shape (0, 5)"),
    "no columns": (lambda: solve(C[:, :0]), "cost must not be empty, got shape (4, 0)"),
    "no problems": (lambda: solve(BATCH[:0]), "cost must not be empty, got shape (0, 4, 5)"),
    "nan": (lambda: solve(put(C, (1, 2), NAN)), "cost must be a number above -inf, got nan at index (1, 2)"),
    "-inf": (lambda: solve(put(C, (3, 0), -INF)), "cost must be a number above -inf, got -inf at index (3, 0)"),
    "nan in float16": (lambda: solve(put(C.half(), (1, 2), NAN)), "got nan at index (1, 2)"),
    "nan in a batch": (lambda: solve(put(BATCH, (1, 1, 2), NAN)), "got nan at index (1, 1, 2)"),
    "inf everywhere": (lambda: solve(C * INF), "cost must allow some pair, got inf everywhere"),
    "a stranded row": (lambda: solve(put(C, 2, INF)), "row 2 has positive a but only infinite costs"),
    "a stranded column": (
        lambda: solve(put(C, (slice(None), 3), INF)), "column 3 has positive b but only infinite costs",
    ),
    "stranded by a zero weight": (
        lambda: solve(put(C, (2, slice(1, 5)), INF), b=put(B, 0, 0.0) / (1 - B[0])), "row 2 has positive a",
    ),
    "stranded in a batch": (lambda: solve(put(BATCH, (1, 2), INF)), "row 2 of problem 1 has positive a"),
    "stranded on one exact side": (
        lambda: solve(put(C, 2, INF), unbalanced=(None, 1.0)), "row 2 has positive a",
    ),
    "integers": (lambda: solve(torch.ones(4, 5, dtype=torch.int64)), "cost must be floating point, got int64"),
    "integer arrays": (lambda: solve(np.ones((4, 5), int)), "cost must be floating point, got int64"),
    "complex": (lambda: solve(C.to(torch.complex64)), "cost must be floating point, got complex64"),
    "complex arrays": (lambda: solve(np.ones((4, 5), complex)), "cost must hold real numbers, got dtype complex128"),
    "booleans": (lambda: solve(C > 0.5), "cost must be floating point, got bool"),
    "objects": (lambda: solve(np.array([[1.0, None]])), "cost must hold real numbers, got dtype object"),
    "dates": (lambda: solve(np.array([["2020"]], "datetime64[D]")), "got dtype datetime64[D]"),
    "long doubles": (lambda: solve(np.ones((4, 5), np.longdouble)), "cost must be at most float64"),
    "eight bits": (lambda: solve(C.to(torch.float8_e4m3fn)), "cost must be floating point, got float8_e4m3fn"),
    "sparse": (lambda: solve(C.to_sparse()), "cost must be a strided tensor, got layout torch.sparse_coo"),
    "no numbers": (lambda: solve(C.to("meta")), "cost must hold numbers, got a tensor on the meta device"),
    "a result": (lambda: solve(result()), "cost must hold real numbers"),
    # the weights
    "a short a": (lambda: solve(a=A[:3]), "a must have shape (..., 4) to fit a cost of (4, 5), got (3,)"),
    "a long b": (lambda: solve(b=torch.ones(6)), "b must have shape (..., 5) to fit a cost of (4, 5), got (6,)"),
    "a and b swapped": (lambda: solve(a=B, b=A), "a must have shape (..., 4)"),
    "a number for a": (lambda: solve(a=1.0), "a must have shape (..., 4), got ()"),
    "a word for a": (lambda: solve(a="uniform"), "a must hold real numbers, got dtype <U7"),
    "integers for b": (lambda: solve(b=torch.full((5,), 2**60)), "b must be whole numbers up to 2^53 or floating point, got 1.153e+18"),
    "an empty batch of a": (lambda: solve(a=torch.ones(0, 4)), "a must not be empty, got shape (0, 4)"),
    "negative": (lambda: solve(a=put(A, 1, -0.25)), "a must be non-negative, got -0.25 at index 1"),
    "nan in b": (lambda: solve(b=put(B, 4, NAN)), "b must be finite, got nan at index 4"),
    "inf in b": (lambda: solve(b=put(B, 4, INF)), "b must be finite, got inf at index 4"),
    "no mass": (lambda: solve(a=A * 0), "a must have some positive weight, got all zeros"),
    "no mass in a batch": (lambda: solve(a=torch.stack([A, A * 0])), "all zeros in problem 1"),
    "too little mass": (lambda: solve(a=A * 1e-300, b=B * 1e-300), "a must have a total weight above 1e-290, got 1e-300"),
    "too little mass in a batch": (
        lambda: solve(torch.rand(2, 4, 5), a=torch.stack([A, A * 1e-300]), b=torch.stack([B, B * 1e-300])),
        "a must have a total weight above 1e-290",
    ),
    "too much mass for float32": (
        lambda: solve(C.float(), a=A * 1e39, b=B * 1e39), "total weight from 1e-18 to 1e+18 for an answer in float32"
    ),
    "too much mass": (lambda: solve(a=A * 1e200, b=B * 1e200), "a must have a total weight below 1e154, got 1e+200"),
    "unequal mass": (lambda: solve(a=A, b=2 * B), "a and b must have the same total mass, got 1 and 2"),
    "barely unequal": (lambda: solve(a=A, b=B * (1 + 1e-6)), "same total mass, got 1 and 1.000001"),
    "unequal in a batch": (
        lambda: solve(a=torch.stack([A, A]), b=torch.stack([B, 2 * B])), "got 1 and 2 in problem 1",
    ),
    "batches of 2 and 3": (
        lambda: solve(BATCH, a=torch.stack([A] * 3)), "cost and a must have leading dimensions that broadcast",
    ),
    "a elsewhere": (lambda: solve(a=A.to("meta")), "a must be on the device of cost (cpu), got meta"),
    "b elsewhere": (lambda: solve(b=B.to("meta")), "b must be on the device of cost (cpu), got meta"),
    # reg
    "no reg": (lambda: so.solve(C), "reg must be given"),
    "reg zero": (lambda: solve(reg=0), "reg must be a finite number above zero, got 0"),
    "reg below zero": (lambda: solve(reg=-1.0), "reg must be a finite number above zero, got -1.0"),
    "reg nan": (lambda: solve(reg=NAN), "reg must be a finite number above zero, got nan"),
    "reg inf": (lambda: solve(reg=INF), "reg must be a finite number above zero, got inf"),
    "reg a word": (lambda: solve(reg="0.1"), "reg must be one number, got '0.1'"),
    "reg a truth": (lambda: solve(reg=True), "reg must be one number, got True"),
    "reg complex": (lambda: solve(reg=1j), "reg must be one number, got 1j"),
    "reg of a wrong shape": (lambda: solve(reg=torch.ones(3)), "one per problem, shape (), got (3,)"),
    "reg of a wrong batch": (lambda: solve(BATCH, reg=[1.0, 2.0, 3.0]), "one per problem, shape (2,), got (3,)"),
    "one reg below zero": (
        lambda: solve(BATCH, reg=torch.tensor([1.0, -1.0])), "reg must be finite and above zero, got -1 at index 1",
    ),
    "complex for reg": (lambda: solve(BATCH, reg=torch.tensor([1j, 2])), "reg must be floating point, got complex64"),
    "n_iter beside tol": (lambda: solve(n_iter=3, tol=1e-3), "n_iter leaves no choice of tol"),
    "n_iter beside a method": (lambda: solve(n_iter=3, method="newton"), "n_iter leaves no choice of method"),
    "n_iter beside a callback": (
        lambda: solve(n_iter=3, callback=print, progress=True), "n_iter leaves no choice of progress, callback",
    ),
    "a step for a method": (lambda: solve(method=so.Newton()), "method must be a solver: pass Sinkhorn(Newton("),
    "no looks": (lambda: so.Sinkhorn(check_every=0), "check_every must be a whole number of at least 1, got 0"),
    "no damping": (lambda: so.Newton(damping=0), "damping must be a finite number above zero, got 0"),
    "no window": (lambda: so.Switch(window=0), "window must be a whole number of at least 1, got 0"),
    "a masked cost": (lambda: solve(np.ma.masked_array(np.ones((4, 5)))), "cost must not be a masked array"),
    "reg too small": (lambda: solve(reg=1e-300), "for torch.float64 to resolve cost / reg, got 1e-300"),
    "reg subnormal": (lambda: solve(C * 1e-315, reg=1e-316), "reg must be at least 2.23e-308"),
    "costs too large": (lambda: solve(C * 1e300, reg=1.0), "raise it, subtract a constant from the cost, or forbid"),
    "an offset too large": (lambda: solve(C + 1e16), "subtract a constant from the cost"),
    # penalties
    "penalty below zero": (lambda: solve(unbalanced=-1), "unbalanced must be at least zero, or None for exact, got -1.0"),
    "penalty nan": (lambda: solve(unbalanced=(1.0, NAN)), "unbalanced must be at least zero"),
    "three penalties": (lambda: solve(unbalanced=(1, 1, 1)), "unbalanced must be one penalty or two, got (1, 1, 1)"),
    "penalty a word": (lambda: solve(unbalanced="kl"), "unbalanced must be one number, got 'kl'"),
    "penalty a vector": (lambda: solve(unbalanced=torch.ones(3)), "unbalanced must be one penalty or two, got [1.0, 1.0, 1.0]"),
    # how to solve
    "reg beyond float64": (lambda: solve(reg=10**400), "reg must be a number that float64 holds"),
    "tol beyond float64": (lambda: solve(tol=10**400), "tol must be a number that float64 holds"),
    "a bar a tensor": (lambda: solve(progress=torch.tensor(True)), "progress must be True or False, got tensor(True)"),
    "tol zero": (lambda: solve(tol=0), "tol must be a finite number above zero, got 0"),
    "tol below zero": (lambda: solve(tol=-1e-9), "tol must be a finite number above zero, got -1e-09"),
    "tol a word": (lambda: solve(tol="tight"), "tol must be one number, got 'tight'"),
    "max_iter zero": (lambda: solve(max_iter=0), "max_iter must be a whole number of at least 1, got 0"),
    "max_iter broken": (lambda: solve(max_iter=1.5), "max_iter must be a whole number of at least 1, got 1.5"),
    "max_iter a truth": (lambda: solve(max_iter=True), "max_iter must be a whole number of at least 1, got True"),
    "n_iter zero": (lambda: solve(n_iter=0), "n_iter must be a whole number of at least 1, got 0"),
    "n_iter broken": (lambda: solve(n_iter=2.0), "n_iter must be a whole number of at least 1, got 2.0"),
    "method unknown": (lambda: solve(method="magic"), "method must be one of 'auto', "),
    "method none": (lambda: solve(method=None), "method must be one of 'auto', "),
    "method an array": (lambda: solve(method=np.array(["auto", "newton"])), "method must be one of 'auto', "),
    "method a class": (lambda: solve(method=so.Sinkhorn), "method must be a solver, not its class: pass Sinkhorn()"),
    "on_fail unknown": (lambda: solve(on_fail="cry"), "on_fail must be one of 'warn', 'raise', 'ignore', got 'cry'"),
    "callback a number": (lambda: solve(callback=3), "callback must be a function of a Progress, got 3"),
    "init a tensor": (lambda: solve(init=B), "init must be a result or a pair (f, g), got Tensor"),
    "init of nothing": (lambda: solve(init=(None, None)), "init must be a result or a pair (f, g)"),
    "init too short": (lambda: solve(init=(A, A)), "init must hold 5 target potentials, got (4,)"),
    "init of another problem": (lambda: solve(init=solve(C.T)), "init must hold 4 source potentials, got (5,)"),
    "init nan": (lambda: solve(init=(A, B * NAN)), "init must be finite, got nan at index 0"),
    "init a number": (lambda: solve(init=(A, torch.tensor(1.0))), "init must have shape (..., 5), got ()"),
    "init of a batch": (lambda: solve(init=solve(BATCH)), "init must have leading dimensions that fit the problem's ()"),
    "init of another batch": (
        lambda: solve(BATCH, init=(A, torch.ones(3, 5))), "init and the problem must have leading dimensions",
    ),
    # points
    "metric unknown": (lambda: cloud(metric="l1"), "metric must be one of 'sqeuclidean', 'euclidean', 'manhattan', 'chebyshev', 'dot', 'cosine', got 'l1'"),
    "dimensions differ": (lambda: cloud(y=Y[:, :2]), "x and y must have points of one dimension, got 3 and 2"),
    "dtypes differ": (lambda: cloud(y=Y.double()), "x and y must share a dtype, got torch.float32 and torch.float64"),
    "devices differ": (lambda: cloud(y=Y.to("meta")), "y must be on the device of x (cpu), got meta"),
    "one point flat": (lambda: cloud(x=X[0]), "x must have shape (..., n, d), got (3,)"),
    "no points": (lambda: cloud(x=X[:0]), "x must not be empty, got shape (0, 3)"),
    "no dimensions": (lambda: cloud(X[:, :0], Y[:, :0]), "x must not be empty, got shape (4, 0)"),
    "points nan": (lambda: cloud(y=put(Y, (1, 2), NAN)), "y must be finite, got nan at index (1, 2)"),
    "points inf": (lambda: cloud(x=put(X, (1, 2), INF)), "x must be finite, got inf at index (1, 2)"),
    "points too far": (
        lambda: cloud(X.double() * 1e200, Y.double() * 1e200), "x and y must have finite costs",
    ),
    "points in batches": (
        lambda: cloud(torch.rand(2, 4, 3), torch.rand(3, 5, 3)), "x and y must have leading dimensions that broadcast",
    ),
    # options of methods
    "memory zero": (lambda: so.Anderson(memory=0), "memory must be a whole number of at least 1, got 0"),
    "growth zero": (lambda: so.Anderson(growth=0.0), "growth must be a finite number above zero"),
    "factor one": (lambda: so.Anneal(factor=1.0), "factor must be above 1, got 1.0"),
    "start below zero": (lambda: so.Anneal(start=-1.0), "start must be a finite number above zero"),
    "a slow schedule that is none": (lambda: so.Sinkhorn(slow=2.0), "slow must be an Anneal or None, got 2.0"),
    "follow below zero": (lambda: so.Anneal(follow=-1), "follow must be a whole number of at least 0, got -1"),
    "an acceleration's name": (lambda: sinkhorn("anderson"), "acceleration must be such as Anderson(), got 'anderson'"),
    "an annealing's number": (lambda: sinkhorn(anneal=0.5), "anneal must be an Anneal or None, got 0.5"),
    "patience zero": (lambda: sinkhorn(patience=0), "patience must be a whole number of at least 1, got 0"),
    # what is asked of a result
    "apply too short": (lambda: result().apply(A), "x must have shape (..., 5) or (..., 5, k), got (4,)"),
    "apply transposed": (lambda: result().apply_transpose(B), "x must have shape (..., 4) or (..., 4, k), got (5,)"),
    "apply a number": (lambda: result().apply(torch.tensor(1.0)), "x must have shape (..., 5) or (..., 5, k), got ()"),
    "apply integers": (lambda: result().apply(torch.ones(5, dtype=torch.int64)), "x must be floating point, got int64"),
    "apply a word": (lambda: result().apply("x"), "x must hold real numbers"),
    "apply a batch": (lambda: result().apply(torch.ones(2, 5, 3)), "x must have leading dimensions that fit the problem's ()"),
    "apply elsewhere": (lambda: result().apply(B.to("meta")), "x must be on the device of the cost (cpu), got meta"),
    "round relaxed": (lambda: solve(unbalanced=1.0).round(), "round() needs exact marginals"),
    "bounds relaxed": (lambda: solve(unbalanced=(1.0, None)).certificate(), "certificate() needs exact marginals"),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_a_mistake_is_named(row):
    call, text = ROWS[row]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        call()
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: solve(torch.rand(1, 1)),
        lambda: solve(torch.rand(1, 5)),
        lambda: solve(torch.rand(4, 1)),
        lambda: solve([[1.0, 2.0], [3.0, 4.0]]),
        lambda: solve(C.numpy()[::-1, ::-2]),
        lambda: solve(np.asfortranarray(C.numpy()), a=tuple(A.tolist())),
        lambda: solve(BATCH[:, ::2, ::3]),
        lambda: solve(torch.zeros(4, 5)),
        lambda: solve(C.clone().requires_grad_().detach()),
        lambda: solve(C * 1e300, reg=1e299),
        lambda: solve((C - 0.5) * 3e307, reg=1e307),
        lambda: solve(C * 1e-300, reg=1e-301),
        lambda: solve(C.float() * 3e38, reg=3e37),
        lambda: solve(C.float() * 1e-40, reg=1e-41),
        lambda: solve((C * 60000).half(), reg=600.0),
        lambda: solve(a=A * 1e-280, b=B * 1e-280),
        lambda: solve(a=A * 1e150, b=B * 1e150, reg=0.5),
        lambda: solve(a=A.float(), b=B),
        lambda: solve(reg=1e300),
        lambda: solve(reg=np.float64(0.1)),
        lambda: solve(BATCH, reg=[0.1, 0.2]),
        lambda: solve(unbalanced=INF),
        lambda: solve(unbalanced=1e-12),
        lambda: solve(put(C, 2, INF), a=put(A, 2, 0.0) / (1 - A[2])),
        lambda: solve(put(C, 2, INF), unbalanced=1.0),
        lambda: solve(init=(None, B)),
        lambda: cloud(X, X),
        lambda: cloud(X * 0, Y * 0),
        lambda: cloud(X[:1], Y[:1]),
        lambda: cloud(X * 0, Y, "cosine"),
        lambda: cloud(X.numpy()[::-1], Y.numpy()),
    ],
)  # fmt: skip
def test_what_is_strange_but_right_works(call):
    r = call()
    assert r.converged.all()
    for t in (r.plan, r.f, r.g, r.value, r.value_linear, r.dual_value, r.gap, r.marginal_error):
        assert torch.isfinite(t).all()
    assert float(r.marginal_error.max()) <= 1e-6
    if r.problem.exact:
        rows = r.plan.double().sum(-1).reshape(r.problem.a.shape)
        assert ((rows - r.problem.a).abs().sum(-1) <= 1e-6 * r.problem.a.sum(-1)).all()


def test_without_gradients_a_leaf_is_welcome():
    with torch.no_grad():
        assert solve(C.clone().requires_grad_()).converged
