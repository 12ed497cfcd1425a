"""What the kernels did on real cards, a column for each, and what is served by kernels at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cards import Record, best_of_pot, by_name, cards, milliseconds, number
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from style import MARKS, Theme, table


RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
DTYPES = {"float64": torch.float64, "float32": torch.float32, "half": torch.float16}
METRICS = ("sqeuclidean", "dot", "cosine", "euclidean", "manhattan", "chebyshev")


def tables() -> None:
    """Write every table."""
    _served()
    _cards()
    _solve()
    _calls()
    _kernels()
    _targets()
    _failed()
    _host()


def _host() -> None:
    rows = []
    for r in json.loads((RESULTS / "host.json").read_text())["rows"]:
        launches, sweeps = r["kernels"] + r["operators"], r.get("sweeps")
        cells = [r["call"], r["size"], r["kernels"], r["operators"], r["waits"]]
        each = f"{launches / sweeps:.0f}" if sweeps else ""
        rows.append([*map(str, cells), each, str(r["host_us"]), str(r.get("peer_operators", ""))])
    header = ["call", "size", "kernels", "operators", "waits", "launches a sweep"]
    table("host", [*header, "Python, µs", "operators of plain PyTorch"], rows)


def _served() -> None:
    from sinkhorn_ot import PointCloud
    from sinkhorn_ot.problem import make
    from sinkhorn_ot.sweeps import gpu

    def served(cost: Any) -> str:
        p = make(cost, None, None, 0.1)
        # a CPU works on float32 in float64, a GPU does not
        work = torch.float64 if cost.dtype == torch.float64 else torch.float32
        there = replace(p, a=p.a.to(work), b=p.b.to(work))
        return "kernels" if gpu.serves(there) else "PyTorch"

    rows = [["stored", *(served(torch.rand(5, 7).to(t)) for t in DTYPES.values())]]
    for metric in METRICS:
        pairs = [[torch.rand(k, 3).to(t) for k in (5, 7)] for t in DTYPES.values()]
        served_by = [served(PointCloud(x, y, metric=metric)) for x, y in pairs]
        rows.append([f'clouds, "{metric}"', *served_by])
    table("gpu_served", ["cost", "float64", "float32", "half precision"], rows)


def _cards() -> None:
    rows = []
    for name, run in cards().items():
        card, checks = run["card"], run["checks"]
        ran = [c for c in checks if c["status"] != "skipped"]
        passed = sum(c["status"] == "passed" for c in ran)
        rows.append(
            [
                name,
                *(str(card.get(k, "")) for k in ("driver", "torch", "triton")),
                f"{card['copy_bytes_per_s'] / 1e12:.2f}",
                f"{card['fp16_matmul_per_s'] / 1e12:.0f}",
                f"{passed} of {len(ran)}",
            ]
        )
    header = ["card", "driver", "torch", "triton", "copy, TB/s", "fp16, TFLOP/s", "checks passed"]
    table("gpu_cards", header, rows)


def _names(part: str) -> list[tuple[str, str]]:
    """Return what was tried on any card: problems and who, in their order."""
    records = [r for run in cards().values() for r in [*run["calls"], *run["rows"]]]
    tried = [r for r in records if r.get("part", "rows") == part and r["status"] != "skipped"]
    return list(dict.fromkeys((r["problem"], r["who"]) for r in tried))


def _solve() -> None:
    header, rows = ["problem"], []
    for name in cards():
        header += [f"{name}: here, ms", "POT, ms", "ratio"]
    found = [by_name(run) for run in cards().values()]
    for problem, who in _names("solve"):
        cells = [problem]
        for seen in found:
            ours, pot = seen.get((problem, who), {}), best_of_pot(seen, problem)
            ratio = f"{pot / ours['ms']:.2g}" if pot and "ms" in ours else ""
            cells += [milliseconds(ours), number(pot), ratio]
        rows.append(cells)
    table("gpu_solve", header, rows)


def _calls() -> None:
    header = ["problem", "who"]
    for name in cards():
        header += [f"{name}: ms", "on the device", "launches", "waits"]
    rows = []
    for key in _names("calls"):
        cells = list(key)
        for run in cards().values():
            r = by_name(run).get(key, {})
            seen = r.get("profile", {})
            cells += [milliseconds(r), number(seen.get("device_ms"))]
            cells += [str(seen.get(k, "")) for k in ("launches", "waits")]
        rows.append(cells)
    table("gpu_calls", header, rows)


def _kernels() -> None:
    header = ["problem", "who"]
    for name in cards():
        header += [f"{name}: ms an iteration", "share of copy bandwidth"]
    rows = []
    for key in _names("rows"):
        found = [by_name(run, "rows").get(key, {}) for run in cards().values()]
        if not any("ms_per_iteration" in r for r in found):
            continue
        cells = list(key)
        for r in found:
            share = f"{100 * r['share']:.0f} %" if "share" in r else ""
            cells += [number(r.get("ms_per_iteration")), share]
        rows.append(cells)
    table("gpu_kernels", header, rows)


def _targets() -> None:
    header, rows = ["problem", "predicted"], {}
    for k, (name, run) in enumerate(cards().items()):
        header += [name, ""]
        for t in run["targets"]:
            row = rows.setdefault((t["problem"], t["target"]), [""] * (2 * len(cards())))
            row[2 * k : 2 * k + 2] = [number(t["measured"]), t["verdict"]]
    table("gpu_targets", header, [[*key, *row] for key, row in rows.items()])


def _failed() -> None:
    rows = []
    for name, run in cards().items():
        for r in [*run["checks"], *run["calls"], *run["rows"]]:
            if r["status"] == "failed" or "wrong" in r:
                what = " / ".join(r[k] for k in ("kernel", "check", "problem", "who") if k in r)
                rows.append([name, what, r.get("wrong", r.get("why", "")).replace("|", "/")])
    table("gpu_failed", ["card", "what", "why"], rows)


def draw(theme: Theme) -> Figure:
    """`solve` and the better of POT's methods in each cell, a column of panels for each dtype."""
    runs = cards()
    figure = Figure(figsize=(9.6, 3.4 * len(runs)))
    panels = figure.subplots(len(runs), 2, sharey=True, squeeze=False)
    for line, (name, run) in zip(panels, runs.items(), strict=True):
        for at, dtype in zip(line, ("float32", "float64"), strict=True):
            _panel(theme, at, by_name(run), dtype)
            at.set_title(f"{name}, {dtype}", fontsize=10)
        line[0].set_ylabel("milliseconds, as called")
    panels[0][0].legend(fontsize=8.5, loc="upper left")
    figure.subplots_adjust(wspace=0.06, hspace=0.45)
    return figure


def _panel(theme: Theme, at: Axes, found: dict[tuple[str, str], Record], dtype: str) -> None:
    problems = [p for p, who in found if who == "solve" and p.startswith(dtype)]
    ours = [found[p, "solve"].get("ms") for p in problems]
    peers = [best_of_pot(found, p) for p in problems]
    for times, label, colour, mark in (
        (ours, "here", theme.series[0], MARKS[0]),
        (peers, "the better of POT's two", theme.series[1], MARKS[1]),
    ):
        kept = [(k, t) for k, t in enumerate(times) if t is not None]
        at.plot(*zip(*kept, strict=True), mark, color=colour, label=label)
    at.set_yscale("log")
    labels = [p.split()[1].split("x")[0] + "\n" + p.split()[3] for p in problems]
    at.set_xticks(range(len(problems)), labels, fontsize=8)
    at.set_xlabel("n, and reg below it")
    at.grid(True, axis="y")
