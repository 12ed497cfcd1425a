"""Regularisation schedules as data: the factors by which `reg` is larger, from first to last."""

import math
from dataclasses import dataclass

from sinkhorn_ot.problem import checks


@dataclass(frozen=True)
class Anneal:
    """Solve at larger `reg` first, dividing it until the wanted one is reached.

    Args:
        start: First `reg`, about, as a fraction of the cost's spread; none larger is worth a stage.
        factor: What `reg` is divided by between stages.
        tol: Marginal error at which a stage before the last one ends.
        max_iter: Sweeps at which a stage before the last one ends.
    """

    start: float = 0.005
    factor: float = 4.0
    tol: float = 0.1
    max_iter: int = 40

    def __post_init__(self) -> None:
        for name in ("start", "tol"):
            checks.positive(name, getattr(self, name))
        checks.count("max_iter", self.max_iter)
        if not checks.positive("factor", self.factor) > 1:
            raise ValueError(f"factor must be above 1, got {self.factor!r}")

    def stages(self, spread: float, reg: float) -> list[float]:
        """Return the factors on `reg`, ending in 1."""
        first = self.start * spread / reg
        if not math.isfinite(first) or first <= 1:
            return [1.0]
        steps = round(math.log(first, self.factor))
        return [self.factor**k for k in range(steps, -1, -1)]
