"""Runs one call: to compile it, to time it, or to count what it launches."""

import gc
import time
from importlib import util
from typing import Any

import torch

from bench.gpu.called.call import Call, judged
from bench.gpu.called.profile import profiled
from bench.gpu.clock import Act, summary
from bench.gpu.device import Device


Record = dict[str, Any]
# seconds to spend on one figure, and runs after which it is good enough
_PATIENCE, _MOST = 0.5, 100
# a call compiles when it is made first, and what is made at least so often is its time; a peer's
# call that takes so long is not made more often, and none of the last length is profiled
_LEAST, _SLOW, _PROFILED = 2, 0.25, 1.5


def run(kind: str, device: Device, call: Call) -> Record:
    """Return the record of a call; `kind` is "ahead", "call" or "profile"."""
    if call.needs and util.find_spec(call.needs) is None:
        return {"status": "skipped", "why": f"{call.needs} is not installed"}
    try:
        made = call.make(device)
        _, whole, answer = _once(device, made.act)
        if kind == "ahead":
            return {"status": "measured", "compiled_s": round(whole, 3)}
        if kind == "profile":
            return _profile(device, made.act)
        record: Record = {"status": "measured", "first_s": round(whole, 4)}
        record |= judged(made.judge(answer))
        del answer
        return record | _timed(device, made.act, call.peer)
    finally:
        gc.collect()
        if device.is_gpu:
            torch.cuda.empty_cache()


def _timed(device: Device, act: Act, peer: bool) -> Record:
    """Return the milliseconds of calls after the first, which compiled."""
    hosts: list[float] = []
    wholes: list[float] = []
    patience = 0.0 if device.toy else _PATIENCE
    while len(wholes) < _LEAST or (sum(wholes) < patience and len(wholes) < _MOST):
        host, whole, _ = _once(device, act)
        hosts.append(host)
        wholes.append(whole)
        if peer and whole > _SLOW:
            break
    found = summary(wholes)
    return {
        "ms": 1e3 * found.median, "p20": 1e3 * found.p20, "p80": 1e3 * found.p80,
        "runs": found.runs, "host_ms": 1e3 * summary(hosts).median,
    }  # fmt: skip


def _once(device: Device, act: Act) -> tuple[float, float, Any]:
    """Return seconds until the call returns, until the device is done, and the answer."""
    device.wait()
    start = time.perf_counter()
    answer = act()
    returned = time.perf_counter()
    device.wait()
    return returned - start, time.perf_counter() - start, answer


def _profile(device: Device, act: Act) -> Record:
    whole = _once(device, act)[1]
    if whole > _PROFILED:
        return {"status": "skipped", "why": f"a call takes {whole:.1f} s"}
    return {"status": "measured", "profile": profiled(act)}
