"""The Sinkhorn divergence as a loss in a training loop."""

from torch import Tensor, nn

from sinkhorn_ot.problem import KL, checks
from sinkhorn_ot.results import ON_FAIL, OnFail
from sinkhorn_ot.solve import MAX_ITER

from .debiased import Metric, sinkhorn_divergence


class SinkhornDivergence(nn.Module):
    """The Sinkhorn divergence of two clouds: zero where they are the same measure.

    It learns nothing, unless its reg is a parameter.
    """

    def __init__(
        self,
        reg: float | Tensor,
        *,
        metric: Metric = "sqeuclidean",
        unbalanced: float | Tensor | KL | None = None,
        tol: float | None = None,
        max_iter: int = MAX_ITER,
        on_fail: OnFail = "warn",
    ) -> None:
        """Set what `sinkhorn_divergence` is called with.

        Args:
            reg: Regularisation in units of the cost, above zero: a number, or a parameter.
            metric: What two points cost.
            unbalanced: One KL penalty for both marginals instead of exact ones.
            tol: Relative L1 marginal error to reach in each problem.
            max_iter: Sweeps allowed in each problem.
            on_fail: What to do where tol is not reached: "warn", "raise", "ignore".
        """
        super().__init__()
        self.reg = reg if isinstance(reg, Tensor) else checks.positive("reg", reg)
        self.metric: Metric = metric
        self.unbalanced, self.tol = unbalanced, tol
        self.max_iter = checks.count("max_iter", max_iter)
        self.on_fail: OnFail = checks.one_of("on_fail", on_fail, ON_FAIL)

    def forward(self, *measures: Tensor) -> Tensor:
        """Return the divergence, (...), in float32, or float64 for float64 points.

        Args:
            measures: Clouds x (..., n, d) and y (..., m, d); or a, x, b, y with weights a (..., n)
                and b (..., m).

        Raises:
            ValueError: If an argument breaks a rule.
        """
        if len(measures) not in (2, 4):
            raise ValueError(f"a loss takes (x, y) or (a, x, b, y), got {len(measures)} arguments")
        a, x, b, y = measures if len(measures) == 4 else (None, measures[0], None, measures[1])
        return sinkhorn_divergence(
            x,
            y,
            a,
            b,
            self.reg,
            metric=self.metric,
            unbalanced=self.unbalanced,
            tol=self.tol,
            max_iter=self.max_iter,
            on_fail=self.on_fail,
        ).value

    def extra_repr(self) -> str:
        """Say what it is called with."""
        reg = "a tensor" if isinstance(self.reg, Tensor) else f"{self.reg:g}"
        return f"reg={reg}, metric={self.metric!r}, unbalanced={self.unbalanced}"
