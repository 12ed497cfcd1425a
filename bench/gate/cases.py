"""What the gate compiles: launches of every kernel at real shapes, a section for each file."""

import functools
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from sinkhorn_ot.kernels import (
    apply,
    batched,
    codes,
    dense_sweep,
    features,
    fixed,
    log_sums,
    near,
    normalize,
    point_cloud,
    router,
    steps,
    whole,
)
from sinkhorn_ot.kernels.clouds import place
from sinkhorn_ot.sweeps import Rules


# makes a tensor of a shape, without memory
New = Callable[..., Tensor]
# launches a kernel on such tensors
Launch = Callable[[New], object]


def _apply(
    n: int, m: int, k: int, d: int = 0, transpose: bool = False, dtype: torch.dtype = torch.float32
) -> Launch:
    """Return a launch on clouds of d coordinates, or on a stored cost if d is 0."""

    def launch(new: New) -> object:
        new = functools.partial(new, dtype=dtype)
        precision = "float64" if dtype == torch.float64 else "fp16x3"
        cost = new(1, n, m)
        if d:
            cost = place(new(1, n, d), new(1, m, d), metric="sqeuclidean", precision=precision)
        if transpose:
            cost = new(1, m, n).mT
        if k == 0:
            return apply.linear(cost, new(1, n), new(1, m), new(1))
        return apply.apply(cost, new(1, n), new(1, m), new(1, m, k), new(1))

    return launch


_APPLY = {
    "4096x3000 k=1": _apply(4096, 3000, 1),
    "4096x3000 k=64": _apply(4096, 3000, 64),
    "3000x4096 k=128 transposed": _apply(3000, 4096, 128, transpose=True),
    "65536x65536 <P, C>": _apply(65536, 65536, 0),
    "50000x50000 d=64 k=1": _apply(50000, 50000, 1, 64),
    "50000x50000 d=64 k=64": _apply(50000, 50000, 64, 64),
    "50000x50000 d=2 k=2": _apply(50000, 50000, 2, 2),
    "50000x50000 d=3 k=10": _apply(50000, 50000, 10, 3),
    "50000x50000 d=784 k=512": _apply(50000, 50000, 512, 784),
    "50000x50000 d=3 <P, C>": _apply(50000, 50000, 0, 3),
    "4096x3000 k=1 fp64": _apply(4096, 3000, 1, dtype=torch.float64),
    "4096x3000 k=4 fp64": _apply(4096, 3000, 4, dtype=torch.float64),
    "3000x4096 k=1 fp64 transposed": _apply(3000, 4096, 1, transpose=True, dtype=torch.float64),
    "4096x3000 k=64 fp64": _apply(4096, 3000, 64, dtype=torch.float64),
    "3000x4096 k=16 fp64 transposed": _apply(3000, 4096, 16, transpose=True, dtype=torch.float64),
    "10000x10000 <P, C> fp64": _apply(10000, 10000, 0, dtype=torch.float64),
    "10000x10000 d=2 k=2 fp64": _apply(10000, 10000, 2, 2, dtype=torch.float64),
    "10000x10000 d=3 k=10 fp64": _apply(10000, 10000, 10, 3, dtype=torch.float64),
    "10000x10000 d=64 k=64 fp64": _apply(10000, 10000, 64, 64, dtype=torch.float64),
    "10000x10000 d=784 k=1 fp64": _apply(10000, 10000, 1, 784, dtype=torch.float64),
}


def _batched(
    B: int, n: int, m: int, dtype: torch.dtype = torch.float32, tol: float | None = None
) -> Launch:
    work = torch.float64 if dtype == torch.float64 else torch.float32

    def launch(new: New) -> object:
        C = new(B, n, m, dtype=dtype)
        a, b, one = (new(B, *shape, dtype=work) for shape in ((n,), (m,), ()))
        return batched.solve(C, a, b, one, 20, tol)

    return launch


