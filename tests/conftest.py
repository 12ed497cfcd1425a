"""Without a GPU the kernels run in triton's interpreter, which must be chosen before its import."""

import os

import pytest
import torch


if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _poison_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill torch.empty with nan, so that a kernel which skips an output entry is caught."""
    for name in ("empty", "empty_like"):
        empty = getattr(torch, name)

        def poisoned(*args, empty=empty, **kwargs):
            out = empty(*args, **kwargs)
            return out.fill_(torch.nan) if out.is_floating_point() else out

        monkeypatch.setattr(torch, name, poisoned)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
