"""Who keeps where a solve stands: its runs, one after the other, and what came of them, in a file.

Over ranks each has a file of its own. They write together, and keep what they wrote before beside
it: who is stopped between two writes may have fewer than the others.
"""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.results import Solution, Status
from sinkhorn_ot.solvers import Memory, taken, told
from sinkhorn_ot.sweeps import ALONE, Ranks

from . import file


# how many times as long as a write takes is waited for the next one
_SELDOM = 20
_BEFORE = ".before"
_DEVICE = torch.device("cpu")


class FileKeeper:
    """Keeps a solve in a file, and knows what one before it kept there."""

    def __init__(  # noqa: PLR0913
        self,
        path: Path,
        fingerprint: dict[str, str],
        every: int,
        seconds: float,
        device: torch.device = _DEVICE,
        ranks: Ranks = ALONE,
    ) -> None:
        """Read what was kept.

        Args:
            path: The file of this rank.
            fingerprint: What is asked.
            every: Sweeps between two writes, at least.
            seconds: Seconds between two writes, at least.
            device: Where the problem is.
            ranks: Who else solves it.

        Raises:
            ValueError: If the file is not of this problem, or not as it was written.
        """
        self._path, self._before = path, path.with_name(path.name + _BEFORE)
        self._fingerprint, self._every, self._seconds = fingerprint, every, seconds
        self._device, self._ranks = device, ranks
        held = ranks.agree(self._read)
        kept = held.get(self._common(sorted(held)), {})
        self._serial: int = kept.get("serial", 0)
        self._runs: list[dict[str, Any]] = kept.get("runs", [])
        self._answer: Memory = kept.get("answer")
        # the run and its limits; sweeps since the last write, when that was and what it took
        self._run, self._sweeps, self._took = -1, 0, 0.0
        self._limits: list[float] = []
        self._last, self._failed = time.monotonic(), False

    def _read(self) -> dict[int, dict[str, Any]]:
        """Return what this rank wrote last and before, by its number."""
        held = {}
        for path in (self._before, self._path):
            if path is self._before and self._ranks.alone:
                continue
            kept = file.opened(path, self._device)
            if kept is not None:
                self._require_same(path, kept["fingerprint"])
                held[kept["serial"]] = kept
        return held

    def _common(self, held: list[int]) -> int:
        """Return the last write that all ranks have made; 0 if there is none."""
        _, said = self._ranks.everywhere(lambda: held, lambda it: it)
        common = set(said[0]).intersection(*said[1:])
        # who was stopped before all had written once has lost nothing else
        if not common and max((max(one, default=0) for one in said), default=0) > 1:
            raise ValueError(
                f"checkpoint {self._path} must be of the same sweep on every rank of the group, "
                f"got writes {said}: remove the files to begin anew, or name another path"
            )
        return max(common, default=0)

    def _require_same(self, path: Path, before: dict[str, str]) -> None:
        now = self._fingerprint
        for name in now | before:
            if (here := now.get(name)) != (there := before.get(name)):
                raise ValueError(
                    f"checkpoint {path} is of another problem, whose {name} was {there} and is "
                    f"{here}: remove it to begin anew, or name another path"
                )

    def begin(self, *limits: float) -> tuple[Solution | None, Memory]:
        """Begin the next run: return how it ended within these limits, or where it stood."""
        self._run, self._limits = self._run + 1, list(limits)
        if self._run == len(self._runs):
            self._runs.append({"memory": None, "found": None, "limits": []})
        run = self._runs[self._run]
        if run["limits"] == self._limits:
            return taken(run["found"]), None
        # what followed within other limits may be another way
        del self._runs[self._run + 1 :]
        run["found"], run["limits"], memory = None, [], run["memory"]
        return None, None if memory is None else file.unpacked(_bytes(memory), self._device)

    def keep(self, n_iter: int, tell: Callable[[], Memory], now: bool) -> None:
        """Keep where a run stands, `now` or if it is time; on all ranks, if it is on one."""
        self._sweeps += 1
        pause = max(self._seconds, _SELDOM * self._took) if self._seconds else 0.0
        late = time.monotonic() - self._last >= pause
        due = now or (late and self._sweeps >= self._every)
        if self._ranks.total(int(due)):
            # as bytes: what is told goes on changing
            self._runs[self._run]["memory"] = _tensor(file.packed(tell()))
            self._write()

    def end(self, found: Solution) -> None:
        """Keep how the run ended, unless somebody stopped it."""
        if Status.STOPPED not in found.status:
            run = self._runs[self._run]
            run["found"], run["limits"] = told(found), self._limits

    def answer(self, *limits: float) -> tuple[Solution, str] | None:
        """Return how the solve ended within these limits, and its method; None if it has not."""
        kept = self._answer
        if kept is None or kept["limits"] != list(limits):
            return None
        return taken(kept["found"]), kept["name"]

    def finish(self, found: Solution, name: str, *limits: float) -> None:
        """Keep how the solve ended, unless somebody stopped it."""
        if Status.STOPPED not in found.status:
            self._answer = {"found": told(found), "name": name, "limits": list(limits)}
            self._write()

    def _write(self) -> None:
        """Write all there is; warn where it cannot be, once: the solve is worth more."""
        start, names = time.monotonic(), ("serial", "runs", "answer")
        kept = {name: getattr(self, f"_{name}") for name in names} | {"serial": self._serial + 1}
        data, beside = file.sealed(kept | {"fingerprint": self._fingerprint}), None
        try:
            beside = file.written(self._path, lambda to: to.write(data))
        except OSError as error:
            self._warn(error)
        # none gives its file the name unless all can
        if self._ranks.total(int(beside is None)) == 0:
            assert beside is not None
            if not self._ranks.alone and self._path.exists():
                self._path.replace(self._before)
            file.replaced(beside, self._path)
            self._serial += 1
        self._last = time.monotonic()
        self._sweeps, self._took = 0, self._last - start

    def _warn(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            warnings.warn(
                f"checkpoint {self._path} could not be written ({error.strerror or error}); the "
                "solve goes on, and what was written before is there still",
                RuntimeWarning,
                stacklevel=2,
            )


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _bytes(data: Tensor) -> bytes:
    return data.cpu().numpy().tobytes()