_BATCHED = {
    "32768 of 4x4 fp32": _batched(32768, 4, 4),
    "32768 of 4x4 fp32 to a tol": _batched(32768, 4, 4, tol=1e-4),
    "4096 of 8x8 fp32": _batched(4096, 8, 8),
    "4096 of 16x16 fp32 to a tol": _batched(4096, 16, 16, tol=1e-4),
    "4096 of 28x28 fp32": _batched(4096, 28, 28),
    "4096 of 32x4 fp32 to a tol": _batched(4096, 32, 4, tol=1e-4),
    "4096 of 8x128 fp32": _batched(4096, 8, 128),
    "4096 of 128x8 fp32": _batched(4096, 128, 8),
    "4096 of 16x64 fp32 to a tol": _batched(4096, 16, 64, tol=1e-4),
    "4096 of 64x64 fp32": _batched(4096, 64, 64),
    "4096 of 64x64 bf16 to a tol": _batched(4096, 64, 64, torch.bfloat16, 1e-4),
    "1024 of 128x128 fp32": _batched(1024, 128, 128),
    "1024 of 128x128 fp32 to a tol": _batched(1024, 128, 128, tol=1e-4),
    **{
        f"4096 of {n}x{m} fp64{' to a tol' if tol else ''}": _batched(
            4096, n, m, torch.float64, tol
        )
        for n, m, tol in (
            (4, 4, None),
            (4, 4, 1e-9),
            (16, 16, 1e-9),
            (32, 32, None),
            (32, 4, 1e-9),
            (8, 128, None),
            (16, 64, 1e-9),
            (64, 64, None),
            (64, 64, 1e-9),
            (128, 32, None),
        )
    },
}


def _codes(
    n: int, K: int, kept: int, dtype: torch.dtype = torch.float32, *, masked: bool = False
) -> Launch:
    def launch(new: New) -> None:
        S, r, one = new(1, n, K, dtype=dtype), new(1, K), new(1)
        codes.codes(S, None, 20.0, 3, kept, soft=dtype)
        keep = new(1, n, dtype=torch.bool) if masked else None
        codes.codes(S, r, one, 3, kept, soft=dtype, hard=True, keep=keep)
        codes.write(S[:, -kept:], codes.solve(S, r, one), one)

    return launch


_CODES = {
    "4096x3000 fp32, 256 kept": _codes(4096, 3000, 256),
    "4096x3000 fp16, 256 kept": _codes(4096, 3000, 256, torch.float16),
    "64x131072 fp32": _codes(64, 131072, 64),
    "2458x131072 bf16 masked": _codes(2458, 131072, 2458, torch.bfloat16, masked=True),
    "512x16384 fp32": _codes(512, 16384, 512),
}


def _dense_sweep(
    n: int, m: int, dtype: torch.dtype = torch.float32, *, first: bool = False,
    relaxed: bool = False, transposed: bool = False, ragged: bool = False,
    work: torch.dtype = torch.float32,
) -> Launch:  # fmt: skip
    def launch(new: New) -> object:
        C = new(1, m, n, dtype=dtype).mT if transposed else new(1, n, m, dtype=dtype)
        v, a, one = (new(*shape, dtype=work) for shape in ((1, m), (1, n), (1,)))
        how = {"first": first, "kappa": one if relaxed else None}
        how["lengths"] = new(1, 2, dtype=torch.int32) if ragged else None
        dense_sweep.sweep(C, a, v, a, one, move=(v, v), **how)
        return dense_sweep.sweep(C, a, v, a, one, log=True, **how)

    return launch


def _double_sweep(n: int, m: int, dtype: torch.dtype = torch.float64, **how: bool) -> Launch:
    return _dense_sweep(n, m, dtype, work=torch.float64, **how)


_DENSE_SWEEP = {
    "4096x3000 fp32": _dense_sweep(4096, 3000),
    "4096x3000 fp32 first": _dense_sweep(4096, 3000, first=True),
    "4096x3000 fp32 relaxed": _dense_sweep(4096, 3000, relaxed=True),
    "4096x3000 fp32 ragged": _dense_sweep(4096, 3000, ragged=True),
    "1281167x3000 fp32": _dense_sweep(1281167, 3000),
    "1281167x3000 fp16": _dense_sweep(1281167, 3000, torch.float16),
    "1281167x3000 bf16": _dense_sweep(1281167, 3000, torch.bfloat16),
    "16384x16384 fp32": _dense_sweep(16384, 16384),
    "16384x16384 bf16": _dense_sweep(16384, 16384, torch.bfloat16),
    "10000x10000 fp32": _dense_sweep(10000, 10000),
    "65536x64 fp32": _dense_sweep(65536, 64),
    "65536x256 bf16": _dense_sweep(65536, 256, torch.bfloat16),
    "131072x64 fp32 transposed": _dense_sweep(131072, 64, transposed=True),
    "131072x1536 fp32 transposed": _dense_sweep(131072, 1536, transposed=True),
    "1000x1000 fp64": _double_sweep(1000, 1000),
    "4096x3000 fp64": _double_sweep(4096, 3000),
    "4096x3000 fp64 first": _double_sweep(4096, 3000, first=True),
    "4096x3000 fp64 relaxed": _double_sweep(4096, 3000, relaxed=True),
    "4096x3000 fp64 ragged": _double_sweep(4096, 3000, ragged=True),
    "4096x3000 fp64 of fp32": _double_sweep(4096, 3000, torch.float32),
    "4000x4000 fp64": _double_sweep(4000, 4000),
    "6000x6000 fp64": _double_sweep(6000, 6000),
    "65536x64 fp64": _double_sweep(65536, 64),
    "131072x64 fp64 transposed": _double_sweep(131072, 64, transposed=True),
    "131072x768 fp64 transposed": _double_sweep(131072, 768, transposed=True),
}


