"""What calls on a card are expected to take where it was not measured, or before it changed since.

An H200 showed: the host takes 11 us for a launch of a router and 26 for one of a sweep; a read of
49 MB takes 12 us, and a sweep of whole problems about 10 for what is not its reads. Bytes,
exponentials and launches are counted; the rest is arithmetic. A run on a card replaces a line here.
"""

from typing import NamedTuple

from cards import Record, by_name, cards, milliseconds, number
from style import table


class Prediction(NamedTuple):
    """Milliseconds as called unless `device`, and what they follow from."""

    problem: str
    who: str
    ms: float
    why: str
    device: bool = False


EXPECTED = (
    Prediction(
        "swav 4096x3000", "swav_codes", 0.085,
        "first sums take one exponential an entry, not two (3 µs); the next rows are ahead in the "
        "first and the last step (10); one wait for all programs' sums, not three (4); potentials "
        "read once a step from the shared cache, not once a block (5)", device=True,
    ),
    Prediction("swav 4096x3000", "swav_codes", 0.175, "the same"),
    Prediction("solve clouds 4096x64 d=64, 5 sweeps", "solve", 1.4, "52 launches, not 105"),
    Prediction("moe_router 8192x64 to 1e-4", "moe_router", 0.15, "2 launches, not 92"),
    Prediction("moe_router 8192x64, 10 iterations", "moe_router", 0.25,
               "2 launches, not 279; 11 µs an iteration on the device"),
    Prediction("float64 10000x10000 reg 0.001 to 1e-06", "solve", 20.0,
               "half the bytes from the shared cache: 8 an entry, not 16"),
    Prediction("solve 4096x3000 fp32 relaxed to 1e-5", "solve", 2.5,
               "6 launches a sweep from the host, and 49 besides"),
    Prediction("a sweep of 100000x100000 points in 2-D, reg 1e-4", "solve", 0.5,
               "2.5 % of the pairs, not all of them in 10.8 ms", device=True),
    Prediction("a sweep of 1000000x1000000 points in 3-D, reg 1e-3", "solve", 75.0,
               "4.8 % of the pairs, not all of them in 1340 ms", device=True),
    Prediction("solve 8 of 1000x3000 fp32 with holes, 10 sweeps", "solve", 0.8,
               "20 launches; 96 MB a sweep at half of copy bandwidth"),
)  # fmt: skip

# calls that the first run led to, and who else makes them
CALLS = {
    ("solve 4096x3000 fp32, 10 sweeps", "solve"): ("PyTorch eager", "PyTorch compiled"),
    ("solve clouds 4096x64 d=64, 5 sweeps", "solve"): ("PyTorch eager, cost in blocks",),
    ("swav 4096x3000", "swav_codes"): ("SwAV's loop", "SwAV's loop, compiled"),
    ("swav 64x131072", "swav_codes"): ("SwAV's loop", "SwAV's loop, compiled"),
    ("sela_labels 1281167x3000 fp16 to 1e-6", "sela_labels"): (),
}


def tables() -> None:
    """Write both tables."""
    _expected()
    _twice()


def _newest() -> Record:
    return list(cards().values())[-1]


def _expected() -> None:
    found, rows = by_name(_newest()), []
    for p in EXPECTED:
        r = found.get((p.problem, p.who), {})
        was = number(r.get("profile", {}).get("device_ms")) if p.device else milliseconds(r)
        what = f"{p.problem} / {p.who}" + (", on the device" if p.device else "")
        rows.append([what, was or "not measured", number(p.ms), p.why])
    table("gpu_expected", ["call", "H200, ms", "predicted now, ms", "why"], rows)


def _twice() -> None:
    """Write what users call beside the best of what else they might, in every run."""
    runs, rows = cards(), []
    expected = {(p.problem, p.who): p.ms for p in EXPECTED if not p.device}
    for key, others in CALLS.items():
        best = {}
        for run in runs.values():
            found = by_name(run)
            best |= {
                w: found[key[0], w]["ms"] for w in others if "ms" in found.get((key[0], w), {})
            }
        best |= _elsewhere(key[0], runs)
        peer = min(best, key=lambda who: best[who]) if best else ""
        ours = [milliseconds(by_name(run).get(key, {})) for run in runs.values()]
        told = f"{number(best[peer])}, {peer}" if peer else ""
        rows.append([" / ".join(key), *ours, number(expected.get(key)), told])
    header = ["call", *(f"{name}: ms" for name in runs), "predicted now", "best of others, ms"]
    table("gpu_twice", header, rows)


def _elsewhere(problem: str, runs: dict[str, Record]) -> dict[str, float]:
    """Return who was timed on the same problem as a kernel: milliseconds of all its iterations."""
    same = {
        "solve clouds 4096x64 d=64, 5 sweeps": (
            "points 4096x64 d=64", "FlashSinkhorn, alternating, fp32", 5,
            "FlashSinkhorn on the device",
        ),
        "sela_labels 1281167x3000 fp16 to 1e-6": (
            "SeLa 1281167x3000 fp16", "SeLa's loop, float64", 8, "SeLa's loop, 8 iterations",
        ),
    }  # fmt: skip
    if problem not in same:
        return {}
    name, who, times, told = same[problem]
    each = [by_name(run, "rows").get((name, who), {}) for run in runs.values()]
    took = [times * r["ms_per_iteration"] for r in each if "ms_per_iteration" in r]
    return {told: took[-1]} if took else {}
