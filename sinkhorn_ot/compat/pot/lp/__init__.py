"""POT's `ot.lp`: exact plans, of costs and on a line."""

from typing import TYPE_CHECKING, NoReturn

from sinkhorn_ot.compat.pot.answers import absent

from .line import emd2_1d, emd_1d, wasserstein_1d
from .simplex import emd, emd2


__all__ = ["emd", "emd2", "emd2_1d", "emd_1d", "wasserstein_1d"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise absent(__name__, name)
