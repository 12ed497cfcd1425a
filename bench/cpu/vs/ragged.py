"""Ragged batches beside their problems one by one, by us and by POT, and beside weights of zero.

Sizes are even between a least and a largest one, and both sides of a problem have their own.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

import sinkhorn_ot as so
from bench.cpu.measure import marginal_error
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, race
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_ragged"
_ERROR = 1e-6
Array = np.ndarray[Any, Any]


class Size(NamedTuple):
    """A batch of squared distances in the unit square: sizes from the least to the padded one."""

    B: int
    least: int
    padded: int
    reg: float

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.B} of {self.least} to {self.padded} reg {self.reg:g}"


SIZES = [
    Size(1000, 2, 20, 0.1),
    Size(256, 3, 40, 0.1),
    Size(64, 3, 50, 0.05),
    Size(64, 10, 200, 0.05),
    Size(64, 10, 200, 0.01),
    Size(1000, 5, 100, 0.1),
    Size(16, 20, 500, 0.05),
]


def posed(size: Size) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return costs with nan for padding, and how many rows and columns there are."""
    random = torch.Generator().manual_seed(0)
    B, least, n, _ = size
    sizes = torch.randint(least, n + 1, (2, B), generator=random)
    x, y = torch.rand(2, B, n, 2, dtype=torch.float64, generator=random)
    rows, columns = torch.arange(n) < sizes[:, :, None]
    pairs = rows[:, :, None] & columns[:, None, :]
    return torch.cdist(x, y).square().masked_fill(~pairs, torch.nan), sizes[0], sizes[1]


def cell(size: Size) -> Row | None:
    """Return one row."""
    import ot

    C, n, m = posed(size)
    cuts = [C[k, : n[k], : m[k]].contiguous() for k in range(size.B)]
    weights = [[torch.full((k,), 1 / k, dtype=C.dtype) for k in cut.shape] for cut in cuts]
    a, b = (
        torch.nn.utils.rnn.pad_sequence([pair[side] for pair in weights], batch_first=True)
        for side in (0, 1)
    )
    filled = C.nan_to_num(0.0)[:, : a.shape[1], : b.shape[1]].contiguous()
    arrays = [
        (one.numpy(), other.numpy(), cut.numpy())
        for (one, other), cut in zip(weights, cuts, strict=True)
    ]

    def padded() -> list[Array]:
        plans = so.solve(C, reg=size.reg, mask=(n, m), tol=1e-7).plan
        return [P[: n[k], : m[k]].numpy() for k, P in enumerate(plans)]

    def zeros() -> list[Array]:
        plans = so.solve(filled, a, b, size.reg, tol=1e-7).plan
        return [P[: n[k], : m[k]].numpy() for k, P in enumerate(plans)]

    def alone() -> list[Array]:
        return [so.solve(cut, reg=size.reg, tol=1e-7).plan.numpy() for cut in cuts]

    def pot() -> list[Array]:
        options: dict[str, Any] = {"stopThr": 1e-7, "numItermax": 10**5}
        return [np.asarray(ot.sinkhorn(a, b, M, size.reg, **options)) for a, b, M in arrays]

    def error(plans: list[Array]) -> float:
        pairs = zip(plans, arrays, strict=True)
        return max(marginal_error(P, *given[:2]) for P, given in pairs)

    def entrant(name: str, act: Callable[[], list[Array]], package: str = "sinkhorn_ot") -> Entrant:
        return Entrant(name, lambda _: act, error, package=package)

    ours = entrant("sinkhorn_ot", padded)
    peers = [
        entrant("one by one", alone),
        entrant("zero weights", zeros),
        entrant("POT", pot, "ot"),
    ]
    return race((FAMILY, size.name), ours, peers, _ERROR)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for size in SIZES:
        yield Cell(size.name, partial(cell, size))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
