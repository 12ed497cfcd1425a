"""Problems so small that a second thread only costs: none is woken for them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


# what pools count threads by, where nobody says
_TOLD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_COUNTED = """
import os
import torch
import sinkhorn_ot as so

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(2)
# what is loaded late may bring threads of its own, which sleep
for call in (so.solve_exact, lambda C: so.solve(C, reg=0.1).value):
    call(torch.rand(3, 3))
before = threads()
for n in (20, 50):
    C = torch.rand(n, n, dtype=torch.float64)
    for reg in (0.1, 0.01, 0.001):
        so.solve(C, reg=reg).plan
        so.solve(C.float(), reg=reg).value
        so.solve(C, reg=reg, unbalanced=1.0)
        so.solve(so.PointCloud(torch.rand(n, 2), torch.rand(n, 2)), reg=reg)
    so.solve_exact(C).value
quiet = threads() - before
# which threads this would have seen
torch.rand(400, 400) @ torch.rand(400, 400)
print(quiet, threads() - before)
"""


@pytest.mark.slow(3)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted on Linux")
def test_tiny_problems_wake_no_thread():
    free = {name: value for name, value in os.environ.items() if name not in _TOLD}
    command = [sys.executable, "-c", _COUNTED]
    found = subprocess.run(command, env=free, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0", "1"]
