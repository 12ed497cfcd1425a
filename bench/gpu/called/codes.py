"""Codes of a training step as called: ours, SwAV's loop, and both captured or compiled."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.gpu.budget import variation
from bench.gpu.called.call import Call, Found, Made, seeded
from bench.gpu.cases import codes, scores
from bench.gpu.clock import Act
from bench.gpu.device import Device
from bench.gpu.timed import peers


EPS, N_ITER = 0.05, 3
# total variation that the checks allow to float32
_ALLOWED = 2e-6
Code = Callable[[Tensor], Tensor]


def captured(act: Code) -> Callable[[Device, Tensor], Act]:
    """Return how to make a call a replay of a CUDA graph, on inputs that stay where they are."""

    def make(device: Device, S: Tensor) -> Act:
        if not device.is_gpu:
            return partial(act, S)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            act(S)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = act(S)

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    return make


def compiled(act: Code, mode: str | None = None) -> Callable[[Device, Tensor], Act]:
    """Return how to make a call a compiled one."""

    def make(device: Device, S: Tensor) -> Act:
        if device.toy:
            return partial(torch.compile(act, dynamic=False, backend="eager"), S)
        return partial(torch.compile(act, dynamic=False, mode=mode), S)

    return make


def eager(act: Code) -> Callable[[Device, Tensor], Act]:
    """Return how to make a plain call."""
    return lambda _, S: partial(act, S)


def _made(device: Device, n: int, K: int, way: Callable[[Device, Tensor], Act]) -> Made:
    S = scores(seeded(device, 3), 1, *device.small(n, K))[0]

    def judge(Q: Tensor) -> Found:
        truth = codes(S[None], EPS, N_ITER, torch.float64)[0]
        return {"error": variation(Q, truth), "allowed": _ALLOWED}

    return Made(way(device, S), judge)


def _swav(S: Tensor) -> Tensor:
    return so.swav_codes(S, eps=EPS, n_iter=N_ITER)


def _dino(S: Tensor) -> Tensor:
    return so.adapters.dino_codes(S, EPS, n_iter=N_ITER)


def _loop(S: Tensor) -> Tensor:
    return peers.swav_loop(S, EPS, N_ITER, len(S))


OURS = {
    "swav_codes": eager(_swav),
    "swav_codes, CUDA graph": captured(_swav),
    "swav_codes, compiled to reduce overhead": compiled(_swav, "reduce-overhead"),
}
PEERS = {"SwAV's loop": eager(_loop), "SwAV's loop, compiled": compiled(_loop)}
DINO = {"dino_codes": eager(_dino), "SwAV's loop": eager(_loop)}
_SWAV = {**OURS, **PEERS}
_SHORT = {"swav_codes": OURS["swav_codes"], **PEERS}
_TABLE = {
    ("swav", 4096, 3000): _SWAV,
    ("swav", 64, 131072): _SHORT,
    ("swav", 2458, 131072): _SHORT,
    ("dino", 128, 65536): DINO,
}
CODES = [
    Call("calls", f"{name} {n}x{K}", who, partial(_made, n=n, K=K, way=way), limit=60,
         peer=who.startswith("SwAV's"))
    for (name, n, K), ways in _TABLE.items()
    for who, way in ways.items()
]  # fmt: skip
