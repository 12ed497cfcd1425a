"""What arrays and tensors are asked by other names: on a CPU arrays, whose calls are shorter.

All take flat batches, (B, ...), and act along the last dimension. What is plainly the same for both
(sums, powers, slices) is written once, where it is needed.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor


# numbers of a batch, or whole numbers of points: an array or a tensor
Numbers = Any


def ordered(t: Numbers) -> Numbers:
    """Return the numbers of points from the smallest on."""
    return t.argsort(-1)


def merged(runs: Numbers) -> Numbers:
    """Return the order of rows that are made of sorted runs; who came first stays so if equal."""
    # the stable sort of arrays looks for runs
    return (
        runs.argsort(dim=-1, stable=True)
        if isinstance(runs, Tensor)
        else runs.argsort(-1, "stable")
    )


def joined(*parts: Numbers) -> Numbers:
    """Return rows behind each other."""
    return torch.cat(parts, -1) if isinstance(parts[0], Tensor) else np.concatenate(parts, -1)


def taken(t: Numbers, index: Numbers) -> Numbers:
    """Return the entries of each row, (B, n), that its own numbers say, (B, k)."""
    if isinstance(t, Tensor):
        return t.gather(-1, index)
    return t[0].take(index) if len(t) == 1 else np.take_along_axis(t, index, -1)


def gaps(sums: Numbers, last: Numbers) -> Numbers:
    """Return what is between running sums, (B, k), from zero to the last, (B, 1): (B, k + 1)."""
    if isinstance(sums, Tensor):
        return torch.cat([sums, last], -1).diff(dim=-1, prepend=torch.zeros_like(last))
    # into place: memory that is new takes longer than the arithmetic
    out = np.empty((len(sums), sums.shape[1] + 1))
    out[:, :-1], out[:, -1:] = sums, last
    out[:, 1:] -= sums
    return out


def put(t: Numbers, index: Numbers) -> Numbers:
    """Return what has entry k of each row where its number says: the inverse of `taken`."""
    if isinstance(t, Tensor):
        return torch.zeros_like(t).scatter(-1, index, t)
    out = np.empty_like(t)
    np.put_along_axis(out, index, t, -1)
    return out


def where(this: Numbers, x: Numbers, y: Numbers) -> Numbers:
    """Return x where something is so, and y elsewhere."""
    return torch.where(this, x, y) if isinstance(x, Tensor) else np.where(this, x, y)


def counted(index: Numbers, like: Numbers) -> Numbers:
    """Return how many of all before each are so, for a row of truths (B, k): (B, k + 1).

    Args:
        index: Truths.
        like: What there is of the same kind.
    """
    if isinstance(like, Tensor):
        return torch.nn.functional.pad(index.cumsum(-1), (1, 0))
    out = np.zeros((len(index), index.shape[1] + 1), np.intp)
    index.cumsum(-1, out=out[:, 1:])
    return out


def counting(like: Numbers, size: int) -> Numbers:
    """Return 0 to size - 1, beside numbers."""
    if isinstance(like, Tensor):
        return torch.arange(size, device=like.device)
    return np.arange(size)


def constants(t: Numbers) -> Numbers:
    """Return numbers without derivatives, on a CPU as an array."""
    if not isinstance(t, Tensor):
        return t
    return t.detach().numpy() if t.device.type == "cpu" else t.detach()


def like(other: Numbers, t: Numbers) -> Numbers:
    """Return what is an array or a tensor as what the other one is."""
    return tensor(t) if isinstance(other, Tensor) else t


def tensor(t: Numbers) -> Tensor:
    """Return an array or a tensor as a tensor."""
    return t if isinstance(t, Tensor) else torch.from_numpy(np.asarray(t))


def summed(t: Numbers) -> tuple[Numbers, Numbers]:
    """Return running sums of rows, and what rounding took from each: nearly twice the digits.

    The error of each addition is a number (Knuth, two-sum); their running sum is what was lost.
    """
    high = t.cumsum(-1)
    before = high[:, :-1]
    step, now = t[:, 1:], high[:, 1:]
    part = before + step
    back = part - before
    lost = ((before - (part - back)) + (step - back)) + (part - now)
    return high, joined(0 * t[:, :1], lost.cumsum(-1))
