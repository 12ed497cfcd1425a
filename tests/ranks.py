"""Runs a piece of code on several ranks of torch.distributed, each a process on this machine."""

import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import torch


_START = """
import datetime, os, sys, warnings
import torch
import torch.distributed as dist
import sinkhorn_ot as so

torch.set_num_threads(1)
warnings.simplefilter("error")
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group(
    "gloo", init_method=f"file://{store}", rank=rank, world_size=world,
    timeout=datetime.timedelta(seconds=60),
)
group, said = dist.group.WORLD, {}


def refused(call):
    try:
        call()
    except (ValueError, RuntimeError, Warning) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"

"""
_END = """
torch.save(said, f"{store}.{rank}")
try:
    # who leaves early cuts the others off
    dist.barrier()
except RuntimeError:
    # a group that has lost a rank cannot meet
    pass
# nor be taken down in order: its threads may still run, and end the process with an error
os._exit(0)
"""


def run(world: int, body: str, *, dying: tuple[int, ...] = ()) -> list[dict]:
    """Return what the code put into `said` on each rank, those that are to die left out.

    Args:
        world: Number of ranks.
        body: Code with `rank`, `world`, `group`, `refused` and `so` in reach.
        dying: Ranks that end by themselves.
    """
    code = _START + textwrap.dedent(body) + _END
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(rank), str(world), str(store)],
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        try:
            errors = [process.communicate(timeout=180)[1] for process in ranks]
        finally:
            for process in ranks:
                process.kill()
        living = [rank for rank in range(world) if rank not in dying]
        for rank in living:
            assert ranks[rank].returncode == 0, f"rank {rank}: {errors[rank][-3000:]}"
        return [torch.load(f"{store}.{rank}", weights_only=False) for rank in living]
