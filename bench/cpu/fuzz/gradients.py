"""Differentiates what a result tells, and judges along random directions by differences."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.cpu.fuzz import draws
from bench.cpu.fuzz.draws import Random, chance, pick, power
from bench.cpu.fuzz.truth import EPS
from bench.cpu.fuzz.verdict import Verdict


LARGEST = 12
# of a step relative to the scale on which a solution changes
STEP = 2e-3
# differences that disagree by more than this with each other judge nothing
BLIND = 1e-3
# how often the differences' own disagreement a derivative may be off, and what rounding may do
TIMES, ROUNDED = 30.0, 1e-7
# what float32 arguments, solved in float32, may be off by, relative to the terms that are summed
SINGLE = 2e-2

Args = dict[str, Tensor]


@dataclass
class Call:
    """A call as a function of tensors.

    Attributes:
        args: The tensors, of "cost", "x", "y", "a", "b", "reg" and "rho".
        view: What the cost makes of its tensor.
        options: The metric of points, whether rows, columns or both are relaxed.
        exact: Whether both sides are exact, so that masses must be equal.
    """

    args: Args
    view: Callable[[Tensor], Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    exact: bool = True

    def __str__(self) -> str:
        shapes = ", ".join(f"{k} {tuple(t.shape)}" for k, t in self.args.items())
        told = ", ".join(f"{k}={v}" for k, v in self.options.items())
        least = float(self.args["reg"].min())
        return f"{shapes}, {self.args['a'].dtype}, reg {least:.3g}, {told}"

    def solve(self, args: Args) -> so.Transport:
        """Solve it, to what float64 can tell."""
        cost: Any
        if "cost" in args:
            cost = self.view(args["cost"])
        else:
            cost = so.PointCloud(
                args["x"], args["y"], self.options["metric"], memory=self.options["memory"]
            )
        a, b = args["a"], args["b"]
        if self.exact:
            b = b * (a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True))
        double = a.dtype == torch.float64
        rho = args.get("rho")
        sides = {None: None, "both": rho, "rows": (rho, None), "columns": (None, rho)}
        return so.solve(
            cost,
            a,
            b,
            args["reg"],
            unbalanced=sides[self.options["relaxed"]],
            tol=1e-13 if double else 1e-7,
            max_iter=400,
            on_fail="ignore",
        )


def differentiated(rng: Random) -> Verdict:
    """Ask for derivatives of one number by everything, and judge along a direction for each."""
    call = drawn(rng)
    tell = pick(rng, *TELLS)
    verdict = Verdict(told=f"{tell} of solve({call})")
    weigh = int(rng.integers(1 << 30))

    def told(args: Args) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", so.ConvergenceWarning)
            return numbers(tell, call.solve(args), weigh)

    try:
        if not bool(call.solve(call.args).converged.all()):
            verdict.at_least("missed")
            return verdict
        found = _gradients(told, call.args)
    except (ValueError, RuntimeError) as error:
        if rightly(str(error)):
            verdict.at_least("refused")
        else:
            verdict.wrong(f"{type(error).__name__}: {error}")
        return verdict
    for name, grad in found.items():
        if not bool(torch.isfinite(grad).all()):
            verdict.wrong(f"by {name}: not finite")
            continue
        _judge(verdict, told, call, name, grad, _direction(rng, call, name))
    return verdict


def rightly(text: str) -> bool:
    """Say whether a call may be refused with this text."""
    return text.startswith(
        ("reg must be at least", "cost must leave every point", "cost must allow")
    ) or ("constants of f and g that forbidden pairs leave open" in text)


def _gradients(told: Callable[[Args], Tensor], args: Args) -> Args:
    leaves = {name: t.clone().requires_grad_() for name, t in args.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", so.ConvergenceWarning)
        grads = torch.autograd.grad(
            told(leaves).sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
    return dict(zip(leaves, grads, strict=True))


TELLS = (
    "value",
    "dual_value",
    "value_linear",
    "plan",
    "log_plan",
    "f",
    "g",
    "apply",
    "apply_transpose",
    "barycentric",
)


def numbers(tell: str, r: so.Transport, seed: int) -> Tensor:
    """Return what a result tells, each number times a random one."""
    random = torch.Generator().manual_seed(seed)

    def like(shape: Any) -> Tensor:
        return torch.randn(tuple(shape), generator=random, dtype=torch.float64)

    n, m = r.f.shape[-1], r.g.shape[-1]
    if tell == "apply_transpose":
        out = r.apply_transpose(like((n, 2)).to(r.f.dtype))
    elif tell in ("apply", "barycentric"):
        out = getattr(r, tell)(like((m, 2)).to(r.f.dtype))
    else:
        out = getattr(r, tell)
    if tell == "log_plan":
        out = out.masked_fill(out.isinf(), 0.0)
    return out.double() * like(out.shape)


def _judge(
    verdict: Verdict,
    told: Callable[[Args], Tensor],
    call: Call,
    name: str,
    grad: Tensor,
    direction: Tensor,
) -> None:
    """Compare a derivative along a direction with differences of two steps."""
    double = {k: t.double() for k, t in call.args.items()}
    along = float((grad.double() * direction).sum())
    one_sided = bool(((call.args[name] == 0) & (direction > 0)).any()) and name in "ab"

    def at(step: float) -> float:
        return float(told(double | {name: double[name] + step * direction}).sum())

    def slope(step: float) -> float:
        if one_sided:
            return (-3 * at(0) + 4 * at(step) - at(2 * step)) / (2 * step)
        return (at(step) - at(-step)) / (2 * step)

    coarse, fine = slope(STEP), slope(STEP / 2)
    truth, doubt = (4 * fine - coarse) / 3, abs(fine - coarse)
    scale = max(abs(truth), float((grad.double() * direction).abs().sum()))
    # numbers are rounded, and exponents of costs far from zero
    most = max(float(t[torch.isfinite(t)].abs().max()) for t in double.values())
    size = float(told(double).abs().sum()) + scale * most / float(double["reg"].min())
    rounded = EPS * size / STEP
    if not doubt <= BLIND * scale + rounded:
        verdict.at_least("missed")
        return
    # potentials of equal costs are roundings
    allowed = TIMES * (doubt + rounded + EPS * float(double["reg"].min())) + ROUNDED * scale
    if grad.dtype == torch.float32:
        allowed += SINGLE * scale + 8 * torch.finfo(grad.dtype).eps * size
    verdict.near(f"derivative by {name}", along, truth, allowed)


def _direction(rng: Random, call: Call, name: str) -> Tensor:
    """Return a direction along which one step of `STEP` changes a solution little."""
    t = call.args[name].double()
    d = torch.from_numpy(rng.standard_normal(tuple(t.shape)))
    reg = float(call.args["reg"].min())
    if name == "cost":
        return torch.where(torch.isfinite(t), reg * d, 0.0)
    if name in ("x", "y"):
        return d * reg / max(1.0, float(t.abs().max()))
    if name in ("a", "b") and bool((t == 0).any()) and chance(rng, 0.5):
        # weights of zero grow
        return torch.where(t == 0, t.mean(-1, keepdim=True) * d.abs(), 0.0)
    return t * d


def drawn(rng: Random) -> Call:
    """Return a random call: shapes that broadcast, views, zeros, forbidden pairs, penalties."""
    n, m = (int(k) for k in rng.integers(1, LARGEST + 1, 2))
    lead, lead_a, lead_b, lead_reg = pick(
        rng,
        ((), (), (), ()),
        ((), (3,), (), ()),
        ((2,), (), (2,), (2,)),
        ((), (3, 1), (1, 4), ()),
        ((1,), (), (), ()),
        ((4,), (3, 1), (1, 4), (3, 4)),
        ((1,), (3,), (3,), (1,)),
        p=(0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1),
    )
    mass = pick(rng, 1.0, power(rng, -6, 6), p=(0.6, 0.4))
    args, view, options = _costs(rng, lead, not (lead_a or lead_b or lead_reg), n, m)
    spread, dtype = options.pop("spread"), torch.float64
    if "cost" in args and options["offset"] == 0 and chance(rng, 0.2):
        dtype = torch.float32
    sharp = pick(rng, power(rng, -1, 0.5), power(rng, -3, -1), p=(0.7, 0.3))
    args["reg"] = torch.from_numpy(
        spread * sharp * (1 + rng.random(lead_reg)) if lead_reg else np.asarray(spread * sharp)
    )
    args["a"] = torch.from_numpy(_weights(rng, lead_a, n, mass))
    args["b"] = torch.from_numpy(_weights(rng, lead_b, m, mass))
    relaxed = pick(rng, None, "both", "rows", "columns", p=(0.6, 0.2, 0.1, 0.1))
    if relaxed:
        args["rho"] = torch.tensor(spread * power(rng, -3, 3), dtype=torch.float64)
        if chance(rng, 0.5):
            args["b"] *= power(rng, -1, 1)
    options["relaxed"] = relaxed
    args = {k: t.to(dtype) for k, t in args.items()}
    return Call(args, view, options, exact=relaxed is None)


def _costs(
    rng: Random, lead: tuple[int, ...], alone: bool, n: int, m: int
) -> tuple[Args, Callable[[Tensor], Tensor], dict[str, Any]]:
    options: dict[str, Any] = {"offset": 0.0}
    if chance(rng, 0.35):
        d = int(rng.integers(1, 4))
        metric = pick(rng, "sqeuclidean", "euclidean", "manhattan", "dot", "cosine")
        x, y = rng.standard_normal((*lead, n, d)), rng.standard_normal((m, d))
        if chance(rng, 0.3) and metric not in ("euclidean", "manhattan"):
            y[: min(n, m)] = x[(0,) * len(lead)][: min(n, m)]
        options |= {"metric": metric, "memory": pick(rng, 0, 1 << 30), "spread": 1.0}
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, lambda t: t, options
    form = pick(rng, "plain", "turned", "expanded", "sliced", p=(0.4, 0.2, 0.2, 0.2))
    C = rng.random((*lead, n, m)) if chance(rng, 0.7) else draws.costs(rng, lead, n, m)
    spread = float(np.ptp(C)) or 1.0
    if chance(rng, 0.2):
        options["offset"] = pick(rng, 1e3, 1e6, -1e6) * spread
        C = C + options["offset"]
    elif chance(rng, 0.3):
        C = np.where(draws.allowed(rng, n, m), C, math.inf)
    options |= {"form": form, "spread": spread}
    t = torch.from_numpy(np.ascontiguousarray(C))
    if form == "turned":
        return {"cost": t.mT.contiguous()}, lambda t: t.mT, options
    if form == "sliced":
        wide = torch.zeros((*t.shape, 2), dtype=torch.float64)
        wide[..., 0] = t
        return {"cost": wide}, lambda t: t[..., 0], options
    if form == "expanded" and alone and not lead:
        return {"cost": t}, lambda t: t.expand(2, n, m), options
    return {"cost": t}, lambda t: t, options


def _weights(rng: Random, lead: tuple[int, ...], n: int, mass: float) -> Any:
    w = rng.random((*lead, n)) + 0.05
    if chance(rng, 0.3):
        w *= rng.random(w.shape) < 0.7
    elif chance(rng, 0.2):
        w = 10 ** -(8 * rng.random(w.shape))
    w[..., int(rng.integers(n))] += w.sum(-1) == 0
    return w / w.sum(-1, keepdims=True) * mass
