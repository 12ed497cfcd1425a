"""SwAV's published call, for a training loop that already has it: change the import."""

from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import Tensor

from sinkhorn_ot.adapters.swav import codes_of_named
from sinkhorn_ot.problem import checks
from sinkhorn_ot.sweeps import ProcessGroup

from .ranks import everyone
from .scores import matrix


def distributed_sinkhorn(
    out: Tensor,
    epsilon: float = 0.05,
    sinkhorn_iterations: int = 3,
    world_size: int | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return the codes of this rank's samples, balanced over the samples of all ranks.

    Differs from the published function where that goes wrong: scores of any finite size are taken,
    in any precision, and ranks may have different numbers of samples.

    Args:
        out: Scores of this rank's samples and the prototypes, (B, K). It is not changed.
        epsilon: Temperature of the codes.
        sinkhorn_iterations: Iterations, prototypes first.
        world_size: Number of ranks. It needs no telling: one that is told must be right.
        group: Process group; None is every process of torch.distributed, if it was initialised.

    Returns:
        Codes, (B, K), float32, or float64 for float64 scores; each sample's row sums to one.

    Raises:
        ValueError: If an argument breaks a rule; see `swav_codes`.
        RuntimeError: If a rank of the group cannot be reached.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster
    assignments, NeurIPS 2020.
    """
    group = everyone() if group is None else group
    size = 1 if group is None else dist.get_world_size(group)
    if world_size not in (None, size):
        raise ValueError(f"world_size must be the number of ranks, {size}, got {world_size!r}")
    out = matrix("out", out, "(B, K)")
    if isinstance(epsilon, int) and epsilon > 1:
        raise ValueError(
            f"epsilon must be a temperature, got {epsilon}: an early version of the published call "
            "takes exp(scores / epsilon).t() and iterations; pass the scores themselves, epsilon "
            "and iterations"
        )
    checks.positive("epsilon", epsilon)
    checks.count("sinkhorn_iterations", sinkhorn_iterations)
    return codes_of_named(("out", "epsilon"), out, epsilon, sinkhorn_iterations, group)


def reading(args: Any) -> Callable[[Tensor], Tensor]:
    """Return `distributed_sinkhorn(out)` in its published shape, which reads the rest from `args`.

    Args:
        args: What has `epsilon` and `sinkhorn_iterations`, such as a parsed command line. They are
            read at each call.
    """

    def distributed_sinkhorn_of(out: Tensor) -> Tensor:
        return distributed_sinkhorn(out, args.epsilon, args.sinkhorn_iterations)

    return distributed_sinkhorn_of
