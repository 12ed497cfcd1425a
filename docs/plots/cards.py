"""The runs on real cards that are kept, by the names of these; parts run later fill the gaps."""

import json
import re
from pathlib import Path
from typing import Any


Record = dict[str, Any]
RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
POT = ("POT sinkhorn", "POT sinkhorn_log")


def cards() -> dict[str, Record]:
    """Return each run by the name of its card, a card's first run before its newest."""
    found: dict[str, Record] = {}
    parts: list[tuple[str, Record]] = []
    for path in sorted(RESULTS.glob("gpu-nvidia-*.json")):
        run = json.loads(path.read_text())
        card = run["card"]["card"]
        name = card.removeprefix("NVIDIA ")
        if run.get("only"):
            parts.append((name, run))
            continue
        which = path.stem.removeprefix(f"gpu-{slug(card)}").strip("-")
        found[f"{name}, {which} run" if which else name] = run
    for name, run in parts:
        if name in found:
            for kind in ("checks", "calls", "rows", "targets"):
                found[name][kind] = joined(found[name][kind], run[kind])
    return found


def slug(card: str) -> str:
    """Return a card's name as files have it."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


def joined(records: list[Record], newer: list[Record]) -> list[Record]:
    """Return records, and in the place of each a newer one that tells something."""
    said = {about(r): r for r in newer if r.get("status") != "skipped" and tells(r)}
    return [said.pop(about(r), r) for r in records] + list(said.values())


def about(r: Record) -> tuple[Any, ...]:
    """Return what a record is about."""
    return tuple(r.get(k) for k in ("kernel", "check", "problem", "who", "target"))


def tells(r: Record) -> bool:
    """Say whether a record is more than a prediction that nothing was measured for."""
    return r.get("verdict") != "not measured"


def by_name(run: Record, kind: str = "calls") -> dict[tuple[str, str], Record]:
    """Return the records of a run by problem and who."""
    return {(r["problem"], r["who"]): r for r in run[kind]}


def best_of_pot(found: dict[tuple[str, str], Record], problem: str) -> float | None:
    """Return the milliseconds of the better of POT's methods, if its answer is one."""
    rows = [found.get((problem, who), {}) for who in POT]
    good = [r for r in rows if "ms" in r and "wrong" not in r and r.get("error", 0) < 1e-3]
    return min((r["ms"] for r in good), default=None)


def milliseconds(r: Record) -> str:
    """Return the time of a call, or why there is none."""
    if "ms" not in r:
        return str(r.get("why", ""))
    # the only call timed was the first, which compiled
    compiled = r.get("runs") == 1 and abs(r["ms"] - 1e3 * r.get("first_s", 0)) < 0.1
    return "not measured" if compiled else number(r["ms"])


def number(value: float | None) -> str:
    """Return three digits."""
    return "" if value is None else f"{value:.3g}"
