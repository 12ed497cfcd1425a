"""What callers are promised: right answers, equal bits, no waiting, graphs, compilation.

On a CPU the same calls are made, where there is nothing to wait for and nothing to capture.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.gpu.budget import Wrong, share, variation, within
from bench.gpu.cases import Case, codes, dense, points, scores
from bench.gpu.checks.check import Check, checks
from bench.gpu.checks.kernels import BRAIN, HALF
from bench.gpu.device import Device
from sinkhorn_ot.problem import MetricName


N_ITER = 10


def _cost(p: Case) -> Any:
    if p.C is not None:
        return p.C[0] if len(p.C) == 1 else p.C
    return so.PointCloud(*(t[0] for t in p.clouds), metric=cast("MetricName", p.metric))


def _flat(t: Tensor) -> Tensor:
    return t[None] if t.ndim == 1 else t


def _raw(r: so.Transport) -> tuple[Tensor, Tensor]:
    """Return potentials (B, n) and (B, m) as the sweeps left them, with the constant of these."""
    return r.coupling.f, r.coupling.g


def fixed_solve(device: Device, make: Callable[..., Case], n: int, m: int, **how: Any) -> float:
    """Check the potentials of `solve(n_iter=...)`."""
    p = make(device, *device.shape(n, m), **how)
    r = so.solve(_cost(p), p.a, p.b, 1 / float(p.inv_reg[0]), n_iter=N_ITER)
    truth, eager = p.iterate(torch.float64, N_ITER), p.iterate(torch.float32, N_ITER)
    p.u, p.v = truth
    reach = p.reach()
    spent = 0.0
    for got, weight, e, t in zip(_raw(r), (p.a, p.b), eager, truth, strict=True):
        # a point without weight has a potential all the same, which the iteration does not see
        live = weight > 0
        scaled = got.double() * p.inv_reg.double()[:, None]
        log_w = weight.double().log()
        spent = max(spent, within(scaled[live], (e - log_w)[live], (t - log_w)[live], reach))
    return spent


def solve_to_tol(
    device: Device, make: Callable[..., Case], n: int, m: int, tol: float = 1e-5, **how: Any
) -> float:
    """Check that a solve reaches its tolerance, measured in float64 from its potentials."""
    p = make(device, *device.shape(n, m), **how)
    r = so.solve(_cost(p), p.a, p.b, 1 / float(p.inv_reg[0]), tol=tol)
    if not bool(r.converged.all()):
        raise Wrong(f"did not converge: {r.message}")
    f, g = (_flat(t).double() * p.inv_reg.double()[:, None] for t in (r.f, r.g))
    u, v = f + p.a.double().log(), g + p.b.double().log()
    rows = (p.log_sum_rows(v) + u).exp() - p.a
    columns = (p.log_sum_columns(u) + v).exp() - p.b
    off = rows.abs().sum(-1) + columns.abs().sum(-1)
    # float32 potentials move every entry of the plan by a rounding of the exponent
    return share(float(off.max()), 2 * tol + 8 * 2**-24 * max(p.reach(), float(u.abs().max())))


def plan_and_value(device: Device, make: Callable[..., Case], n: int, m: int, **how: Any) -> float:
    """Check that the plan is that of the potentials, and the value that of the plan."""
    p = make(device, *device.shape(n, m), **how)
    r = so.solve(_cost(p), p.a, p.b, 1 / float(p.inv_reg[0]), n_iter=N_ITER)
    p.u = _flat(r.f) * p.inv_reg[:, None] + p.a.log()
    p.v = _flat(r.g) * p.inv_reg[:, None] + p.b.log()
    truth, eager = p.plan(torch.float64), p.plan(torch.float32)
    peak = float(truth.max())
    spent = within(r.plan.double() / peak, eager.double() / peak, truth / peak, p.reach())
    pays = float((truth * p.cost(slice(None), torch.float64)).sum())
    return max(spent, share(abs(float(r.value_linear) - pays), 1e-4 * abs(pays)))


def swav(
    device: Device, n: int, K: int, dtype: torch.dtype = torch.float32, hard: bool = False
) -> float:
    """Check `swav_codes`."""
    S = scores(device, 1, *device.shape(n, K), dtype)[0]
    Q = so.swav_codes(S, hard=hard, out_dtype=torch.float32)
    truth, eager = (codes(S[None], 0.05, 3, t)[0] for t in (torch.float64, torch.float32))
    if hard:
        picked = (truth * Q).sum(-1) / truth.amax(-1)
        return share(float((picked - 1).abs().max()), 1e-4)
    return share(variation(Q, truth), max(1e-6, 2 * variation(eager, truth)))


def swav_converged(device: Device, n: int, K: int) -> float:
    """Check `swav_codes(n_iter=None)`: every prototype has its share."""
    n, K = device.shape(n, K)
    Q = so.swav_codes(scores(device, 1, n, K)[0], n_iter=None)
    return share(float((Q.double().sum(0) * K / n - 1).abs().mean()), 1e-5)


def swav_compiled(device: Device, n: int, K: int) -> float:
    """Check `torch.compile(swav_codes, fullgraph=True)`."""
    S = scores(device, 1, *device.shape(n, K))[0]
    backend = "aot_eager" if device.toy else "inductor"
    seen = torch.compile(so.swav_codes, fullgraph=True, backend=backend)
    return share(variation(seen(S), so.swav_codes(S)), 1e-6)


# what is promised not to wait, by name: inputs, and the call on them
Call = tuple[tuple[Tensor, ...], Callable[..., tuple[Tensor, ...]]]


def _solved(cost: Any, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    plan = so.solve(cost, a, b, 0.1, n_iter=5).coupling
    # of the plan, what is there without a further look at it
    return plan.u, plan.v  # type: ignore[attr-defined]


def _dense_call(device: Device, dtype: torch.dtype = torch.float32) -> Call:
    p = dense(device, *device.shape(1000, 3000), dtype=dtype)
    return (p.stored[0], p.a[0], p.b[0]), _solved


def _long_call(device: Device) -> Call:
    p = dense(device, *device.shape(64, 20000))
    return (p.stored[0], p.a[0], p.b[0]), _solved


def _clouds_call(device: Device) -> Call:
    p = points(device, *device.shape(4096, 3000), 64)
    inputs = tuple(t[0] for t in (*p.clouds, p.a, p.b))
    return inputs, lambda x, y, a, b: _solved(so.PointCloud(x, y), a, b)


def _codes_call(
    device: Device, n: int, K: int, dtype: torch.dtype = torch.float32, **how: Any
) -> Call:
    S = scores(device, 1, *device.shape(n, K), dtype)[0]
    return (S,), lambda S: (so.swav_codes(S, **how),)


def _batched_call(device: Device) -> Call:
    from sinkhorn_ot.kernels import batched

    p = dense(device, 4, 4, B=9 if device.toy else 32768, shared=False)
    return (p.stored, p.a, p.b, p.inv_reg), lambda C, a, b, r: batched.solve(C, a, b, r, 20)


CALLS: dict[str, tuple[str, Callable[[Device], Call]]] = {
    "swav_codes 4096x3000": ("codes", partial(_codes_call, n=4096, K=3000)),
    "swav_codes 4096x3000 fp16": ("codes", partial(_codes_call, n=4096, K=3000, dtype=HALF)),
    "swav_codes 4096x3000 hard": ("codes", partial(_codes_call, n=4096, K=3000, hard=True)),
    "swav_codes 64x131072": ("codes", partial(_codes_call, n=64, K=131072)),
    "solve(n_iter=5) 1000x3000": ("dense sweep", _dense_call),
    "solve(n_iter=5) 1000x3000 bf16": ("dense sweep", partial(_dense_call, dtype=BRAIN)),
    "solve(n_iter=5) 64x20000": ("dense sweep", _long_call),
    "solve(n_iter=5) clouds d=64": ("point cloud", _clouds_call),
    "batched 4x4": ("batched", _batched_call),
}


def equal_bits(device: Device, make: Callable[[Device], Call]) -> float:
    """Check that a call, made twice, gives the same bits."""
    inputs, act = make(device)
    _same(act(*inputs), act(*inputs), "the second run")
    return 0.0


def no_waiting(device: Device, make: Callable[[Device], Call]) -> float:
    """Check that a warm call never waits for the device."""
    inputs, act = make(device)
    act(*inputs)
    with _waiting_is_an_error(device):
        act(*inputs)
    return 0.0


def in_a_graph(device: Device, make: Callable[[Device], Call]) -> float:
    """Check that a captured call, replayed on other inputs, gives the bits of a plain one."""
    inputs, act = make(device)
    other, _ = make(device)
    static = tuple(t.clone() for t in inputs)
    if not device.is_gpu:
        _same(act(*static), act(*inputs), "the copy")
        return 0.0
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        act(*static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = act(*static)
    for fresh in (inputs, other):
        for old, new in zip(static, fresh, strict=True):
            old.copy_(new)
        for t in out:
            t.fill_(math.nan if t.is_floating_point() else -1)
        graph.replay()
        _same(tuple(t.clone() for t in out), act(*fresh), "the replay")
    return 0.0


def _same(first: tuple[Tensor, ...], second: tuple[Tensor, ...], what: str) -> None:
    for k, (x, y) in enumerate(zip(first, second, strict=True)):
        if not bool(x.isfinite().all()):
            raise Wrong(f"output {k} is not finite")
        if not torch.equal(x, y):
            apart = float((x.double() - y.double()).abs().max())
            raise Wrong(f"{what} differs in output {k}, by up to {apart:.3g}")


@contextmanager
def _waiting_is_an_error(device: Device) -> Iterator[None]:
    if not device.is_gpu:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


_FIXED = {
    "solve(n_iter=10) 1000x3000": dict(make=dense, n=1000, m=3000),
    "solve(n_iter=10) 1000x3000 fp16": dict(make=dense, n=1000, m=3000, dtype=HALF),
    "solve(n_iter=10) zero weights, inf costs": dict(make=dense, n=301, m=700, holes=True),
    "solve(n_iter=10) 64x20000": dict(make=dense, n=64, m=20000),
    "solve(n_iter=10) 5 of 100x300": dict(make=dense, n=100, m=300, B=5, shared=False),
}
_SWAV = {
    "swav_codes 4096x3000": dict(n=4096, K=3000),
    "swav_codes 4096x3000 fp16": dict(n=4096, K=3000, dtype=HALF),
    "swav_codes 4096x3000 bf16": dict(n=4096, K=3000, dtype=BRAIN),
    "swav_codes 4096x3000 float64": dict(n=4096, K=3000, dtype=torch.float64),
    "swav_codes 4096x3000 hard": dict(n=4096, K=3000, hard=True),
    "swav_codes 64x131072": dict(n=64, K=131072),
}
_CLOUD = dict(make=points, n=1000, m=700)
PROMISES = [
    *checks("dense sweep", fixed_solve, _FIXED),
    *checks("dense sweep", solve_to_tol, {
        "solve to 1e-5, 1000x3000": dict(make=dense, n=1000, m=3000),
        "solve to 1e-5, 5 of 100x300": dict(make=dense, n=100, m=300, B=5, shared=False),
    }),
    *checks("dense sweep", plan_and_value, {"plan and value": dict(make=dense, n=301, m=700)}),
    *checks("codes", swav, _SWAV),
    *checks("codes", swav_converged, {"swav_codes converged": dict(n=1000, K=300)}),
    *checks("point cloud", fixed_solve, {
        "solve(n_iter=10) clouds d=64": dict(**_CLOUD, d=64),
        "solve(n_iter=10) clouds d=3 cosine": dict(**_CLOUD, d=3, metric="cosine"),
    }),
    *checks("point cloud", solve_to_tol, {"solve to 1e-5, clouds d=2": dict(**_CLOUD, d=2)}),
    *checks("point cloud", plan_and_value, {"plan and value, clouds": dict(**_CLOUD, d=64)}),
    *[
        Check(kernel, f"{name}: {what}", partial(act, make=make))
        for what, act in (
            ("equal bits", equal_bits), ("no waiting", no_waiting), ("in a graph", in_a_graph),
        )
        for name, (kernel, make) in CALLS.items()
    ],
    *checks("codes", swav_compiled, {"swav_codes compiled whole": dict(n=4096, K=3000)}),
]  # fmt: skip
