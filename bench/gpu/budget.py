"""How far an answer may be off: twice what eager float32 code is, and a few roundings."""

import torch
from torch import Tensor


class Wrong(AssertionError):
    """An answer outside its budget."""


def variation(p: Tensor, q: Tensor) -> float:
    """Return the largest total variation between two codes of a sample."""
    return float((p.double() - q.double()).abs().sum(-1).max()) / 2


def within(got: Tensor, eager: Tensor, truth: Tensor, reach: float, ulps: float = 4) -> float:
    """Return the share of its budget that an error spent.

    The budget is twice the error of eager float32 code, and some roundings of the largest number.

    Raises:
        Wrong: If the budget is overspent, or an infinity is not where it must be.
    """
    if got.shape != truth.shape:
        raise Wrong(f"shape {tuple(got.shape)} instead of {tuple(truth.shape)}")
    finite = truth.isfinite()
    if not torch.equal(got[~finite].double(), truth[~finite]):
        raise Wrong("an infinity is missing or misplaced")
    if not bool(got[finite].isfinite().all()):
        raise Wrong(f"{int((~got[finite].isfinite()).sum())} entries are not finite")
    if not bool(finite.any()):
        return 0.0
    error = float((got.double() - truth)[finite].abs().max())
    allowed = float((eager.double() - truth)[finite].abs().max())
    return share(error, 2 * allowed + ulps * 2**-24 * max(reach, largest(truth)))


def share(error: float, budget: float) -> float:
    """Return error / budget, or raise if it is over one or no number."""
    if not error <= budget:
        raise Wrong(f"error {error:.3g} over a budget of {budget:.3g}")
    return error / budget if budget else 0.0


def largest(t: Tensor) -> float:
    """Return the largest finite size of an entry."""
    return float(t.masked_fill(~t.isfinite(), 0.0).abs().amax())
