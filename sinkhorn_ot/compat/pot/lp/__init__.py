"""POT's `ot.lp`: exact plans."""

from .simplex import emd, emd2


__all__ = ["emd", "emd2"]
