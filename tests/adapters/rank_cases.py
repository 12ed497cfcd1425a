"""What every rank of a multi-process test runs; `test_ranks.py` starts it and judges it."""

import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot.adapters import capi_codes, clot_labels, dino_codes, moe_router, msn_codes
from sinkhorn_ot.adapters.arguments import checked
from sinkhorn_ot.adapters.softmaxes import by_logs
from sinkhorn_ot.adapters.swav import assign
from sinkhorn_ot.compat.swav import distributed_sinkhorn
from sinkhorn_ot.sweeps.ranks import Ranks


# samples of each rank: unequal, and one rank may have none
SIZES = {2: (37, 13), 4: (20, 0, 29, 1)}
K = 12


def scores(scale: float = 0.3, K: int = K) -> Tensor:
    """The samples of all ranks, (50, K)."""
    return torch.randn(50, K, generator=torch.Generator().manual_seed(0)) * scale


def mine(x: Tensor, rank: int, world: int, dim: int = 0) -> Tensor:
    """The part of one rank."""
    return x.split(SIZES[world], dim)[rank]


MASK = torch.rand(50, generator=torch.Generator().manual_seed(1)) < 0.7
BATCH = torch.stack([scores(), scores(1e4), -scores(3.0)])
# each problem has other samples that count, the last one none
KIND = torch.stack([scores(), -scores(0.5), scores(0.1)]).double()
MASKS = torch.stack([MASK, ~MASK, torch.zeros(50, dtype=torch.bool)])
MASKED_KIND = torch.where(MASKS[..., None], KIND, torch.nan)
SHARES = torch.arange(1.0, K + 1)


def answers(rank: int, world: int) -> dict[str, Any]:
    """Calls that must come to what one process comes to."""
    group = dist.group.WORLD
    S, part = scores(), mine(scores(), rank, world)
    masked = torch.where(MASK[:, None], S, torch.nan)
    return {
        "codes": so.swav_codes(part, group=group),
        "one iteration": so.swav_codes(part, n_iter=1, group=group),
        "huge": so.swav_codes(mine(scores(1e4), rank, world), group=group),
        "half": so.swav_codes(part.half(), group=group, out_dtype=torch.float32),
        "double": so.swav_codes(part.double(), group=group),
        "converged": so.swav_codes(part.double(), n_iter=None, group=group),
        "converged masks": so.swav_codes(
            mine(KIND, rank, world, 1), mask=mine(MASKS, rank, world, 1), n_iter=None, group=group
        ),
        "hard": so.swav_codes(part, hard=True, group=group),
        "batch": so.swav_codes(mine(BATCH, rank, world, 1), group=group),
        "masked": so.swav_codes(
            mine(masked, rank, world), mask=mine(MASK, rank, world), group=group
        ),
        "nothing": so.swav_codes(part, mask=torch.zeros(len(part)) > 0, group=group),
        "last": so.swav_codes(part, last=min(5, len(part)), group=group),
        "logs": by_logs(checked(Ranks(group), part, 0.05, 3, None), 3),
        "mass": assign(part, group=group).prototype_mass,
        "shares": assign(part, marginal=SHARES, group=group).codes,
        "converged shares": assign(
            part.double(), marginal=SHARES, n_iter=None, group=group
        ).prototype_mass,
        "published": distributed_sinkhorn(part, world_size=world),
        "dino": dino_codes(part, 0.07, group=group),
        "capi": capi_codes(part[:, None].expand(-1, 3, -1), group=group),
        "msn": msn_codes(part, group=group),
        "router": moe_router(part * 5, group=group).log_plan,
        "fixed router": moe_router(part * 5, n_iter=3, group=group).log_plan,
        "masked router": moe_router(
            mine(masked, rank, world) * 5, mask=mine(MASK, rank, world), group=group
        ).log_plan,
        "masked clot": clot_labels(
            mine(MASKED_KIND, rank, world, 1),
            mask=mine(MASKS, rank, world, 1),
            tol=1e-9,
            group=group,
        ),
        "features": so.swav_codes_from_features(part, torch.eye(K), group=group),
    }


def compiled(rank: int, world: int) -> dict[str, Any]:
    """Under `torch.compile`, which takes seconds to start: for two ranks only."""
    if world > 2:
        return {}
    seen = torch.compile(so.swav_codes, backend="eager")
    return {"compiled": seen(mine(scores(), rank, world), group=dist.group.WORLD)}


