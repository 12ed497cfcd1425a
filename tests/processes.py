"""Processes that begin where imports are done: each is forked from one that has loaded the package.

Loading torch and scikit-learn takes longer than most of what is run in a process of its own.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess


_CONTEXT = multiprocessing.get_context("forkserver")
# and with it all of the package but `exact`
_CONTEXT.set_forkserver_preload(["sinkhorn_ot.command.demo.judge"])


def start(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a process that calls a function of a module."""
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process
