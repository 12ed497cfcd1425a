"""Random cases on any device, and what they mean in float64."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.gpu.budget import largest, within
from bench.gpu.device import Device


# entries of a block of exponents: one GB in float64
_BLOCK = 1 << 27
Clouds = tuple[Tensor, Tensor]


@dataclass(eq=False)
class Case:
    """A batch of problems with a stored cost or two clouds, and potentials that nearly fit it."""

    v: Tensor
    a: Tensor
    b: Tensor
    inv_reg: Tensor
    C: Tensor | None = None
    x: Tensor | None = None
    y: Tensor | None = None
    metric: str = "sqeuclidean"
    # what an earlier sweep with slightly other v would have left
    u: Tensor = field(init=False)

    @property
    def stored(self) -> Tensor:
        """The stored cost."""
        assert self.C is not None
        return self.C

    @property
    def clouds(self) -> Clouds:
        """Both clouds."""
        assert self.x is not None
        assert self.y is not None
        return self.x, self.y

    def cost(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Return rows of the cost, (1 or B, rows, m)."""
        if self.C is not None:
            return self.C[:, rows].to(dtype)
        x, y = self.clouds[0][:, rows].to(dtype), self.clouds[1].to(dtype)
        if self.metric == "dot":
            return -x @ y.mT
        if self.metric == "cosine":
            x, y = (torch.nn.functional.normalize(t, dim=-1) for t in (x, y))
            return 1 - x @ y.mT
        if dtype == torch.float64:
            norms = x.square().sum(-1)[:, :, None] + y.square().sum(-1)[:, None]
            return norms.sub_(2 * x @ y.mT)
        return (x[:, :, None] - y[:, None]).square().sum(-1)

    def cost_bound(self) -> Tensor:
        """Return a number that no cost exceeds, by blocks."""
        blocks = [E.abs().amax() for _, E in self.exponents(torch.float32)]
        return torch.stack(blocks).amax() / self.inv_reg.amax()

    def exponents(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Yield -C / reg in blocks of rows."""
        n, width = self.a.shape[1], self.v.numel()
        # float32 squares differences, which takes a coordinate more room
        if self.x is not None and dtype != torch.float64:
            width *= self.x.shape[-1]
        for start in range(0, n, step := max(1, _BLOCK // width)):
            rows = slice(start, min(n, start + step))
            yield rows, self.cost(rows, dtype) * -self.inv_reg.to(dtype)[:, None, None]

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg) in the dtype of v."""
        parts = [torch.logsumexp(E + v[:, None, :], -1) for _, E in self.exponents(v.dtype)]
        return torch.cat(parts, -1)

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg) in the dtype of u."""
        total = torch.full_like(self.v, -math.inf, dtype=u.dtype)
        for rows, E in self.exponents(u.dtype):
            total = torch.logaddexp(total, torch.logsumexp(E + u[:, rows, None], -2))
        return total

    def sweep(self, dtype: torch.dtype, kappa: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the moved row potential and the log of the plan's column sums."""
        return self._sweep(self.v.to(dtype), kappa)

    def _sweep(self, v: Tensor, kappa: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_sum = self.log_sum_rows(v)
        if kappa is not None:
            log_sum = kappa.to(v.dtype)[:, None] * log_sum
        u = torch.where(self.a > 0, self.a.to(v.dtype).log() - log_sum, -math.inf)
        return u, self.log_sum_columns(u) + v

    def iterate(self, dtype: torch.dtype, n_iter: int) -> tuple[Tensor, Tensor]:
        """Return both potentials after `n_iter` iterations from v = log b."""
        log_b = self.b.to(dtype).log()
        u, v = torch.zeros_like(self.a, dtype=dtype), log_b
        for _ in range(n_iter):
            u, log_s = self._sweep(v)
            v = torch.where(self.b > 0, v + log_b - log_s, -math.inf)
        return u, v

    def plan(self, dtype: torch.dtype) -> Tensor:
        """Return exp(u + v - C / reg), whole."""
        u, v = self.u.to(dtype), self.v.to(dtype)
        parts = [(E + u[:, r, None] + v[:, None]).exp() for r, E in self.exponents(dtype)]
        return torch.cat(parts, -2)

    def reach(self) -> float:
        """Return the largest exponent or potential: what float32 rounds."""
        size = max(largest(E) for _, E in self.exponents(torch.float32))
        return max(size, largest(self.v), largest(self.u))

    def verify(self, u: Tensor, log_s: Tensor, kappa: Tensor | None = None) -> float:
        """Return the share of its budget that a sweep spent."""
        truth, eager = self.sweep(torch.float64, kappa), self.sweep(torch.float32, kappa)
        reach = self.reach()
        pairs = zip((u, log_s), eager, truth, strict=True)
        return max(within(got, e, t, reach) for got, e, t in pairs)


def dense(  # noqa: PLR0913
    device: Device, n: int, m: int, *, B: int = 1, shared: bool = True, reg: float = 0.1,
    dtype: torch.dtype = torch.float32, how: str = "rows", holes: bool = False,
) -> Case:  # fmt: skip
    """Return problems with uniform costs.

    Args:
        device: Where.
        n: Rows.
        m: Columns.
        B: Problems.
        shared: Whether all have one cost.
        reg: Regularisation.
        dtype: How the cost is stored.
        how: How it lies in memory: "rows", "columns", "sliced" or "neither".
        holes: Whether some weights are zero and some pairs forbidden.
    """
    many = 1 if shared else B
    if how == "columns":
        C = device.rand(many, m, n, dtype=dtype).mT
    else:
        wide = {"rows": m, "sliced": m + 3, "neither": 3 * m}[how]
        C = device.rand(many, n, wide, dtype=dtype)
        C = C[:, :, 2 : m + 2] if how == "sliced" else C[:, :, :: wide // m][:, :, :m]
    p = _case(device, B, n, m, reg, holes)
    p.C = C
    if holes:
        C[0, 1 % n, : m // 2] = math.inf
    return _warmed(device, p)


def points(  # noqa: PLR0913
    device: Device, n: int, m: int, d: int, *, B: int = 1, metric: str = "sqeuclidean",
    reg: float = 0.1, off: float = 0.0, dtype: torch.dtype = torch.float32, holes: bool = False,
) -> Case:  # fmt: skip
    """Return normal clouds whose costs are about one, `off` standard deviations off the origin."""
    scale = 1.0 if metric == "cosine" else (2 * d) ** -0.5
    p = _case(device, B, n, m, reg, holes)
    p.x = (scale * (device.randn(B, n, d) + off)).to(dtype)
    p.y = (scale * (device.randn(B, m, d) + off)).to(dtype)
    p.metric = metric
    return _warmed(device, p)


def _case(device: Device, B: int, n: int, m: int, reg: float, holes: bool) -> Case:
    a, b = device.rand(B, n) + 0.1, device.rand(B, m) + 0.1
    v = device.randn(B, m) - math.log(m)
    if holes:
        a[:, ::3], b[:, 1::4], v[:, 1::4] = 0, 0, -math.inf
    a, b = (w / w.sum(-1, keepdim=True) for w in (a, b))
    return Case(v, a, b, device.full(B, value=1 / reg))


def _warmed(device: Device, p: Case) -> Case:
    u = p.sweep(torch.float64)[0]
    p.u = u.float() + 0.3 * device.randn(*u.shape)
    return p


def scores(device: Device, B: int, n: int, K: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return cosines of random features and prototypes, (B, n, K)."""
    x, y = device.randn(B, n, 128), device.randn(B, K, 128)
    x, y = (torch.nn.functional.normalize(t, dim=-1) for t in (x, y))
    return (x @ y.mT).to(dtype)


def units(device: Device, n: int, K: int, d: int, B: int = 1) -> Clouds:
    """Return random features (B, n, d) and prototypes (1, K, d) of length one."""
    z, c = device.randn(B, n, d), device.randn(1, K, d)
    z, c = (torch.nn.functional.normalize(t, dim=-1) for t in (z, c))
    return z, c


def codes(
    S: Tensor, eps: float, n_iter: int, dtype: torch.dtype, keep: Tensor | None = None
) -> Tensor:
    """Return SwAV's codes from the formulas, (B, n, K)."""
    E = S.to(dtype) / eps
    f, g = torch.zeros_like(E[:, 0]), torch.zeros_like(E[:, :, 0])
    off = g if keep is None else g.masked_fill(~keep, -math.inf)
    for _ in range(n_iter):
        f = -torch.logsumexp(E + (g + off)[:, :, None], 1)
        g = -torch.logsumexp(E + f[:, None], 2)
    Q = E.add_(f[:, None]).add_(g[:, :, None]).exp_()
    return Q if keep is None else Q * keep[:, :, None]
