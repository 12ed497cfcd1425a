"""MSN's targets: sharpened predictions, spread evenly over the prototypes."""

from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import ArrayLike
from sinkhorn_ot.results import OnFail
from sinkhorn_ot.sweeps import ProcessGroup, Ranks

from .arguments import Asked, at_least_single, checked, temperature
from .swav import codes_of


# what messages call the scores and their temperature
NAMES = ("scores", "tau * sharpening")


@constant
def msn_codes(
    scores: ArrayLike,
    *,
    tau: float = 0.1,
    sharpening: float = 0.25,
    n_iter: int | None = 3,
    mask: ArrayLike | None = None,
    on_fail: OnFail = "warn",
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return MSN's targets: SwAV's iterations at eps 1, from sharpened predictions.

    The prediction of a sample is p = softmax(scores / tau); sharpened, it is p^(1 / sharpening),
    scaled to one. The iterations start from that, as it is, in logarithms.

    Args:
        scores: Cosines of the target view's features and the prototypes, (..., N, K).
        tau: Temperature of the predictions.
        sharpening: Temperature of their sharpening, the paper's T.
        n_iter: Iterations; None iterates to a tolerance.
        mask: Samples that count, (..., N) or (N,), bool; None for all. The others get zeros.
        on_fail: What to do where n_iter=None does not reach its tolerance, as in `swav_codes`.
        group: Process group whose ranks share the problem; see `swav_codes`.

    Returns:
        Codes, (..., N, K), float32, or float64 for float64 scores; each sample's row sums to one.

    Raises:
        ValueError: If an argument breaks a rule; see `swav_codes`.
        RuntimeError: If a rank of the group cannot be reached.

    Source: M. Assran et al., Masked siamese networks for label-efficient learning, ECCV 2022.
    """
    ranks = Ranks(group)

    def check() -> Asked:
        slope = temperature("tau", tau) * temperature("sharpening", sharpening)
        told = *NAMES, "msn_codes", on_fail
        p = checked(ranks, scores, slope, n_iter, mask, None, None, False, *told)
        if p.S.device.type == "cpu":
            p.require_sound()
        # exponents may be large: what float32 leaves of them would show in the codes
        logs = torch.log_softmax(p.S.double() / slope, -1)
        # eps takes back what keeps the names of the caller's temperatures
        return replace(p, S=logs * slope, out_dtype=at_least_single(p.S.dtype))

    return codes_of(ranks.agree(check, Asked.terms, lasting=True))
