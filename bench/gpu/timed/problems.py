"""What is timed: problems that people pose, who solves them, and what was predicted.

All that solve a problem do the same iterations from the same start, and their error against float64
stands beside their time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.gpu.budget import variation
from bench.gpu.cases import Case, codes, dense, points, scores
from bench.gpu.clock import Act
from bench.gpu.device import Device
from bench.gpu.timed import peers
from bench.gpu.timed.features import features_of
from bench.gpu.timed.table import Problem, Row, Target, of, ratio


def distance(got: Tensor, truth: Tensor) -> float:
    """Return the largest difference of two potentials, in units of reg."""
    return float((got.double() - truth).abs().max())


def _compiled(device: Device, act: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(act, dynamic=False, backend="eager" if device.toy else "inductor")


def _logs(p: Case) -> tuple[Tensor, Tensor]:
    return p.a.log(), p.b.log()


SWEEP, SOLVE = "dense sweep kernel", "solve(n_iter=10)"
EAGER, COMPILED = "PyTorch eager, two log-sum-exps", "PyTorch compiled, two log-sum-exps"


def _sweep(device: Device, p: Case) -> Act:
    from sinkhorn_ot.kernels import dense_sweep

    new_v, out = torch.empty_like(p.v), (torch.empty_like(p.u), torch.empty_like(p.v))

    def run() -> Tensor:
        dense_sweep.sweep(p.stored, p.u, p.v, p.a, p.inv_reg, out=out, move=(p.b, new_v))
        return new_v

    return run


def _eager(device: Device, p: Case, compiled: bool = False) -> Act:
    act = _compiled(device, peers.eager_sweep) if compiled else peers.eager_sweep
    return partial(act, p.stored, p.v, *_logs(p), p.inv_reg)


def _next_v(p: Case) -> Tensor:
    return p.v + p.b.double().log() - p.sweep(torch.float64)[1]


def _one_read(at_least: float, note: str = "") -> Target:
    return Target("share of copy bandwidth, one read", of(SWEEP, "share"), at_least, note=note)


def sweep_of(
    name: str, make: Callable[[Device], Case], rows: tuple[Row, ...] = (), compiled: bool = True,
    targets: tuple[Target, ...] = (),
) -> Problem:  # fmt: skip
    """Return one iteration over a stored cost, from potentials that an earlier one left."""
    late = (Row(COMPILED, partial(_eager, compiled=True), late=True),) if compiled else ()
    return Problem(
        name, "dense sweep", make, _next_v, distance,
        (Row(SWEEP, _sweep, "triton"), Row(EAGER, _eager), *rows, *late),
        traffic=lambda p: p.stored.nbytes, pairs=lambda p: p.stored.numel(),
        stored=lambda p: p.stored.nbytes, targets=targets,
    )  # fmt: skip


def _dense(n: int, m: int, dtype: torch.dtype = torch.float32) -> Callable[[Device], Case]:
    return lambda device: dense(device, *device.small(n, m), dtype=dtype)


def _sela(dtype: torch.dtype) -> Callable[[Device], Case]:
    def make(device: Device) -> Case:
        N, K = device.small(1281167, 3000)
        p = dense(device, 1, K, reg=1 / 25)
        p.C = -torch.log_softmax(device.randn(1, N, K), -1).to(dtype)
        p.a, p.b = device.full(1, N, value=1 / N), device.full(1, K, value=1 / K)
        p.u = p.sweep(torch.float64)[0].float()
        return p

    return make


SELA = "SeLa's loop, float64"


def _sela_loop(device: Device, p: Case) -> Act:
    stored = torch.empty(p.stored.shape[1:], device=device.torch_device, dtype=torch.float64)
    for rows, E in p.exponents(torch.float64):
        torch.exp(E[0], out=stored[rows])
    return peers.sela_loop(stored, p.v.double().exp().t(), p.a[0].log())


def _solve(device: Device, p: Case) -> Act:
    reg = 1 / float(p.inv_reg[0])
    C, a, b = p.stored[0], p.a[0], p.b[0]
    return lambda: so.solve(C, a, b, reg, n_iter=10).coupling.v  # type: ignore[attr-defined]


def _eager_solve(device: Device, p: Case, n_iter: int, compiled: bool = False) -> Act:
    act = _compiled(device, peers.eager_solve) if compiled else peers.eager_solve
    return partial(act, p.stored, *_logs(p), p.inv_reg, n_iter)


def _solve_of(n: int, m: int) -> Problem:
    rows = (Row(SOLVE, _solve), Row("PyTorch eager", partial(_eager_solve, n_iter=10)))
    return Problem(
        f"solve {n}x{m} fp32", "dense sweep", _dense(n, m),
        lambda p: p.iterate(torch.float64, 10)[1], distance, rows, steps=10,
        traffic=lambda p: p.stored.nbytes, pairs=lambda p: p.stored.numel(),
        stored=lambda p: p.stored.nbytes,
    )  # fmt: skip


CODES, SWAV = "codes kernels", "SwAV's loop"


def _codes(device: Device, S: Tensor, rows: int) -> Act:
    from sinkhorn_ot.kernels import codes as kernels

    r, inv_eps = device.full(1, S.shape[2], value=1.0), device.full(1, value=20.0)
    kept = S[:, -rows:]

    def run() -> Tensor:
        soft, _ = kernels.write(kept, kernels.solve(S, r, inv_eps, 3), inv_eps)
        assert soft is not None
        return soft[0]

    return run


def _loop_of_codes(
    device: Device, S: Tensor, act: Callable[..., Tensor], rows: int, compiled: bool = False
) -> Act:
    return partial(_compiled(device, act) if compiled else act, S[0], 0.05, 3, rows)


def codes_of(
    name: str, n: int, K: int, rows: int, public: bool = False, targets: tuple[Target, ...] = ()
) -> Problem:
    """Return SwAV's codes of the last `rows` samples; a call is all three iterations."""
    loop = partial(_loop_of_codes, rows=rows)
    ours = [Row(CODES, partial(_codes, rows=rows), "triton")]
    if public:
        ours.append(Row("swav_codes", lambda _, S: partial(so.swav_codes, S[0])))
    return Problem(
        name, "codes", lambda device: scores(device, 1, *device.small(n, K)),
        lambda S: codes(S, 0.05, 3, torch.float64)[0, -rows:], variation,
        (
            *ours,
            Row(SWAV, partial(loop, act=peers.swav_loop)),
            Row("PyTorch eager, log domain", partial(loop, act=peers.eager_codes)),
            Row("SwAV's loop, compiled", partial(loop, act=peers.swav_loop, compiled=True),
                late=True),
        ),
        traffic=lambda S: 3 * S.nbytes + 2 * S[:, -rows:].nbytes,
        stored=lambda S: S.nbytes, targets=targets,
    )  # fmt: skip


