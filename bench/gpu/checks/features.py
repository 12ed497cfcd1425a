"""Codes from features, with the scores made on chip, against float64."""

import torch

from bench.gpu.budget import share, variation
from bench.gpu.cases import codes, units
from bench.gpu.device import Device


def write_features(  # noqa: PLR0913
    device: Device, n: int, K: int, d: int, rows: int | None = None, B: int = 1,
    padded: bool = False,
) -> float:  # fmt: skip
    """Check codes from features, of the last rows of a batch."""
    from sinkhorn_ot.kernels import features as kernels

    n, K = device.small(n, K)
    rows = min(rows or n, n)
    z, c = units(device, n, K, d, B)
    keep = device.rand(B, n) < 0.7 if padded else None
    r, inv_eps = device.full(B, K, value=1 / K), device.full(B, value=20.0)
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
