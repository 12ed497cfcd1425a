"""Items in a child process: one that crashes, hangs or spoils the device costs only itself."""

import multiprocessing as mp
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from gpu_items import Desk, Item, Record, failed


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
    """Does one item after another in a child, and starts a new child after one that was lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rates: dict[str, float] = {}
        self._child: Any = None
        self._line: Connection | None = None

    def do(self, item: Item, patience: float) -> Record:
        """Return the record of an item; "failed" if it takes more than `patience` seconds."""
        line = self._connect()
        start = time.monotonic()
        line.send(item)
        try:
            if line.poll(patience):
                record, healthy = line.recv()
            else:
                record, healthy = _lost(f"no answer in {patience:.0f} s"), False
        except (EOFError, OSError):
            record, healthy = _lost("the process died"), False
        if not healthy:
            self.close()
        if item.kind == "card":
            self._rates = {k: v for k, v in record.items() if k.endswith("_per_s")}
        return record | {"took_s": round(time.monotonic() - start, 2)}

    def close(self, patience: float = 0.0) -> None:
        """End the child, which has `patience` seconds to end by itself."""
        if self._child is not None:
            assert self._line is not None
            self._line.close()
            self._child.join(patience)
            self._child.kill()
            self._child.join()
        self._child = self._line = None

    def _connect(self) -> Connection:
        if self._line is None:
            # a fork would inherit a device's state
            context = mp.get_context("spawn")
            self._line, far = context.Pipe()
            self._child = context.Process(
                target=_serve, args=(far, self._settings, self._rates), daemon=True
            )
            self._child.start()
            far.close()
        return self._line


class Crew:
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

    def each(self, items: list[Item], do: Callable[[Worker, Item], Record]) -> Iterator[Record]:
        """Yield the records of items in their order."""
        with ThreadPoolExecutor(len(self._all)) as pool:
            yield from pool.map(partial(self._one, do), items)
        for worker in self._all:
            worker.close(patience=10)

    def _one(self, do: Callable[[Worker, Item], Record], item: Item) -> Record:
        worker = self._free.get()
        try:
            return do(worker, item)
        finally:
            self._free.put(worker)


def _lost(why: str) -> Record:
    return {"status": "failed", "why": why}


def _serve(line: Connection, settings: Settings, rates: dict[str, float]) -> None:
    """Answer items until the line is closed or the device is spoilt."""
    import numpy as np
    import torch
    from gpu_problems import Place

    if settings.toy:
        # the interpreter takes log2(0) and 0 / 0 by NumPy, which would warn
        np.seterr(all="ignore")
        torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    device = torch.device("cpu" if settings.toy else "cuda")
    seeded = torch.Generator(device).manual_seed(settings.seed)
    desk = Desk(Place(device, settings.toy, seeded))
    desk.know(rates)
    healthy = True
    while healthy:
        try:
            item = line.recv()
        except EOFError:
            return
        try:
            record = desk.do(item)
        except Exception as error:  # noqa: BLE001
            record = failed(error)
        healthy = _healthy(device.type) and not desk.spoilt
        line.send((record, healthy))


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