BATCHED = "batched kernel"


def _batched(device: Device, p: Case) -> Act:
    from sinkhorn_ot.kernels import batched

    return lambda: batched.solve(p.stored, p.a, p.b, p.inv_reg, 20)[1]


def batched_of(B: int, n: int, targets: tuple[Target, ...] = ()) -> Problem:
    """Return many small problems of 20 iterations; a call is all of them."""

    # what is read and written: the cost, two weights, two potentials, an error, a count
    def traffic(p: Case) -> float:
        return p.stored.nbytes + 4 * (2 * p.a.numel() + 2 * p.b.numel() + 2 * len(p.a))

    return Problem(
        f"{B} of {n}x{n}, 20 iterations", "batched",
        lambda device: dense(device, n, n, B=min(B, 3) if device.toy else B, shared=False),
        lambda p: p.iterate(torch.float64, 20)[1], distance,
        (
            Row(BATCHED, _batched, "triton"),
            Row("PyTorch eager", partial(_eager_solve, n_iter=20)),
            Row("PyTorch compiled", partial(_eager_solve, n_iter=20, compiled=True), late=True),
        ),
        traffic=traffic, pairs=lambda p: 40 * p.stored.numel(), stored=lambda p: p.stored.nbytes,
        targets=targets,
    )  # fmt: skip


POINTS, FLASH = "solve(PointCloud, n_iter=5)", "FlashSinkhorn, alternating, fp32"


def _points(device: Device, p: Case) -> Act:
    x, y = (t[0] for t in p.clouds)
    reg, a, b = 1 / float(p.inv_reg[0]), p.a[0], p.b[0]
    cost = so.PointCloud(x, y)
    return lambda: so.solve(cost, a, b, reg, n_iter=5).coupling.v  # type: ignore[attr-defined]


def _points_tf32(device: Device, p: Case) -> Act:
    from sinkhorn_ot.kernels import clouds, point_cloud

    log_b = p.b.log()

    def run() -> Tensor:
        placed = clouds.place(*p.clouds, metric="sqeuclidean", precision="tf32")
        u, v = None, log_b
        for _ in range(5):
            u, log_s = point_cloud.sweep(placed, u, v, p.a, p.inv_reg, log=True)
            v = v + log_b - log_s
        return v

    return run


