"""The benchmark tables, formatted from what bench/ measured last and saved under bench/results/."""

import json
from pathlib import Path
from typing import Any

from style import table, write


RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"


def tables() -> None:
    """Write a table for each result that is there."""
    _memory(_read("memory"))
    _stress(_read("stress"))
    _scale(_read("scale"))
    _annealed(_read("annealed"))


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _memory(found: dict[str, Any] | None) -> None:
    if found is None:
        return _nothing("memory")
    rows = [
        [r["case"], f"{r['ours']:.0f} MB", f"{r['theirs']:.0f} MB", r["peer"]]
        for r in found["rows"]
    ]
    return table("memory", ["call", "peak here", "peak of a peer", "which"], rows)


def _annealed(found: dict[str, Any] | None) -> None:
    if found is None:
        return _nothing("annealed")
    rows: dict[tuple[Any, ...], list[str]] = {}
    scalings = sorted({r["scaling"] for r in found["rows"]})
    for r in found["rows"]:
        kind = r["p"], r["reach"] or "none", "yes" if r["debias"] else "no"
        cells = rows.setdefault(kind, [str(part) for part in kind])
        cells.append(f"{r['value']:.0e}, {r['gradient']:.0e}")
    header = ["p", "reach", "debias", *(f"scaling {s:g}" for s in scalings)]
    return table("annealed", header, list(rows.values()))


def _stress(found: dict[str, Any] | None) -> None:
    if found is None:
        return _nothing("stress")
    regs = sorted({r["reg"] for r in found["rows"]}, reverse=True)
    rows: dict[str, list[str]] = {}
    for r in found["rows"]:
        good = r["status"] == "CONVERGED"
        text = f"{r['error']:.0e}" if good else f"**{r['status']}** at {r['error']:.0e}"
        rows.setdefault(r["family"], []).append(text)
    header = ["family", *(f"reg {reg:g}" for reg in regs)]
    return table("stress", header, [[name, *texts] for name, texts in rows.items()])


def _scale(found: dict[str, Any] | None) -> None:
    if found is None:
        return _nothing("scale")
    names = {"matrix": "matrix, reg 0.01 to 1e-6", "clouds": "`PointCloud`, reg 0.1 to 1e-3"}
    rows = [
        [
            names[r["case"]],
            f"{r['n']:,}",
            f"{r['seconds']:.3g}",
            f"{r['ns_per_pair']:.0f}",
            f"{r['total_mb']:.0f}" if "total_mb" in r else "",
        ]
        for r in found["rows"]
        if r["case"] in names
    ]
    header = ["problem", "n = m", "s", "ns per pair of points", "peak MB, torch included"]
    table("scale", header, rows)
    _fixed([r for r in found["rows"] if r["case"] == "fixed"])
    return None


def _fixed(found: list[dict[str, Any]]) -> None:
    columns = {
        "bare_sweeps": "50 bare sweeps in NumPy",
        "seconds": "a solve to 1e-9",
        "first_call": "the first",
        "import": "import",
    }
    rows = [
        [
            f"{r['n']} x {r['n']}",
            *(f"{1e3 * r[name]:.3g} ms" for name in columns),
            f"{r['times_bare']:.1f}",
        ]
        for r in found
    ]
    table("fixed", ["problem", *columns.values(), "solve over sweeps"], rows)


def _nothing(name: str) -> None:
    text = f"Not measured yet in this checkout: run `python -m bench {name}`.\n"
    write(name, text)
