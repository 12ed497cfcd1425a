"""Megatron-LM's `sinkhorn` of its routers, for a layer that already has it: change the import."""

from torch import Tensor

from sinkhorn_ot.adapters import moe_router

from .scores import matrix


def sinkhorn(cost: Tensor, tol: float = 0.0001) -> Tensor:
    """Return a plan that spreads tokens evenly over experts, for choosing them.

    Args:
        cost: Logits of tokens and experts, (T, E). What it calls a cost is a gain: larger is
            likelier.
        tol: Mean change of the experts' scalings at which to stop.

    Returns:
        The plan, (T, E), float32, or float64 for float64 logits, with columns of 1 / E and rows of
        nearly 1 / T. It is a constant.

    Raises:
        ValueError: If an argument breaks a rule; see `moe_router`.

    Source: A. Clark et al., Unified scaling laws for routed language models, ICML 2022;
    megatron.core.transformer.moe.moe_utils.
    """
    return moe_router(matrix("cost", cost, "(T, E)"), tol=tol).plan
