"""The processes that share one problem: what they add up, and how they fail together."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor


T = TypeVar("T")

# what the ranks of a group agreed on at their last comparison on an accelerator
_AGREED: weakref.WeakKeyDictionary[Any, Mapping[str, object]] = weakref.WeakKeyDictionary()


class Ranks:
    """The processes of a group, each with samples of its own; without a group, this one alone.

    Every rank has to make the same calls in the same order. What a rank decides it decides from
    reduced numbers, which are the same everywhere.
    """

    def __init__(self, group: Any = None) -> None:
        """Take a process group of torch.distributed that this process is in, or None."""
        self._group, self.alone = group, group is None
        if self.alone:
            return
        if not dist.is_available() or not isinstance(group, dist.ProcessGroup):
            raise ValueError(
                "group must be a torch.distributed process group that this process is in, e.g. "
                f"torch.distributed.group.WORLD after init_process_group, got {group!r}"
            )

    def max(self, x: Tensor) -> Tensor:
        """Return the largest of each number over the ranks; `x` is used up."""
        return self._reduce(x, "MAX")

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of each number over the ranks; `x` is used up."""
        return self._reduce(x, "SUM")

    def total(self, x: int) -> int:
        """Return the sum of a whole number over the ranks."""
        return x if self.alone else int(self.sum(torch.tensor([x], device=self._device)))

    def shares(self, x: Tensor) -> Tensor:
        """Return the number x () of every rank, (ranks,)."""
        if self.alone:
            return x[None]
        every = x.new_zeros(dist.get_world_size(self._group))
        every[self.rank] = x
        return self.sum(every)

    @property
    def rank(self) -> int:
        """The place of this process in the group."""
        return 0 if self.alone else dist.get_rank(self._group)

    @property
    def _device(self) -> str:
        return "cuda" if dist.get_backend(self._group) == "nccl" else "cpu"

    def _reduce(self, x: Tensor, how: str) -> Tensor:
        if not self.alone:
            x = x.contiguous()
            _untraced(self._all_reduce, x, how)
        return x

    def _all_reduce(self, x: Tensor, how: str) -> None:
        with _reaching():
            dist.all_reduce(x, op=getattr(dist.ReduceOp, how), group=self._group)

    def agree(
        self, check: Callable[[], T], terms: Callable[[T], dict[str, object]] = lambda _: {}
    ) -> T:
        """Return what `check` returns, once every rank's has passed and its terms are the same.

        One small message per rank. On an accelerator, where reading it would wait for the device,
        ranks are compared at the first call and when this rank's terms change.

        Raises:
            ValueError: On every rank, if `check` raised it on some rank, or terms differ.
        """
        if self.alone:
            return check()
        agreed: T = _untraced(self._agreed, check, terms)
        return agreed

    def _agreed(self, check: Callable[[], T], terms: Callable[[T], dict[str, object]]) -> T:
        try:
            value = check()
        except ValueError as error:
            if self._group not in _AGREED:
                self._compare({}, error)
            raise
        said = terms(value)
        if _AGREED.get(self._group) != said:
            self._compare(said)
        if said.get("device", "cpu") != "cpu":
            _AGREED[self._group] = said
        return value

    def _compare(self, said: dict[str, object], failure: ValueError | None = None) -> None:
        """Raise on every rank if one has failed, or says something else."""
        reports: list[Any] = [None] * dist.get_world_size(self._group)
        with _reaching():
            mine = None if failure is None else str(failure)
            dist.all_gather_object(reports, (mine, said), group=self._group)
        for rank, (message, _) in enumerate(reports):
            if message is not None:
                raise ValueError(f"{message}, on rank {rank} of the group") from failure
        first = reports[0][1]
        for rank, (_, other) in enumerate(reports):
            for name, value in other.items():
                if value != first[name]:
                    raise ValueError(
                        f"{name} must be the same on every rank of the group, got {first[name]} "
                        f"on rank 0 and {value} on rank {rank}"
                    )


def _untraced(act: Callable[..., Any], *args: Any) -> Any:
    """Call what exchanges something, which `torch.compile` is not to look into."""
    # asked for only there: it imports the compiler
    if torch.compiler.is_compiling():
        act = torch.compiler.disable(act)  # type: ignore[no-untyped-call]
    return act(*args)


@contextmanager
def _reaching() -> Iterator[None]:
    """Say what a failed collective means."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            "a rank of the group cannot be reached: it stopped, it is not making this call, or it "
            f"needs longer than the timeout of the group ({str(error).splitlines()[0][:200]})"
        ) from error


ALONE = Ranks()
