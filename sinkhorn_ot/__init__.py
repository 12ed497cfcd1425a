"""Entropic optimal transport on PyTorch: fast, certified, and ready for training loops."""

from .acceleration import Anderson, Nesterov, Plain
from .adapters import SelaLabels, sela_labels, swav_codes
from .anneal import Anneal
from .certificate import Certificate
from .cost import Dense, PointCloud
from .exact import solve_exact
from .newton import Newton
from .result import Transport
from .sinkhorn import Progress, Sinkhorn
from .solve import solve
from .status import ConvergenceError, ConvergenceWarning, Status


__version__ = "0.1.0"

__all__ = [
    "Anderson",
    "Anneal",
    "Certificate",
    "ConvergenceError",
    "ConvergenceWarning",
    "Dense",
    "Nesterov",
    "Newton",
    "Plain",
    "PointCloud",
    "Progress",
    "SelaLabels",
    "Sinkhorn",
    "Status",
    "Transport",
    "sela_labels",
    "solve",
    "solve_exact",
    "swav_codes",
]
