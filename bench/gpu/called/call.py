"""The form of a call: what is called, how its answer is judged, and how long it may take."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.gpu.cases import Case
from bench.gpu.clock import Act
from bench.gpu.device import Device


# what is known of an answer: numbers under their names, "error" and what it may be, "allowed"
Found = dict[str, Any]


class Made(NamedTuple):
    """A call on its inputs, and the judge of its answer."""

    act: Act
    judge: Callable[[Any], Found]


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        part: The part of the run that it belongs to.
        problem: What is solved.
        who: Who solves it; the same problem has the same inputs for all.
        make: Makes inputs, the call on them, and the judge.
        peer: Whether it is somebody else's.
        needs: Module without which it is skipped.
        limit: Seconds after which it is given up, its compilation included.
        ahead: Whether to compile it beside the checks, before anything is timed.
    """

    part: str
    problem: str
    who: str
    make: Callable[[Device], Made]
    peer: bool = False
    needs: str = ""
    limit: float = 20.0
    ahead: bool = True


def seeded(device: Device, seed: int) -> Device:
    """Return the device with random numbers of its own, so that all callers get the same."""
    generator = torch.Generator(device.torch_device).manual_seed(seed)
    return Device(device.torch_device, device.toy, generator)


def marginals(p: Case, f: Tensor, g: Tensor) -> Found:
    """Return the relative L1 marginal error of potentials, in float64, and what they pay.

    Args:
        p: The problem; its weights in float64.
        f: Potentials of the rows, (B, n).
        g: Potentials of the columns, (B, m).
    """
    inv_reg = p.inv_reg.double()[:, None]
    u = f.double() * inv_reg + p.a.log()
    v = g.double() * inv_reg + p.b.log()
    rows = (p.log_sum_rows(v) + u).exp() - p.a
    columns = (p.log_sum_columns(u) + v).exp() - p.b
    error = (rows.abs().sum(1) + columns.abs().sum(1)) / p.a.sum(1)
    value = 0.0
    for part, E in p.exponents(torch.float64):
        pays = (E + u[:, part, None] + v[:, None]).exp_().mul_(E)
        value -= float((pays.sum((1, 2)) / inv_reg[:, 0]).sum())
    # the largest number that is rounded: a cost or a potential, in units of reg
    reach = max(float(t.double().abs().amax() * inv_reg.amax()) for t in (f, g, p.cost_bound()))
    return {"error": float(error.max()), "value": value, "reach": reach}


def judged(found: Found) -> Found:
    """Return what was found as JSON can hold it, with "wrong" where an error is too large."""
    error, allowed = found.get("error"), found.get("allowed")
    out = {k: v for k, v in found.items() if not isinstance(v, float) or math.isfinite(v)}
    if error is not None and not math.isfinite(error):
        out["wrong"] = "the answer is not finite"
    elif error is not None and allowed is not None and error > allowed:
        out["wrong"] = f"error {error:.3g} over {allowed:.3g}"
    return out
