"""Random calls of `solve`: what is handed over, and the problems that it truly is."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import sinkhorn_ot as so
from bench.cpu.fuzz import draws
from bench.cpu.fuzz.draws import HALF, Array, Random, chance, pick, power
from bench.cpu.fuzz.truth import EPS, Posed


MASSES = (-6.0, 6.0)


@dataclass
class Call:
    """A call, and what it is in float64.

    Attributes:
        cost: What is handed over as the cost.
        C: What it truly is, with the leading dimensions of the cost, (..., n, m).
        about: What kind it is, in words.
        most: The largest cost that one can see without computing all.
        a: Source weights handed over, or None.
        b: Target weights likewise.
        reg: Regularisation handed over, a number or an array.
        batch: Leading dimensions of the answer.
        dtype: Dtype of the answer.
        options: Of the call.
        rho: The penalties that the options mean.
        held: What must not change: the tensors and arrays handed over.
    """

    cost: Any
    C: Array
    about: str
    most: float
    a: Any = None
    b: Any = None
    reg: Any = None
    batch: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float64
    options: dict[str, Any] = field(default_factory=dict)
    rho: tuple[float, float] = (math.inf, math.inf)
    held: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        options = "".join(f", {k}={_short(v)}" for k, v in self.options.items())
        sizes = "x".join(map(str, (*self.batch, *self.C.shape[-2:])))
        return f"{self.about} {sizes}, reg={_short(self.reg)}{options}"

    def problems(self) -> list[Posed]:
        """Return the problems of the flat batch, masses made equal where they must be."""
        n, m = self.C.shape[-2:]
        C = np.broadcast_to(self.C, (*self.batch, n, m)).reshape(-1, n, m)
        a, b = (
            np.broadcast_to(np.full(k, 1 / k) if w is None else draws.truth(w), (*self.batch, k))
            for w, k in ((self.a, n), (self.b, m))
        )
        if self.rho == (math.inf, math.inf):
            b = b * (a.sum(-1) / b.sum(-1))[..., None]
        if self.reg is None:
            reg = np.zeros(len(C))
        else:
            reg = np.broadcast_to(np.asarray(self.reg, float), self.batch or (1,)).ravel()
        blur = 4 * EPS * self.most if isinstance(self.cost, so.PointCloud) else 0.0
        return [
            Posed(*x, *self.rho, blur)
            for x in zip(C, a.reshape(-1, n), b.reshape(-1, m), reg.tolist(), strict=True)
        ]


def _short(x: Any) -> str:
    if isinstance(x, float):
        return f"{x:.4g}"
    if isinstance(x, (tuple, list)):
        return f"({', '.join(map(_short, x))})"
    return type(x).__name__ if hasattr(x, "shape") or callable(x) else str(x)


def stored(rng: Random, largest: int = draws.LARGEST) -> Call:
    """Return a call with a stored cost, one problem or a batch, own or shared."""
    n, m = draws.size(rng, largest), draws.size(rng, largest)
    batch = pick(rng, (), (draws.size(rng, 6),), (2, 2), p=(0.65, 0.25, 0.1))
    own = batch if chance(rng, 0.6) else ()
    dtype = pick(rng, *draws.DTYPES, p=(0.6, 0.2, 0.1, 0.1))
    C = draws.costs(rng, own, n, m)
    C = C if dtype in HALF else draws.placed(rng, C)
    cost = draws.handed(rng, C, dtype)
    call = Call(cost, draws.truth(cost), f"{_name(dtype)} cost", 0.0, batch=batch)
    call.dtype = torch.float64 if dtype == torch.float64 else torch.float32
    if batch and not own and chance(rng, 0.3):
        call.batch = ()
    _weighted(rng, call)
    return call


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _weighted(rng: Random, call: Call) -> None:
    """Draw weights of one mass, some for the whole batch; who has a batch of its own is in it."""
    n, m = call.C.shape[-2:]
    mass = 1.0 if chance(rng, 0.7) else power(rng, *MASSES)
    own = [call.batch if chance(rng, 0.5) else () for _ in range(2)]
    if call.batch and call.C.ndim == 2 and () in own:
        own[int(rng.integers(2))] = call.batch
    dtype = pick(rng, torch.float64, torch.float32) if call.dtype == torch.float32 else None
    if mass != 1 or chance(rng, 0.7) or own[0]:
        call.a = draws.handed(rng, draws.weights(rng, own[0], n, mass), dtype or torch.float64)
    if mass != 1 or chance(rng, 0.7) or own[1]:
        call.b = draws.handed(rng, draws.weights(rng, own[1], m, mass), dtype or torch.float64)
    needs = [w.shape[:-1] for w in (call.a, call.b) if w is not None]
    call.batch = tuple(np.broadcast_shapes(call.C.shape[:-2], *needs))


def forbidding(rng: Random, largest: int = draws.LARGEST) -> Call:
    """Return a call whose cost forbids pairs, of which a plan may or may not be left."""
    n, m = draws.size(rng, largest), draws.size(rng, largest)
    dtype = pick(rng, torch.float64, torch.float32, torch.float16, p=(0.8, 0.1, 0.1))
    ok = draws.allowed(rng, n, m)
    C = draws.costs(rng, (), n, m)
    C = np.where(ok, C if dtype in HALF else draws.placed(rng, C), math.inf)
    maker = pick(rng, "carried", "whole", "any", p=(0.5, 0.3, 0.2))
    if maker == "carried":
        a, b = draws.carried(rng, ok)
    elif maker == "whole":
        a, b = draws.whole(rng, n, m)
    else:
        a, b = draws.weights(rng, (), n), draws.weights(rng, (), m)
    mass = 1.0 if chance(rng, 0.8) else power(rng, *MASSES)
    cost = draws.handed(rng, C, dtype)
    call = Call(cost, draws.truth(cost), f"{_name(dtype)} cost, {maker} weights, inf in", 0.0)
    call.a, call.b = (draws.handed(rng, w * mass, torch.float64) for w in (a, b))
    call.dtype = torch.float64 if dtype == torch.float64 else torch.float32
    if chance(rng, 0.15):
        # a batch that shares the pattern
        call.batch = (draws.size(rng, 4),)
        call.a = np.broadcast_to(draws.truth(call.a), (*call.batch, n)).copy()
    return call


def clouds(rng: Random) -> Call:
    """Return a call with points."""
    n, m, d = draws.size(rng), draws.size(rng), draws.size(rng, 9)
    batch = pick(rng, (), (draws.size(rng, 4),), p=(0.75, 0.25))
    dtype = pick(rng, *draws.DTYPES, p=(0.6, 0.2, 0.1, 0.1))
    x = rng.standard_normal((*batch, n, d))
    y = rng.standard_normal((*(batch if chance(rng, 0.7) else ()), m, d))
    if chance(rng, 0.3):
        x, y = x[..., rng.integers(0, n, n), :], y[..., rng.integers(0, m, m), :]
    if chance(rng, 0.2):
        # some points meet
        k = min(n, m)
        y[..., :k, :] = x[(0,) * len(batch)][..., :k, :]
    if dtype not in HALF and chance(rng, 0.3):
        scale, origin = power(rng, -4, 4), power(rng, -2, 4) * rng.standard_normal(d)
        x, y = scale * (x + origin), scale * (y + origin)
    metric = pick(rng, "sqeuclidean", "euclidean", "manhattan", "dot", "cosine")
    X, Y = (torch.from_numpy(np.ascontiguousarray(t)).to(dtype) for t in (x, y))
    C, most = between(draws.truth(X), draws.truth(Y), metric)
    call = Call(so.PointCloud(X, Y, metric), C, f"{_name(dtype)} {metric} cloud in {d}d", most)
    call.batch = C.shape[:-2]
    call.held += [X, Y]
    call.dtype = torch.float64 if dtype == torch.float64 else torch.float32
    _weighted(rng, call)
    return call


def between(x: Array, y: Array, metric: str) -> tuple[Array, float]:
    """Return costs pair by pair, and the most that they could be."""
    x, y = x[..., :, None, :].astype(np.longdouble), y[..., None, :, :].astype(np.longdouble)
    if metric in ("sqeuclidean", "euclidean"):
        C = np.square(x - y).sum(-1)
        centre = (x.mean(-3, keepdims=True) + y.mean(-2, keepdims=True)) / 2
        long_x, long_y = (np.sqrt(np.square(t - centre).sum(-1)).max() for t in (x, y))
        reach = float(long_x + long_y)
        if metric == "euclidean":
            return np.sqrt(C).astype(float), reach
        return C.astype(float), reach**2
    if metric == "manhattan":
        apart = np.abs(x - y).sum(-1).astype(float)
        return apart, float(apart.max(initial=0.0))
    C = (x * y).sum(-1)
    lengths = [np.sqrt(np.square(t).sum(-1)) for t in (x, y)]
    if metric == "dot":
        return -C.astype(float), float(lengths[0].max() * lengths[1].max())
    with np.errstate(all="ignore"):
        C = np.where(C == 0, C, C / lengths[0] / lengths[1])
    return (1 - C).astype(float), 2.0


def streamed(rng: Random) -> Call:
    """Return a call whose cost is read block by block."""
    call = stored(rng) if chance(rng, 0.7) else forbidding(rng)
    t = torch.as_tensor(call.cost)
    n = t.shape[-2]
    cuts = [0, *sorted(rng.integers(0, n + 1, 2).tolist()), n]
    parts = [(i, j) for i, j in zip(cuts, cuts[1:], strict=False) if j > i]
    blocks = [t[..., i:j, :] for i, j in parts]
    order = rng.permutation(len(parts))
    rows = torch.from_numpy(rng.permutation(n))
    sources = {
        "array": call.cost,
        "list": blocks,
        "function": lambda: iter(blocks),
        "numbered": lambda: ((torch.arange(*parts[k]), blocks[k]) for k in order),
        "shuffled": lambda: iter([(rows, t[..., rows, :])]),
    }
    kind = pick(rng, *sources)
    call.held.append(call.cost)
    if not np.isfinite(call.C).any():
        # it would be refused before it is asked for anything
        return call
    call.cost, call.about = so.Streamed(sources[kind]), f"streamed {kind} of {call.about}"
    return call


def regularised(rng: Random, call: Call) -> Call:
    """Draw a reg, as a rule one that suits the cost."""
    finite = call.C[np.isfinite(call.C)]
    spread = float(np.ptp(finite)) if finite.size else 0.0
    unit = spread or (float(np.abs(finite).max()) if finite.size else 0.0) or 1.0

    def one() -> float:
        usual, tiny, huge = power(rng, -3, 1), power(rng, -6, -3), power(rng, 1, 9)
        return unit * pick(rng, usual, tiny, huge, p=(0.7, 0.15, 0.15))

    call.reg = one()
    if call.batch and chance(rng, 0.3):
        call.reg = np.array([one() for _ in range(math.prod(call.batch))]).reshape(call.batch)
    call.most = max(call.most, float(np.abs(finite).max()) if finite.size else 0.0)
    return call


def relaxed(rng: Random, call: Call) -> Call:
    """Relax one marginal or both; then masses need not agree."""
    unit = float(np.min(call.reg))

    def one() -> Any:
        return pick(
            rng, None, math.inf, 0, 0.0, unit * power(rng, -2, 3), p=(0.15, 0.1, 0.05, 0.1, 0.6)
        )

    given = one() if chance(rng, 0.3) else (one(), one())
    pair = given if isinstance(given, tuple) else (given, given)
    first, second = (math.inf if x is None else float(x) for x in pair)
    call.rho = first, second
    call.options["unbalanced"] = given
    if call.rho != (math.inf, math.inf) and call.b is not None and chance(rng, 0.5):
        call.b = draws.truth(call.b) * power(rng, -1, 1)
    return call


def with_options(rng: Random, call: Call) -> Call:
    """Draw a method, tolerance, and sweeps allowed; mostly the defaults."""
    exact = call.rho == (math.inf, math.inf)
    methods: list[Any] = ["auto", "sinkhorn", so.Sinkhorn(so.Nesterov()), so.Sinkhorn(so.Plain())]
    methods += ["newton", so.Sinkhorn(so.Switch()), so.Sinkhorn(so.Anderson())] if exact else []
    if chance(rng, 0.35):
        call.options["method"] = pick(rng, *methods)
    if chance(rng, 0.25):
        call.options["tol"] = power(rng, -12 if call.dtype == torch.float64 else -6, -2)
    if chance(rng, 0.15):
        call.options["max_iter"] = int(power(rng, 0, 2.5))
    if chance(rng, 0.05):
        call.options["callback"] = lambda progress: None
    return call
