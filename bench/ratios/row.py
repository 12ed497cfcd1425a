"""One case of one family beside its best peer, and how rows are kept."""

import json
import math
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import RESULTS


@dataclass(frozen=True)
class Row:
    """One case of one family beside the best of its peers.

    Attributes:
        family: What `python -m bench` calls the family.
        case: What the family calls the case, and `--only` selects it by.
        peer: The best peer; "none" where none arrived, "each peer" where all were stopped.
        ours: What we took: seconds, or megabytes; inf where we missed what was asked for.
        theirs: What the peer took, at no larger error than asked for; inf where none arrived.
        over: Whether no peer arrived in the time it was given, which `theirs` then is.
        error: What was asked for; inf where the family asks for none.
        our_error: What ours was measured to be, by code outside the package.
        their_error: What the peer's was measured to be.
        others: What every peer that was timed took.
        unit: What `ours` and `theirs` are in.
    """

    family: str
    case: str
    peer: str
    ours: float
    theirs: float
    over: bool = False
    error: float = math.inf
    our_error: float = 0.0
    their_error: float = 0.0
    others: dict[str, float] = field(default_factory=dict)
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """The peer's over ours: above one we take less; zero where we miss what was asked for."""
        return self.theirs / self.ours if self.our_error <= self.error else 0.0

    @property
    def again(self) -> str:
        """The command that measures this row alone."""
        return f"python -m bench {self.family} --only {shlex.quote(self.case)}"

    def __str__(self) -> str:
        """Return a line of a table."""
        told = f"{'over ' if self.over else ''}{self.ratio:.2f}"
        return (
            f"{told:>10}  {self.case:44s} ours {self.ours:9.4g} {self.unit} "
            f"({self.our_error:.1e})  {self.peer} {self.theirs:9.4g} {self.unit} "
            f"({self.their_error:.1e})"
        )


def load(family: str) -> list[Row]:
    """Return what was measured last of a family; nothing where it never was."""
    path = RESULTS / f"{family}.json"
    if not path.exists():
        return []
    return [_row(found) for found in json.loads(path.read_text())["rows"]]


def save(family: str, rows: list[Row]) -> Path:
    """Write a family's rows, and the machine, under results/."""
    # only who measures needs the peers that a machine is told with
    from bench.cpu.measure import save as write

    return write(family, [_plain(row) for row in rows])


def _plain(row: Row) -> dict[str, Any]:
    """Return a row for JSON, which knows no infinity: None."""
    found = asdict(row) | {"ratio": row.ratio, "again": row.again}
    return {name: _finite(value) for name, value in found.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def _row(found: dict[str, Any]) -> Row:
    known: dict[str, Any] = {k: math.inf if v is None else v for k, v in found.items()}
    return Row(**{name: known[name] for name in Row.__dataclass_fields__})
