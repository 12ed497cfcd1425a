"""The tables of the page on errors: what each status says, and what each bad input is told."""

import math
import warnings

import numpy as np
import torch
from style import table

import sinkhorn_ot as so


C = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0]], dtype=torch.float64)
BAD = (
    "so.solve(C)",
    "so.solve(C, reg=0)",
    "so.solve(C, reg='small')",
    "so.solve(C, reg=torch.tensor([0.1, 0.1, 0.1]))",
    "so.solve(C.long(), reg=0.1)",
    "so.solve(C.to_sparse(), reg=0.1)",
    "torch.vmap(lambda c: so.solve(c, reg=0.1).status)(torch.stack([C, C]))",
    "so.solve(C[0], reg=0.1)",
    "so.solve(C[:0], reg=0.1)",
    "so.solve(C * math.nan, reg=0.1)",
    "so.solve(C.where(C < 2, -math.inf), reg=0.1)",
    "so.solve(C.where(C > 0, math.inf) + torch.tensor([[math.inf], [0.0]]), reg=0.1)",
    "so.solve(C, a=torch.ones(3) / 3, reg=0.1)",
    "so.solve(C, a=torch.tensor([-0.1, 1.1]), reg=0.1)",
    "so.solve(C, a=torch.tensor([math.inf, 1.0]), reg=0.1)",
    "so.solve(C, a=torch.zeros(2), reg=0.1)",
    "so.solve(C, a=torch.ones(2), reg=0.1)",
    "so.solve(C, a=torch.ones(4, 2) / 2, b=torch.ones(5, 3) / 3, reg=0.1)",
    "so.solve(C, reg=0.1, unbalanced=-1)",
    "so.solve(C, reg=0.1, unbalanced=(1, 1, 1))",
    "so.solve(C, reg=0.1, method='simplex')",
    "so.solve(C, reg=0.1, tol=0)",
    "so.solve(C, reg=0.1, tol=10**400)",
    "so.solve(C, reg=0.1, max_iter=2.5)",
    "so.solve(C, reg=0.1, progress=torch.tensor(True))",
    "so.solve(C, reg=0.1, on_fail='panic')",
    "so.solve(C, reg=0.1, init=torch.zeros(3))",
    "so.solve(C, reg=0.1).apply(torch.ones(2))",
    "so.solve(C, reg=0.1, unbalanced=1.0).certificate()",
    "so.PointCloud(torch.rand(4, 2), torch.rand(4, 3))",
    "so.PointCloud(torch.rand(4, 2), torch.rand(4, 2), 'canberra')",
)


def said(call: str) -> tuple[str, str]:
    """Return the kind of error that a call raises, and its text."""
    space = {"so": so, "torch": torch, "np": np, "math": math, "C": C}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            eval(call, space)
        except Exception as error:  # noqa: BLE001
            return type(error).__name__, str(error)
    raise AssertionError(f"{call} raised nothing")


def tables() -> None:
    """Write both tables."""
    rows = [[f"`{s.name}`", s.value] for s in so.Status]
    table("status", ["status", "message"], rows)
    table("errors", ["call", "error"], [[f"`{call}`", f"{said(call)[1]}"] for call in BAD])
    kinds = {said(call)[0] for call in BAD}
    assert kinds == {"ValueError"}, kinds
