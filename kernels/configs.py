"""Block sizes, strides and grids: what a launcher decides before it launches."""

import functools
import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor


# given at every launch: the default changes between releases of triton
OPTIONS = {"enable_fp_fusion": True}


class Layout(NamedTuple):
    """How the entries of a cost (B, n, m) lie in memory.

    An integer argument is only known to be divisible when 16 divides it, which loses every wide
    load at m = 3000. So sizes and strides go to the kernel divided by the constant `div`, and the
    kernel multiplies.

    Attributes:
        axis: 1 if rows are contiguous, 0 if columns are, -1 if neither.
        div: Power of two that divides the contiguous extent and every other stride.
        strides: Batch, row and column stride, divided by `div` unless they are the unit one.
        sizes: n and m, the contiguous one divided by `div`.
    """

    axis: int
    div: int
    strides: tuple[int, int, int]
    sizes: tuple[int, int] = (0, 0)


def layout(C: Tensor) -> Layout:
    """Return the layout of a cost (Bc, n, m); one that a batch shares has a batch stride of 0."""
    return layout_of(C.shape, C.stride())


@functools.lru_cache(1024)
def layout_of(shape: tuple[int, ...], stride: tuple[int, ...]) -> Layout:
    """Return the `layout` of a cost with this shape and these strides."""
    B, n, m = shape
    batch, row, column = stride
    batch = 0 if B == 1 else batch
    if column == 1 or m == 1:
        div = math.gcd(16, m, row, batch)
        return Layout(1, div, (batch // div, row // div, 1), (n, m // div))
    if row == 1 or n == 1:
        div = math.gcd(16, n, column, batch)
        return Layout(0, div, (batch // div, 1, column // div), (n // div, m))
    return Layout(-1, 1, (batch, row, column), (n, m))


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Return how many multiprocessors the device has; a persistent grid is a multiple of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    # a compile-only run on meta tensors poses as an H200; the interpreter wants few programs
    return 132 if device.type == "meta" else 3


def capability(device: torch.device) -> int:
    """Return the major compute capability that a launch on this device compiles for, 0 if none."""
    if device.type == "cpu":
        return 0
    target = triton.runtime.driver.active.get_current_target()
    return int(target.arch) // 10 if target.backend == "cuda" else 0


def is_amd(device: torch.device) -> bool:
    """Return whether a launch on this device compiles for an AMD GPU."""
    on_chip = device.type != "cpu"
    return on_chip and triton.runtime.driver.active.get_current_target().backend == "hip"


def meets(device: torch.device) -> bool:
    """Return whether programs run side by side there, in a grid that is promised to be resident."""
    return device.type != "cpu" and not is_amd(device)


def shared_memory(device: torch.device) -> int:
    """Return the bytes of shared memory that one program may have."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return int(getattr(found, "shared_memory_per_block_optin", 0) or 99 << 10)
    # the interpreter has no limit; compile-only runs pose as what they compile for
    return {0: 1 << 30, 8: 163 << 10}.get(capability(device), 227 << 10)


def all_registers(device: torch.device, warps: int) -> dict[str, int]:
    """Return the launch option that gives a thread as many registers as there are.

    Left to itself NVIDIA's assembler may spill a few, so that more small programs are resident.
    """
    if device.type == "cpu" or is_amd(device):
        return {}
    return {"maxnreg": min(255, 2048 // warps)}


def power_of_two(size: int, least: int = 16) -> int:
    """Return the least power of two that holds `size`."""
    return max(least, 1 << (size - 1).bit_length())


class RowTile(NamedTuple):
    """Whole rows on chip: BM of them, in CHUNKS chunks of W columns."""

    BM: int
    W: int
    CHUNKS: int
    PREFETCH: bool
    num_warps: int


# entries that a thread holds with the next row ahead, in at most 255 registers, by their bytes: in
# float64 the exponential's constants take room too
_AHEAD = {4: 48, 8: 16}
# chunks of the longest rows
_LONGEST = {4: 8, 8: 6}


def row_tile(m: int, axis: int, itemsize: int = 4) -> RowTile | None:
    """Return how rows of m entries are held on chip, or None if they do not fit.

    `itemsize` is that of the potentials, in which everything is computed: a float64 takes two
    registers, and more of them beside for its exponential.

    Few fat threads: what is done once a row, such as its division, is done by every thread that
    holds a part of it, so it costs least where each holds as many as it can. Chunks keep the waste
    of a power of two below a quarter of what is held, from 97 entries on. Where rows are not
    contiguous, eight are taken together, which makes each read 32 bytes.
    """
    least = 1 if axis == 1 else 8
    warps = power_of_two(-(-least * m // (32 * _AHEAD[itemsize])), 1)
    if warps > 8:
        # 64 registers a thread for the row leave no room for the next one
        W = 8192 // (least * itemsize)
        return RowTile(least, W, -(-m // W), False, 8) if m <= _LONGEST[itemsize] * W else None
    W = power_of_two(-(-m // 6))
    chunks = -(-m // W)
    BM = (
        (256 if itemsize == 4 else 64) * warps // W * (4 if chunks == 1 else 2 if chunks < 4 else 1)
    )
    return RowTile(max(least, BM), W, chunks, True, warps)


def row_programs(n: int, ratio: float, blocks: int, warps: int, problems: int, sms: int) -> int:
    """Return how many programs share a problem's row blocks.

    `ratio` is the size of an entry of the cost over that of a column sum.

    Each writes a vector of column sums that is read again, so there are only as many as keep these
    below an eighth of the cost's own bytes, but at least one for each multiprocessor.
    """
    resident = max(1, 8 // warps) * sms
    enough = max(sms, int(n * ratio) // 16)
    return max(1, min(blocks, -(-min(resident, enough) // problems)))


class LogSumTile(NamedTuple):
    """BM rows by BN columns, folded along the columns."""

    BM: int
    BN: int
    num_warps: int


def log_sum_tile(axis: int, n: int, m: int, itemsize: int = 4) -> LogSumTile:
    """Return the tile of a running maximum and sum along rows of m entries.

    One warp alone needs no barrier, and with 2048 entries of 4 bytes its few steps per row are
    cheap; `itemsize` is that of the potentials. Where columns are contiguous a thread holds whole
    rows of the tile, and meets no other.
    """
    entries = 8192 // itemsize
    if axis == 0:
        BM = min(256, power_of_two(n))
        return LogSumTile(BM, entries // BM, 1)
    BN = min(512, power_of_two(m))
    return LogSumTile(entries // BN, BN, 1)


class WholeTile(NamedTuple):
    """How a cooperative grid holds one problem: blocks of rows, slices of columns."""

    BM: int
    W: int
    CHUNKS: int
    PREFETCH: bool
    HOLD: bool
    STAGES: int
    COLS: int
    RB: int
    PB: int
    num_warps: int
    programs: int

    def constants(self) -> dict[str, int | bool]:
        """Return what is constant in the kernel."""
        return {k: x for k, x in self._asdict().items() if k != "programs"}


# longest rows that one program holds beside their column sums, by the bytes of a potential
_WHOLE_ROWS = {4: 16384, 8: 12288}


def whole_tile(C: Tensor, itemsize: int) -> WholeTile | None:
    """Return how one problem of a cost (n, m) is solved whole, None if its rows are too long.

    `itemsize` is that of the potentials. One fat program for each multiprocessor: barriers cost
    least where few meet. Without a cooperative grid there is one program, which meets nobody.
    """
    n, m = C.shape
    sms = multiprocessors(C.device) if meets(C.device) else 1
    warps, held = 8, 256 * _AHEAD[itemsize]
    W = power_of_two(-(-m // 6)) if m > 96 else power_of_two(m)
    CHUNKS = -(-m // W)
    ahead = m <= held
    # longer rows come by shared memory, with the next one; potentials come from the cache
    staged = 2 * W * CHUNKS * C.itemsize
    if not ahead and (m > _WHOLE_ROWS[itemsize] or staged > shared_memory(C.device)):
        return None
    BM = min(64, power_of_two(n, 1), 1 << max(0, (held // (W * CHUNKS)).bit_length() - 1))
    programs = min(sms, -(-n // BM))
    # few slices, since every program adds up what all of them found
    COLS = power_of_two(-(-m // programs), 64)
    PB = min(64, power_of_two(-(-m // COLS), 1))
    stages = 1 if ahead else 2
    return WholeTile(
        BM, W, CHUNKS, ahead, ahead, stages, COLS, max(1, 8192 // COLS), PB, warps, programs
    )


class SmallTile(NamedTuple):
    """PB whole problems of at most BM by BN entries, scaled SCALED times between exponentials.

    `TWICE` takes an iteration's exponentials twice rather than hold them.
    """

    PB: int
    BM: int
    BN: int
    SCALED: int
    TWICE: bool
    num_warps: int


def small_tile(n: int, m: int, itemsize: int = 4) -> SmallTile | None:
    """Return how small problems are held on chip, or None if they do not fit.

    `itemsize` is that of the weights. A thread holds 32 entries of 4 bytes where it can. Narrow
    problems have almost as many potentials as entries, so it holds half; then it has all of a 4 x 4
    problem, and asks no neighbour. The largest fill it, which leaves no room to scale.
    """
    BM, BN = power_of_two(n, 4), power_of_two(m, 4)
    share, area, side = itemsize // 4, BM * BN, min(BM, BN)
    size = area * share
    # in float64 more would spill
    if max(n, m) > 128 or area > (16384 if itemsize == 4 else 4096):
        return None
    entries = 1024 if side > 8 else 512
    PB = max(1, entries // size)
    scaled = 7 if size <= 4096 and (side > 8 or BM == BN) else 0
    warp = 512 if (side == 16 or share == 2) and area > 512 else 1024
    warps = min(8, max(1, PB * size // warp))
    return SmallTile(PB, BM, BN, scaled, size > 8192, warps)


class NormalizeTile(NamedTuple):
    """PB whole matrices of at most BM by BN entries."""

    PB: int
    BM: int
    BN: int
    num_warps: int


def normalize_tile(n: int, m: int, itemsize: int, back: bool) -> NormalizeTile | None:
    """Return how matrices are held on chip, or None if they are too large.

    `itemsize` is that of the weights. A thread has a small matrix for itself, and asks no neighbour
    for any sum. Going back it holds two numbers an entry beside those of the step at hand, and so
    fewer entries.
    """
    BM, BN = power_of_two(n, 4), power_of_two(m, 4)
    area, share = BM * BN, itemsize // 4
    if max(n, m) > 128 or area * share > 16384:
        return None
    if area * share <= (16 if back else 64):
        return NormalizeTile(32, BM, BN, 1)
    PB = max(1, 512 // share // area)
    held = 512 if back else 1024 // share
    return NormalizeTile(PB, BM, BN, min(16, max(1, PB * area // held)))
