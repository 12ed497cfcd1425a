"""Random problems for kernels, their meaning in float64, and how far a kernel may be from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
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


@pytest.fixture
def dense() -> Callable[..., Dense]:
    """Return a maker of random problems in float32 (or a cost in `dtype`), with a fitting u."""

    def make(
        n: int, m: int, *, B: int = 1, shared: bool = True, reg: float = 0.1,
        dtype: torch.dtype = torch.float32, seed: int = 0,
    ) -> Dense:  # fmt: skip
        g = torch.Generator().manual_seed(seed)
        C = torch.rand(1 if shared else B, n, m, generator=g).to(dtype)
        a = torch.rand(B, n, generator=g) + 0.1
        v = torch.randn(B, m, generator=g) - torch.tensor(float(m)).log()
        p = Dense(C, torch.zeros(B, n), v, a / a.sum(-1, keepdim=True), torch.full((B,), 1 / reg))
        # what an earlier sweep with slightly other v would have left
        p.u = p.to(torch.float32).sweep()[0] + 0.3 * torch.randn(B, n, generator=g)
        return p

    return make


@pytest.fixture
def within_budget() -> Callable[..., None]:
    """Return a check: at most twice the error of eager float32 code, and a few ulps."""

    def check(
        got: Tensor, eager: Tensor, truth: Tensor, what: str = "", ulps: float = 4, scale: float = 0
    ) -> None:
        assert got.shape == truth.shape, (what, got.shape, truth.shape)
        finite = truth.isfinite()
        # infinities and signs of them must agree to the letter
        assert torch.equal(got[~finite].double(), truth[~finite]), f"{what}: another infinity"
        assert got[finite].isfinite().all(), f"{what}: not finite"
        if not finite.any():
            return
        # a logarithm near zero is still made of terms of some `scale`
        size = max(scale, truth[finite].abs().max().item())
        spent = (got.double() - truth)[finite].abs().max().item()
        allowed = (eager.double() - truth)[finite].abs().max().item()
        budget = 2 * allowed + ulps * 2**-24 * size
        assert spent <= budget, f"{what}: error {spent:.3g} over a budget of {budget:.3g}"

    return check
