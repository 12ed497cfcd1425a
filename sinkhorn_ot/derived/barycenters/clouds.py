"""The clouds of a barycentre whose points move: checked, in one batch where they can be."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks, shown


# how far masses may differ by rounding alone
_RTOL = 1e-5
# how far points that begin at one place are moved apart, as a share of the size of the clouds
_APART = 1e-3


@shown
@dataclass(frozen=True, eq=False)
class Clouds:
    """Clouds in batches of one size.

    Attributes:
        points: Points of each batch, (k, m, d), or of each cloud, (m, d).
        weights: What they weigh, (k, m) or (m,).
        middle: The mean of each cloud, (k, d).
        size: Root of the mean square of how far their points are from those, the clouds alike.
        mass: What each cloud weighs.
    """

    points: list[Tensor]
    weights: list[Tensor]
    middle: Tensor
    size: float
    mass: float

    def share(self, moves: Tensor, b: Tensor) -> Tensor:
        """Return the root of the mean square of moves (n, d), as a share of the size."""
        squares = (b * moves.square().sum(-1)).sum() / b.sum()
        return squares.sqrt() / self.size


def as_clouds(clouds: Any, a: Any, together: bool) -> Clouds:
    """Return clouds and their weights.

    Args:
        clouds: Points (k, m, d), or a list of k clouds (m_k, d).
        a: Weights (k, m) or a list of k weights (m_k,); None means equal ones.
        together: Whether all become one batch, by points without weight where sizes differ.

    Raises:
        ValueError: If an argument breaks a rule.
    """
    points = _points(clouds)
    weights = _weights(a, points)
    masses = torch.stack([w.sum() for w in weights])
    if bool(((masses / masses[0] - 1).abs() > _RTOL).any()):
        k = checks.first_index((masses / masses[0] - 1).abs() > _RTOL)[0]
        raise ValueError(
            f"a must have one mass for all clouds, got {float(masses[0]):.9g} and "
            f"{float(masses[k]):.9g} at cloud {k}: normalise them"
        )
    weights = [w * (masses[0] / mass) for w, mass in zip(weights, masses, strict=True)]
    both = list(zip(points, weights, strict=True))
    middle = torch.stack([(w[:, None] * y).sum(0) / w.sum() for y, w in both])
    squares = [
        (w * (y - at).square().sum(-1)).sum() / w.sum()
        for (y, w), at in zip(both, middle, strict=True)
    ]
    size = float(torch.stack(squares).mean().sqrt()) or 1.0
    if together:
        points, weights = _batch(points, weights)
    return Clouds(points, weights, middle, size, float(masses[0]))


def _points(clouds: Any) -> list[Tensor]:
    """Return each cloud, (m, d)."""
    if isinstance(clouds, (list, tuple)):
        points = [checks.tensor(f"clouds[{k}]", y, whole=True) for k, y in enumerate(clouds)]
    else:
        t = checks.tensor("clouds", clouds, whole=True)
        if t.ndim != 3:
            raise ValueError(f"clouds must have shape (k, m, d) or be a list, got {tuple(t.shape)}")
        points = list(t)
    if not points:
        raise ValueError("clouds must hold at least one cloud, got none")
    for k, y in enumerate(points):
        name, first = f"clouds[{k}]", points[0]
        checks.finite(name, checks.at_least_dims(name, y, 2, "(m, d)"))
        if y.ndim > 2 or y.shape[1] != first.shape[1]:
            d = first.shape[-1]
            raise ValueError(f"{name} must have shape (m, {d}), got {tuple(y.shape)}")
        if y.dtype != first.dtype:
            raise ValueError(
                f"{name} must have the dtype of the first, {first.dtype}, got {y.dtype}"
            )
        checks.same_device(name, y, first.device, "the first")
    # what has fewer digits than float32 is read as it is, and answered in that
    return [y if y.dtype == torch.float64 else y.float() for y in points]


def _weights(a: Any, points: list[Tensor]) -> list[Tensor]:
    """Return what the points of each cloud weigh, (m,), in the dtype of the points."""
    if a is None:
        return [y.new_full((len(y),), 1 / len(y)) for y in points]
    if not isinstance(a, (list, tuple)):
        a = list(checks.at_least_dims("a", checks.tensor("a", a, whole=True), 2, "(k, m)"))
    if len(a) != len(points):
        raise ValueError(f"a must have weights for each of {len(points)} clouds, got {len(a)}")
    found = []
    for k, (w, y) in enumerate(zip(a, points, strict=True)):
        name = f"a[{k}]"
        t = y.new_full((len(y),), 1 / len(y)) if w is None else checks.tensor(name, w, whole=True)
        checks.same_device(name, t, y.device, "its cloud")
        if t.shape != (len(y),):
            raise ValueError(f"{name} must have shape ({len(y)},), got {tuple(t.shape)}")
        found.append(checks.weights(name, t).to(y.dtype))
    return found


def _batch(points: list[Tensor], weights: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return clouds as one batch, with points without weight where one has too few."""
    most = max(map(len, points))
    y = [torch.cat([p, p[:1].expand(most - len(p), -1)]) for p in points]
    w = [torch.cat([u, u.new_zeros(most - len(u))]) for u in weights]
    return [torch.stack(y)], [torch.stack(w)]