def _features(n: int, K: int, d: int, kept: int, *, whole: bool = True) -> Launch:
    def launch(new: New) -> None:
        r, one = new(1, K), new(1)
        clouds = features.place_features(new(1, n, d), new(1, K, d))
        f = features.solve(clouds, r, one) if whole else r
        features.write(clouds, f, one, kept, soft=torch.float32 if whole else None, hard=True)

    return launch


_FEATURES = {
    "65536x3000 d=128, 256 kept": _features(65536, 3000, 128, 256),
    "256x3000 d=64, labels": _features(256, 3000, 64, 256, whole=False),
}


def _fixed(n: int, m: int, dtype: torch.dtype = torch.float32, transposed: bool = False) -> Launch:
    work = torch.float64 if dtype == torch.float64 else torch.float32

    def launch(new: New) -> object:
        C = new(1, m, n, dtype=dtype).mT if transposed else new(1, n, m, dtype=dtype)
        a, b, one = (new(*shape, dtype=work) for shape in ((1, n), (1, m), (1,)))
        return fixed.sweeps(C, a, b, one, 2)

    return launch


_FIXED = {
    "4096x3000 fp32": _fixed(4096, 3000),
    "4096x3000 bf16": _fixed(4096, 3000, torch.bfloat16),
    "4096x3000 fp64": _fixed(4096, 3000, torch.float64),
    "131072x64 fp32 transposed": _fixed(131072, 64, transposed=True),
    "131072x64 fp64 transposed": _fixed(131072, 64, torch.float64, transposed=True),
}


def _log_sums(
    n: int, m: int, dtype: torch.dtype = torch.float32, work: torch.dtype = torch.float32
) -> Launch:
    def launch(new: New) -> None:
        C = new(1, n, m, dtype=dtype)
        u, v, one = (new(*shape, dtype=work) for shape in ((1, n), (1, m), (1,)))
        # both halves of a sweep over rows too long for the chip
        log_sums.move_rows(C, v, u, one, out=u)
        log_sums.sum_columns(C, u, v, one, None, out=v, move=(v, v))
        log_sums.log_sum_columns(C, u, one, only=new(1, m, dtype=torch.bool))

    return launch


_LOG_SUMS = {
    "65536x65536 fp32": _log_sums(65536, 65536),
    "65536x65536 bf16": _log_sums(65536, 65536, torch.bfloat16),
    "64x131072 fp32": _log_sums(64, 131072),
    "4096x3000 fp16": _log_sums(4096, 3000, torch.float16),
    "10000x10000 fp64": _log_sums(10000, 10000, torch.float64, torch.float64),
    "64x20000 fp64 of fp32": _log_sums(64, 20000, torch.float32, torch.float64),
}


def _normalize(
    B: int, n: int, m: int, dtype: torch.dtype = torch.float32, *, log: bool = False,
    weights: bool = False,
) -> Launch:  # fmt: skip
    work = torch.float64 if dtype == torch.float64 else torch.float32

    def launch(new: New) -> object:
        x = new(B, n, m, dtype=dtype)
        a, b = (new(B, k, dtype=work) if weights else None for k in (n, m))
        normalize.matrices(x, a, b, 1.0, 20, log, out=x)
        return normalize.derivatives(x, x, a, b, 1.0, 20, log, weights, out=x)

    return launch


