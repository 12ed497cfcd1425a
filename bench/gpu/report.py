"""What was found, as JSON and as a short page of tables."""

import json
import re
from pathlib import Path
from typing import Any

from bench.gpu.called.page import cells, others
from bench.gpu.items import Record, called
from bench.gpu.timed.problems import PROBLEMS, Problem, Target


class Report:
    """Collects records, and is written again after each stage so that nothing is lost.

    Args:
        folder: Where to write; None to write nothing.
        head: What the run was started with.
    """

    def __init__(self, folder: Path | None, head: Record) -> None:
        self._folder, self._head = folder, head
        self.card: Record = {}
        self.checks: list[Record] = []
        self.rows: list[Record] = []
        # compiled, timed and counted apart: three records of one call
        self._calls: dict[str, dict[str, Record]] = {"ahead": {}, "call": {}, "profile": {}}

    def add(self, kind: str, record: Record) -> None:
        """Take the record of an item."""
        if kind == "card":
            self.card = record
        elif kind in self._calls:
            self._calls[kind][called(record)] = record
        else:
            (self.rows if kind == "row" else self.checks).append(record)

    @property
    def calls(self) -> list[Record]:
        """Every call that was timed, with what was found of it before and afterwards."""
        found = []
        for name, record in self._calls["call"].items():
            ahead = self._calls["ahead"].get(name, {})
            seen = self._calls["profile"].get(name, {})
            found.append({**record, **_taken(ahead, "compiled_s"), **_taken(seen, "profile")})
        return found

    @property
    def failures(self) -> list[Record]:
        """What failed, peers left out: what they do is reported, and is no fault of ours."""
        found = [r for r in self._all() if r.get("status") == "failed" or "wrong" in r]
        return [r for r in found if not r.get("peer")]

    def _all(self) -> list[Record]:
        early = self._calls["ahead"].values()
        return [self.card, *self.checks, *early, *self.calls, *self.rows]

    def write(self) -> list[Path]:
        """Write both files; return their paths."""
        if self._folder is None or not self.card.get("card"):
            return []
        self._folder.mkdir(parents=True, exist_ok=True)
        kind = "gpu-peers-" if self._head["peers"] else "gpu-"
        stem = kind + _slug(self.card["card"])
        if only := self._head.get("only"):
            # a part must not take the place of the whole
            stem += f"-only-{_slug(only)}"
        paths = [self._folder / f"{stem}.{kind}" for kind in ("json", "md")]
        found = {
            **self._head, "card": self.card, "targets": self.targets(), "checks": self.checks,
            "calls": self.calls, "rows": self.rows,
        }  # fmt: skip
        paths[0].write_text(json.dumps(found, indent=1) + "\n")
        paths[1].write_text("\n".join(self._page()) + "\n")
        return paths

    def targets(self) -> list[Record]:
        """Return every prediction beside what was measured."""
        return [self._against(p, t) for p in PROBLEMS for t in p.targets]

    def _against(self, problem: Problem, target: Target) -> Record:
        rows = {r["who"]: r for r in self.rows if r["problem"] == problem.name}
        figure = target.figure(rows)
        sign = "at least" if target.at_least else "at most"
        found = {
            "problem": problem.name, "target": f"{sign} {target.bound:g} {target.says}",
            "measured": figure,
        }  # fmt: skip
        return found | {"verdict": self._verdict(problem, target, figure), "note": target.note}

    def _verdict(self, problem: Problem, target: Target, figure: float | None) -> str:
        if self._head["toy"]:
            return "no GPU"
        if figure is None:
            return "not measured"
        # a figure counts only while the kernel's checks are green
        if any(c["status"] == "failed" and c["kernel"] == problem.kernel for c in self.checks):
            return "a check failed"
        met = figure >= target.bound if target.at_least else figure <= target.bound
        return "met" if met else "not met"

    def _page(self) -> list[str]:
        title = f"# {self.card['card']}"
        if self._head["toy"]:
            title += "\n\nThis shows that the script runs, and measures nothing."
        return [
            title, "", *self._about(), "", *cells(self.calls), "", *others(self.calls), "",
            *self._predictions(), "", *self._times(), "", *self._troubles(),
        ]  # fmt: skip

    def _about(self) -> list[str]:
        c = self.card
        passed = sum(r["status"] == "passed" for r in self.checks)
        rates = (
            f"copy {c.get('copy_bytes_per_s', 0) / 1e12:.3f} TB/s, "
            f"fp16 matrix product {c.get('fp16_matmul_per_s', 0) / 1e12:.0f} TFLOP/s, "
            f"bf16 {c.get('bf16_matmul_per_s', 0) / 1e12:.0f} TFLOP/s"
        )
        versions = ", ".join(
            f"{k} {c[k]}" for k in ("driver", "cuda", "torch", "triton", "python") if c.get(k)
        )
        return [
            f"Measured by `python -m bench gpu`, seed {self._head['seed']}. {versions}.",
            f"At best: {rates}.",
            "",
            f"{passed} of {len(self.checks)} checks against float64 passed. Times are medians on "
            "the device alone (a replayed graph) where a call is shorter than 5 ms, else as "
            "called; the spread is the 20th to the 80th percentile. `share` is of the copy "
            "bandwidth, counting the least traffic. Errors are in potentials / reg, or for codes "
            "in total variation.",
        ]

    def _predictions(self) -> list[str]:
        lines = ["## Predictions", "", "| problem | predicted | measured | |", "|---|---|---|---|"]
        for t in self.targets():
            cells = [t["problem"], t["target"], _short(t["measured"]), t["verdict"]]
            if t["verdict"] == "not met" and t["note"]:
                cells[-1] += f": {t['note']}"
            lines.append(f"| {' | '.join(cells)} |")
        return lines

    def _times(self) -> list[str]:
        lines = ["## Kernels alone", ""]
        lines += ["| problem | who | ms an iteration | spread | ms as called | share | error |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for r in self._by_problem():
            if r["status"] != "measured":
                continue
            scale = r["ms_per_iteration"] / r["seconds"]
            spread = r.get("device", r["called"])
            low, high = (_short(spread[k] * scale) for k in ("p20", "p80"))
            cells = [
                r["problem"], r["who"], _short(r["ms_per_iteration"]), f"{low} to {high}",
                _short(r["called"]["median"] * scale), _percent(r.get("share")),
                _short(r.get("error")),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
        return lines

    def _by_problem(self) -> list[Record]:
        order = {p.name: k for k, p in enumerate(PROBLEMS)}
        return sorted(self.rows, key=lambda r: order[r["problem"]])

    def _troubles(self) -> list[str]:
        lines = ["## Failed and skipped", ""]
        for r in self._all():
            if r["status"] in ("failed", "skipped"):
                lines.append(f"- {r['status']}: {called(r) or 'card'}: {r['why']}")
            elif "wrong" in r:
                lines.append(f"- wrong: {called(r)}: {r['wrong']}")
        return lines if len(lines) > 2 else [*lines, "Nothing."]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _taken(record: Record, key: str) -> Record:
    """Return what was found under a key, or why it was not."""
    if key in record:
        return {key: record[key]}
    return {f"no_{key}": record["why"]} if record else {}


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"
