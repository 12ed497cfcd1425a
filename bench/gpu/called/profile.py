"""What one call launches and how often it waits, counted by PyTorch's profiler."""

from collections import Counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.clock import Act


# calls of the runtime that launch, and that wait for the device
_LAUNCHES = ("LaunchKernel", "GraphLaunch", "LaunchCooperativeKernel")
_WAITS = ("StreamSynchronize", "EventSynchronize")
# what a device does besides kernels
_MOVES = ("Memcpy", "Memset")
_LONGEST = 4


def profiled(act: Act) -> dict[str, Any]:
    """Return launches, waits and copies of one call, and the device's milliseconds."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        act()
        # counted apart from the waits: the package waits for streams and events
        torch.cuda.synchronize()
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    return counted(seen.profiler.kineto_results.events())


def counted(events: Any) -> dict[str, Any]:
    """Return what raw events of a profiler say."""
    host: Counter[str] = Counter()
    device: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for event in events:
        name = event.name()
        # a compiled region is shown on the device as well, over its kernels
        if event.is_user_annotation():
            continue
        if "CUDA" in str(event.device_type()):
            device[name] += 1
            spent[name] += event.duration_ns()
        else:
            host[name] += 1
    kernels = [name for name in device if not name.startswith(_MOVES)]
    longest = sorted(kernels, key=lambda name: -spent[name])[:_LONGEST]
    return {
        "launches": _matching(host, _LAUNCHES),
        "waits": _matching(host, _WAITS),
        "copies": _matching(host, ("MemcpyAsync",)),
        "operators": sum(count for name, count in host.items() if name.startswith("aten::")),
        "kernels": sum(device[name] for name in kernels),
        "device_ms": sum(spent[name] for name in kernels) / 1e6,
        "longest": {name[:60]: [device[name], spent[name] / 1e6] for name in longest},
    }


def _matching(host: Counter[str], parts: tuple[str, ...]) -> int:
    """Return how many calls of the runtime or the driver (cuda..., cu...) have such a name."""
    runtime = ((name, n) for name, n in host.items() if name.startswith("cu"))
    return sum(n for name, n in runtime if any(part in name for part in parts))
