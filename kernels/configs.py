"""Block sizes, strides and grids: what a launcher decides before it launches."""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


# given at every launch: the default changes between releases of triton
OPTIONS = {"enable_fp_fusion": True}


@dataclass(frozen=True)
class Bound:
    """What the machine code of one kernel may cost at most, checked by `inspect`.

    Attributes:
        tile: Names of the constexpr arguments whose product is the entries of one trip round the
            hot loop.
        instructions: Instructions per entry of the hot loop, on NVIDIA.
        mufu: Special-function instructions (exp2, reciprocal, log2) per entry, on NVIDIA.
        wide: Whether global memory must be read by 128-bit loads.
    """

    tile: tuple[str, ...]
    instructions: float
    mufu: float
    wide: bool = True


class Layout(NamedTuple):
    """How the entries of a cost (B, n, m) lie in memory.

    An integer argument is only known to be divisible when 16 divides it, which loses every wide
    load at m = 3000. So sizes and strides go to the kernel divided by the constant `div`, and the
    kernel multiplies.

    Attributes:
        axis: 1 if rows are contiguous, 0 if columns are, -1 if neither.
        div: Power of two that divides the contiguous extent and every other stride.
        strides: Batch, row and column stride, divided by `div` unless they are the unit one.
    """

    axis: int
    div: int
    strides: tuple[int, int, int]


def layout(C: Tensor) -> Layout:
    """Return the layout of a cost (Bc, n, m); one cost shared by a batch gets a batch stride of 0."""
    _, n, m = C.shape
    batch, row, column = C.stride()
    batch = 0 if C.shape[0] == 1 else batch
    if column == 1 or m == 1:
        div = math.gcd(16, m, row, batch)
        return Layout(1, div, (batch // div, row // div, 1))
    if row == 1 or n == 1:
        div = math.gcd(16, n, column, batch)
        return Layout(0, div, (batch // div, 1, column // div))
    return Layout(-1, 1, (batch, row, column))


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Return how many multiprocessors the device has; a persistent grid is a multiple of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    # a compile-only run on meta tensors poses as an H200; the interpreter wants few programs
    return 132 if device.type == "meta" else 3


def power_of_two(size: int, least: int = 16) -> int:
    """Return the least power of two that holds `size`."""
    return max(least, 1 << (size - 1).bit_length())
