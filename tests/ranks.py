"""Runs a piece of code on several ranks of torch.distributed, each a process on this machine."""

import contextlib
import datetime
import os
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from processes import start

import sinkhorn_ot as so


def refused(call: Callable[[], Any]) -> str:
    """Return the error that a call raises."""
    try:
        call()
    except (ValueError, RuntimeError, Warning) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def _rank(rank: int, world: int, store: str, body: str) -> None:
    """Be one rank: run the code and write down what it said."""
    # what a rank has to say when it fails is shown by who started it
    with open(f"{store}.{rank}.err", "w") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=60),
    )
    said: dict[str, Any] = {}
    scope = {"torch": torch, "dist": dist, "so": so, "refused": refused, "said": said}
    scope |= {"rank": rank, "world": world, "group": dist.group.WORLD}
    exec(body, scope)
    torch.save(said, f"{store}.{rank}")
    # who leaves early cuts the others off; and a group that has lost a rank cannot meet
    with contextlib.suppress(RuntimeError):
        dist.barrier()
    # nor be taken down in order: its threads may still run, and end the process with an error
    os._exit(0)


def run(world: int, body: str, *, dying: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Return what the code put into `said` on each rank, those that are to die left out.

    Args:
        world: Number of ranks.
        body: Code with `rank`, `world`, `group`, `refused` and `so` in reach.
        dying: Ranks that end by themselves.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        code = textwrap.dedent(body)
        ranks = [start(_rank, rank, world, store, code) for rank in range(world)]
        try:
            for process in ranks:
                process.join(180)
        finally:
            for process in ranks:
                process.kill()
        living = [rank for rank in range(world) if rank not in dying]
        for rank in living:
            ranks[rank].join()
        # all of them: the first to fail is not the first in order
        errors = {rank: Path(f"{store}.{rank}.err").read_text()[-3000:] for rank in living}
        failed = {rank: errors[rank] for rank in living if ranks[rank].exitcode != 0}
        assert not failed, "".join(f"\nrank {rank}: {text}" for rank, text in failed.items())
        return [torch.load(f"{store}.{rank}", weights_only=False) for rank in living]
