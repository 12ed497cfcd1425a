"""POT's calls, for code that has them: `import sinkhorn_ot.compat.pot as ot`."""

from typing import TYPE_CHECKING, Any

from sinkhorn_ot.problem import needs

from . import batch, bregman, lp, partial, sliced, unbalanced
from .answers import absent
from .batch import solve_batch, solve_sample_batch
from .bregman import barycenter, sinkhorn, sinkhorn2
from .lp import emd, emd2, emd2_1d, emd_1d, wasserstein_1d
from .samples import solve_sample
from .sliced import sliced_wasserstein_distance
from .solvers import solve
from .unbalanced import sinkhorn_unbalanced, sinkhorn_unbalanced2


__all__ = [
    "barycenter",
    "batch",
    "bregman",
    "emd",
    "emd2",
    "emd2_1d",
    "emd_1d",
    "lp",
    "partial",
    "sinkhorn",
    "sinkhorn2",
    "sinkhorn_unbalanced",
    "sinkhorn_unbalanced2",
    "sliced",
    "sliced_wasserstein_distance",
    "solve",
    "solve_batch",
    "solve_sample",
    "solve_sample_batch",
    "unbalanced",
    "wasserstein_1d",
]

# what makes problems and solves none is POT's own
_HELPERS = ("backend", "datasets", "dist", "tic", "toc", "unif", "utils")


if TYPE_CHECKING:
    # POT says of nothing what it is
    backend: Any
    datasets: Any
    dist: Any
    tic: Any
    toc: Any
    unif: Any
    utils: Any
else:

    def __getattr__(name: str) -> Any:
        """Return what only makes problems from POT; say of everything else that it is there."""
        if name in _HELPERS:
            # imported here: who asks for none needs no POT
            with needs("ot"):
                import ot

            return getattr(ot, name)
        raise absent(__name__, name)
