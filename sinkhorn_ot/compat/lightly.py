"""Lightly's `sinkhorn` of its SwAV loss, for a loop that already has it: change the import."""

from torch import Tensor

from sinkhorn_ot.adapters.swav import codes_of_named
from sinkhorn_ot.problem import checks

from .ranks import everyone
from .scores import matrix


def sinkhorn(
    out: Tensor, iterations: int = 3, epsilon: float = 0.05, gather_distributed: bool = False
) -> Tensor:
    """Return the codes of samples, balanced over this rank's, or those of all ranks.

    Args:
        out: Scores of this rank's samples and the prototypes, (B, K). It is not changed.
        iterations: Iterations, prototypes first.
        epsilon: Temperature of the codes.
        gather_distributed: Whether the samples of all ranks are one batch.

    Returns:
        Codes, (B, K), float32, or float64 for float64 scores; each sample's row sums to one.

    Raises:
        ValueError: If an argument breaks a rule; see `swav_codes`.
        RuntimeError: If a rank cannot be reached.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster
    assignments, NeurIPS 2020; lightly.loss.swav_loss.
    """
    out = matrix("out", out, "(B, K)")
    checks.count("iterations", iterations)
    group = everyone() if checks.flag("gather_distributed", gather_distributed) else None
    return codes_of_named(("out", "epsilon"), out, epsilon, iterations, group)
