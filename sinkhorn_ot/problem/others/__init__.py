"""Other packages: what they call things, and whether they are here."""

from .habits import CALLS, Names
from .packages import has_triton, needs


__all__ = ["CALLS", "Names", "has_triton", "needs"]