_NORMALIZE = {
    "65536 of 4x4 fp32": _normalize(65536, 4, 4),
    "65536 of 4x4 fp64": _normalize(65536, 4, 4, torch.float64),
    "65536 of 4x4 bf16": _normalize(65536, 4, 4, torch.bfloat16),
    "65536 of 4x4 fp16, weights, log": _normalize(
        65536, 4, 4, torch.float16, log=True, weights=True
    ),
    "4096 of 8x8 fp32": _normalize(4096, 8, 8),
    "4096 of 16x16 fp64": _normalize(4096, 16, 16, torch.float64),
    "4096 of 32x32 fp32, log": _normalize(4096, 32, 32, log=True),
    "4096 of 64x64 fp64": _normalize(4096, 64, 64, torch.float64),
    "4096 of 8x128 fp32, weights": _normalize(4096, 8, 128, weights=True),
    "4096 of 64x64 bf16": _normalize(4096, 64, 64, torch.bfloat16),
    "1024 of 128x128 fp32": _normalize(1024, 128, 128),
    "1024 of 128x128 fp32, weights, log": _normalize(1024, 128, 128, log=True, weights=True),
}


def _point_cloud(
    n: int, m: int, d: int, *, B: int = 1, first: bool = False, metric: str = "sqeuclidean",
    precision: str = "fp16x3", ragged: bool = False,
) -> Launch:  # fmt: skip
    def launch(new: New) -> object:
        clouds = place(new(B, n, d), new(B, m, d), metric=metric, precision=precision)
        clouds = clouds.ended(new(B, 2, dtype=torch.int32) if ragged else None)
        work = torch.float64 if clouds.double else torch.float32
        u, v, one = (new(B, *shape, dtype=work) for shape in ((n,), (m,), ()))
        return point_cloud.sweep(clouds, u, v, u, one, first=first)

    return launch


