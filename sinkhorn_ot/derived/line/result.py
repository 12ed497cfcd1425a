"""What transport on a line or a circle tells: its value, its sparse plan, its potentials."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sinkhorn_ot.exact.line import Numbers, Power, tensor
from sinkhorn_ot.problem import shown
from sinkhorn_ot.results import Result, Sketch, of_matrix, picked, uncompiled

from .circle import Circle, OnCircle
from .measures import Measures
from .ways import OnLine, Pairs, Way


@shown
@dataclass(frozen=True, eq=False)
class LineTransport(Result, parts=(Measures, OnLine, OnCircle, Circle)):
    """An optimal plan between points on a line or a circle, or a batch of them.

    Tensors have the leading dimensions of the batch, the caller's device, and float64 or float32.
    Numbers are functions of points and weights where these require grad; a plan's entries are not.

    Attributes:
        given: The points and weights, checked.
        way: The plan, as it is held.
        p: The power of the distance that the cost is.
        period: How long the circle is; None on a line.
    """

    given: Measures
    way: Way
    p: float
    period: float | None

    _tells = ("value", "distance", "f", "g", "source", "target", "mass")

    @property
    @uncompiled
    def value(self) -> Tensor:
        """What the plan costs, (...): the sum of mass times distance ** p."""
        p = self.given
        value = self.way.value(Power(self.p), p.x, p.y)
        if p.weighs and p.waits:
            # mass that is not there yet is worth its potential
            f, g = self._potentials
            more_a, more_b = p.a - p.a.detach(), p.b - p.b.detach()
            value = value + (f * more_a).sum(-1) + (g * more_b).sum(-1)
        return p.out(value)

    @property
    def distance(self) -> Tensor:
        """The p-th root of the value, (...): a metric between measures of mass one.

        At zero, where it has a kink, its derivative is told as zero.
        """
        return root(self.value, self.p)

    @property
    @uncompiled
    def f(self) -> Tensor:
        """Source potential, (..., n), of the value's units: f_i + g_j <= the cost of i and j.

        Both share a constant, which is such that `<b, g> = 0`. The derivative of the value by a. On
        a circle they lose about p / 2 digits, for in them costs of more than a turn cancel.
        """
        return self.given.out(self._potentials[0])

    @property
    @uncompiled
    def g(self) -> Tensor:
        """Target potential, (..., m)."""
        return self.given.out(self._potentials[1])

    @property
    def source(self) -> Tensor:
        """Which point of x each entry of the plan moves from, (..., K), int64."""
        return self.given.out(self._moved.source)

    @property
    def target(self) -> Tensor:
        """Which point of y each entry moves to, (..., K), int64."""
        return self.given.out(self._moved.target)

    @property
    def mass(self) -> Tensor:
        """What each entry moves, (..., K), K < n + m, or n + m on a circle; some may be zero."""
        return self.given.out(self._moved.mass)

    @property
    def sparse_plan(self) -> Tensor:
        """The plan as a sparse tensor of its entries above zero, (..., n, m)."""
        p, (source, target, mass) = self.given, map(tensor, self._moved)
        problem, entry = torch.nonzero(mass, as_tuple=True)
        at = torch.stack([problem, source[problem, entry], target[problem, entry]])
        shape, batch = (p.x.shape[1], p.y.shape[1]), p.batch_shape
        lead = torch.unravel_index(at[0], batch) if batch else ()
        index = torch.stack([*lead, *at[1:]])
        plan = torch.sparse_coo_tensor(
            index, mass[problem, entry].to(p.dtype), (*batch, *shape), check_invariants=False
        )
        return plan.coalesce()

    @property
    def plan(self) -> Tensor:
        """The plan in full, (..., n, m), of n * m numbers."""
        return self.sparse_plan.to_dense()

    @property
    def _batch(self) -> torch.Size:
        return self.given.batch_shape

    def _picked(self, at: Tensor) -> "LineTransport":
        found: LineTransport = picked(self, at, self._batch)
        return found

    def _sketch(self) -> Sketch:
        p = self.given
        x, y, a, b = (tensor(t)[0] for t in (p.x, p.y, p.a, p.b))
        clouds = x[:, None], y[:, None]
        if self.period is not None:
            # sources outside, targets inside
            clouds = _around(x / self.period, 1.0), _around(y / self.period, 0.8)
        return of_matrix(self.sparse_plan.double(), (a, b), clouds)

    def _shown(self) -> dict[str, object]:
        """Return what is shown of it: nothing that has to be computed."""
        p = self.given
        sizes = {"batch": p.batch_shape, "n": p.x.shape[1], "m": p.y.shape[1]}
        return sizes | {"p": self.p, "period": self.period}

    @cached_property
    def _moved(self) -> Pairs:
        return self.way.pairs

    @property
    def _potentials(self) -> tuple[Numbers, Numbers]:
        p = self.given
        f, g = self.way.potentials(Power(self.p), p.x, p.y)
        level = ((p.b * g).sum(-1) / p.b.sum(-1))[:, None]
        return f + level, g - level


def _around(turns: Tensor, radius: float) -> Tensor:
    """Return where points of a circle are on a page."""
    angle = 2 * math.pi * turns
    return radius * torch.stack([angle.cos(), angle.sin()], -1)


def root(value: Tensor, p: float) -> Tensor:
    """Return the p-th root of values, with a derivative of zero at zero."""
    if p == 1:
        return value
    above = value > 0
    return torch.where(above, torch.where(above, value, 1.0) ** (1 / p), 0.0)