def refusals(rank: int, world: int) -> dict[str, str]:
    """Mistakes of the last rank, of which every rank must hear."""
    group, part, wrong = dist.group.WORLD, mine(scores(), rank, world), rank == world - 1
    nan = part.clone()
    if wrong:
        nan[0, 3] = torch.nan
    calls: dict[str, Callable[[], Any]] = {
        "K": lambda: so.swav_codes(part[:, : K - wrong], group=group),
        "eps": lambda: so.swav_codes(part, eps=0.1 if wrong else 0.05, group=group),
        "n_iter": lambda: so.swav_codes(part, n_iter=4 if wrong else 3, group=group),
        "dtype": lambda: so.swav_codes(part.double() if wrong else part, group=group),
        "shape": lambda: so.swav_codes(part[0] if wrong else part, group=group),
        "nan": lambda: so.swav_codes(nan, group=group),
        "nan to tolerance": lambda: so.swav_codes(nan, n_iter=None, group=group),
        "dino nan": lambda: dino_codes(nan, 0.07, group=group),
        "msn nan": lambda: msn_codes(nan, group=group),
        "router nan": lambda: moe_router(nan, group=group),
        "experts": lambda: moe_router(part[:, : K - wrong], group=group),
        "marginal": lambda: assign(part, marginal=SHARES if wrong else None, group=group),
        "world size": lambda: distributed_sinkhorn(part, world_size=world + 1),
        "no prototypes": lambda: so.swav_codes(part[:, :0], group=group),
        # and after all that, the group still works
        "none": lambda: so.swav_codes(part, group=group),
    }
    return {name: _heard(call) for name, call in calls.items()}


def cut_short(rank: int, world: int) -> dict[str, str]:
    """Calls that end above their tolerance on all ranks, of which every rank must hear alike."""
    group, part = dist.group.WORLD, mine(scores(3.0), rank, world)
    mask, few = mine(MASK, rank, world), {"max_iter": 1, "on_fail": "raise", "group": group}
    how = "raise" if rank else "warn"
    calls: dict[str, Callable[[], Any]] = {
        "sela_labels": lambda: so.sela_labels(part, **few),
        "clot_labels": lambda: clot_labels(part, **few),
        "clot_labels, masked": lambda: clot_labels(part, mask=mask, **few),
        "moe_router": lambda: moe_router(part, **few),
    }
    said = {f"{name} cut short": _heard(call, so.ConvergenceError) for name, call in calls.items()}
    return said | {"on_fail": _heard(lambda: clot_labels(part, on_fail=how, group=group))}


def _heard(call: Callable[[], Any], error: type[Exception] = ValueError) -> str:
    try:
        call()
    except error as e:
        return str(e)
    return ""


def subgroups(rank: int, world: int) -> dict[str, Any]:
    """Half of the ranks as a group; the others are not in it."""
    group = dist.new_group([0, 1])
    part = mine(scores(), rank, world)
    if rank > 1:
        return {"outside": _heard(lambda: so.swav_codes(part, group=group))}
    return {"inside": so.swav_codes(part, group=group)}


def silence(rank: int, world: int) -> dict[str, Any]:
    """One rank does not make the call; then one dies."""
    part, second = mine(scores(), rank, world), datetime.timedelta(seconds=1)
    group = dist.new_group(timeout=second)
    dist.barrier()
    found: dict[str, Any] = {}
    start = time.monotonic()
    if rank > 0:
        found["absent"] = _heard(lambda: so.swav_codes(part, group=group), RuntimeError)
        found["absent after"] = time.monotonic() - start
    dist.barrier()
    if rank == 0:
        # at once, as a crash would
        os._exit(3)
    start = time.monotonic()
    found["dead"] = _heard(lambda: so.swav_codes(part, group=dist.group.WORLD), RuntimeError)
    found["dead after"] = time.monotonic() - start
    return found


def run(rank: int, world: int, folder: str) -> None:
    """Run everything as one rank, and write down what came of it."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=20),
    )
    found: dict[str, Any] = {}
    for part in (answers, compiled, refusals, cut_short, subgroups, silence):
        found |= part(rank, world)
        torch.save(found, Path(folder) / f"{rank}.pt")
    # a group that has lost a rank cannot be taken down in order
    os._exit(0)
