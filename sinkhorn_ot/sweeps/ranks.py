"""The processes that share one problem: what they add up, and how they fail together.

Nothing else knows torch.distributed. Every rank has to make the same calls in the same order, and
what a rank decides it decides from reduced numbers, which are the same everywhere.
"""

import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import TypeAliasType


T = TypeVar("T")
Terms = Mapping[str, object]
# a name, for torch may be built without
ProcessGroup = TypeAliasType("ProcessGroup", "dist.ProcessGroup")

# what the ranks of a group agreed on at their last lasting agreement on an accelerator
_AGREED: weakref.WeakKeyDictionary[Any, Terms] = weakref.WeakKeyDictionary()


class Ranks:
    """The processes of a group, each with samples of its own; without a group, this one alone."""

    def __init__(self, group: ProcessGroup | None = None) -> None:
        """Take a process group of torch.distributed that this process is in, or None."""
        self.group, self.alone = group, group is None
        self._failure: Exception | None = None
        if self.alone:
            return
        if not dist.is_available() or not isinstance(group, dist.ProcessGroup):
            raise ValueError(
                "group must be a torch.distributed process group that this process is in, e.g. "
                f"torch.distributed.group.WORLD after init_process_group, got {group!r}"
            )

    def __deepcopy__(self, memo: object) -> "Ranks":
        # who holds the other rows is no part of what is copied
        return self

    def __reduce__(self) -> tuple[type["Ranks"], tuple[()]]:
        if self.alone:
            return Ranks, ()
        raise ValueError(
            "a result over a group cannot be pickled, for its process group lives in this process: "
            "keep its numbers, such as f, g and value"
        )

    def max(self, x: Tensor) -> Tensor:
        """Return the largest of each number over the ranks."""
        return self._reduce(x, "MAX")

    def min(self, x: Tensor) -> Tensor:
        """Return the least of each number over the ranks."""
        return self._reduce(x, "MIN")

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of each number over the ranks."""
        return self._reduce(x, "SUM")

    def total(self, x: int) -> int:
        """Return the sum of a whole number over the ranks."""
        return x if self.alone else int(self.sum(torch.tensor([x], device=self._device)))

    def shares(self, x: Tensor) -> Tensor:
        """Return x of every rank, of one shape on all, (ranks, ...)."""
        if self.alone:
            return x[None]
        every = x.new_zeros(dist.get_world_size(self.group), *x.shape)
        every[self.rank] = x
        return self.sum(every)

    def told(self, x: T) -> list[T]:
        """Return what every rank has, in their order; it must pickle."""
        return self.everywhere(lambda: x, lambda told: told)[1]

    def attempt(self, act: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Return what `act` does, or NaN where it raises: a reduction that all make goes on.

        What it raised is kept, until all settle it or act everywhere.
        """
        try:
            return act()
        except Exception as error:  # noqa: BLE001
            self._failure = error
            return torch.full_like(like, math.nan, memory_format=torch.contiguous_format)

    def settle(self) -> None:
        """Raise on every rank what an attempt raised on one; all call it, as where sums are NaN."""
        self.everywhere(lambda: None, lambda _: None)

    @property
    def rank(self) -> int:
        """The place of this process in the group."""
        return 0 if self.alone else dist.get_rank(self.group)

    @property
    def world(self) -> int:
        """How many processes there are."""
        return 1 if self.alone else dist.get_world_size(self.group)

    def any_of(self, act: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
        """Return a callback that is true on all ranks where it is on one, and raises where one."""
        if self.alone or act is None:
            return act

        def asked(told: Any) -> bool:
            stop, failure = False, None
            try:
                stop = bool(act(told))
            except Exception as error:  # noqa: BLE001
                failure = error
            votes = self.sum(torch.tensor([stop, failure is not None], device=self._device).int())
            if int(votes[1]):
                self._exchange(None, failure)
            return int(votes[0]) > 0

        return asked

    def everywhere(self, act: Callable[[], T], tell: Callable[[T], Any]) -> tuple[T, list[Any]]:
        """Act on every rank; what one raises, all raise.

        Args:
            act: What to do.
            tell: What the other ranks are told of its result; it must pickle.

        Returns:
            This rank's result, and what all ranks told, in their order.

        Raises:
            ValueError: On every rank, if some rank raised one.
            RuntimeError: On every rank, if some rank raised another error.
        """
        if self.alone:
            own = act()
            return own, [tell(own)]
        found: tuple[T, list[Any]] = _untraced(self._everywhere, act, tell)
        return found

    def agree(
        self,
        check: Callable[[], T],
        terms: Callable[[T], Terms] = lambda _: {},
        *,
        lasting: bool = False,
    ) -> T:
        """Return what `check` returns, once every rank's has passed and its terms are the same.

        Args:
            check: What to do.
            terms: What must be the same on every rank, by name.
            lasting: For calls that never wait for an accelerator, where reading a message would:
                there ranks are compared at the first call and when this rank's terms, among which
                is the "device", have changed.

        Raises:
            ValueError: On every rank, if `check` failed on some rank, or terms differ.
        """
        if self.alone:
            return check()
        if lasting:
            agreed: T = _untraced(self._agree_lastingly, check, terms)
            return agreed
        value, said = self.everywhere(check, terms)
        same(said)
        return value

    def _everywhere(self, act: Callable[[], T], tell: Callable[[T], Any]) -> tuple[T, list[Any]]:
        try:
            if self._failure is not None:
                raise self._failure
            own = act()
            told = tell(own)
        except Exception as error:  # noqa: BLE001
            self._failure = None
            self._exchange(None, error)
            raise
        return own, self._exchange(told)

    def _agree_lastingly(self, check: Callable[[], T], terms: Callable[[T], Terms]) -> T:
        before = _AGREED.get(self.group)
        try:
            value = check()
            said = terms(value)
        except Exception as error:  # noqa: BLE001
            # the others wait for no message where they have agreed before
            if before is None:
                self._exchange(None, error)
            raise
        if said != before:
            same(self._exchange(said))
        if said["device"] != "cpu":
            _AGREED[self.group] = said
        return value

    def _exchange(self, told: Any, failure: Exception | None = None) -> list[Any]:
        """Return what all ranks tell; raise on all of them if one has failed."""
        said: list[Any] = [None] * dist.get_world_size(self.group)
        with _reaching():
            wrong = None if failure is None else _described(failure)
            dist.all_gather_object(said, (wrong, told), group=self.group)
        for rank, (wrong, _) in enumerate(said):
            if wrong is not None:
                kind, text = wrong
                raise kind(f"{text}, on rank {rank} of the group") from failure
        return [told for _, told in said]

    @property
    def _device(self) -> str:
        return "cuda" if dist.get_backend(self.group) == "nccl" else "cpu"

    def _reduce(self, x: Tensor, how: str) -> Tensor:
        if self.alone:
            return x
        # what is reduced on an accelerator alone goes there and back
        there = self._device if x.device.type == "cpu" else x.device
        out = x.to(there, copy=True, memory_format=torch.contiguous_format)
        _untraced(self._all_reduce, out, how)
        return out.to(x.device)

    def _all_reduce(self, x: Tensor, how: str) -> None:
        with _reaching():
            dist.all_reduce(x, op=getattr(dist.ReduceOp, how), group=self.group)


class Grid:
    """The processes of a grid, each with a block of one problem: rows of some, columns of others.

    What is reduced is so over those that hold other rows.
    """

    def __init__(self, rows: Ranks, columns: Ranks) -> None:
        """Take those that hold other rows of the same columns, and other columns of the same."""
        self._rows, self._columns = rows, columns
        self.sum, self.max, self.attempt = rows.sum, rows.max, rows.attempt

    def settle(self) -> None:
        """Raise on every process what an attempt raised on one; all call it together."""
        # what fails among those that hold the same columns is told to those that hold the same rows
        self._columns.everywhere(self._rows.settle, lambda _: None)


def same(said: Sequence[Terms | None]) -> None:
    """Require all ranks that said something, each its terms, to have said the same."""
    spoke = [(rank, terms) for rank, terms in enumerate(said) if terms is not None]
    for rank, terms in spoke:
        first, expected = spoke[0]
        for name, value in terms.items():
            if value != expected[name]:
                raise ValueError(
                    f"{name} must be the same on every rank of the group, got "
                    f"{expected[name]!s:.60} on rank {first} and {value!s:.60} on rank {rank}"
                )


def _untraced(act: Callable[..., Any], *args: Any) -> Any:
    """Call what exchanges something, which `torch.compile` is not to look into."""
    # asked for only there: it imports the compiler
    if torch.compiler.is_compiling():
        act = torch.compiler.disable(act)  # type: ignore[no-untyped-call]
    return act(*args)


def _described(failure: Exception) -> tuple[type[Exception], str]:
    """Return what all ranks are to raise where one failed: whose mistake it was, and what it is."""
    if isinstance(failure, ValueError):
        return ValueError, str(failure)
    # the text of other errors says little without their kind
    return RuntimeError, f"{type(failure).__name__}: {failure}"


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
