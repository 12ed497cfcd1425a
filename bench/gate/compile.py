"""Compiles every kernel for GPUs that are not here, and holds the machine code to bounds.

A kernel takes part by a section in `cases` and one in `bounds`. Prints the table; fails on what
breaks a bound.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from bench.gate import machine_code
from bench.gate.bounds import BOUNDS, Bound
from bench.gate.cases import CASES
from sinkhorn_ot.kernels import codes_rows


TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# bytes of shared memory that one program may have
SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}

new = functools.partial(torch.empty, device="meta")


class CompileOnly:
    """A driver without a device: inside it a launch compiles for `target` and does not run.

    The kernels go through the specialisation of a real launch, so what is compiled is what a user
    with these tensors would run.
    """

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        """Return what to compile for."""
        return self.target

    def get_current_device(self) -> int:
        """Return a number of its own for each target: compiled kernels are kept by device."""
        return hash(self.target) & 0xFFFF

    def set_current_device(self, device: int) -> None:
        """Stay."""

    def get_current_stream(self, device: int | None = None) -> int:
        """Return the default stream."""
        return 0

    def get_benchmarker(self) -> Callable[..., tuple[float, float, float]]:
        """Return a benchmark to which every configuration is as good as any other."""

        def run_once(launch: Callable[[], object], quantiles: object) -> tuple[float, float, float]:
            launch()
            return 1.0, 1.0, 1.0

        return run_once

    def __enter__(self) -> list[Any]:
        built: list[Any] = []
        # tiles are those of a target
        codes_rows.forget()
        self._run = run = JITFunction.run
        triton.runtime.driver.set_active(self)  # pyright: ignore[reportArgumentType]

        def compile_only(
            fn: Any, *args: Any, grid: Any, warmup: bool = False, **options: Any
        ) -> Any:
            kernel = run(fn, *args, grid=grid, warmup=True, **options)
            named = zip(fn.arg_names, args, strict=False)
            built.append((fn.__name__, kernel, dict(named) | options))
            return kernel

        JITFunction.run = compile_only  # pyright: ignore[reportAttributeAccessIssue]
        return built

    def __exit__(self, *error: object) -> None:
        JITFunction.run = self._run
        triton.runtime.driver._active = None


@dataclass(frozen=True)
class Row:
    """One kernel in one configuration on one target; loads and instructions are per entry."""

    kernel: str
    case: str
    target: str
    config: str
    code: machine_code.Code
    entries: float
    meets: bool

    @property
    def nvidia(self) -> bool:
        """Whether the hot loop can be counted: AMD's code jumps over whatever no lane needs."""
        return self.target.startswith("sm")

    @property
    def instructions(self) -> float:
        """Instructions per entry on the shortest way round the hot loop."""
        return self.code.loop / self.entries

    @property
    def mufu(self) -> float:
        """Special-function instructions per entry on that way."""
        return self.code.loop_mufu / self.entries

    def violations(self, bound: Bound) -> Iterator[str]:
        """Yield what this kernel breaks."""
        where = f"{self.kernel} [{self.case}, {self.config}] on {self.target}"
        if self.code.spills > bound.spills:
            yield f"{where}: {self.code.spills} spills"
        if self.code.shared > SHARED[self.target]:
            yield f"{where}: {self.code.shared} bytes of shared memory"
        # the figures are those of NVIDIA's instruction set, and of its 32 lanes
        if self.nvidia:
            if bound.wide and not self.code.wide_loads:
                yield f"{where}: no 128-bit load"
            if self.meets and not self.code.forgets:
                yield f"{where}: programs that meet keep what they read before"
            if self.instructions > bound.instructions:
                spent = f"{self.instructions:.2f} instructions"
                yield f"{where}: {spent} per entry > {bound.instructions}"
            if self.mufu > bound.mufu:
                yield f"{where}: {self.mufu:.2f} special functions per entry > {bound.mufu}"


def compiled(
    cases: dict[str, Callable[..., object]],
    bounds: dict[str, Bound],
    targets: Iterable[str] = TARGETS,
) -> Iterator[tuple[Row, Bound]]:
    """Compile the cases for each target and yield each different kernel once, with its bound."""
    for target in targets:
        seen = set()
        for case, launch in cases.items():
            with CompileOnly(TARGETS[target]) as built:
                launch(new)
            for name, kernel, args in built:
                if kernel.hash not in seen:
                    seen.add(kernel.hash)
                    kind = f"{name} f64" if _in_float64(args) else name
                    row = _row(kind, case, target, kernel, args, bounds[kind])
                    # a configuration may have a bound of its own
                    yield row, bounds.get(f"{kind} {row.config}", bounds[kind])


def _in_float64(args: dict[str, Any]) -> bool:
    """Say whether a kernel computes in float64, as its potentials are."""
    return any(isinstance(t, torch.Tensor) and t.dtype == torch.float64 for t in args.values())


def _row(name: str, case: str, target: str, kernel: Any, args: dict[str, Any], bound: Bound) -> Row:
    code = machine_code.read(kernel)
    lanes = TARGETS[target].warp_size * kernel.metadata.num_warps
    tile = 1
    for constant in bound.tile:
        tile *= args[constant]
    sizes = "x".join(str(args[constant]) for constant in bound.tile)
    config = f"{sizes} w{kernel.metadata.num_warps}"
    meets = kernel.metadata.launch_cooperative_grid
    return Row(name, case, target, config, code, tile / lanes, meets)


def rows(targets: Iterable[str] = TARGETS, every: int = 1) -> Iterator[tuple[Row, Bound]]:
    """Compile every kernel of the package, at each `every`-th of a file's shapes."""
    cases = {
        f"{file} {label}": group[label]
        for file, group in CASES.items()
        for label in [*group][::every]
    }
    bounds = {name: bound for group in BOUNDS.values() for name, bound in group.items()}
    yield from compiled(cases, bounds, targets)


HEADER = (
    "kernel",
    "case",
    "target",
    "tile",
    "regs",
    "spills",
    "shared",
    "wide",
    "mufu/e",
    "instr/e",
)


def line(row: Row) -> str:
    """Return one line of the table."""
    c = row.code
    cells = (row.kernel, row.case, row.target, row.config, c.registers, c.spills, c.shared)
    counts = (f"{row.mufu:.2f}", f"{row.instructions:.2f}") if row.nvidia else ("-", "-")
    return layout_line(*cells, c.wide_loads, *counts)


def layout_line(*cells: object) -> str:
    """Return the cells in columns."""
    widths = (15, 42, 7, 14, 5, 7, 7, 5, 7, 8)
    return " ".join(f"{cell!s:{w}}" for cell, w in zip(cells, widths, strict=True)).rstrip()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    known = f"GPUs to compile for, of {', '.join(TARGETS)}; all by default"
    parser.add_argument("--every", type=int, default=1, help="leave out all but each Nth shape")
    parser.add_argument("targets", nargs="*", metavar="TARGET", type=_target, help=known)


def _target(name: str) -> str:
    if name not in TARGETS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(TARGETS)}, not {name!r}")
    return name


def main(options: argparse.Namespace) -> int:
    """Print the table, then what breaks a bound; return 1 if something does."""
    if "TRITON_INTERPRET" in os.environ:
        sys.exit("unset TRITON_INTERPRET: the interpreter compiles nothing")
    print(layout_line(*HEADER))
    broken: list[str] = []
    for row, bound in rows(options.targets or TARGETS, options.every):
        print(line(row), flush=True)
        broken += row.violations(bound)
    print("\n".join(broken) or "every kernel within its bounds")
    return int(bool(broken))
