"""Labels of whole data sets, and routing, as called; the logits are made on the device."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.gpu.called.call import Call, Found, Made, seeded
from bench.gpu.device import Device


# numbers of a block in float64: one GB
_BLOCK = 1 << 27
_LAMB, _SOFT = 25.0, 5.0


def logits(device: Device, n: int, K: int, dtype: torch.dtype) -> Tensor:
    """Return standard normal logits."""
    return seeded(device, 4).randn(*device.small(n, K), dtype=dtype)


def shares(E: Tensor, g: Tensor | None, lamb: float) -> Tensor:
    """Return the share of each label, in float64 and by blocks; given as they are if g is None."""
    total = torch.zeros(E.shape[1], dtype=torch.float64, device=E.device)
    for rows in E.split(max(1, _BLOCK // E.shape[1])):
        plan = rows.double() if g is None else ((rows.double() + g) * lamb).softmax(1)
        total += plan.sum(0)
    return total / len(E)


def _off(got: Tensor) -> float:
    return float((got - 1 / len(got)).abs().sum())


def _sela(device: Device, n: int, K: int, tol: float = 1e-6) -> Made:
    E = logits(device, n, K, torch.float16)

    def judge(r: Any) -> Found:
        error = _off(shares(E, r.potentials, _LAMB))
        told = {"n_iter": int(r.n_iter), "converged": bool(r.converged)}
        return {"error": error, "allowed": 3 * tol} | told

    return Made(lambda: so.sela_labels(E, lamb=_LAMB, tol=tol), judge)


def _clot(device: Device, n: int, K: int, tol: float = 1e-6) -> Made:
    E = logits(device, n, K, torch.float32)

    def judge(Q: Tensor) -> Found:
        # float32 labels carry a rounding each
        return {"error": _off(shares(Q, None, 1.0)), "allowed": 3 * tol}

    return Made(lambda: so.adapters.clot_labels(E, lamb=_SOFT, tol=tol), judge)


def _balanced(device: Device, n: int, K: int) -> Made:
    E = logits(device, n, K, torch.float32)

    def judge(r: Any) -> Found:
        sizes = r.labels.bincount(minlength=E.shape[1])
        # where K does not divide n, counts differ by one
        return {"error": float((sizes - len(E) / E.shape[1]).abs().max()), "allowed": 1.0}

    return Made(lambda: so.balanced_labels(E), judge)


def _router(device: Device, n: int, K: int, n_iter: int | None = None) -> Made:
    E = logits(device, n, K, torch.float32)

    def judge(r: Any) -> Found:
        error = _off(r.log_plan.double().exp().sum(0))
        rows = (r.log_plan.double().exp().sum(1) * len(E) - 1).abs().mean()
        return {"error": error, "allowed": 1e-5, "rows": float(rows), "n_iter": int(r.n_iter)}

    return Made(lambda: so.adapters.moe_router(E, n_iter=n_iter, on_fail="ignore"), judge)


LABELS = [
    Call("calls", "moe_router 8192x64 to 1e-4", "moe_router", partial(_router, n=8192, K=64)),
    Call("calls", "moe_router 8192x64, 10 iterations", "moe_router",
         partial(_router, n=8192, K=64, n_iter=10)),
    Call("calls", "clot_labels 4096x100 to 1e-6", "clot_labels", partial(_clot, n=4096, K=100)),
    Call("calls", "sela_labels 100000x1000 fp16 to 1e-6", "sela_labels",
         partial(_sela, n=100_000, K=1000), limit=25),
    Call("calls", "sela_labels 1281167x3000 fp16 to 1e-6", "sela_labels",
         partial(_sela, n=1_281_167, K=3000), limit=35, ahead=False),
    Call("calls", "balanced_labels 20000x100", "balanced_labels",
         partial(_balanced, n=20_000, K=100), limit=30, ahead=False),
]  # fmt: skip
