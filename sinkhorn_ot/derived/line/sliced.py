"""sliced_distance(): clouds of points compared along lines through space, each by sorting."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sinkhorn_ot.exact.line import constants
from sinkhorn_ot.problem import ArrayLike, broadcast, checks, mass_rtol, shown
from sinkhorn_ot.results import Result, uncompiled

from .call import affordable, power
from .measures import Measures, points, same_mass, weights
from .result import LineTransport, root
from .ways import on_line


# coordinates along lines that are held together, on a CPU and elsewhere
_TOGETHER, _ELSEWHERE = 1 << 18, 1 << 26


@shown
@dataclass(frozen=True, eq=False)
class SlicedDistance(Result):
    """What two clouds are apart along some lines, for one pair of clouds or a batch of them.

    Numbers are functions of points and weights where these require grad.

    Attributes:
        each: The least cost along each line, (..., k), mass times distance ** p.
        directions: Where the lines lead, unit vectors (k, d).
        p: The power of the distance that the cost is.
    """

    each: Tensor
    directions: Tensor
    p: float

    _tells = ("value", "distance", "largest", "error", "each", "directions")
    _common = ("directions",)

    @property
    def _batch(self) -> torch.Size:
        return self.each.shape[:-1]

    def _told_in(self, dtype: torch.dtype) -> "SlicedDistance":
        return replace(self, each=self.each.to(dtype), directions=self.directions.to(dtype))

    @property
    def value(self) -> Tensor:
        """The mean of the costs along all lines, (...)."""
        return self.each.mean(-1)

    @property
    def distance(self) -> Tensor:
        """The sliced distance, (...): the p-th root of the mean."""
        return root(self.value, self.p)

    @property
    def largest(self) -> Tensor:
        """The distance along the line on which it is largest, (...): max-sliced, over these."""
        return root(self.each.amax(-1), self.p)

    @property
    def error(self) -> Tensor:
        """The standard error of `value` as a mean over random lines, (...); nan for one line."""
        each, k = self.each.detach(), self.each.shape[-1]
        several = k > 1 and each.numel() > 0
        return each.std(-1) / math.sqrt(k) if several else torch.full_like(each[..., 0], math.nan)


@uncompiled
def sliced_distance(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    directions: int | ArrayLike = 128,
    p: float = 2,
    generator: torch.Generator | None = None,
) -> SlicedDistance:
    """Compare two clouds by the mean cost of transport between their projections onto lines.

    The p-th root of the mean is a metric between measures of mass one, once all lines count. Each
    line is solved exactly, by sorting, and blocks of lines together: memory does not grow with
    their number, derivatives included, whose pass forms each block again.

    Source: J. Rabin, G. Peyre, J. Delon, M. Bernot, Wasserstein barycenter and its application to
    texture mixing, 2011; N. Bonneel, J. Rabin, G. Peyre, H. Pfister, Sliced and Radon Wasserstein
    barycenters of measures, 2015.

    Args:
        x: Source points, (..., n, d). Leading dimensions broadcast.
        y: Target points, (..., m, d).
        a: Source weights, (..., n); None means 1/n each.
        b: Target weights, (..., m), of the same total; None means 1/m each.
        directions: How many lines, drawn uniformly; or where they lead, (k, d), of any length but
            zero. Only random ones make `error` meaningful.
        p: The power of the distance that moving costs, at least 1.
        generator: Draws the lines, on the CPU; None takes torch's own.

    Returns:
        `distance`, `value`, the cost along `each` line, the `largest`, and the standard `error` of
        the mean.

    Raises:
        ValueError: If an argument breaks a rule.
    """
    p = power(p)
    x, y = points("x", x, 2, "(..., n, d)"), points("y", y, 2, "(..., m, d)")
    checks.same_device("y", y, x.device, "x")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"x and y must have points of one dimension, got {x.shape[-1]} and {y.shape[-1]}"
        )
    uniform = a is None and b is None
    a, b = weights("a", a, x.shape[-2], x, "x"), weights("b", b, y.shape[-2], y, "y")
    batch = broadcast("x", x.shape[:-2], "y", y.shape[:-2])
    batch = broadcast("x and y", batch, "a", a.shape[:-1])
    batch = broadcast("x, y and a", batch, "b", b.shape[:-1])
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    lines = _lines(directions, x, generator)
    affordable(_reach(x, y), p)
    rtol = mass_rtol(a, b)
    a, b = a.double(), b.double()
    b = b if uniform else same_mass(a.expand(*batch, -1), b.expand(*batch, -1), rtol)
    clouds = [t.double().expand(*batch, *t.shape[-2:]) for t in (x, y)]
    marginals = [t.expand(*batch, t.shape[-1]) for t in (a, b)]
    parts = [_block(part, *clouds, *marginals, uniform, p) for part in _blocks(lines, clouds)]
    each = torch.cat(parts, -1)
    return SlicedDistance(each.to(dtype), lines.to(dtype), p)


def _block(lines: Tensor, *tensors: Any) -> Tensor:
    """Return the costs along some lines, (..., k); a backward pass forms them again."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors[:4]):
        held: Tensor = checkpoint(_along, lines, *tensors, use_reentrant=False)
        return held
    return _along(lines, *tensors)


