"""A trial in a process of its own: who hangs or crashes costs only itself."""

import multiprocessing as mp
import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

from bench.cpu.cases import Problem
from bench.cpu.grid.trial import Row, Started, trial
from bench.cpu.measure import THREADS
from bench.peers import ALL


# seconds for what is outside the clock: making the case, compiling, judging
_PATIENCE = 120.0
_PACKAGES = ("torch", "ot", "ott.solvers.linear.sinkhorn", "geomloss.ot", "mdot_tnt", "regot")


def fork_server(core: int | None) -> Any:
    """Keep this process and its children to one core and one thread; return how to start one.

    Children are forked from a server that has imported everyone and run nothing.
    """
    os.environ.update(dict.fromkeys(THREADS, "1"))
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0)) if core is None else core})
    context = mp.get_context("forkserver")
    here = [name for name in _PACKAGES if find_spec(name.split(".")[0])]
    context.set_forkserver_preload([*here, "bench.cpu.grid.trial"])
    return context


def in_child(context: Any, problem: Problem, name: str, caps: dict[float, float]) -> Iterator[Row]:
    """Yield a row for each error, given the seconds that one run to it may take."""
    if not ALL[name].installed:
        yield from (Row(error, "absent") for error in caps)
        return
    pipe, far = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(far, problem, name, tuple(caps)), daemon=True)
    child.start()
    far.close()
    left = dict(caps)
    try:
        for row in _heard(pipe, left):
            left.pop(row.error)
            yield row
    finally:
        pipe.close()
        child.kill()
        child.join()


def _heard(pipe: Connection, left: dict[float, float]) -> Iterator[Row]:
    """Yield rows as they come, and rows that say why for the errors that none came for."""
    clock, last = None, Row(0.0, "failed", why="the process died")
    while left:
        cap = _PATIENCE if clock is None else left[clock.error]
        try:
            if not pipe.poll(cap):
                last = Row(0.0, "over", seconds=cap)
                break
            word = pipe.recv()
        except (EOFError, OSError):
            break
        clock = word if isinstance(word, Started) else None
        if isinstance(word, Row) and word.error == 0:
            last = word
            break
        if isinstance(word, Row):
            yield word
            last = word
    for error in list(left):
        yield replace(last, error=error)


def _serve(pipe: Connection, problem: Problem, name: str, errors: tuple[float, ...]) -> None:
    try:
        for word in trial(problem, name, errors):
            pipe.send(word)
    except Exception as error:  # noqa: BLE001
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        pipe.send(Row(0.0, "failed", why=why[:200]))
