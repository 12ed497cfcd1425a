"""Random problems for kernels, what they mean exactly, and how far a kernel may be from it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from longer import Long, log_sum, long
from torch import Tensor


pytest.importorskip("triton", reason="triton is not installed, so there are no kernels to test")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pass over a warning of NumPy that older interpreters of triton cause by themselves."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:Conversion of an array"))


@pytest.fixture(autouse=True)
def _infinities_are_meant():
    """Let the interpreter take log2(0) and 0 / 0 as a GPU does, without a warning from NumPy."""
    with np.errstate(all="ignore"):
        yield


@dataclass
class Dense:
    """A batch of problems with a stored cost, and what eager code makes of it in any dtype."""

    C: Tensor
    u: Tensor
    v: Tensor
    a: Tensor
    inv_reg: Tensor

    def to(self, dtype: torch.dtype) -> "Dense":
        return Dense(*(t.to(dtype) for t in (self.C, self.u, self.v, self.a, self.inv_reg)))

    def exponent(self) -> Tensor:
        """- C / reg, shape (B, n, m)."""
        return -self.C * self.inv_reg[:, None, None]

    def sweep(self, kappa: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """New row potential and column sums."""
        log_sum = torch.logsumexp(self.exponent() + self.v[:, None, :], -1)
        if kappa is not None:
            log_sum = torch.where(kappa[:, None] > 0, kappa[:, None] * log_sum, 0.0)
        live = (self.a > 0) & (log_sum > -torch.inf)
        u = torch.where(live, self.a.log() - log_sum, -torch.inf)
        plan = (self.exponent() + u[:, :, None] + self.v[:, None, :]).exp()
        return u, torch.where(live[:, :, None], plan, 0.0).sum(-2)

    def exact_log_sum(self, w: Tensor, axis: int) -> Long:
        """Log-sums with potentials `w` along an axis, with more digits than float64 has."""
        C, w, inv_reg = long(self.C), long(w), long(self.inv_reg)
        return log_sum(np.expand_dims(w, -3 - axis) - C * inv_reg[:, None, None], axis)

    def exact_sweep(self, kappa: Tensor | None = None) -> tuple[Long, Long]:
        """What `sweep` returns, with more digits than float64 has."""
        sums, a = self.exact_log_sum(self.v, -1), long(self.a)
        if kappa is not None:
            elastic = long(kappa)[:, None]
            sums = np.where(elastic > 0, elastic * sums, 0)
        u = np.where((a > 0) & (sums > -np.inf), np.log(a) - sums, -np.inf)
        z = u[:, :, None] + long(self.v)[:, None, :]
        plan = np.exp(z - long(self.C) * long(self.inv_reg)[:, None, None])
        return u, np.where(u[:, :, None] > -np.inf, plan, 0).sum(-2)


@pytest.fixture
def work() -> torch.dtype:
    """Return the dtype of potentials, which a test may choose by parameters."""
    return torch.float32


@pytest.fixture
def dense(work: torch.dtype) -> Callable[..., Dense]:
    """Return a maker of random problems in `work` (and a cost in `dtype`), with a fitting u."""

    def make(
        n: int, m: int, *, B: int = 1, shared: bool = True, reg: float = 0.1,
        dtype: torch.dtype | None = None, seed: int = 0,
    ) -> Dense:  # fmt: skip
        g = torch.Generator().manual_seed(seed)
        new = {"generator": g, "dtype": work}
        C = torch.rand(1 if shared else B, n, m, **new).to(dtype or work)
        a = torch.rand(B, n, **new) + 0.1
        v = torch.randn(B, m, **new) - math.log(m)
        zero, inv_reg = torch.zeros(B, n, dtype=work), torch.full((B,), 1 / reg, dtype=work)
        p = Dense(C, zero, v, a / a.sum(-1, keepdim=True), inv_reg)
        # what an earlier sweep with slightly other v would have left
        p.u = p.to(work).sweep()[0] + 0.3 * torch.randn(B, n, **new)
        return p

    return make


@pytest.fixture
def within_budget() -> Callable[..., None]:
    """Return a check: at most twice the error of eager code in that dtype, and a few ulps."""

    def check(
        got: Tensor, eager: Tensor, truth: Tensor | Long, what: str = "", ulps: float = 4,
        scale: float = 0,
    ) -> None:  # fmt: skip
        assert got.shape == truth.shape, (what, got.shape, truth.shape)
        rounding = torch.finfo(got.dtype).eps / 2
        got, eager, truth = long(got), long(eager), long(truth)
        finite = np.isfinite(truth)
        # infinities and signs of them must agree to the letter
        assert np.array_equal(got[~finite], truth[~finite]), f"{what}: another infinity"
        assert np.isfinite(got[finite]).all(), f"{what}: not finite"
        if not finite.any():
            return
        # a logarithm near zero is still made of terms of some `scale`
        size = max(scale, abs(truth[finite]).max())
        spent = abs(got - truth)[finite].max()
        allowed = abs(eager - truth)[finite].max()
        budget = 2 * allowed + ulps * rounding * size
        assert spent <= budget, f"{what}: error {spent:.3g} over a budget of {budget:.3g}"

    return check
