"""POT's `ot.bregman`: entropic plans, of costs and of samples."""

from typing import TYPE_CHECKING, NoReturn

from sinkhorn_ot.compat.pot.answers import absent

from .barycenters import barycenter, barycenter_debiased
from .empirical import empirical_sinkhorn, empirical_sinkhorn2, empirical_sinkhorn_divergence
from .scaling import (
    greenkhorn,
    sinkhorn,
    sinkhorn2,
    sinkhorn_epsilon_scaling,
    sinkhorn_knopp,
    sinkhorn_log,
    sinkhorn_stabilized,
)


__all__ = [
    "barycenter",
    "barycenter_debiased",
    "empirical_sinkhorn",
    "empirical_sinkhorn2",
    "empirical_sinkhorn_divergence",
    "greenkhorn",
    "sinkhorn",
    "sinkhorn2",
    "sinkhorn_epsilon_scaling",
    "sinkhorn_knopp",
    "sinkhorn_log",
    "sinkhorn_stabilized",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise absent(__name__, name)
