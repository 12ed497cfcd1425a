"""SciPy's matching is loaded alone, and who imports its package later finds it whole."""

import subprocess
import sys

import numpy as np

from sinkhorn_ot.exact.engines import matcher as loading


ALONE = """
import sys
import torch
import sinkhorn_ot as so
C = torch.tensor([[0.0, 2.0], [1.0, 0.5]], dtype=torch.float64)
found = so.solve_exact(C)
assert found.method == "exact: assignment", found.method
assert float(found.value) == 0.25
assert "scipy.optimize" not in sys.modules, "all of scipy.optimize was imported"
from scipy.optimize import linear_sum_assignment
assert linear_sum_assignment(C.numpy())[1].tolist() == [0, 1]
assert float(so.solve_exact(C).value) == 0.25
"""


def test_a_matching_imports_nothing_else_of_its_package():
    subprocess.run([sys.executable, "-c", ALONE], check=True)


def test_what_cannot_be_loaded_alone_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "scipy.optimize", raising=False)
    C = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert loading.matcher.__wrapped__()(C)[1].tolist() == [1, 0]
    monkeypatch.setattr(loading.importlib.machinery, "EXTENSION_SUFFIXES", [".none"])
    assert loading._alone() is None
    monkeypatch.undo()
    monkeypatch.setattr(loading, "_alone", lambda: None)
    assert loading.matcher.__wrapped__()(C)[1].tolist() == [1, 0]