def _eager_points(device: Device, p: Case, compiled: bool = False) -> Act:
    block = _compiled(device, peers.block_log_sum) if compiled else peers.block_log_sum
    x, y, log_a, log_b = (t[0] for t in (*p.clouds, *_logs(p)))
    inv_reg = float(p.inv_reg[0])

    def run() -> Tensor:
        v = log_b
        for _ in range(5):
            v = peers.blocks_sweep(x, y, v, log_a, log_b, inv_reg, block)
        return v[None]

    return run


def _peer(solve: Callable[..., Any], logs: bool = False, **how: Any) -> Callable[..., Act]:
    def prepare(device: Device, p: Case) -> Act:
        weights = _logs(p) if logs else (p.a, p.b)
        tensors = (t[0] for t in (*p.clouds, *weights))
        act: Act = solve(*tensors, 1 / float(p.inv_reg[0]), **how)
        return act

    return prepare


def points_of(n: int, m: int, d: int, targets: tuple[Target, ...] = ()) -> Problem:
    """Return five iterations between two normal clouds, from nothing."""
    flash = partial(_peer, peers.flash_solve, n_iter=5)
    annealed = _peer(peers.geomloss_solve, scaling=0.5)
    wide = (Row("point cloud kernel, tf32", _points_tf32, "triton"),) if d > 8 else ()
    return Problem(
        f"points {n}x{m} d={d}", "point cloud",
        lambda device: points(device, *device.small(n, m), d),
        lambda p: p.iterate(torch.float64, 5)[1], distance,
        (
            Row(POINTS, _points),
            *wide,
            Row("PyTorch eager, cost in blocks", _eager_points),
            Row(FLASH, flash(tf32=False), "flash_sinkhorn"),
            Row("FlashSinkhorn, alternating, tf32", flash(tf32=True), "flash_sinkhorn"),
            Row("PyTorch compiled, cost in blocks", partial(_eager_points, compiled=True),
                late=True),
            Row("KeOps, alternating", _peer(peers.keops_solve, logs=True, n_iter=5), "pykeops",
                late=True),
            Row("GeomLoss, a whole annealed solve", annealed, "geomloss", late=True, exact=False,
                steps=1, note="per solve: it has its own schedule and end"),
            Row("OTT-JAX", _peer(peers.ott_solve, n_iter=5), "ott", late=True, wall=True,
                exact=False, note="columns first, so other iterates; host clock"),
        ),
        steps=5, pairs=lambda p: 2.0 * p.a.numel() * p.b.numel(),
        # two passes of three products each
        products=(lambda p: 12.0 * p.a.numel() * p.b.numel() * d) if d > 8 else None,
        targets=targets,
    )  # fmt: skip


_WRITTEN = (
    Target("times the least traffic", of(CODES, "times_least"), 1.5, at_least=False),
    Target("times as quick as SwAV's loop", ratio(SWAV, CODES), 8.0),
)
_TWO = "rows too long for the chip are read twice, so one half is the most"
PROBLEMS = (
    sweep_of("dense 4096x3000 fp32", _dense(4096, 3000), targets=(_one_read(0.85),)),
    sweep_of("dense 16384x16384 fp32", _dense(16384, 16384), targets=(_one_read(0.85),)),
    codes_of("codes 4096x3000, 256 written", 4096, 3000, 256, targets=_WRITTEN),
    sweep_of(
        "SeLa 1281167x3000 fp16", _sela(torch.float16), (Row(SELA, _sela_loop),),
        targets=(Target("ms an iteration", of(SWEEP, "ms_per_iteration"), 2.2, at_least=False),),
    ),
    points_of(50000, 50000, 64, (
        Target("times as quick as FlashSinkhorn at fp32", ratio(FLASH, POINTS), 1.7),
    )),
    batched_of(32768, 4, (Target("share of copy bandwidth", of(BATCHED, "share"), 0.3),)),
    sweep_of("SeLa 1281167x3000 fp32", _sela(torch.float32), compiled=False,
             targets=(_one_read(0.85),)),
    sweep_of("dense 65536x65536 fp32", _dense(65536, 65536), compiled=False,
             targets=(_one_read(0.85, _TWO),)),
    sweep_of("dense 65536x65536 fp16", _dense(65536, 65536, torch.float16), compiled=False),
    codes_of("codes 4096x3000, all written", 4096, 3000, 4096, public=True),
    codes_of("codes 64x131072, all written", 64, 131072, 64, public=True),
    codes_of("codes 2458x131072, all written", 2458, 131072, 2458, public=True),
    features_of(65536, 3000, 128, 256),
    features_of(4096, 3000, 128, 256),
    _solve_of(4096, 3000),
    batched_of(1000, 64),
    points_of(50000, 50000, 2),
    points_of(4096, 64, 64),
)  # fmt: skip
