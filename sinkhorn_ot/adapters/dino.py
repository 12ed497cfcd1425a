"""Teacher codes of SwAV's heirs that distil: DINOv2 and DINOv3, iBOT's patches, and CAPI."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import ArrayLike, checks
from sinkhorn_ot.results import OnFail
from sinkhorn_ot.sweeps import ProcessGroup, Ranks

from .arguments import Asked, at_least_single, checked, rows_that_count
from .swav import SwAVQueue, codes_of, queue_or_none


# what messages call the scores and their temperature
NAMES = ("logits", "temperature")


@constant
def dino_codes(
    logits: ArrayLike,
    temperature: float,
    *,
    n_iter: int | None = 3,
    mask: ArrayLike | None = None,
    queue: SwAVQueue | None = None,
    prototypes: ArrayLike | None = None,
    on_fail: OnFail = "warn",
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return the teacher's codes for class tokens (DINOv2, DINOv3) or masked patches (iBOT).

    All samples make one problem, whatever their shape: both global crops (2, B, K) are balanced
    together, not each by itself. Masked patches, whose number changes from step to step, may stand
    in a padded buffer, with a mask that is true for the rows in use.

    Where a batch is small beside K, a queue of earlier features helps to balance it. One that is
    ready stands in front of the batch, with the logits that the prototypes of the moment give it;
    one that is not is left out. It is only read: push the features when the codes have been made.

    Args:
        logits: The teacher's outputs, (..., K): e.g. (2, B, K), (2 B, K), (patches, K).
        temperature: Of the teacher; rises from 0.04 to 0.07 in the papers.
        n_iter: Iterations; None iterates to a tolerance.
        mask: Samples that count, of shape (...), bool; None for all. The others get zeros.
        queue: Earlier features that the teacher's last layer scored, normalised as it takes them.
        prototypes: Weight of that layer, (K, dim), whose products with features are logits. Needed
            with a queue.
        on_fail: What to do where n_iter=None does not reach its tolerance, as in `swav_codes`.
        group: Process group whose ranks share the problem; see `swav_codes`. Their numbers of
            samples may differ, and each has its own queue.

    Returns:
        Codes, (..., K), float32, or float64 for float64 logits; each sample's sum to one.

    Raises:
        ValueError: If an argument breaks a rule; see `swav_codes`.
        RuntimeError: If a rank of the group cannot be reached.

    Source: M. Oquab et al., DINOv2: Learning robust visual features without supervision, TMLR 2024;
    J. Zhou et al., iBOT: Image BERT pre-training with online tokenizer, ICLR 2022.
    """
    ranks = Ranks(group)

    def check() -> Asked:
        x = _logits(logits, 2, "(..., K)")
        keep = None if mask is None else rows_that_count(mask, x.shape, x.device).reshape(-1)
        flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        kind = at_least_single(x.dtype)
        told = *NAMES, "dino_codes", on_fail
        p = checked(ranks, flat, temperature, n_iter, keep, None, kind, False, *told)
        p = replace(p, back=lambda Q: Q.reshape(x.shape))
        earlier = _earlier(queue, prototypes, x)
        return p if earlier is None else _behind(earlier, p)

    return codes_of(ranks.agree(check, Asked.terms, lasting=True))


@constant
def capi_codes(
    logits: ArrayLike,
    temperature: float = 0.06,
    *,
    n_iter: int | None = 3,
    on_fail: OnFail = "warn",
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return CAPI's codes: every patch position is a problem of its own, over the images.

    Args:
        logits: The teacher's outputs for each image and patch position, (..., N, P, K).
        temperature: Of the teacher.
        n_iter: Iterations; None iterates to a tolerance.
        on_fail: What to do where n_iter=None does not reach its tolerance, as in `swav_codes`.
        group: Process group whose ranks share the problems; see `swav_codes`.

    Returns:
        Codes, (..., N, P, K), float32, or float64 for float64 logits; each sums to one.

    Raises:
        ValueError: If an argument breaks a rule; see `swav_codes`.
        RuntimeError: If a rank of the group cannot be reached.

    Source: T. Darcet et al., Cluster and predict latent patches for improved masked image modeling,
    TMLR 2025.
    """
    ranks = Ranks(group)

    def check() -> Asked:
        x = _logits(logits, 3, "(..., N, P, K)")
        S, kind = x.transpose(-3, -2), at_least_single(x.dtype)
        told = *NAMES, "capi_codes", on_fail
        p = checked(ranks, S, temperature, n_iter, None, None, kind, False, *told)
        return replace(p, back=lambda Q: Q.transpose(-3, -2))

    return codes_of(ranks.agree(check, Asked.terms, lasting=True))


def _earlier(queue: Any, prototypes: Any, x: Tensor) -> Tensor | None:
    """Return the logits of what a queue holds, (length, K), if it is ready."""
    if queue_or_none(queue) is None:
        return None
    if prototypes is None:
        raise ValueError("prototypes must be given with a queue, got None")
    # also while it is not used yet
    logits: Tensor = queue.scores(prototypes)
    checks.same_device("queue", logits, x.device, "logits")
    if logits.shape[1] != x.shape[-1]:
        raise ValueError(f"prototypes must be K = {x.shape[-1]} rows, got {logits.shape[1]}")
    return logits if queue.ready else None


def _behind(earlier: Tensor, p: Asked) -> Asked:
    """Return what is asked for with earlier logits in front, whose codes are left out."""
    if p.S.device.type == "cpu" and not torch.compiler.is_compiling():
        # looked at before: so an index is that of the caller
        p.require_sound()
    dtype = torch.promote_types(p.S.dtype, earlier.dtype)
    S = torch.cat([earlier.to(dtype), p.S.to(dtype)])
    mask = None if p.mask is None else torch.cat([p.mask.new_ones(len(earlier)), p.mask])
    return replace(p, S=S, mask=mask, start=len(earlier))


def _logits(logits: Any, dims: int, meaning: str) -> Tensor:
    x = checks.tensor("logits", logits)
    if x.ndim < dims:
        raise ValueError(f"logits must have shape {meaning}, got {tuple(x.shape)}")
    return x
