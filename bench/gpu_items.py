"""One item of work at a time: the card's rates, a check, or a row. An item returns a record.

A record is what JSON can hold. Its status is "passed" or "measured", or it says why it is "failed"
or "skipped".
"""

import gc
import math
from contextlib import nullcontext
from dataclasses import asdict
from importlib import util
from typing import Any, NamedTuple

import gpu_card
import torch
from gpu_checks import CHECKS, Check
from gpu_clock import Act, Clock, Times
from gpu_problems import Place, poisoned
from gpu_promises import PROMISES
from gpu_rows import PROBLEMS, Problem, Row


Record = dict[str, Any]
# other sets of inputs would cost more than the cache they keep out
_MOST_SETS = 32


class Item(NamedTuple):
    """What is to be done: "card", "check" k, "promise" k, or "row" k of problem `of`."""

    kind: str
    k: int = 0
    of: int = 0


def everything() -> list[Item]:
    """Return checks, promises and rows in order: what has much to compile comes last."""
    pairs = [(of, k) for of, problem in enumerate(PROBLEMS) for k in range(len(problem.rows))]
    pairs.sort(key=lambda pair: PROBLEMS[pair[0]].rows[pair[1]].late)
    return [
        *(Item("check", k) for k in range(len(CHECKS))),
        *(Item("promise", k) for k in range(len(PROMISES))),
        *(Item("row", k, of) for of, k in pairs),
    ]


def label(item: Item) -> Record:
    """Return how the record of an item begins, whatever becomes of it."""
    if item.kind == "row":
        problem = PROBLEMS[item.of]
        return {"problem": problem.name, "who": problem.rows[item.k].who}
    if item.kind == "card":
        return {}
    check = _check(item)
    return {"kernel": check.kernel, "check": check.name}


def _check(item: Item) -> Check:
    return (CHECKS if item.kind == "check" else PROMISES)[item.k]


class Desk:
    """Does items, and keeps the inputs of the problem at hand."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._rates: dict[str, float] = {}
        self._clock = Clock(place.device, patience=0.5)
        # whether a capture failed half-way, after which the process is better left
        self.spoilt = False
        self._at: Problem | None = None
        self._sets: list[Any] = []
        self._truth: torch.Tensor | None = None

    def know(self, rates: dict[str, float]) -> None:
        """Take the card's rates from another desk."""
        self._rates = rates

    def do(self, item: Item) -> Record:
        """Return the record of an item, which has not failed."""
        if item.kind == "card":
            self._rates = gpu_card.measure(self._place)
            return {**gpu_card.describe(self._place), **self._rates, "status": "measured"}
        if item.kind == "row":
            problem = PROBLEMS[item.of]
            return self._row(problem, problem.rows[item.k])
        self._forget()
        return self._checked(item)

    def _checked(self, item: Item) -> Record:
        check = _check(item)
        if util.find_spec("triton") is None and item.kind == "check":
            return _skipped("triton is not installed")
        if self._place.toy and not check.toy:
            return _skipped("no different from another check at toy sizes")
        # promises allocate in calls that must not wait, where poison would be in the way
        with poisoned() if item.kind == "check" else nullcontext():
            spent = check.run(self._place)
        if self._place.device.type == "cuda":
            # others check beside this process
            torch.cuda.empty_cache()
        return {"status": "passed", "budget_spent": round(spent, 4)}

    def _row(self, problem: Problem, row: Row) -> Record:
        if row.needs and util.find_spec(row.needs) is None:
            return _skipped(f"{row.needs} is not installed")
        if self._place.toy and row.needs not in ("", "triton"):
            return _skipped("needs a GPU")
        if self._at is not problem:
            self._take(problem)
        acts = [row.prepare(self._place, inputs) for inputs in self._sets]
        record: Record = {"status": "measured"}
        answer = acts[0]()
        if row.exact:
            assert isinstance(answer, torch.Tensor)
            assert self._truth is not None
            error = problem.apart(answer, self._truth)
            if not math.isfinite(error):
                raise ValueError("the answer is not finite")
            record["error"] = error
        del answer
        record |= self._timed(row, acts)
        steps = row.steps or problem.steps
        record["called_per_iteration"] = record["called"]["median"] / steps
        record |= self._figures(problem, record["seconds"] / steps)
        if row.note:
            record["note"] = row.note
        return record

    def _timed(self, row: Row, acts: list[Act]) -> Record:
        """Return seconds as called and on the device; the device's count where they are known."""
        called = self._clock.called(acts, row.wall)
        device: Times | None = None
        why = ""
        if not row.wall:
            try:
                device = self._clock.on_device(acts, called)
            except Exception as error:  # noqa: BLE001
                # what cannot be captured is still timed as called
                why, self.spoilt = f"not captured: {_reason(error)}", True
        record: Record = {"seconds": (device or called).median, "called": asdict(called)}
        if device:
            record["device"] = asdict(device)
        return record | ({"capture": why} if why else {})

    def _figures(self, problem: Problem, seconds: float) -> Record:
        """Return the time of an iteration, and how near to the card's rates it comes."""
        inputs, found = self._sets[0], {"seconds_per_iteration": seconds}
        found["ms_per_iteration"] = 1e3 * seconds
        if problem.traffic:
            found["bytes_per_s"] = problem.traffic(inputs) / seconds
        if problem.traffic and self._rates:
            found["share"] = found["bytes_per_s"] / self._rates["copy_bytes_per_s"]
            found["times_least"] = 1 / found["share"]
        if problem.products and self._rates:
            done = problem.products(inputs) / seconds
            found["share_of_matmul"] = done / self._rates["fp16_matmul_per_s"]
        if problem.pairs:
            found["pairs_per_s"] = problem.pairs(inputs) / seconds
        return found

    def _take(self, problem: Problem) -> None:
        self._forget()
        first = problem.make(self._place)
        self._sets, self._at = [first], problem
        size, cache = problem.stored(first), 2 * gpu_card.l2_bytes(self._place)
        # inputs that fit in the cache rotate, so that none is there when its turn comes
        count = min(_MOST_SETS, 1 + cache // size) if size else 1
        self._sets += [problem.make(self._place) for _ in range(count - 1)]
        self._truth = problem.truth(first)

    def _forget(self) -> None:
        if self._at is None:
            return
        self._at, self._truth = None, None
        self._sets.clear()
        gc.collect()
        if self._place.device.type == "cuda":
            torch.cuda.empty_cache()


def _skipped(why: str) -> Record:
    return {"status": "skipped", "why": why}


def failed(error: BaseException) -> Record:
    """Return the record of an item that raised."""
    return {"status": "failed", "why": _reason(error)}


def _reason(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:300]}"
