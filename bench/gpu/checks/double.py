"""Float64 costs through the public calls, against the same iterations written out."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.gpu.budget import Wrong, share
from bench.gpu.cases import Case, dense, points
from bench.gpu.checks.check import checks
from bench.gpu.device import Device
from sinkhorn_ot.problem import MetricName


N_ITER = 10
# roundings of an exponent that a kernel and PyTorch may differ by
_ROUNDINGS = 64 * 2**-53


def _in_double(p: Case) -> tuple[Any, Tensor, Tensor]:
    """Turn a case into float64; return its cost and weights as `solve` takes them."""
    p.a, p.b, p.inv_reg = p.a.double(), p.b.double(), p.inv_reg.double()
    # sums of float32 weights differ by more than float64 is allowed
    p.a, p.b = (w / w.sum(-1, keepdim=True) for w in (p.a, p.b))
    if p.C is not None:
        p.C = p.C.double()
        return (p.C[0] if len(p.C) == 1 else p.C), p.a, p.b
    p.x, p.y = (t.double() for t in p.clouds)
    return so.PointCloud(p.x[0], p.y[0], metric=cast("MetricName", p.metric)), p.a, p.b


def fixed(device: Device, make: Callable[..., Case], n: int, m: int, **how: Any) -> float:
    """Check the potentials of `solve(n_iter=...)`."""
    p = make(device, *device.shape(n, m), **how)
    cost, a, b = _in_double(p)
    r = so.solve(cost, a, b, 1 / float(p.inv_reg[0]), n_iter=N_ITER)
    u, v = p.iterate(torch.float64, N_ITER)
    worst, reach = 0.0, max(1.0, p.reach())
    # with the constant that the sweeps left them
    raw = r.coupling.f, r.coupling.g
    for got, weight, t in zip(raw, (p.a, p.b), (u, v), strict=True):
        scaled = got * p.inv_reg[:, None]
        off = (scaled + weight.log() - t)[weight > 0].abs()
        worst = max(worst, float(off.nan_to_num(math.inf).max()))
    return share(worst, _ROUNDINGS * N_ITER * reach)


def to_tol(device: Device, make: Callable[..., Case], n: int, m: int, **how: Any) -> float:
    """Check that a solve reaches 1e-9, measured from its potentials."""
    p = make(device, *device.shape(n, m), **how)
    cost, a, b = _in_double(p)
    r = so.solve(cost, a, b, 1 / float(p.inv_reg[0]), tol=1e-9)
    if not bool(r.converged.all()):
        raise Wrong(f"did not converge: {r.message}")
    f, g = (t.reshape(w.shape) * p.inv_reg[:, None] for t, w in ((r.f, a), (r.g, b)))
    rows = (p.log_sum_rows(g + b.log()) + f).expm1() * a
    columns = (p.log_sum_columns(f + a.log()) + g).expm1() * b
    return share(float((rows.abs().sum(1) + columns.abs().sum(1)).max()), 3e-9)


_FIXED = {
    "float64 solve(n_iter=10) 1000x3000": dict(make=dense, n=1000, m=3000),
    "float64 solve(n_iter=10) 17x65": dict(make=dense, n=17, m=65),
    "float64 solve(n_iter=10) 64x20000": dict(make=dense, n=64, m=20000),
    "float64 solve(n_iter=10) 1000x700, reg 1e-3": dict(make=dense, n=1000, m=700, reg=1e-3),
    "float64 solve(n_iter=10) 5 of 100x300": dict(make=dense, n=100, m=300, B=5, shared=False),
    "float64 solve(n_iter=10) zero weights, inf costs": dict(make=dense, n=301, m=700, holes=True),
}
_CLOUD = {
    "float64 solve(n_iter=10) clouds d=3": dict(make=points, n=1000, m=700, d=3),
    "float64 solve(n_iter=10) clouds d=64": dict(make=points, n=1000, m=700, d=64),
}
_TO_TOL = {
    "float64 solve to 1e-9, 1000x3000": dict(make=dense, n=1000, m=3000),
    "float64 solve to 1e-9, 1000x1000, reg 1e-2": dict(make=dense, n=1000, m=1000, reg=1e-2),
    "float64 solve to 1e-9, 256 of 64x64": dict(make=dense, n=64, m=64, B=256, shared=False),
    "float64 solve to 1e-9, clouds d=2": dict(make=points, n=1000, m=700, d=2),
}
CHECKS = [
    *checks("dense sweep", fixed, _FIXED),
    *checks("point cloud", fixed, _CLOUD),
    *checks("dense sweep", to_tol, _TO_TOL),
]
