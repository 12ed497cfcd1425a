"""Codes from features: with the scores made on chip, and with a matrix of them in memory."""

from functools import partial

import gpu_peers as peers
import torch
from gpu_clock import Act
from gpu_problems import Place, codes, share, variation
from gpu_table import Problem, Row
from torch import Tensor


Clouds = tuple[Tensor, Tensor]


def units(place: Place, n: int, K: int, d: int, B: int = 1) -> Clouds:
    """Return random features (B, n, d) and prototypes (1, K, d) of length one."""
    z, c = place.randn(B, n, d), place.randn(1, K, d)
    z, c = (torch.nn.functional.normalize(t, dim=-1) for t in (z, c))
    return z, c


def write_features(  # noqa: PLR0913
    place: Place, n: int, K: int, d: int, rows: int | None = None, B: int = 1, padded: bool = False
) -> float:  # fmt: skip
    """Check codes from features, of the last rows of a batch."""
    from sinkhorn_ot.kernels import features as kernels

    n, K = place.small(n, K)
    rows = min(rows or n, n)
    z, c = units(place, n, K, d, B)
    keep = place.rand(B, n) < 0.7 if padded else None
    r, inv_eps = place.full(B, K, value=1 / K), place.full(B, value=20.0)
    clouds = kernels.place_features(z, c)
    f = kernels.solve(clouds, r, inv_eps, 3, keep)
    kept = None if keep is None else keep[:, -rows:]
    soft, _ = kernels.write(clouds, f, inv_eps, rows, keep=kept)
    assert soft is not None
    truth, eager = (
        codes(z.to(dtype) @ c.to(dtype).mT, 0.05, 3, dtype, keep)[:, -rows:]
        for dtype in (torch.float64, torch.float32)
    )
    # split products keep 22 bits of an exponent of 1 / eps
    return share(variation(soft, truth), max(1e-5, 2 * variation(eager, truth)))


CHECKS = {
    "from features 4096x3000 d=128, 256 written": dict(n=4096, K=3000, d=128, rows=256),
    "from features 1000x300 d=64, padded": dict(n=1000, K=300, d=64, padded=True),
    "from features, 3 of 300x65 d=3": dict(n=300, K=65, d=3, B=3),
    "from features 17x65 d=200": dict(n=17, K=65, d=200),
}


def _on_chip(place: Place, p: Clouds, rows: int) -> Act:
    from sinkhorn_ot.adapters.swav.operators import feature_codes_by_triton

    inv_eps, last = place.full(1, value=20.0), min(rows, p[0].shape[1])
    return lambda: feature_codes_by_triton(*p, None, inv_eps, 3, last, False, torch.float32)[0]


def _stored(place: Place, p: Clouds, rows: int) -> Act:
    from sinkhorn_ot.adapters.swav.operators import codes_by_triton

    inv_eps, last = place.full(1, value=20.0), min(rows, p[0].shape[1])
    return lambda: codes_by_triton(p[0] @ p[1].mT, None, inv_eps, 3, last, False, torch.float32)[0]


def _eager(place: Place, p: Clouds, rows: int) -> Act:
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
        lambda place: units(place, *place.small(n, K), d),
        lambda p: codes(p[0].double() @ p[1].double().mT, 0.05, 3, torch.float64)[0, -rows:],
        variation,
        tuple(Row(who, partial(act, rows=rows), needs) for who, (act, needs) in ways.items()),
        stored=lambda p: p[0].nbytes,
        # five passes, of three products each
        products=lambda p: 30.0 * p[0].shape[1] * p[1].numel(),
    )  # fmt: skip
