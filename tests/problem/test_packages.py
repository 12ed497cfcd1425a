"""Packages that cannot be imported: who is told what, and what goes on without them."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sinkhorn_ot.adapters.swav import codes
from sinkhorn_ot.problem import has_triton, needs
from sinkhorn_ot.problem.others import packages


@pytest.fixture
def asked(monkeypatch):
    """Ask anew, and forget the answer."""
    ask = packages._loads
    ask.cache_clear()
    monkeypatch.setattr(packages, "_FOUND", True)
    yield monkeypatch
    ask.cache_clear()


def test_what_is_not_an_error_passes():
    with needs("scipy"):
        import scipy.sparse
    assert scipy.sparse.csr_array
    with pytest.raises(KeyboardInterrupt), needs("scipy"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("error", [OSError("no libtriton"), AttributeError("x"), ImportError("y")])
def test_a_triton_that_does_not_load_is_told_once_and_done_without(asked, error):
    def broken(name):
        raise error

    asked.setattr(packages, "importlib", SimpleNamespace(import_module=broken))
    said = f"which are slower \\({type(error).__name__}: {error}\\)"
    with FakeTensorMode():
        S = torch.empty(8, 5, device="cuda")
    with pytest.warns(UserWarning, match=said):
        assert not codes.has_kernels(S)
    # a warning is an error in the tests: there is no second one
    assert not codes.has_kernels(S)


def test_who_compiles_is_not_asked_to_import_it(asked):
    asked.setattr(torch.compiler, "is_compiling", lambda: True)
    asked.setattr(packages, "_loads", lambda: 1 / 0)
    assert has_triton()
    asked.setattr(packages, "_FOUND", False)
    assert not has_triton()
