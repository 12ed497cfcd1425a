"""POT's simplex is loaded alone, and who imports POT later finds it whole."""

import importlib.util
import subprocess
import sys

import pytest

import sinkhorn_ot as so
from sinkhorn_ot.exact.engines import pot


ALONE = """
import sys
import torch
import sinkhorn_ot as so
C = torch.tensor([[0.0, 2.0], [1.0, 0.5], [3.0, 1.0]], dtype=torch.float64)
assert abs(float(so.solve_exact(C, engine="network simplex").value) - 3.5 / 6) < 1e-15
assert not [name for name in sys.modules if name.split(".")[0] == "ot"], "all of POT was imported"
import ot
import ot.lp.emd_wrap
assert ot.lp.emd_wrap.emd_c is not None
assert abs(ot.emd2([], [], C.numpy()) - 3.5 / 6) < 1e-15
assert abs(float(so.solve_exact(C, engine="network simplex").value) - 3.5 / 6) < 1e-15
"""


def test_an_exact_solve_imports_the_simplex_and_nothing_else_of_pot():
    subprocess.run([sys.executable, "-c", ALONE], check=True)


def test_what_cannot_be_loaded_alone_is_imported(monkeypatch):
    import ot.lp.emd_wrap

    monkeypatch.delitem(sys.modules, "ot.lp.emd_wrap")
    monkeypatch.setattr(pot, "_path", lambda: "/no/such/file")
    assert pot.compiled.__wrapped__() is not None
    assert ot.lp.emd_wrap.emd_c is not None


def test_who_has_no_pot_is_told_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "ot"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ot", None)
    pot.compiled.cache_clear()
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ot" else found(name)
    )
    try:
        with pytest.raises(ImportError, match="pip install 'POT"):
            so.solve_exact([[0.0, 2.0], [1.0, 0.5], [3.0, 1.0]], engine="network simplex")
    finally:
        pot.compiled.cache_clear()