def shares(weights: Any, given: Clouds) -> Tensor:
    """Return the weights of the clouds, (k,), divided by their sum."""
    k = len(given.middle)
    if weights is None:
        return given.middle.new_full((k,), 1 / k)
    t = checks.tensor("weights", weights, whole=True)
    checks.same_device("weights", t, given.middle.device, "clouds")
    if t.shape != (k,):
        raise ValueError(f"weights must have one entry per cloud, ({k},), got {tuple(t.shape)}")
    t = checks.weights("weights", t).to(given.middle.dtype)
    return t / t.sum()


def _there(name: str, x: Any) -> Tensor:
    return checks.present(name, checks.tensor(name, x, whole=True))


def first_points(given: Clouds, w: Tensor, n: Any, b: Any, init: Any) -> tuple[Tensor, Tensor]:
    """Return where points begin, (n, d), and what they weigh, (n,)."""
    like = given.middle
    sizes: dict[str, int] = {}
    x: Tensor | None = None
    if n is not None:
        sizes["n"] = checks.count("n", n)
    if b is not None:
        b = checks.at_least_dims("b", _there("b", b), 1, "(n,)")
        checks.same_device("b", checks.weights("b", b), like.device, "clouds")
        if b.ndim > 1:
            raise ValueError(f"b must have shape (n,), got {tuple(b.shape)}")
        sizes["b"] = len(b)
    if init is not None:
        x = checks.at_least_dims("init", _there("init", init), 2, "(n, d)")
        checks.same_device("init", checks.finite("init", x), like.device, "clouds")
        if x.ndim > 2 or x.shape[1] != like.shape[1]:
            raise ValueError(f"init must have shape (n, {like.shape[1]}), got {tuple(x.shape)}")
        sizes["init"] = len(x)
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{size} by {name}" for name, size in sizes.items())
        raise ValueError(f"n, b and init must agree on the number of points, got {told}")
    count = next(iter(sizes.values()), max(y.shape[-2] for y in given.points))
    if b is None:
        b = like.new_full((count,), given.mass / count)
    b = b.to(like.dtype)
    if abs(float(b.sum()) / given.mass - 1) > _RTOL:
        raise ValueError(
            f"b must have the mass of the clouds, {given.mass:.9g}, got {float(b.sum()):.9g}"
        )
    return (_spread(given, w, count) if x is None else x.to(like.dtype)), b


def _spread(given: Clouds, w: Tensor, count: int) -> Tensor:
    """Return points of the heaviest cloud, moved to the middle of all."""
    k = int(w.argmax())
    one = len(given.points) == 1
    y = given.points[0].reshape(-1, *given.points[0].shape[-2:])[k] if one else given.points[k]
    u = given.weights[0].reshape(-1, y.shape[0])[k] if one else given.weights[k]
    there = y[u > 0]
    # evenly through the list, again from its start where there are too few
    at = (torch.arange(count, device=y.device) * max(1.0, len(there) / count)).long() % len(there)
    x = there[at] - given.middle[k] + (w[:, None] * given.middle).sum(0)
    if count <= len(there):
        return x
    # those at one place would stay together
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    return x + _APART * given.size * noise
