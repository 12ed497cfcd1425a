"""Relaxed solves, whose columns a kernel answers, and routers, against float64."""

import math

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.gpu.budget import Wrong, share
from bench.gpu.called.swept import relaxed_error
from bench.gpu.cases import dense
from bench.gpu.checks.check import checks
from bench.gpu.device import Device


def relaxed(device: Device, n: int, m: int, rho: float, tol: float = 1e-5) -> float:
    """Check that a relaxed solve comes to rest, measured in float64 from its potentials."""
    p = dense(device, *device.shape(n, m))
    r = so.solve(p.stored[0], p.a[0], p.b[0], 1 / float(p.inv_reg[0]), unbalanced=rho, tol=tol)
    if not bool(r.converged):
        raise Wrong(f"did not converge: {r.message}")
    found = relaxed_error(p, r, rho)
    return share(found["error"], 4 * tol + found["roundings"])


def _plan(L: Tensor, n_iter: int) -> Tensor:
    """Return the log-plan of a router's iterations, written out."""
    T, E = L.shape
    f, scaled = torch.zeros(E, dtype=L.dtype, device=L.device), L
    for _ in range(n_iter):
        scaled = L - torch.logsumexp(L + f, 1, keepdim=True)
        f = math.log(T / E) - torch.logsumexp(scaled, 0)
    return scaled + f - math.log(T)


def route(device: Device, T: int, E: int, dtype: torch.dtype, n_iter: int = 5) -> float:
    """Check a router's plan, after a count of iterations and to a tolerance."""
    T, E = device.small(T, E)
    L = device.randn(T, E).to(dtype)
    truth = _plan(L.double(), n_iter).exp()
    found = so.adapters.moe_router(L, n_iter=n_iter)
    off = float((found.plan.double() - truth).abs().sum(1).max()) * T / 2
    # exponentials are float32 unless the plan is float64
    spent = share(off, 1e-9 if dtype == torch.float64 else 4e-6)
    even = so.adapters.moe_router(L, tol=1e-6, max_iter=1000)
    if not bool(even.converged):
        raise Wrong("the router did not come to its tolerance")
    rows = even.plan.double().sum(1) * T - 1
    return max(spent, share(float(rows.abs().mean()), 1e-4))


_RELAXED = {
    "relaxed solve to 1e-5, 1000x3000": dict(n=1000, m=3000, rho=1.0),
    "relaxed solve to 1e-5, 1000x700, rho 0.1": dict(n=1000, m=700, rho=0.1),
}
_ROUTED = {
    "8192x64": dict(T=8192, E=64, dtype=torch.float32),
    "8192x8 bf16": dict(T=8192, E=8, dtype=torch.bfloat16),
    "4096x256 float64": dict(T=4096, E=256, dtype=torch.float64),
    "1000x4096": dict(T=1000, E=4096, dtype=torch.float32),
}
CHECKS = [*checks("dense sweep", relaxed, _RELAXED), *checks("router", route, _ROUTED)]