def _along(  # noqa: PLR0913
    lines: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, uniform: bool, p: float
) -> Tensor:
    shape = torch.Size((*x.shape[:-2], len(lines)))
    x, y = ((lines @ t.mT).flatten(0, -2) for t in (x, y))
    a, b = (t[..., None, :].expand(*shape, -1).flatten(0, -2) for t in (a, b))
    moves, weighs = (any(t.requires_grad for t in pair) for pair in ((x, y), (a, b)))
    if not (torch.is_grad_enabled() and (moves or weighs)):
        x, y, a, b = map(constants, (x, y, a, b))
    given = Measures(x, y, a, b, uniform, 0.0, shape, torch.float64, moves, weighs)
    return LineTransport(given, on_line(given), p, None).value


def _reach(x: Tensor, y: Tensor) -> float:
    """Return how far points are apart at most, along any line."""
    lengths = [float(t.detach().double().norm(dim=-1).amax()) for t in (x, y)]
    return 2 * max(lengths)


def _blocks(lines: Tensor, clouds: list[Tensor]) -> Iterator[Tensor]:
    """Yield lines, so many that their coordinates fit together."""
    room = _TOGETHER if lines.device.type == "cpu" else _ELSEWHERE
    held = sum(t[..., 0].numel() for t in clouds)
    yield from torch.split(lines, max(1, room // held))


def _elsewhere(generator: torch.Generator | None) -> bool:
    return generator is not None and generator.device.type != "cpu"


def _lines(directions: Any, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return unit vectors, (k, d), in float64."""
    d = x.shape[-1]
    if isinstance(directions, int) or not hasattr(directions, "__len__"):
        count = checks.count("directions", directions)
        if not isinstance(generator, torch.Generator | None) or _elsewhere(generator):
            raise ValueError(
                f"generator must be a torch.Generator of the CPU, got {generator!r:.60}"
            )
        drawn = torch.randn(count, d, dtype=torch.float64, generator=generator, device="cpu")
        return torch.nn.functional.normalize(drawn, dim=-1, eps=0.0).to(x.device)
    t = checks.constant("directions", points("directions", directions, 2, "(k, d)"))
    if t.shape != (len(t), d):
        raise ValueError(f"directions must have shape (k, {d}) to fit x, got {tuple(t.shape)}")
    checks.same_device("directions", t, x.device, "x")
    t = t.double()
    # first by the largest entry, whose square may be no number
    largest = t.abs().amax(-1, keepdim=True)
    if not bool((largest > 0).all()):
        k = checks.first_index(largest[:, 0] == 0)[0]
        raise ValueError(f"directions must have a length above zero, got zeros at index {k}")
    return torch.nn.functional.normalize(t / largest, dim=-1)
