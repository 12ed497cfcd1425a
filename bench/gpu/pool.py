"""Items in a child process: one that crashes, hangs or spoils the device costs only itself."""

import multiprocessing as mp
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from bench.gpu.items import Item, Record
from bench.gpu.runner import Runner, failed


# how the word of an item that was given up begins
UNANSWERED = "no answer in"
# seconds that a child may take to start
_START = 60.0


@dataclass(frozen=True)
class Settings:
    """What a child is started with.

    Attributes:
        toy: Whether to run on the CPU at toy sizes.
        seed: Of all random numbers.
    """

    toy: bool
    seed: int


class Worker:
    """Runs one item after another in a child, and starts a new child after one that was lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rates: dict[str, float] = {}
        self._child: Any = None
        self._pipe: Connection | None = None

    def run(self, item: Item, timeout: float) -> Record:
        """Return the record of an item; "failed" if it takes more than `timeout` seconds."""
        start = time.monotonic()
        try:
            pipe = self._connect()
            pipe.send(item)
            if pipe.poll(timeout):
                record, healthy = pipe.recv()
            else:
                record, healthy = _lost(f"{UNANSWERED} {timeout:.0f} s"), False
        except (EOFError, OSError):
            record, healthy = _lost("the process died"), False
        if not healthy:
            self.close()
        if item.kind == "card":
            self._rates = {k: v for k, v in record.items() if k.endswith("_per_s")}
        return record | {"took_s": round(time.monotonic() - start, 2)}

    def close(self, timeout: float = 0.0) -> None:
        """End the child, which has `timeout` seconds to end by itself."""
        if self._child is not None:
            assert self._pipe is not None
            self._pipe.close()
            self._child.join(timeout)
            self._child.kill()
            self._child.join()
        self._child = self._pipe = None

    def _connect(self) -> Connection:
        if self._pipe is None:
            # a fork would inherit a device's state
            context = mp.get_context("spawn")
            self._pipe, far_end = context.Pipe()
            self._child = context.Process(
                target=_serve, args=(far_end, self._settings, self._rates), daemon=True
            )
            self._child.start()
            far_end.close()
            # its start is not the item's: imports, and the device's state
            if self._pipe.poll(_START):
                self._pipe.recv()
        return self._pipe


class WorkerPool:
    """Several workers beside each other, for items that are not timed: most of it is compilation.

    Args:
        settings: What children are started with.
        size: How many there are.
    """

    def __init__(self, settings: Settings, size: int) -> None:
        self._free: SimpleQueue[Worker] = SimpleQueue()
        self._all = [Worker(settings) for _ in range(size)]
        for worker in self._all:
            self._free.put(worker)

    def map(
        self, items: list[Item], act: Callable[[Worker, Item], Record]
    ) -> Iterator[tuple[Item, Record]]:
        """Yield items and their records as they are done."""
        with ThreadPoolExecutor(len(self._all)) as pool:
            asked = {pool.submit(self._one, act, item): item for item in items}
            for done in as_completed(asked):
                yield asked[done], done.result()
        for worker in self._all:
            worker.close(timeout=10)

    def _one(self, act: Callable[[Worker, Item], Record], item: Item) -> Record:
        worker = self._free.get()
        try:
            return act(worker, item)
        finally:
            self._free.put(worker)


def _lost(why: str) -> Record:
    return {"status": "failed", "why": why}


def _serve(pipe: Connection, settings: Settings, rates: dict[str, float]) -> None:
    """Answer items until the pipe is closed or the device is spoilt."""
    import numpy as np
    import torch

    from bench.gpu.device import Device

    if settings.toy:
        # the interpreter takes log2(0) and 0 / 0 by NumPy, which would warn
        np.seterr(all="ignore")
        torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    device = torch.device("cpu" if settings.toy else "cuda")
    seeded = torch.Generator(device).manual_seed(settings.seed)
    runner = Runner(Device(device, settings.toy, seeded))
    runner.set_rates(rates)
    healthy = _healthy(device.type)
    pipe.send("ready")
    while healthy:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            record = runner.run(item)
        except Exception as error:  # noqa: BLE001
            record = failed(error)
        healthy = _healthy(device.type) and not runner.spoilt
        pipe.send((record, healthy))


def _healthy(device: str) -> bool:
    """Say whether the device still works: an illegal access spoils it for its process."""
    import torch

    if device != "cuda":
        return True
    try:
        torch.cuda.synchronize()
    except Exception:  # noqa: BLE001
        return False
    return True