def _near(n: int, d: int, dtype: torch.dtype = torch.float32, *, size: int = 128) -> Launch:
    """Return the launches of a sweep over the tiles that count, and of products there."""

    def launch(new: New) -> object:
        new = functools.partial(new, dtype=dtype)
        precision = "float64" if dtype == torch.float64 else "fp16x3"
        cloud = place(new(1, n, d), new(1, n, d), metric="sqeuclidean", precision=precision)
        order, k = new(n, dtype=torch.int64), -(-n // size)
        boxes = near.Boxes(order, new(d, k), new(d, k), k, size)
        v, one = near.take(cloud.columns, boxes, new(n)), new(1)
        sums = near.known(cloud.rows, boxes, new(n))
        live = near.judge((boxes, sums.above), (boxes, v.above), one, -18.0)
        t = v.values[None]
        for guess in (None, sums.values[None]):
            point_cloud.log_sum_rows(cloud, t, one, guess=guess, live=live)
        near.settle(cloud.rows, boxes, sums.values, sums.values, live, weight=new(n), kappa=one)
        near.settle(cloud.rows, boxes, sums.values, sums.values, live, base=v.values)
        if d < 4:
            apply.apply(cloud, t, t, new(1, n, 1), one, live)
            apply.linear(cloud, t, t, one, live)
            apply.apply(cloud, t, t, new(1, n, 10), one, live)
        return live

    return launch


_NEAR = {
    "100000x100000 d=2": _near(100000, 2),
    "100000x100000 d=3 fp64": _near(100000, 3, torch.float64),
    "1000000x1000000 d=3": _near(1000000, 3, size=256),
    "1000000x1000000 d=8": _near(1000000, 8, size=256),
    "4000000x4000000 d=8 fp64": _near(4000000, 8, torch.float64, size=1024),
}


_POINT_CLOUD = {
    "4096x64 d=64": _point_cloud(4096, 64, 64),
    "50000x50000 d=2": _point_cloud(50000, 50000, 2),
    "50000x50000 d=2 ragged": _point_cloud(50000, 50000, 2, ragged=True),
    "50000x50000 d=64 ragged": _point_cloud(50000, 50000, 64, ragged=True),
    "50000x50000 d=8 first": _point_cloud(50000, 50000, 8, first=True),
    "50000x50000 d=64": _point_cloud(50000, 50000, 64),
    "50000x50000 d=64 first": _point_cloud(50000, 50000, 64, first=True),
    "50000x50000 d=64 tf32": _point_cloud(50000, 50000, 64, precision="tf32"),
    "50000x50000 d=128 cosine": _point_cloud(50000, 50000, 128, metric="cosine"),
    "50000x50000 d=784": _point_cloud(50000, 50000, 784),
    "50000x50000 d=2048": _point_cloud(50000, 50000, 2048),
    "128x30000x30000 d=3": _point_cloud(30000, 30000, 3, B=128),
    "10000x10000 d=3 fp32 euclidean": _point_cloud(10000, 10000, 3, metric="euclidean"),
    "10000x10000 d=64 fp32 euclidean": _point_cloud(10000, 10000, 64, metric="euclidean"),
    **{
        f"10000x10000 d={d} fp64 {metric}{' first' if first else ''}": _point_cloud(
            10000, 10000, d, metric=metric, precision="float64", first=first
        )
        for d, metric, first in (
            (2, "sqeuclidean", False),
            (8, "sqeuclidean", True),
            (3, "euclidean", False),
            (64, "euclidean", False),
            (64, "sqeuclidean", False),
            (64, "sqeuclidean", True),
            (128, "cosine", False),
            (784, "dot", False),
        )
    },
    "10000x10000 d=3 fp32 manhattan": _point_cloud(10000, 10000, 3, metric="manhattan"),
    "10000x10000 d=64 fp32 manhattan": _point_cloud(10000, 10000, 64, metric="manhattan"),
}


def _router(
    T: int, E: int, dtype: torch.dtype = torch.float32, *, B: int = 1, masked: bool = False
) -> Launch:
    def launch(new: New) -> object:
        keep = new(B, T, dtype=torch.bool) if masked else None
        return router.route(new(B, T, E, dtype=dtype), keep, 3, 1e-4, True)

    return launch


_ROUTER = {
    "16384x64 fp32": _router(16384, 64),
    "16384x32 fp64": _router(16384, 32, torch.float64),
    "8192x8 bf16 masked": _router(8192, 8, torch.bfloat16, masked=True),
    "65536x256 bf16": _router(65536, 256, torch.bfloat16),
    "4096x4096 fp32": _router(4096, 4096),
    "256 of 2048x128 fp32": _router(2048, 128, B=256),
}


# by file of kernels/ and label
def _whole(
    n: int, m: int, dtype: torch.dtype = torch.float32, work: torch.dtype = torch.float32,
    fixed: bool = False,
) -> Launch:  # fmt: skip
    def launch(new: New) -> object:
        C, a, b, inv = new(n, m, dtype=dtype), new(n, dtype=work), new(m, dtype=work), new(1)
        # where programs cannot meet it is not asked
        if not whole.serves(C, work):
            return None
        if fixed:
            return whole.fixed(C, a, b, inv, 10)
        rules = Rules(1e-6, 9, 9, 2, 4.0, 0.1, 40, 15, 2.0, 4, 0.1)
        return whole.solve(C, a, b, inv, new(m, dtype=work), **asdict(rules))

    return launch


_WHOLE = {
    "100x100 fp32": _whole(100, 100),
    "1000x1000 fp32": _whole(1000, 1000),
    "4000x4000 fp32": _whole(4000, 4000),
    "10000x10000 fp32": _whole(10000, 10000),
    "4096x3000 fp16": _whole(4096, 3000, torch.float16),
    "4096x3000 fp32, fixed": _whole(4096, 3000, fixed=True),
    "1000x1000 fp64": _whole(1000, 1000, torch.float64, torch.float64),
    "4000x4000 fp64": _whole(4000, 4000, torch.float64, torch.float64),
    "10000x10000 fp64": _whole(10000, 10000, torch.float64, torch.float64),
}


def _steps(m: int, dtype: torch.dtype, relaxed: bool) -> Launch:
    def launch(new: New) -> object:
        n, make = 4096, functools.partial(new, dtype=dtype)
        side = steps.Relaxed(make(2, n), make(2), (0.5, 0.7), dtype) if relaxed else None
        run = steps.Run(make(2, m), side, memory=15, growth=2.0, wait=4, begin=0.1)
        return run.step(make(2, n), make(2, m), make(2, m))

    return launch


_STEPS = {
    f"{m} columns fp{size}{', relaxed' if relaxed else ''}": _steps(m, dtype, relaxed)
    for size, dtype in ((32, torch.float32), (64, torch.float64))
    for m in (1000, 100_000)
    for relaxed in (False, True)
}


CASES: dict[str, dict[str, Launch]] = {
    "apply": _APPLY,
    "batched": _BATCHED,
    "codes": _CODES,
    "dense_sweep": _DENSE_SWEEP,
    "features": _FEATURES,
    "fixed": _FIXED,
    "log_sums": _LOG_SUMS,
    "near": _NEAR,
    "normalize": _NORMALIZE,
    "point_cloud": _POINT_CLOUD,
    "router": _ROUTER,
    "steps": _STEPS,
    "whole": _WHOLE,
}
