"""What every test runs under: no GPU, one thread, and the same numbers whatever ran before it."""

import os
import sys


# before anything loads them, and for child processes: cores are shared, nobody watches
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch


# triton reads this when it is first imported
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import hypothesis
import pytest
from interpreter import look_once


torch.set_num_threads(1)

hypothesis.settings.register_profile(
    "here", derandomize=True, deadline=None, max_examples=25, database=None, print_blob=True
)
hypothesis.settings.load_profile("here")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Start every test, and the fixtures it makes, from the same random numbers."""
    # not torch.manual_seed, which notes down who called it for GPUs that are not there
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)
    if "triton.runtime.interpreter" in sys.modules:
        look_once(sys.modules["triton.runtime.interpreter"])


@pytest.fixture(autouse=True)
def _poison_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill uninitialised memory with NaN, so that code which skips an entry is caught."""
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))


def _poisoned(empty):
    def poisoned(*args, **kwargs):
        out = empty(*args, **kwargs)
        if out.is_floating_point() and not out.is_meta:
            out.detach().fill_(torch.nan)
        return out

    return poisoned


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    if hasattr(config, "workerinput"):
        # several workers: the longest first, so that none ends with one while the others wait, and
        # before them what the tests of a module share, so that no other worker makes it again
        items.sort(key=_order, reverse=True)


def _order(item: pytest.Item) -> tuple[bool, float]:
    slow = item.get_closest_marker("slow")
    return (slow.kwargs.get("shared", False), slow.args[0]) if slow else (False, 0)
