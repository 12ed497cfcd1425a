"""One problem whose rows are spread over processes, beside the same in one process.

    torchrun --nproc-per-node 2 docs/examples/solve_over_ranks.py
    torchrun --nproc-per-node 4 docs/examples/solve_over_ranks.py

Started without torchrun it is one process. The parts of the ranks are unequal on purpose, and of
four ranks one has no rows at all.
"""

import argparse
import os
from datetime import timedelta

import torch
import torch.distributed as dist

import sinkhorn_ot as so


def part(n: int, rank: int, world: int) -> slice:
    """Return the rows of a rank: more for a later one, none for the second of four."""
    shares = torch.arange(1.0, world + 1)
    if world == 4:
        shares[1] = 0
    ends = [0, *(shares.cumsum(0) / shares.sum() * n).round().long().tolist()]
    return slice(ends[rank], ends[rank + 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--reg", type=float, default=0.01)
    options = parser.parse_args()

    if "RANK" in os.environ:
        # a rank that is lost ends in an error after this time, and not in a hang
        dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    rank, world = dist.get_rank(), dist.get_world_size()

    # all make the same points, to compare; each solves for its own
    random = torch.Generator().manual_seed(0)
    x = torch.rand(options.points, 2, generator=random, dtype=torch.float64)
    y = torch.rand(options.points // 2, 2, generator=random, dtype=torch.float64).square()
    own = part(len(x), rank, world)
    mine, how = so.PointCloud(x[own], y), {"reg": options.reg, "tol": 1e-12}
    r = so.solve(mine, **how, group=dist.group.WORLD, progress=True)
    # bounds look at the rows of all ranks: all ask for them together
    bounds = r.certificate()
    sent = r.apply_transpose(torch.ones(len(x[own]), dtype=torch.float64))

    if rank == 0:
        print(f"processes: {world}, rows of the first: {len(r.f)} of {len(x)}")
        print(r)
        print(f"value {r.value:.12f}, gap {r.gap:.1e}")
        print(f"unregularised optimum between {bounds.lower:.6f} and {bounds.upper:.6f}")
        print(
            f"columns of the plan are within {(sent - 1 / len(y)).abs().sum():.1e} of their weights"
        )
        alone = so.solve(so.PointCloud(x, y), **how)
        found = {"value": (r.value, alone.value), "g": (r.g, alone.g), "f": (r.f, alone.f[own])}
        apart = {name: float((a - b).abs().max()) for name, (a, b) in found.items()}
        print("beside one process:", ", ".join(f"{k} {off:.0e} apart" for k, off in apart.items()))
        print(f"agree to 1e-10: {max(apart.values()) < 1e-10}")
    # who leaves early cuts the others off
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
