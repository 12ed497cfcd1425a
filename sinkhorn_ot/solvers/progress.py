"""What is told while a solve runs: to the caller's own callback, and to a progress bar."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

from sinkhorn_ot.problem import needs


@dataclass(frozen=True)
class Progress:
    """What a callback is told at every look at the error: each sweep, or as `check_every` says.

    Attributes:
        n_iter: Sweeps so far.
        marginal_error: Largest relative marginal error among the problems still running.
        running: Problems still running.
        reg_factor: How much larger than asked for `reg` is at this stage of the annealing.
    """

    n_iter: int
    marginal_error: float
    running: int
    reg_factor: float

    def at(self, factor: float) -> "Progress":
        """Return the same of a solve whose reg is so many times what was asked for."""
        return replace(self, reg_factor=self.reg_factor * factor)


# return True to stop
Callback = Callable[[Progress], object]


def watch(
    show: bool, callback: Callback | None, tol: float, max_iter: int
) -> AbstractContextManager[Callback | None]:
    """Return a context with the callback that the solver calls: the caller's, a bar, both or none.

    The bar counts digits: from a marginal error of one down to `tol`.
    """
    return _bar(callback, tol, max_iter) if show else nullcontext(callback)


@contextmanager
def _bar(callback: Callback | None, tol: float, max_iter: int) -> Iterator[Callback]:
    # imported here: who shows no bar does not pay for it
    with needs("tqdm"):
        from tqdm.auto import tqdm

    digits, many = max(1.0, -math.log10(tol)), 1
    how = {"initial": 0.0, "miniters": 0}
    with tqdm(total=round(digits, 1), bar_format=_FORMAT, desc="sinkhorn", **how) as bar:

        def told(progress: Progress) -> bool:
            if progress.reg_factor == 1 and progress.marginal_error > 0:
                bar.n = round(min(digits, max(bar.n, -math.log10(progress.marginal_error))), 1)
            nonlocal many
            many = max(many, progress.running)
            said = {"sweep": f"{progress.n_iter}/{max_iter}"}
            if progress.reg_factor != 1:
                said["reg"] = f"x{progress.reg_factor:g}"
            if many > 1:
                said["running"] = str(progress.running)
            # in this order, which keywords would not keep
            bar.set_postfix({"error": f"{progress.marginal_error:.1e}"} | said, refresh=False)
            # draws at most every tenth of a second
            bar.update(0)
            return bool(callback and callback(progress))

        yield told


@contextmanager
def passing(rows: int) -> Iterator[Callable[[int], object]]:
    """Return a context with what is told of rows read, and shows how far a pass over all is.

    Args:
        rows: How many a pass reads.
    """
    with needs("tqdm"):
        from tqdm.auto import tqdm

    with tqdm(total=rows, desc="pass", unit=" rows", unit_scale=True, leave=False) as bar:

        def told(count: int) -> None:
            if bar.n >= rows:
                bar.reset()
            bar.update(count)

        yield told


# the time left is that of as many digits at the rate so far
_FORMAT = "{desc}: {n_fmt}/{total_fmt} digits |{bar}| {elapsed}<{remaining}{postfix}"
