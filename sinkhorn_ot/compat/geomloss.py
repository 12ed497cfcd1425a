"""GeomLoss's call, for a training loop that already has it: change the import."""

from collections.abc import Callable
from typing import Any, Literal, get_args

from torch import Tensor, nn

from sinkhorn_ot.derived import Divergence, sinkhorn_divergence
from sinkhorn_ot.problem import PointCloud, checks
from sinkhorn_ot.results import Transport
from sinkhorn_ot.solve import solve


# a function of clouds (B, N, D) and (B, M, D) that returns what their points cost, (B, N, M)
Cost = Callable[[Tensor, Tensor], Tensor]

Backend = Literal["auto", "tensorized", "online", "multiscale"]
_OTHERS = ("hausdorff", "energy", "gaussian", "laplacian")


class SamplesLoss(nn.Module):
    """GeomLoss's `SamplesLoss("sinkhorn")`, solved to a tolerance instead of annealed once.

    Points cost |x - y|^p / p, the temperature is blur^p and the penalty on the marginals reach^p.
    The documentation has a table of what differs, and why.

    Source: J. Feydy et al., Interpolating between optimal transport and MMD using Sinkhorn
    divergences, AISTATS 2019; T. Sejourne et al., Sinkhorn divergences for unbalanced optimal
    transport, 2019.
    """

    def __init__(  # noqa: PLR0913
        self,
        loss: Literal["sinkhorn"] = "sinkhorn",
        p: Literal[1, 2] = 2,
        blur: float = 0.05,
        reach: float | None = None,
        diameter: float | None = None,
        scaling: float = 0.5,
        truncate: float | None = 5,
        cost: Cost | None = None,
        kernel: None = None,
        cluster_scale: None = None,
        debias: bool = True,
        potentials: bool = False,
        verbose: bool = False,
        backend: Backend = "auto",
        tol: float | None = None,
    ) -> None:
        """Set the loss.

        Args:
            loss: "sinkhorn"; the others are GeomLoss's own.
            p: 1 for |x - y|, 2 for |x - y|^2 / 2.
            blur: Length below which nothing is told apart.
            reach: Length beyond which nothing is moved; None moves all.
            diameter: Taken, and not needed: the annealing finds its own.
            scaling: Taken, and not needed: a tolerance says when to end.
            truncate: Taken, and not needed: no pair is left out.
            cost: A function of (B, N, D) and (B, M, D) that returns (B, N, M), instead of the
                distances; symmetric in its arguments.
            kernel: None.
            cluster_scale: None.
            debias: Whether to take off half of what each measure costs itself.
            potentials: Whether to return the potentials instead of the value.
            verbose: Taken, and nothing is printed.
            backend: Taken, and not needed: memory beyond `PointCloud`'s is never used.
            tol: Relative L1 marginal error to reach in each problem, as in `solve`.

        Raises:
            ValueError: If an argument breaks a rule, or asks for what only GeomLoss has.
        """
        super().__init__()
        _only_ours(loss, kernel, cluster_scale)
        if isinstance(p, bool) or p not in (1, 2):
            raise ValueError(f"p must be 1 or 2, got {p!r}: pass cost= for another")
        if not checks.positive("scaling", scaling) < 1:
            raise ValueError(f"scaling must be below 1, got {scaling!r}")
        for name, value in (("diameter", diameter), ("tol", tol)):
            if value is not None:
                checks.positive(name, value)
        if cost is not None and not callable(cost):
            raise ValueError(
                f"cost must be a function of two clouds, got {cost!r}: formulas are geomloss's own"
            )
        checks.one_of("backend", backend, get_args(Backend))
        self.loss, self.p, self.backend, self.cost = loss, p, backend, cost
        self.blur = checks.positive("blur", blur)
        self.reach = None if reach is None else checks.positive("reach", reach)
        self.diameter, self.scaling, self.truncate = diameter, scaling, truncate
        self.debias = checks.flag("debias", debias)
        self.potentials = checks.flag("potentials", potentials)
        self.verbose, self.tol = verbose, tol

    def forward(self, *measures: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss of two measures, or of a batch of pairs.

        Args:
            measures: Points x (N, D) or (B, N, D) and y (M, D) or (B, M, D); or weights too,
                α, x, β, y, with weights (N,), (N, 1), (B, N) or (B, N, 1).

        Returns:
            The value, () or (B,); with potentials=True, what the weights weigh, in their shapes.

        Raises:
            ValueError: If an argument breaks a rule, or labels clusters.
        """
        if len(measures) not in (2, 4):
            also = ": labels of clusters are for geomloss itself" if len(measures) == 6 else ""
            raise ValueError(
                f"a SamplesLoss takes (x, y) or (α, x, β, y), got {len(measures)} arguments{also}"
            )
        a, x, b, y = measures if len(measures) == 4 else (None, measures[0], None, measures[1])
        _points("x", x)
        _points("y", y)
        if x.ndim != y.ndim or x.shape[:-2] != y.shape[:-2]:
            raise ValueError(
                f"x and y must have as many clouds, got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        flat_a, flat_b = _weights("α", a, x), _weights("β", b, y)
        r = self._solved(_batch(x), _batch(y), flat_a, flat_b)
        if self.potentials:
            f, g = (t / self._unit for t in (r.f, r.g))
            f = f.reshape(x.shape[:-1] if a is None else a.shape)
            return f, g.reshape(y.shape[:-1] if b is None else b.shape)
        value = r.value / self._unit
        if not self.debias:
            value = value + _beside(self.blur**self.p, flat_a, flat_b)
        return value if x.ndim == 3 else value[0]

    @property
    def _unit(self) -> int:
        """What we count as one: |x - y|^2 / 2 is half of what it costs at twice of everything."""
        return 2 if self.p == 2 and self.cost is None else 1

    def _solved(
        self, x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None
    ) -> Divergence | Transport:
        """Return what is known of flat batches, in our units."""
        metric: Any = self.cost or {1: "euclidean", 2: "sqeuclidean"}[self.p]
        reg = self._unit * self.blur**self.p
        rho = None if self.reach is None else self._unit * self.reach**self.p
        if self.debias:
            return sinkhorn_divergence(x, y, a, b, reg, metric=metric, unbalanced=rho, tol=self.tol)
        cost = metric(x, y) if self.cost else PointCloud(x, y, metric)
        return solve(cost, a, b, reg, unbalanced=rho, tol=self.tol)

    def extra_repr(self) -> str:
        """Say what decides the value."""
        what = f"p={self.p}, blur={self.blur:g}, reach={self.reach}, debias={self.debias}"
        return f"{what}, potentials={self.potentials}"


def _only_ours(loss: Any, kernel: Any, cluster_scale: Any) -> None:
    """Refuse what only GeomLoss has."""
    if loss in _OTHERS or kernel is not None:
        beside = "" if kernel is None else " beside a kernel"
        raise ValueError(
            f"loss must be 'sinkhorn', got {loss!r}{beside}: others are in geomloss itself"
        )
    checks.one_of("loss", loss, ("sinkhorn",))
    if cluster_scale is not None:
        raise ValueError(
            f"cluster_scale must be None, got {cluster_scale!r}: to cluster use geomloss itself"
        )


def _beside(eps: float, a: Tensor | None, b: Tensor | None) -> Tensor | float:
    """Return what GeomLoss counts otherwise of masses that are not one."""
    if a is None or b is None:
        return 0.0
    m_a, m_b = a.sum(-1), b.sum(-1)
    return eps * ((m_a + m_b) / 2 - m_a * m_b)


def _points(name: str, x: Any) -> None:
    if not isinstance(x, Tensor) or x.ndim not in (2, 3):
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a tensor (N, D) or (B, N, D), got {got}")


def _weights(name: str, w: Any, x: Tensor) -> Tensor | None:
    """Return weights (B, N) of clouds."""
    if w is None:
        return None
    shape = x.shape[:-1]
    if not isinstance(w, Tensor) or w.shape not in (shape, (*shape, 1)):
        got = tuple(w.shape) if isinstance(w, Tensor) else type(w).__name__
        raise ValueError(f"{name} must be a tensor {tuple(shape)}, one weight a point, got {got}")
    return w.reshape(-1, shape[-1])


def _batch(x: Tensor) -> Tensor:
    return x if x.ndim == 3 else x[None]
