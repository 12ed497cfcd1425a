"""`solve` where the host makes the sweeps: relaxed marginals, and batches with holes in them."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.gpu.called.call import Call, Found, Made, seeded
from bench.gpu.cases import Case, dense
from bench.gpu.device import Device


# roundings of an exponent that potentials may be off by
_ROUNDINGS = 8 * 2**-24
_RHO, _TOL = 1.0, 1e-5


def relaxed_error(p: Case, r: Any, rho: float) -> Found:
    """Return by how much mass both sides still move in float64, and the roundings beside it."""
    inv_reg, kappa = float(p.inv_reg[0]), rho / (rho + 1 / float(p.inv_reg[0]))
    a, b = p.a.double(), p.b.double()
    u, v = (t.double()[None] * inv_reg + w.log() for t, w in ((r.f, a), (r.g, b)))
    rows = u - a.log() + kappa * p.log_sum_rows(v)
    columns = v - b.log() + kappa * p.log_sum_columns(u)
    error = (a * rows.abs()).sum() + (b * columns.abs()).sum()
    reach = max(float(t.abs().amax()) for t in (u, v, p.cost_bound() * inv_reg))
    return {"error": float(error), "roundings": _ROUNDINGS * reach}


def _relaxed(device: Device, n: int, m: int) -> Made:
    p = dense(seeded(device, 9), *device.small(n, m))
    C, a, b, reg = p.stored[0], p.a[0], p.b[0], 1 / float(p.inv_reg[0])

    def judge(r: Any) -> Found:
        found = relaxed_error(p, r, _RHO)
        return found | {"allowed": 4 * _TOL + found["roundings"], "n_iter": int(r.n_iter)}

    return Made(lambda: so.solve(C, a, b, reg, unbalanced=_RHO, tol=_TOL, on_fail="ignore"), judge)


def _holes(device: Device, B: int, n: int, m: int, n_iter: int) -> Made:
    """Make problems with weights of zero and forbidden pairs, too large to be solved whole."""
    many = min(B, 3) if device.toy else B
    p = dense(seeded(device, 10), *device.shape(n, m), B=many, shared=False, holes=True)
    C, a, b, reg = p.stored, p.a, p.b, 1 / float(p.inv_reg[0])

    def judge(v: Tensor) -> Found:
        truth, live = p.iterate(torch.float64, n_iter)[1], p.b > 0
        off = (v.double() - truth)[live].abs().nan_to_num(math.inf)
        reach = max(p.reach(), float(truth[live].abs().max()))
        return {"error": float(off.max()), "allowed": _ROUNDINGS * reach}

    return Made(
        lambda: so.solve(C, a, b, reg, n_iter=n_iter).coupling.v,  # type: ignore[attr-defined]
        judge,
    )


SWEPT = [
    Call("calls", "solve 4096x3000 fp32 relaxed to 1e-5", "solve",
         partial(_relaxed, n=4096, m=3000)),
    Call("calls", "solve 8 of 1000x3000 fp32 with holes, 10 sweeps", "solve",
         partial(_holes, B=8, n=1000, m=3000, n_iter=10)),
]  # fmt: skip
