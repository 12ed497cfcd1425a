"""POT's `ot.lp`: exact plans, of costs and on a line."""

from typing import Any

from sinkhorn_ot.compat.pot.answers import absent

from .line import emd2_1d, emd_1d, wasserstein_1d
from .simplex import emd, emd2


__all__ = ["emd", "emd2", "emd2_1d", "emd_1d", "wasserstein_1d"]


def __getattr__(name: str) -> Any:
    raise absent(__name__, name)
