"""Solves random problems as users have them, and checks every claim by an oracle of its own.

A case is a number: it names a family and draws everything else. What is called converged must be,
by sums in NumPy; values and bounds must be those of the definitions; what is refused must break a
rule; what is called infeasible must have no plan, by a linear program; labels must be the best, by
an assignment; nothing may change what it was given, hang, or end as another error than ours. Fails
if something is wrong. What plain Sinkhorn solves and the package does not is told, and no failure.
"""

import argparse
import time
import traceback
from collections import Counter

import numpy as np
import torch

from bench.cpu.fuzz.families import FAMILIES
from bench.cpu.fuzz.verdict import CAP, OUTCOMES, SLOW, Hangs, Verdict, watched


def case(seed: int, family: str | None = None) -> tuple[str, Verdict]:
    """Run one case, as a rule of the family that it draws; return that and what came of it."""
    rng = np.random.default_rng(seed)
    drawn = list(FAMILIES)[int(rng.integers(len(FAMILIES)))]
    family = family or drawn
    start = time.process_time()
    try:
        with watched(CAP):
            verdict = FAMILIES[family](rng)
    except Hangs:
        return family, Verdict("slow", f"a call that took more than {CAP:g} s")
    except Exception:  # noqa: BLE001
        # what a result computes when asked, or the fuzzer itself
        return family, Verdict("wrong", "ended in", traceback.format_exc().splitlines())
    took = time.process_time() - start
    if took > SLOW:
        verdict.at_least("slow")
        verdict.told += f" took {took:.1f} s"
    return family, verdict


def tell(seed: int, family: str, verdict: Verdict) -> None:
    """Print a case that is not as it should be."""
    print(f"seed {seed:<8d} {verdict.outcome:9s} {family:10s} {verdict.told}")
    for fault in verdict.faults:
        print(f"{'':14s}{fault}")


def table(found: dict[str, Counter[str]]) -> str:
    """Return how many cases of each family came to what."""
    lines = [f"{'':12s}{'cases':>10s}" + "".join(f"{name:>10s}" for name in OUTCOMES)]
    whole: Counter[str] = sum(found.values(), Counter())
    for family, counts in {**found, "all": whole}.items():
        numbers = [counts.total(), *(counts[name] for name in OUTCOMES)]
        lines.append(f"{family:12s}" + "".join(f"{x:10d}" for x in numbers))
    return "\n".join(lines)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--cases", type=int, help="so many instead, however long they take")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--one", type=int, metavar="SEED", help="run this case and tell all")
    parser.add_argument("--quiet", action="store_true", help="print only what is wrong or slow")


def main(options: argparse.Namespace) -> int:
    """Print what is not as it should be, and a table; return 1 if something is wrong."""
    torch.set_num_threads(1)
    if options.one is not None:
        family, verdict = case(options.one)
        tell(options.one, family, verdict)
        return int(verdict.outcome == "wrong")
    found: dict[str, Counter[str]] = {family: Counter() for family in FAMILIES}
    end, seed = time.monotonic() + 60 * options.minutes, options.seed
    while seed < options.seed + options.cases if options.cases else time.monotonic() < end:
        family, verdict = case(seed)
        found[family][verdict.outcome] += 1
        if verdict.outcome in (OUTCOMES[-2:] if options.quiet else OUTCOMES[-3:]):
            tell(seed, family, verdict)
        seed += 1
    print(table(found))
    wrong = sum(counts["wrong"] for counts in found.values())
    print(f"seeds {options.seed} to {seed - 1}: {wrong} wrong")
    return int(wrong > 0)
