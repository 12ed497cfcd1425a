"""Reading one item ahead, in a thread of its own, while the one before is worked on."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch


T = TypeVar("T")

# what comes after the last item
_DONE = object()


def ahead(items: Iterator[T], worth: Callable[[T], bool] = lambda _: True) -> Iterator[T]:
    """Yield the same items, the next of which is read meanwhile.

    What reading raises is raised where the item would have come. Whoever stops early waits for the
    item that is being read, and no thread is left.

    Args:
        items: What is read; it is asked by one thread at a time.
        worth: Says of the first item whether the others are to be read so.
    """
    item: Any = next(items, _DONE)
    if item is _DONE:
        return
    if not worth(item):
        yield item
        yield from items
        return
    reader = _Reader(items)
    reader.start()
    try:
        while item is not _DONE:
            yield item
            item = reader.take()
    finally:
        reader.end()


class _Reader(threading.Thread):
    """Reads an item once the one before has been taken."""

    def __init__(self, items: Iterator[Any]) -> None:
        super().__init__(name="sinkhorn_ot reads ahead", daemon=True)
        self._items, self._ended = items, threading.Event()
        self._read: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._room = threading.Semaphore(1)
        # a thread begins with modes of its own
        self._grad = torch.is_grad_enabled()

    def run(self) -> None:
        """Read until there is no more, or nobody asks for more."""
        with torch.set_grad_enabled(self._grad):
            while self._room.acquire() and not self._ended.is_set():
                try:
                    self._read.put((next(self._items, _DONE), None))
                except BaseException as error:  # noqa: BLE001
                    self._read.put((_DONE, error))
                    return

    def take(self) -> Any:
        """Return the next item, and let the one after it be read."""
        item, failure = self._read.get()
        if failure is not None:
            raise failure
        if item is not _DONE:
            self._room.release()
        return item

    def end(self) -> None:
        """Wait for what is being read."""
        self._ended.set()
        self._room.release()
        self.join()
