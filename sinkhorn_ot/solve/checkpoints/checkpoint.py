"""Where and how often a long call keeps where it stands."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sinkhorn_ot.problem import checks, shown
from sinkhorn_ot.sweeps import ALONE, Ranks

from .keeper import FileKeeper


@shown
@dataclass(frozen=True)
class Checkpoint:
    """A file in which a long call keeps where it stands, and from which the same call goes on.

    On a CPU a call that goes on makes the steps that it would have made, to the last bit. The file
    is written beside its name first, so that a process that is killed leaves the last one whole.
    A disk that is full is warned of, once, and what was written before stays.

    Args:
        path: The file; over ranks each has its own, `path` with ".rank-" and its number.
        every: Sweeps between two writes, at least.
        seconds: Seconds between two writes, at least, and so many that writes take no more than a
            twentieth of the time; 0 writes without regard to either.

    Raises:
        ValueError: If a number is not positive, or the folder of the path cannot be written to.
    """

    path: str | os.PathLike[str]
    every: int = 1
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, os.PathLike)) or not os.fspath(self.path):
            raise ValueError(f"path of a checkpoint must be text or a Path, got {self.path!r:.60}")
        checks.count("every", self.every)
        if not checks.number("seconds", self.seconds) >= 0:
            raise ValueError(f"seconds must be zero or more, got {self.seconds!r}")
        folder = Path(self.path).parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ValueError(
                f"path of a checkpoint must be in a folder that can be written to, got {folder}"
            )


def checked(checkpoint: Any) -> Checkpoint | None:
    """Return what a caller gives, a path or more, as a `Checkpoint`."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    if not isinstance(checkpoint, (str, os.PathLike)) or not os.fspath(checkpoint):
        raise ValueError(f"checkpoint must be a path or a Checkpoint, got {checkpoint!r:.60}")
    return Checkpoint(checkpoint)


def opened(
    checkpoint: Checkpoint,
    asked: dict[str, str],
    device: torch.device,
    ranks: Ranks = ALONE,
) -> FileKeeper:
    """Return who keeps a solve there, once what is there has been read.

    Args:
        checkpoint: Where and how often.
        asked: What is asked: its fingerprint.
        device: Where the problem is.
        ranks: Who else solves it.

    Raises:
        ValueError: If what is there is not of this problem, or not as it was written.
    """
    path = Path(checkpoint.path)
    if not ranks.alone:
        path = path.with_name(f"{path.name}.rank-{ranks.rank}")
        asked = asked | {"ranks": str(ranks.world)}
    return FileKeeper(path, asked, checkpoint.every, checkpoint.seconds, device, ranks)
