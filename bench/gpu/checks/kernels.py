"""Every kernel against float64, through its launcher, on fresh random inputs and poisoned outputs.

The budget is the tests': twice the error of eager float32 code, and a few roundings.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.gpu.budget import Wrong, share, variation, within
from bench.gpu.cases import Case, codes, dense, points, scores
from bench.gpu.checks import features
from bench.gpu.checks.check import checks
from bench.gpu.device import Device


HALF, BRAIN = torch.float16, torch.bfloat16


def sweep_dense(
    device: Device, n: int, m: int, first: bool = False, kappa: float | None = None,
    stale: float = 0.0, lift: float = 0.0, **how: Any,
) -> float:  # fmt: skip
    """Check one sweep over a stored cost."""
    from sinkhorn_ot.kernels import dense_sweep

    p = dense(device, *device.shape(n, m), **how)
    p.v += lift
    p.u -= lift
    p.u[:, ::2] += stale
    relaxed = None if kappa is None else device.full(len(p.a), value=kappa)
    u, s = dense_sweep.sweep(
        p.stored, None if first else p.u, p.v, p.a, p.inv_reg, first=first, kappa=relaxed
    )
    if first or stale:
        p.u = p.sweep(torch.float32)[0]
    return p.verify(u, s.log(), relaxed)


def sweep_rescued(device: Device, n: int, m: int, **how: Any) -> float:
    """Check the sweep that solves use, which sums again what underflows."""
    from sinkhorn_ot.kernels import dense_sweep

    p = dense(device, *device.shape(n, m), **how)
    return p.verify(*dense_sweep.sweep(p.stored, p.u, p.v, p.a, p.inv_reg, log=True))


def sweep_clouds(device: Device, n: int, m: int, d: int, first: bool = False, **how: Any) -> float:
    """Check one sweep between two clouds."""
    from sinkhorn_ot.kernels import clouds, point_cloud

    p = points(device, *device.small(n, m), d, **how)
    placed = clouds.place(*p.clouds, metric=p.metric)
    u = None if first else p.u
    got = point_cloud.sweep(placed, u, p.v, p.a, p.inv_reg, first=first, log=True)
    return p.verify(*got)


def log_sums(device: Device, n: int, m: int, transpose: bool, **how: Any) -> float:
    """Check log-sums along the rows or the columns."""
    from sinkhorn_ot.kernels import log_sums as kernels

    p = dense(device, *device.shape(n, m), **how)
    act = kernels.log_sum_columns if transpose else kernels.log_sum_rows
    means, w = (p.log_sum_columns, p.u) if transpose else (p.log_sum_rows, p.v)
    return within(act(p.stored, w, p.inv_reg), means(w), means(w.double()), p.reach())


def times(device: Device, n: int, m: int, k: int, d: int = 0, transpose: bool = False) -> float:
    """Check the plan times a matrix, or what it pays if k is 0."""
    from sinkhorn_ot.kernels import apply as kernels
    from sinkhorn_ot.kernels import clouds

    n, m = device.shape(n, m)
    p = points(device, n, m, d) if d else dense(device, n, m)
    # rows of mass one
    p.u = -p.log_sum_rows(p.v)
    x = device.randn(1, n if transpose else m, max(k, 1))
    if d:
        cost: Any = clouds.place(*p.clouds, metric=p.metric)
        turned: Any = cost.swapped()
    else:
        cost, turned = p.stored, p.stored.mT
    if k == 0:
        got = kernels.linear(cost, p.u, p.v, p.inv_reg)[..., None]
    elif transpose:
        got = kernels.apply(turned, p.v, p.u, x, p.inv_reg)
    else:
        got = kernels.apply(cost, p.u, p.v, x, p.inv_reg)
    return _sums(got, p, x, k, transpose)


def _sums(got: Tensor, p: Case, x: Tensor, k: int, transpose: bool) -> float:
    """Compare sums of products, relative to the sum of their sizes."""
    sums, size = [], x
    for dtype in (torch.float32, torch.float64):
        P, X = p.plan(dtype), x.to(dtype)
        if k == 0:
            P, X = P * p.cost(slice(None), dtype), torch.ones_like(p.v, dtype=dtype)[..., None]
        P = P.mT if transpose else P
        sums.append(P @ X)
        size = P.abs() @ X.abs()
    eager, truth = (t / size for t in (sums[0].double(), sums[1]))
    return within((got.double() / size), eager, truth, p.reach())


def batched(device: Device, B: int, n: int, m: int, reg: float = 0.1, **how: Any) -> float:
    """Check many small problems, solved whole."""
    from sinkhorn_ot.kernels import batched as kernels

    p = dense(device, n, m, B=min(B, 9) if device.toy else B, shared=False, reg=reg, **how)
    p.v = p.b.log()
    u, v, error, count = kernels.solve(p.stored, p.a, p.b, p.inv_reg, 20)
    if not bool((count == 20).all()):
        raise Wrong("not every problem made its 20 iterations")
    truth, eager = p.iterate(torch.float64, 20), p.iterate(torch.float32, 20)
    spent = max(within(g, e, t, p.reach()) for g, e, t in zip((u, v), eager, truth, strict=True))
    p.u, p.v = (t.float() for t in truth)
    P = p.plan(torch.float64)
    off = (P.sum(2) - p.a).abs().sum(1) + (P.sum(1) - p.b).abs().sum(1)
    return max(spent, share(float((error - off).abs().max()), 1e-3 * float(off.max()) + 2e-5))


def batched_to_tol(device: Device, B: int, n: int, m: int) -> float:
    """Check that every problem stops at its tolerance and not before."""
    from sinkhorn_ot.kernels import batched as kernels

    p = dense(device, n, m, B=min(B, 9) if device.toy else B, shared=False)
    p.u, p.v, error, count = kernels.solve(p.stored, p.a, p.b, p.inv_reg, 500, 1e-4)
    if not bool((count < 500).all()):
        raise Wrong("a problem ran out of iterations")
    P = p.plan(torch.float64)
    off = (P.sum(2) - p.a).abs().sum(1) + (P.sum(1) - p.b).abs().sum(1)
    share(float((error - off).abs().max()), 2e-5)
    return share(float((off / p.a.sum(1)).max()), 1.2e-4)


def write_codes(
    device: Device, n: int, K: int, rows: int | None = None, padded: bool = False, B: int = 1,
    dtype: torch.dtype = torch.float32, n_iter: int = 3,
) -> float:  # fmt: skip
    """Check codes, soft and hard, of the last rows of a batch."""
    from sinkhorn_ot.kernels import codes as kernels

    n, K = device.shape(n, K)
    # long rows take the interpreter seconds an iteration
    n_iter = 1 if device.toy and K > 16384 else n_iter
    S = scores(device, B, n, K, dtype)
    keep = device.rand(B, n) < 0.7 if padded else None
    last = slice(n - min(rows or n, n), n)
    r, inv_eps = device.full(B, K, value=1 / K), device.full(B, value=20.0)
    f = kernels.solve(S, r, inv_eps, n_iter, keep)
    kept = None if keep is None else keep[:, last]
    soft, hard = kernels.write(S[:, last], f, inv_eps, hard=True, keep=kept)
    assert soft is not None
    assert hard is not None
    both = torch.float64, torch.float32
    truth, eager = (codes(S, 0.05, n_iter, dtype, keep)[:, last] for dtype in both)
    here = torch.ones_like(hard, dtype=torch.bool) if kept is None else kept
    best = soft.gather(-1, hard.clamp(min=0)[..., None])[..., 0]
    if not torch.equal(best[here], soft.amax(-1)[here]):
        raise Wrong("a label is not the largest entry")
    if not bool((hard[~here] == -1).all()):
        raise Wrong("a sample that does not count has a label")
    return share(variation(soft, truth), max(1e-6, 2 * variation(eager, truth)))


def _size(n: int, m: int, **how: Any) -> dict[str, Any]:
    return dict(n=n, m=m, **how)


DENSE = {
    "4096x3000": _size(4096, 3000),
    "4096x3000 first": _size(4096, 3000, first=True),
    "4096x3000 fp16": _size(4096, 3000, dtype=HALF),
    "4096x3000 bf16": _size(4096, 3000, dtype=BRAIN),
    "4096x3000 zero weights, inf costs": _size(4096, 3000, holes=True),
    "4096x3000 zero weights, inf costs, first": _size(4096, 3000, holes=True, first=True),
    "10000x16384": _size(10000, 16384),
    "64x20000, too long for the chip": _size(64, 20000),
    "64x131072, too long, zero weights, inf costs": _size(64, 131072, holes=True),
    "17x65": _size(17, 65),
    "1x1": _size(1, 1),
    "1x3000": _size(1, 3000),
    "3000x1": _size(3000, 1),
    "7x300 by columns": _size(7, 300, how="columns"),
    "4096x1000 by columns": _size(4096, 1000, how="columns"),
    "1000x301 sliced": _size(1000, 301, how="sliced"),
    "1000x300 by no axis": _size(1000, 300, how="neither"),
    "a batch of 5, one cost": _size(300, 700, B=5),
    "a batch of 5, five costs": _size(300, 700, B=5, shared=False, first=True),
    "potentials of 200, rows past the end": _size(17, 65, lift=200.0),
    "relaxed rows": _size(1000, 3000, kappa=0.3),
    "free rows": _size(1000, 3000, kappa=0.0, first=True),
    "stale potentials that underflow": _size(1000, 3000, stale=-300.0),
    "stale potentials that overflow": _size(1000, 3000, stale=150.0),
    "1000000x3000 fp16, past 2^31": _size(1_000_000, 3000, dtype=HALF),
    "60000x40000 fp16, past 2^31, too long": _size(60_000, 40_000, dtype=HALF),
}
LOG_SUMS = {
    f"{n}x{m} {'columns' if turn else 'rows'}": _size(n, m, transpose=turn, holes=n > 1)
    for n, m in ((4096, 3000), (17, 65), (1, 1), (64, 131072))
    for turn in (False, True)
}
CLOUDS = {
    "sqeuclidean d=64": _size(4096, 3000, d=64),
    "sqeuclidean d=64 first": _size(4096, 3000, d=64, first=True),
    "sqeuclidean d=2": _size(4096, 3000, d=2),
    "sqeuclidean d=2 first": _size(4096, 3000, d=2, first=True),
    "sqeuclidean d=64, zero weights": _size(1000, 700, d=64, holes=True),
    "sqeuclidean d=3, ten sigma off": _size(1000, 700, d=3, off=10.0),
    "sqeuclidean d=64, ten sigma off": _size(1000, 700, d=64, off=10.0),
    "sqeuclidean d=64 fp16": _size(1000, 700, d=64, dtype=HALF),
    "sqeuclidean d=64, few rows": _size(5, 50000, d=64),
    "sqeuclidean d=2, few columns": _size(50000, 5, d=2),
    "sqeuclidean d=64, a batch of 3": _size(300, 700, d=64, B=3),
    "sqeuclidean d=1, 1x1": _size(1, 1, d=1),
    "sqeuclidean d=200": _size(1000, 700, d=200),
    "sqeuclidean d=784": _size(300, 700, d=784),
    "dot d=3": _size(1000, 700, d=3, metric="dot"),
    "dot d=64": _size(1000, 700, d=64, metric="dot"),
    "dot d=64 bf16": _size(1000, 700, d=64, metric="dot", dtype=BRAIN),
    "cosine d=3": _size(1000, 700, d=3, metric="cosine"),
    "cosine d=128": _size(1000, 700, d=128, metric="cosine"),
}
APPLY = {
    "stored k=1": _size(1000, 3000, k=1),
    "stored k=64": _size(1000, 3000, k=64),
    "stored k=130 transposed": _size(1000, 3000, k=130, transpose=True),
    "clouds d=64 k=1": _size(1000, 3000, k=1, d=64),
    "clouds d=64 k=64": _size(1000, 3000, k=64, d=64),
    "clouds d=2 k=2 transposed": _size(1000, 3000, k=2, d=2, transpose=True),
    "stored <P, C>": _size(1000, 3000, k=0),
    "clouds d=64 <P, C>": _size(1000, 3000, k=0, d=64),
}
BATCHED = {
    "32768 of 4x4": dict(B=32768, n=4, m=4),
    "1000 of 64x64": dict(B=1000, n=64, m=64),
    "70 of 100x127": dict(B=70, n=100, m=127),
    "3 of 1x17": dict(B=3, n=1, m=17),
    "64 of 20x30 bf16, zero weights, inf costs": dict(B=64, n=20, m=30, dtype=BRAIN, holes=True),
    "64 of 20x30, reg 1e-3": dict(B=64, n=20, m=30, reg=1e-3),
}
CODES = {
    "4096x3000, 256 written": dict(n=4096, K=3000, rows=256),
    "4096x3000 fp16": dict(n=4096, K=3000, dtype=HALF),
    "4096x3000 bf16, padded": dict(n=4096, K=3000, dtype=BRAIN, padded=True),
    "64x131072": dict(n=64, K=131072),
    "5000x20000, too long both ways": dict(n=5000, K=20000),
    "3 of 17x65": dict(n=17, K=65, B=3),
    "1x1": dict(n=1, K=1),
    "300x10, one iteration": dict(n=300, K=10, n_iter=1),
}
# at toy sizes each of these is the same as another
_ALIKE = ("2^31", "131072, too long", "5000x20000", "64x131072 columns")
_ALL = [
    *checks("dense sweep", sweep_dense, DENSE),
    *checks("dense sweep", sweep_rescued, {"reg 1e-3, rescued": _size(1000, 3000, reg=1e-3)}),
    *checks("codes", write_codes, CODES),
    *checks("codes", features.write_features, features.CHECKS),
    *checks("batched", batched, BATCHED),
    *checks("batched", batched_to_tol, {"1000 of 16x16 to 1e-4": dict(B=1000, n=16, m=16)}),
    *checks("point cloud", sweep_clouds, CLOUDS),
    *checks("log sums", log_sums, LOG_SUMS),
    *checks("apply", times, APPLY),
]
CHECKS = [replace(c, toy=not any(part in c.name for part in _ALIKE)) for c in _ALL]
