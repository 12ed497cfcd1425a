"""Codes from features: with the scores made on chip, and with a matrix of them in memory."""

from functools import partial

import torch

from bench.gpu.budget import variation
from bench.gpu.cases import Clouds, codes, units
from bench.gpu.clock import Act
from bench.gpu.device import Device
from bench.gpu.timed import peers
from bench.gpu.timed.table import Problem, Row


def _on_chip(device: Device, p: Clouds, rows: int) -> Act:
    from sinkhorn_ot.adapters.swav.operators import feature_codes_by_triton

    inv_eps = device.full(1, value=20.0)
    last = min(rows, p[0].shape[1])
    return lambda: feature_codes_by_triton(*p, None, inv_eps, 3, last, False, torch.float32)[0]


def _stored(device: Device, p: Clouds, rows: int) -> Act:
    from sinkhorn_ot.adapters.swav.operators import codes_by_triton

    inv_eps = device.full(1, value=20.0)
    last = min(rows, p[0].shape[1])
    return lambda: codes_by_triton(p[0] @ p[1].mT, None, inv_eps, 3, last, False, torch.float32)[0]


def _eager(device: Device, p: Clouds, rows: int) -> Act:
    return lambda: peers.eager_codes(p[0][0] @ p[1][0].t(), 0.05, 3, rows)


def features_of(n: int, K: int, d: int, rows: int) -> Problem:
    """Return SwAV's codes of the last features; a call is three iterations, products included."""
    ways = {
        "features kernels, no scores stored": (_on_chip, "triton"),
        "float32 scores, then codes kernels": (_stored, "triton"),
        "PyTorch eager, log domain": (_eager, ""),
    }
    return Problem(
        f"features {n}x{K} d={d}, {rows} written", "codes",
        lambda device: units(device, *device.small(n, K), d),
        lambda p: codes(p[0].double() @ p[1].double().mT, 0.05, 3, torch.float64)[0, -rows:],
        variation,
        tuple(Row(who, partial(act, rows=rows), needs) for who, (act, needs) in ways.items()),
        stored=lambda p: p[0].nbytes,
        # five passes, of three products each
        products=lambda p: 30.0 * p[0].shape[1] * p[1].numel(),
    )  # fmt: skip
