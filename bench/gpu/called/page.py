"""Tables of the calls: `solve` beside POT, and all the others."""

from typing import Any


Record = dict[str, Any]
# an answer with a larger marginal error counts for nothing
_USEFUL = 1e-3


def cells(calls: list[Record]) -> list[str]:
    """Return `solve` beside both methods of POT; in brackets the error that each really has."""
    found = {(r["problem"], r["who"]): r for r in calls if r["part"] in ("solve", "pot")}
    if not found:
        return []
    who = ["solve", "POT sinkhorn", "POT sinkhorn_log"]
    lines = ["## `solve` to a tolerance, as called", ""]
    lines += ["Milliseconds, and in brackets the relative L1 marginal error in float64.", ""]
    lines += [
        f"| problem | {' | '.join(who)} | sweeps | times as quick |",
        "|---|---|---|---|---|---|",
    ]
    for problem in dict.fromkeys(problem for problem, _ in found):
        rows = [found.get((problem, w), {}) for w in who]
        said = [problem, *map(_timed, rows), str(rows[0].get("n_iter", "")), _ratio(*rows)]
        lines.append(f"| {' | '.join(said)} |")
    return lines


def others(calls: list[Record]) -> list[str]:
    """Return every call: time, host, device, launches, waits."""
    if not calls:
        return []
    head = [
        "problem", "who", "ms", "host ms", "device ms", "launches", "kernels", "waits", "first s",
        "error",
    ]  # fmt: skip
    lines = ["## Calls as users make them", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in calls:
        if r["status"] != "measured" or r["part"] == "pot":
            continue
        seen = r.get("profile", {})
        said = [
            r["problem"], r["who"], *map(_short, (r["ms"], r["host_ms"], seen.get("device_ms"))),
            *(str(seen.get(k, "")) for k in ("launches", "kernels", "waits")),
            _short(r["first_s"]), _short(r.get("error")) + (" wrong" if "wrong" in r else ""),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(said)} |")
    return lines


def _timed(r: Record) -> str:
    if r.get("status") != "measured":
        return str(r.get("why", "")).replace("|", "/")
    return f"{_short(r['ms'])} ({_short(r.get('error')) or 'not finite'})"


def _ratio(ours: Record, *peers: Record) -> str:
    """Return how many times as long the better peer takes, of those that solve it."""
    good = [r["ms"] for r in peers if "ms" in r and r.get("error", 1.0) < _USEFUL]
    return _short(min(good) / ours["ms"]) if good and "ms" in ours else ""


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.3g}"
