"""`solve` as called, for a fixed number of sweeps, between clouds, and for many small problems."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.gpu.called.call import Call, Found, Made, marginals, seeded
from bench.gpu.cases import Case, dense, points
from bench.gpu.clock import Act
from bench.gpu.device import Device
from bench.gpu.timed import peers


# roundings of an exponent that potentials may be off by
_ROUNDINGS = 8 * 2**-24
Way = Callable[[Case], Act]


def _reg(p: Case) -> float:
    return 1 / float(p.inv_reg[0])


def _ours(p: Case, n_iter: int) -> Act:
    cost: Any = p.C[0] if p.C is not None else so.PointCloud(p.clouds[0][0], p.clouds[1][0])
    a, b, reg = p.a[0], p.b[0], _reg(p)
    return lambda: so.solve(cost, a, b, reg, n_iter=n_iter).coupling.v  # type: ignore[attr-defined]


def _eager(p: Case, n_iter: int, compiled: bool = False) -> Act:
    act = peers.eager_solve
    if compiled:
        backend = "inductor" if p.a.is_cuda else "eager"
        act = torch.compile(act, dynamic=False, backend=backend)
    return partial(act, p.stored, p.a.log(), p.b.log(), p.inv_reg, n_iter)


def _blocks(p: Case, n_iter: int) -> Act:
    x, y, log_a, log_b = (t[0] for t in (*p.clouds, p.a.log(), p.b.log()))

    def run() -> Tensor:
        v = log_b
        for _ in range(n_iter):
            v = peers.blocks_sweep(x, y, v, log_a, log_b, 1 / _reg(p), peers.block_log_sum)
        return v[None]

    return run


def _fixed(device: Device, make: Callable[[Device], Case], n_iter: int, way: Any) -> Made:
    p = make(seeded(device, 5))

    def judge(v: Tensor) -> Found:
        truth = p.iterate(torch.float64, n_iter)[1]
        allowed = _ROUNDINGS * max(p.reach(), float(truth.abs().max()))
        return {"error": float((v.double() - truth).abs().max()), "allowed": allowed}

    return Made(way(p, n_iter), judge)


def _reached(p: Case, tol: float, dtype: torch.dtype, cost: Any) -> Made:
    many = cost.ndim == 3 if isinstance(cost, Tensor) else False

    def judge(r: Any) -> Found:
        f, g = (r.f, r.g) if many else (r.f[None], r.g[None])
        found = marginals(p, f, g)
        allowed = 2 * tol + 2 * torch.finfo(dtype).eps * found["reach"]
        return found | {"allowed": allowed, "n_iter": int(r.n_iter.max())}

    reg = _reg(p)
    return Made(lambda: so.solve(cost, reg=reg, tol=tol, on_fail="ignore"), judge)


def _cloud(device: Device, n: int, d: int, reg: float, tol: float) -> Made:
    """Make clouds in the unit cube; the same squared distances serve both, unscaled."""
    n = n // 100 if device.toy else n
    x, y = (seeded(device, seed).rand(n, d) for seed in (6, 7))
    w = torch.full((1, n), 1 / n, dtype=torch.float64, device=x.device)
    inv_reg = torch.full((1,), 1 / reg, dtype=torch.float64, device=x.device)
    p = Case(w.log(), w, w, inv_reg, x=x[None], y=y[None])
    return _reached(p, tol, torch.float32, so.PointCloud(x, y))


def _batch(device: Device, B: int, n: int, reg: float, tol: float, dtype: torch.dtype) -> Made:
    B = min(B, 5) if device.toy else B
    C = seeded(device, 8).rand(B, n, n, dtype=torch.float64).to(dtype)
    w = torch.full((B, n), 1 / n, dtype=torch.float64, device=C.device)
    inv_reg = torch.full((B,), 1 / reg, dtype=torch.float64, device=C.device)
    return _reached(Case(w.log(), w, w, inv_reg, C), tol, dtype, C)


def _stored(device: Device) -> Case:
    return dense(device, *device.small(4096, 3000))


def _few(device: Device) -> Case:
    return points(device, *device.small(4096, 64), 64)


_DENSE = partial(_fixed, make=_stored, n_iter=10)
_POINTS = partial(_fixed, make=_few, n_iter=5)
_BATCH = partial(_batch, B=256, n=64, reg=0.05)
SOLVES = [
    Call("calls", "solve 4096x3000 fp32, 10 sweeps", "solve", partial(_DENSE, way=_ours)),
    Call("calls", "solve 4096x3000 fp32, 10 sweeps", "PyTorch eager", partial(_DENSE, way=_eager),
         peer=True),
    Call("calls", "solve 4096x3000 fp32, 10 sweeps", "PyTorch compiled",
         partial(_DENSE, way=partial(_eager, compiled=True)), peer=True, limit=60),
    Call("calls", "solve clouds 4096x64 d=64, 5 sweeps", "solve", partial(_POINTS, way=_ours)),
    Call("calls", "solve clouds 4096x64 d=64, 5 sweeps", "PyTorch eager, cost in blocks",
         partial(_POINTS, way=_blocks), peer=True),
    Call("calls", "solve clouds 10000 d=3 reg 0.01 to 1e-4", "solve",
         partial(_cloud, n=10_000, d=3, reg=0.01, tol=1e-4)),
    Call("calls", "solve 256 of 64x64 fp32 to 1e-5", "solve",
         partial(_BATCH, tol=1e-5, dtype=torch.float32)),
    Call("calls", "solve 256 of 64x64 fp64 to 1e-6", "solve",
         partial(_BATCH, tol=1e-6, dtype=torch.float64)),
]  # fmt: skip
