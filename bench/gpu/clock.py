"""Seconds of a call: as called from Python, and on the device alone."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


Act = Callable[[], object]

# a call that takes longer hides its launches, so that a graph would tell nothing new
_SHORT = 5e-3
# device seconds of one timed replay: long beside the launch of the graph
_REPLAY = 2e-3


@dataclass(frozen=True)
class Times:
    """Seconds of one call.

    Attributes:
        median: Half of the runs took less.
        p20: A fifth of the runs took less.
        p80: Four fifths of the runs took less.
        runs: How many there were.
    """

    median: float
    p20: float
    p80: float
    runs: int


def summary(seconds: Sequence[float]) -> Times:
    """Return the median and the spread."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return Times(
        statistics.median(ordered), ordered[round(0.2 * last)], ordered[round(0.8 * last)],
        len(ordered),
    )  # fmt: skip


@dataclass(frozen=True)
class Clock:
    """A device's clock.

    Attributes:
        device: What runs.
        patience: Seconds to spend on one figure.
        most: Runs after which a figure is good enough.
    """

    device: torch.device
    patience: float = 1.0
    most: int = 100

    def called(self, acts: Sequence[Act], wall: bool = False) -> Times:
        """Time one call at a time, each begun on an idle device, on inputs that rotate.

        Args:
            acts: The same call on several inputs.
            wall: Whether to use the host's clock, for calls that other frameworks launch.
        """
        for act in acts:
            act()
        one = self._host if wall or self.device.type != "cuda" else self._event
        first = one(acts[0])
        if self.device.type != "cuda":
            return summary([first])
        runs = max(5, min(self.most, int(self.patience / max(first, 1e-7))))
        return summary([one(acts[k % len(acts)]) for k in range(runs)])

    def on_device(self, acts: Sequence[Act], called: Times) -> Times | None:
        """Time the device alone, by replays of a graph; None where it would tell nothing new."""
        if self.device.type != "cuda" or called.median > _SHORT:
            return None
        rounds = max(1, round(_REPLAY / max(called.median, 1e-6) / len(acts)))
        graph = _captured([act for _ in range(rounds) for act in acts])
        graph.replay()
        one = self._event(graph.replay)
        runs = max(10, min(self.most, int(self.patience / one)))
        each = rounds * len(acts)
        return summary([self._event(graph.replay) / each for _ in range(runs)])

    def _host(self, act: Act) -> float:
        self._settle()
        start = time.perf_counter()
        act()
        self._settle()
        return time.perf_counter() - start

    def _event(self, act: Act) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._settle()
        start.record()
        act()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _captured(acts: Sequence[Act]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        acts[0]()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for act in acts:
            act()
    return graph
