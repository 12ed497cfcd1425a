"""What the machine code of each kernel may cost at most, a section for each file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """What the machine code of one kernel may cost at most.

    Attributes:
        tile: Names of the constexpr arguments whose product is the entries of one trip round the
            hot loop.
        instructions: Instructions per entry of the hot loop, on NVIDIA.
        mufu: Special-function instructions (exp2, reciprocal, log2) per entry, on NVIDIA.
        wide: Whether global memory must be read by 128-bit loads.
        spills: Registers put aside, which only what is done once a sweep may need.
    """

    tile: tuple[str, ...]
    instructions: float
    mufu: float
    wide: bool = True
    spills: int = 0


_BLOCK = ("BM", "BN")
_ROWS = ("BM", "W", "CHUNKS")
_SMALL = ("PB", "BM", "BN")
# by file of kernels/, then by name of a jit function, with f64 where it computes in float64, or by
# that and its configuration as the table prints them
BOUNDS = {
    "apply": {
        "_apply": Bound(_BLOCK, instructions=34, mufu=1.3, wide=False),
        # rows of a stored cost in one warp
        "_apply 4x512 w1": Bound(_BLOCK, instructions=13, mufu=1.05),
        "_apply 256x16 w4": Bound(_BLOCK, instructions=18, mufu=1.05, wide=False),
        "_apply 128x32 w4": Bound(_BLOCK, instructions=26, mufu=1.1, wide=False),
        "_apply 256x64 w8": Bound(_BLOCK, instructions=10, mufu=1.05),
        "_apply 64x64 w4": Bound(_BLOCK, instructions=30, mufu=1.15),
        "_apply f64": Bound(_BLOCK, instructions=100, mufu=0.1, wide=False),
        "_apply f64 2x512 w1": Bound(_BLOCK, instructions=52, mufu=0.1),
        "_apply f64 256x4 w1": Bound(_BLOCK, instructions=36, mufu=0.1),
    },
    # of the iterations in log domain, of which seven in eight are saved where problems are scaled
    "batched": {
        "_solve_small": Bound(_SMALL, instructions=42, mufu=1.6),
        # triton 3.9 makes a sum along four columns of their neighbours in the warp
        "_solve_small 4x32x4 w1": Bound(_SMALL, instructions=85, mufu=2.4),
        "_solve_small f64": Bound(_SMALL, instructions=175, mufu=1.0),
        "_solve_small 4x16x16 w1": Bound(_SMALL, instructions=21, mufu=1.2),
        "_solve_small 1x32x32 w1": Bound(_SMALL, instructions=14, mufu=1.1),
        "_solve_small 1x128x128 w8": Bound(_SMALL, instructions=36, mufu=2.4),
    },
    "codes": {
        # any of its loops, of which answers are counted by the entries of a block of rows
        "_codes": Bound(_ROWS, instructions=25, mufu=1.8),
        "_codes 4x512x6 w8": Bound(_ROWS, instructions=13.5, mufu=1.1),
        # labels alone, on sm_100
        "_codes 1x2048x8 w8": Bound(_ROWS, instructions=13.5, mufu=1.1, spills=12),
        "_scale_prototypes": Bound(_ROWS, instructions=24, mufu=1.3),
        # a few on sm_80
        "_scale_samples": Bound(("BP", "BN"), instructions=21, mufu=1.3, spills=12),
        "_scale_rows": Bound(_BLOCK, instructions=21, mufu=1.3),
        "_write_tiles": Bound(_BLOCK, instructions=24, mufu=1.1),
    },
    "dense_sweep": {
        "_sweep_rows": Bound(_ROWS, instructions=15, mufu=1.3),
        "_sweep_rows 1x512x6 w2": Bound(_ROWS, instructions=12, mufu=1.05),
        "_sweep_rows 1x2048x8 w8": Bound(_ROWS, instructions=9.5, mufu=1.05),
        "_finish": Bound(("BP", "BN"), instructions=5.5, mufu=0.1),
        # an exponential is 22 of these, and may be there once
        "_sweep_rows f64": Bound(_ROWS, instructions=48, mufu=0.15),
        "_sweep_rows f64 8x16x4 w1": Bound(_ROWS, instructions=52, mufu=0.15),
        "_sweep_rows f64 1x256x4 w2": Bound(_ROWS, instructions=41, mufu=0.1),
        "_sweep_rows f64 1x1024x4 w8": Bound(_ROWS, instructions=43, mufu=0.1),
        # these have their maxima first, or relaxed rows, whose logarithm every thread takes
        "_sweep_rows f64 1x512x6 w8": Bound(_ROWS, instructions=64, mufu=0.15),
        "_finish f64": Bound(("BP", "BN"), instructions=8.5, mufu=0.1),
    },
    "features": {
        "_write_products": Bound(_BLOCK, instructions=50, mufu=1.3),
    },
    "fixed": {
        # the loop of a lost column, which most have not
        "_answer": Bound(("BP", "BN"), instructions=30, mufu=1.6, wide=False),
        "_answer f64": Bound(("BP", "BN"), instructions=135, mufu=0.3, wide=False),
    },
    "log_sums": {
        "_log_sum": Bound(_BLOCK, instructions=11.5, mufu=1.3),
        "_merge": Bound(("BS", "BN"), instructions=27, mufu=1.5, wide=False),
        "_log_sum f64": Bound(_BLOCK, instructions=51, mufu=0.1),
        "_merge f64": Bound(("BS", "BN"), instructions=69, mufu=0.1, wide=False),
    },
    # per point of a block, and per pair of blocks
    "near": {
        "_take": Bound(("SIZE",), instructions=1200, mufu=12, wide=False),
        "_take f64": Bound(("SIZE",), instructions=2400, mufu=24, wide=False),
        # with weights it lays two functions
        "_settle": Bound(("SIZE",), instructions=2400, mufu=24, wide=False),
        "_settle f64": Bound(("SIZE",), instructions=4800, mufu=48, wide=False),
        "_judge": Bound(("CHUNK",), instructions=560, mufu=3, wide=False),
        "_judge f64": Bound(("CHUNK",), instructions=1300, mufu=1, wide=False),
    },
    # of the steps by logarithms; those that scale take a quarter of these
    "normalize": {
        "_normalize": Bound(_SMALL, instructions=46, mufu=2.1, wide=False),
        "_normalize 32x4x4 w1": Bound(_SMALL, instructions=32, mufu=2.1, wide=False),
        "_normalize 32x8x8 w1": Bound(_SMALL, instructions=28, mufu=2.1),
        "_normalize 1x128x128 w16": Bound(_SMALL, instructions=50, mufu=2.1),
        "_normalize f64": Bound(_SMALL, instructions=54, mufu=0.8),
        "_normalize_back": Bound(_SMALL, instructions=53, mufu=2.1),
        # half precision has eight bytes a row
        "_normalize_back 32x4x4 w1": Bound(_SMALL, instructions=34, mufu=2.1, wide=False),
        # what a thread goes on with does not all fit beside the largest
        "_normalize_back 1x128x128 w16": Bound(_SMALL, instructions=50, mufu=2.1, spills=1100),
        "_normalize_back f64": Bound(_SMALL, instructions=56, mufu=0.8),
        "_normalize_back f64 1x64x64 w8": Bound(_SMALL, instructions=56, mufu=0.8, spills=380),
    },
    "point_cloud": {
        "_log_sums": Bound(_BLOCK, instructions=23, mufu=1.15, wide=False),
        # eight coordinates in float32: 16 of these; the root of a distance is a second function
        "_log_sums 256x16 w4": Bound(_BLOCK, instructions=27, mufu=2.1, wide=False),
        "_log_sums 256x64 w8": Bound(_BLOCK, instructions=11, mufu=1.1),
        "_log_sums f64": Bound(_BLOCK, instructions=115, mufu=1.15, wide=False),
        # joined spans read vectors only, whatever the width of the loads; tf32 takes the rescue
        # with it
        "_log_sums 128x32 w8": Bound(_BLOCK, instructions=19.5, mufu=1.3, wide=False),
    },
    "router": {
        # exponents are float64; few experts leave much to be done once a token
        "_route f64": Bound(("BM", "W"), instructions=110, mufu=2.1),
        "_route f64 64x8 w4": Bound(("BM", "W"), instructions=260, mufu=2.1),
    },
    # what is done once a sweep, beside the sweep itself: of a slice's columns, all instructions
    "steps": {
        "_answer_relaxed": Bound(("W",), instructions=580, mufu=18, wide=False),
        "_answer_relaxed f64": Bound(("W",), instructions=580, mufu=18, wide=False),
        "_learn f64": Bound(("COLS",), instructions=2600, mufu=10, wide=False),
        "_move f64": Bound(("COLS",), instructions=400, mufu=1, wide=False, spills=300),
    },
    # of its rows; what a program decides once a sweep does not all fit in registers beside it
    "whole": {
        "_solve_whole f64": Bound(_ROWS, instructions=13, mufu=1.2, spills=800),
        "_solve_whole f64 4x256x4 w8": Bound(_ROWS, instructions=52, mufu=0.3, spills=600),
        "_solve_whole f64 1x1024x4 w8": Bound(_ROWS, instructions=20, mufu=1.2, spills=600),
        "_solve_whole f64 1x2048x5 w8": Bound(_ROWS, instructions=24, mufu=1.2, spills=1900),
    },
}
