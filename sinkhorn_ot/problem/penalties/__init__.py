"""What a marginal may be asked instead of being exact: each penalty is one class."""

from .bounds import Between, Moved
from .divergences import KL, L2, TV
from .penalty import Penalty


__all__ = ["KL", "L2", "TV", "Between", "Moved", "Penalty"]
