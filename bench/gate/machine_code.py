"""Read what the assembler made of a kernel: registers, spills, loads, the cost of its hot loop."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import triton


@dataclass(frozen=True)
class Code:
    """Figures of one compiled kernel.

    Attributes:
        registers: Registers per thread.
        spills: Spilled registers, or loads and stores of spills.
        shared: Bytes of shared memory per program.
        wide_loads: 128-bit loads from global memory.
        forgets: How often a multiprocessor's own cache is emptied, as who waits for others must.
        loop: Instructions on the shortest way round the hot loop, per thread.
        loop_mufu: Special-function instructions on that way.
    """

    registers: int
    spills: int
    shared: int
    wide_loads: int
    forgets: int
    loop: int
    loop_mufu: int


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name, the label it may jump to, and whether the jump is certain."""

    name: str
    jumps_to: str | None
    always: bool


def read(kernel: Any) -> Code:
    """Return the figures of a kernel compiled for NVIDIA or AMD."""
    return _nvidia(kernel) if "cubin" in kernel.asm else _amd(kernel)


def _nvidia(kernel: Any) -> Code:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, listing = (
            _tool("cuobjdump", "-res-usage", file.name),
            _tool("nvdisasm", "-c", file.name),
        )
    used = {k: int(v) for k, v in re.findall(r"(REG|STACK):(\d+)", usage)}
    code, labels = parse(listing, _NVIDIA)
    loop, mufu = hot_loop(code, labels, lambda name: name.startswith("MUFU"))
    return Code(
        registers=used["REG"],
        spills=_count(code, r"(STL|LDL)\b") + used["STACK"],
        shared=kernel.metadata.shared,
        # a bulk copy by the memory unit is wider still
        wide_loads=_count(code, r"(LDG|LDGSTS)\S*\.128|UTMALDG|UBLKCP"),
        forgets=_count(code, r"CCTL\.IVALL"),
        loop=loop,
        loop_mufu=mufu,
    )


def _amd(kernel: Any) -> Code:
    listing = kernel.asm["amdgcn"]
    code, labels = parse(listing, _AMD)
    loop, mufu = hot_loop(code, labels, lambda name: bool(re.match(r"v_(exp|log|rcp)_f32", name)))
    figure = {
        k: int(v) for k, v in re.findall(r"\.(vgpr_count|vgpr_spill_count):\s+(\d+)", listing)
    }
    return Code(
        registers=figure["vgpr_count"],
        spills=figure["vgpr_spill_count"],
        shared=kernel.metadata.shared,
        wide_loads=_count(code, r"(global|buffer)_load_dwordx4"),
        forgets=_count(code, r"buffer_(inv|wbinvl1)"),
        loop=loop,
        loop_mufu=mufu,
    )


# label, instruction with its operands, name of a jump, name of a certain jump
_NVIDIA = (
    re.compile(r"^(\.L_x_\d+):"),
    re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*)"),
    re.compile(r"BRA\b"),
    re.compile(r"(\.L_x_\d+)"),
)
_AMD = (
    re.compile(r"^(\.LBB\w+):"),
    re.compile(r"^\s+()([a-z]\w+)(?:\s+([^;]*))?"),
    re.compile(r"s_c?branch"),
    re.compile(r"(\.LBB\w+)"),
)


def parse(
    listing: str, grammar: tuple[re.Pattern[str], ...]
) -> tuple[list[Instruction], dict[str, int]]:
    """Return the instructions of a listing, and where its labels point."""
    label, instruction, jump, target = grammar
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in listing.splitlines():
        if found := label.match(line):
            labels[found[1]] = len(code)
        elif found := instruction.match(line):
            guard, name, operands = found[1], found[2], found[3] or ""
            to = target.search(operands) if jump.match(name) else None
            # a jump may also carry its condition as an operand: BRA.U UP0, BRA P0
            always = not guard and "cbranch" not in name and not re.match(r"\s*!?U?P\d", operands)
            code.append(Instruction(name, to[1] if to else None, always))
    return code, labels


def hot_loop(
    code: list[Instruction], labels: dict[str, int], special: Callable[[str], bool]
) -> tuple[int, int]:
    """Return instructions and special functions on the shortest way round the hottest loop.

    The shortest way leaves out what a jump can skip, such as the rescue of a row. Of all loops the
    hottest has the most special functions on that way, then the most instructions; code without a
    loop counts from its start to its end.
    """
    ways = [_ways(code, labels, k) for k in range(len(code))]
    loops = [
        _shortest(ways, head, end)
        for end, instruction in enumerate(code)
        if (head := labels.get(instruction.jumps_to or "", len(code))) < end
        # the head of a loop lies on every way to its end; a block moved out of line does not
        and end not in _reached(ways, 0, without=head)
    ]
    if not any(loops):
        last = max(k for k, i in enumerate(code) if i.name in ("EXIT", "s_endpgm"))
        loops = [_shortest(ways, 0, last)]
    counts = [(sum(special(code[k].name) for k in path), len(path)) for path in loops]
    mufu, length = max(counts)
    return length, mufu


def _ways(code: list[Instruction], labels: dict[str, int], k: int) -> list[int]:
    """Return where control may go after instruction `k`."""
    to = labels.get(code[k].jumps_to or "")
    ends = code[k].name in ("EXIT", "s_endpgm") and code[k].always
    onwards = [] if ends or (to is not None and code[k].always) else [k + 1]
    return [w for w in (*onwards, to) if w is not None and w < len(code)]


def _reached(ways: list[list[int]], start: int, without: int = -1) -> dict[int, int]:
    """Return the instructions reached from `start`, each with the one before it, nearest first."""
    before = {start: -1} if start != without else {}
    queue = list(before)
    for k in queue:
        for to in ways[k]:
            if to != without and to not in before:
                before[to] = k
                queue.append(to)
    return before


def _shortest(ways: list[list[int]], start: int, end: int) -> list[int]:
    """Return the instructions on the shortest way from `start` to `end`, or none."""
    before = _reached(ways, start)
    path = [end] if end in before else []
    while path and path[-1] != start:
        path.append(before[path[-1]])
    return path


def _count(code: list[Instruction], pattern: str) -> int:
    names = Counter(instruction.name for instruction in code)
    return sum(count for name, count in names.items() if re.match(pattern, name))


@cache
def _tools() -> Path:
    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def _tool(name: str, *args: str) -> str:
    done = subprocess.run([_tools() / name, *args], capture_output=True, text=True, check=True)
    return done.stdout
