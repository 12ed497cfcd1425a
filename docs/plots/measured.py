"""The benchmark tables, formatted from what bench/ measured last and saved under bench/results/."""

import json
from pathlib import Path
from typing import Any

from style import TABLES, table


RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"


def tables() -> None:
    """Write a table for each result that is there."""
    _memory(_read("memory"))
    _speed(_read("vs_pot"))


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _memory(found: dict[str, Any] | None) -> None:
    if found is None:
        return _nothing("memory", "memory.py")
    dense, cloud = found["rows"]
    extra, cost = dense["extra_mb"], dense["cost_mb"]
    rows = [
        ["stored cost, n = m = 10,000, float32", f"{extra:.0f} MB beside a cost of {cost:.0f} MB"],
        ["point clouds, n = m = 20,000, d = 16, float32", f"{cloud['total_mb']:.0f} MB in all"],
    ]
    return table("memory", ["solve", "peak memory"], rows)


def _speed(found: dict[str, Any] | None) -> None:
    if found is None:
        return _nothing("speed", "vs_pot.py")
    rows = [
        [
            r["case"],
            f"{r['reg']:g}",
            f"{r['ours_s']:.3g}",
            f"{r['pot_s']:.3g}",
            f"{r['ratio']:.1f}",
            f"{r['ours_error']:.0e} / {r['pot_error']:.0e}",
        ]
        for r in found["rows"]
    ]
    header = ["case", "reg", "here, s", "POT, s", "POT / here", "errors reached"]
    table("speed", header, rows)
    machine = ", ".join(f"{k} {v}" for k, v in found["machine"].items())
    with (TABLES / "speed.md").open("a") as page:
        page.write(f"\nMeasured on: {machine}.\n")
    return None


def _nothing(name: str, script: str) -> None:
    text = f"Not measured yet in this checkout: run `python bench/{script}`.\n"
    (TABLES / f"{name}.md").write_text(text)
