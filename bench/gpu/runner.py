"""Runs one item: checks what is to be checked, times what is to be timed."""

import gc
import math
import traceback
from contextlib import nullcontext
from dataclasses import asdict
from importlib import util
from typing import Any

import torch

from bench.gpu import card
from bench.gpu.called import timing
from bench.gpu.called.table import CALLS
from bench.gpu.checks.poison import poisoned
from bench.gpu.clock import Act, Clock, Times
from bench.gpu.device import Device
from bench.gpu.items import Item, Record, check_of, row_of
from bench.gpu.timed.table import Problem, Row


# other sets of inputs would cost more than the cache they keep out
_MOST_SETS = 32
# characters of a traceback that are kept
_TRACED = 3000


class Runner:
    """Runs items, and keeps the inputs of the problem at hand."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._rates: dict[str, float] = {}
        self._clock = Clock(device.torch_device, patience=0.2)
        # whether a capture failed half-way, after which the process is better left
        self.spoilt = False
        self._loaded: Problem | None = None
        self._sets: list[Any] = []
        self._truth: torch.Tensor | None = None

    def set_rates(self, rates: dict[str, float]) -> None:
        """Take the card's rates, which another runner measured."""
        self._rates = rates

    def run(self, item: Item) -> Record:
        """Return the record of an item, which has not failed."""
        if item.kind == "card":
            self._rates = card.measure(self._device)
            return {**card.describe(self._device), **self._rates, "status": "measured"}
        if item.kind == "row":
            return self._row(*row_of(item))
        self._drop()
        if item.kind in ("ahead", "call", "profile"):
            return timing.run(item.kind, self._device, CALLS[item.number])
        return self._checked(item)

    def _checked(self, item: Item) -> Record:
        check = check_of(item)
        if util.find_spec("triton") is None and item.kind == "check":
            return _skipped("triton is not installed")
        if self._device.toy and not check.toy:
            return _skipped("no different from another check at toy sizes")
        # promises allocate in calls that must not wait, where poison would be in the way
        with poisoned() if item.kind == "check" else nullcontext():
            spent = check.run(self._device)
        if self._device.is_gpu:
            # others check beside this process
            torch.cuda.empty_cache()
        return {"status": "passed", "budget_spent": round(spent, 4)}

    def _row(self, problem: Problem, row: Row) -> Record:
        if row.needs and util.find_spec(row.needs) is None:
            return _skipped(f"{row.needs} is not installed")
        if self._device.toy and row.needs not in ("", "triton"):
            return _skipped("needs a GPU")
        if self._loaded is not problem:
            self._load(problem)
        acts = [row.prepare(self._device, inputs) for inputs in self._sets]
        record: Record = {"status": "measured"}
        answer = acts[0]()
        if row.exact:
            assert isinstance(answer, torch.Tensor)
            assert self._truth is not None
            error = problem.distance(answer, self._truth)
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
        alone: Times | None = None
        why = ""
        if not row.wall:
            try:
                alone = self._clock.on_device(acts, called)
            except Exception as error:  # noqa: BLE001
                # what cannot be captured is still timed as called
                why, self.spoilt = f"not captured: {_reason(error)}", True
        record: Record = {"seconds": (alone or called).median, "called": asdict(called)}
        if alone:
            record["device"] = asdict(alone)
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

    def _load(self, problem: Problem) -> None:
        self._drop()
        first = problem.make(self._device)
        self._sets, self._loaded = [first], problem
        size, cache = problem.stored(first), 2 * card.l2_bytes(self._device)
        # inputs that fit in the cache rotate, so that none is there when its turn comes
        count = min(_MOST_SETS, 1 + cache // size) if size else 1
        self._sets += [problem.make(self._device) for _ in range(count - 1)]
        self._truth = problem.truth(first)

    def _drop(self) -> None:
        if self._loaded is None:
            return
        self._loaded, self._truth = None, None
        self._sets.clear()
        gc.collect()
        if self._device.is_gpu:
            torch.cuda.empty_cache()


def _skipped(why: str) -> Record:
    return {"status": "skipped", "why": why}


def failed(error: BaseException) -> Record:
    """Return the record of an item that raised."""
    told = traceback.format_exception(error)
    return {"status": "failed", "why": _reason(error), "traceback": "".join(told)[-_TRACED:]}


def _reason(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:300]}"
