"""Fixed sweeps as PyTorch operators: one that sweeps, and one that forms a number then.

Both do what `solve(n_iter=)` does, on any device, and are registered when this file is first
imported. Neither has a derivative.
"""

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from sinkhorn_ot.problem import MetricName, PointCloud, Problem, make, shown
from sinkhorn_ot.results import Entropic, Solution, Status, Transport
from sinkhorn_ot.solvers import fixed, parted
from sinkhorn_ot.sweeps import choose, passes


@shown
class Asked(NamedTuple):
    """A problem in the words of PyTorch, to whom an operator has one signature.

    Attributes:
        cost: Costs (..., n, m), or source points (..., n, d).
        y: Target points (..., m, d), if the cost is that between points.
        metric: Their metric.
        power: What their distances are raised to.
        a: Source weights (..., n).
        b: Target weights (..., m).
        regs: reg of each problem (...), if they have their own.
        reg: reg of all, if not.
        relax: Penalty of each side, inf for an exact one.
    """

    cost: Tensor
    y: Tensor | None
    metric: str
    power: float
    a: Tensor | None
    b: Tensor | None
    regs: Tensor | None
    reg: float
    relax: list[float]

    @property
    def problem(self) -> Problem:
        """The problem, checked as far as that waits for nothing."""
        x, y = self.cost, self.y
        metric = cast("MetricName", self.metric)
        cost = x if y is None else PointCloud(x, y, metric, power=self.power)
        reg, relax = self.reg if self.regs is None else self.regs, tuple(self.relax)
        values = self.cost.device.type == "cpu"
        exact = all(map(math.isinf, relax))
        return make(cost, self.a, self.b, reg, None if exact else relax, values=values)

    @property
    def sizes(self) -> tuple[torch.Size, int, int]:
        """Leading dimensions, and how many points there are."""
        n, m = self.cost.shape[-2], (self.cost.shape[-1] if self.y is None else self.y.shape[-2])
        sides = ((self.cost, -2), (self.y, -2), (self.a, -1), (self.b, -1), (self.regs, None))
        given = [t.shape[:behind] for t, behind in sides if t is not None]
        return torch.broadcast_shapes(*given), n, m  # type: ignore[no-untyped-call]


_ASKED = (
    "Tensor cost, Tensor? y, str metric, float power, Tensor? a, Tensor? b, Tensor? regs, "
    "float reg, float[] relax"
)
# numbers of a result, and their dimensions behind those of a batch
NUMBERS = {
    "plan": "nm", "log_plan": "nm", "f": "n", "g": "m", "value": "", "value_linear": "",
    "dual_value": "", "gap": "", "marginal_error": "",
}  # fmt: skip
# what it makes of vectors
METHODS = {"apply": "n", "apply_transpose": "m", "barycentric": "n"}


def sweeps(*args: Any) -> tuple[Tensor, Tensor]:
    """Return scaled potentials (B, n) and (B, m) after exactly `n_iter` sweeps."""
    *asked, n_iter = args
    p = Asked(*asked).problem
    with torch.autocast(p.a.device.type, enabled=False):
        found = fixed(choose(p, 1e-9 if p.dtype == torch.float64 else 1e-6), n_iter)
    return found.u.clone(), found.v.clone()


def swept(*args: Any) -> Tensor:
    """Return a number of the result with these potentials, or what it makes of vectors."""
    *asked, name, u, v, x = args
    p = Asked(*asked).problem
    n_iter = torch.zeros_like(p.reg, dtype=torch.int64)
    found = Solution(u, v, None, n_iter, [Status.FIXED] * len(u))
    p = parted(p, found)
    with torch.autocast(p.a.device.type, enabled=False):
        r = Transport(p, Entropic(passes(p, None), u, v), "plain", found.status, n_iter)
        told: Tensor = getattr(r, name) if x is None else getattr(r, name)(x)
    return told.contiguous().clone()


def _shape_of_sweeps(*args: Any) -> tuple[Tensor, Tensor]:
    *asked, _ = args
    p = Asked(*asked)
    batch, n, m = p.sizes
    work = torch.float64 if p.cost.device.type == "cpu" else _dtype(p)
    B = batch.numel()
    return p.cost.new_empty((B, n), dtype=work), p.cost.new_empty((B, m), dtype=work)


def _shape_of_swept(*args: Any) -> Tensor:
    *asked, name, _, _, x = args
    p = Asked(*asked)
    batch, n, m = p.sizes
    size = tuple({"n": n, "m": m}[k] for k in (NUMBERS | METHODS)[name])
    of = n if name == "apply_transpose" else m
    alone = x is None or x.ndim == 1 or x.shape == (*batch, of)
    behind = x.shape[-1:] if x is not None and not alone else ()
    return p.cost.new_empty((*batch, *size, *behind), dtype=_dtype(p))


def _dtype(p: Asked) -> torch.dtype:
    return torch.float64 if p.cost.dtype == torch.float64 else torch.float32


for _act, _more, _out, _shape in (
    (sweeps, "SymInt n_iter", "(Tensor, Tensor)", _shape_of_sweeps),
    (swept, "str name, Tensor u, Tensor v, Tensor? x", "Tensor", _shape_of_swept),
):
    _op = torch.library.custom_op(
        f"sinkhorn_ot::{_act.__name__}",
        _act,
        mutates_args=(),
        schema=f"({_ASKED}, {_more}) -> {_out}",
    )
    _op.register_fake(_shape)
