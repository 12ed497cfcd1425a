"""What makes the numbers of a result functions of its arguments, for autograd and compilers."""

from .compiler import uncompiled
from .functions import Copied, Derivatives, Through, attached, final
from .leaves import Leaves, Parts, waiting
from .transforms import outside, transformable


__all__ = [
    "Copied",
    "Derivatives",
    "Leaves",
    "Parts",
    "Through",
    "attached",
    "final",
    "outside",
    "transformable",
    "uncompiled",
    "waiting",
]
