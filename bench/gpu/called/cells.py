"""`solve` to a tolerance on uniform clouds in the unit square, beside POT on the same costs."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.gpu.called.call import Call, Found, Made, marginals, seeded
from bench.gpu.cases import Case
from bench.gpu.device import Device


SIZES = (1000, 4000, 10000)
REGS = (0.1, 0.01, 0.001)
TOLS = {torch.float32: 1e-5, torch.float64: 1e-6}
OURS = "solve"
METHODS = ("sinkhorn", "sinkhorn_log")
# sweeps after which POT is stopped
_MOST = 5000


def squares(device: Device, n: int, dtype: torch.dtype) -> Tensor:
    """Return squared distances of two clouds in the unit square, over the largest, (n, n)."""
    x, y = (seeded(device, seed).rand(n, 2, dtype=torch.float64) for seed in (1, 2))
    C = x[:, None, 0] - y[None, :, 0]
    C = C.square_().add_((x[:, None, 1] - y[None, :, 1]).square_())
    return C.div_(C.amax()).to(dtype)


def _case(C: Tensor, reg: float) -> Case:
    n = len(C)
    w = torch.full((1, n), 1 / n, dtype=torch.float64, device=C.device)
    inv_reg = torch.full((1,), 1 / reg, dtype=torch.float64, device=C.device)
    return Case(w.log(), w, w, inv_reg, C[None])


def _ours(device: Device, n: int, reg: float, dtype: torch.dtype) -> Made:
    C, tol = squares(device, n, dtype), TOLS[dtype]

    def judge(r: Any) -> Found:
        found = marginals(_case(C, reg), r.f[None], r.g[None])
        # what is kept in a dtype moves every entry of the plan by roundings of its exponent
        allowed = 2 * tol + 2 * torch.finfo(dtype).eps * found["reach"]
        told = {"allowed": allowed, "n_iter": int(r.n_iter), "method": str(r.method)}
        return found | told | {"converged": bool(r.converged)}

    return Made(lambda: so.solve(C, reg=reg, tol=tol, on_fail="ignore"), judge)


def _pot(device: Device, n: int, reg: float, dtype: torch.dtype, method: str) -> Made:
    import ot

    C = squares(device, n, dtype)
    w = torch.full((n,), 1 / n, dtype=dtype, device=C.device)

    def act() -> Any:
        return ot.sinkhorn(
            w, w, C, reg, method=method, stopThr=TOLS[dtype], numItermax=_MOST, warn=False, log=True
        )

    def judge(answer: Any) -> Found:
        P, log = answer
        P = P.double()
        error = sum((P.sum(axis) - 1 / n).abs().sum() for axis in (0, 1))
        value = (P * C).sum()
        return {"error": float(error), "value": float(value), "n_iter": int(log["niter"])}

    return Made(act, judge)


def _sized(device: Device, n: int) -> int:
    return n // 100 if device.toy else n


def _cell(n: int, reg: float, dtype: torch.dtype) -> list[Call]:
    name = f"{str(dtype)[6:]} {n}x{n} reg {reg:g} to {TOLS[dtype]:g}"

    def make(device: Device, act: Any, **how: Any) -> Made:
        made: Made = act(device, _sized(device, n), reg, dtype, **how)
        return made

    # reg changes no kernel
    ours = Call("solve", name, OURS, partial(make, act=_ours), limit=25, ahead=reg == REGS[0])
    pot = [
        Call("pot", name, f"POT {m}", partial(make, act=_pot, method=m), peer=True, needs="ot",
             limit=15, ahead=False)
        for m in METHODS
    ]  # fmt: skip
    return [ours, *pot]


_CELLS = [_cell(n, reg, dtype) for dtype in TOLS for n in SIZES for reg in REGS]
# ours first: what a peer takes must not cost a figure of ours
SOLVES = [call for calls in _CELLS for call in calls if not call.peer]
POTS = [call for calls in _CELLS for call in calls if call.peer]
