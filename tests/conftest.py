"""What every test runs under: no GPU needed, one thread, and no luck with uninitialised memory."""

import os

import torch


# triton reads this when it is first imported
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import hypothesis
import pytest


torch.set_num_threads(1)

hypothesis.settings.register_profile(
    "here", derandomize=True, deadline=None, max_examples=25, database=None, print_blob=True
)
hypothesis.settings.load_profile("here")


@pytest.fixture(autouse=True)
def _poison_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill uninitialised memory with NaN, so that code which skips an entry is caught."""
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))


def _poisoned(empty):
    def poisoned(*args, **kwargs):
        out = empty(*args, **kwargs)
        return out.fill_(torch.nan) if out.is_floating_point() and not out.is_meta else out

    return poisoned


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
