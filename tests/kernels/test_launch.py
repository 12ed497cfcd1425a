"""Launches without triton's own way reach the same compiled kernels with the same arguments."""

import pytest
from compiling import child


SAME = """
import sys; sys.path[:0] = ["tests", "tests/kernels"]
import torch, triton, triton.language as tl
from no_device import no_device
from sinkhorn_ot.kernels import launch as module
from sinkhorn_ot.kernels.launch import launch

@triton.jit(do_not_specialize=["k"])
def add(x, y, scale, n, k, strides, at, W: tl.constexpr, TWICE: tl.constexpr = False):
    j = tl.arange(0, W)
    rate = tl.load(scale) if scale.dtype.is_ptr() else scale
    z = tl.load(x + j * strides[0] + at.start, mask=j < n) * rate + k + strides[1]
    tl.store(y + j, z + z if TWICE else z, mask=j < n)

from typing import NamedTuple
class At(NamedTuple):
    start: object
    name: object

base = torch.zeros(99)
pointers = [base, base[1:], base[4:], base.half()[2:]]
numbers = [1, 2, 16, 48, -16, (1 << 31) - 1, 1 << 31, 1 << 40, 1 << 63, -(1 << 31), -(1 << 31) - 1]
sets = [(p, base, 0.5, 7, 3, (1, 16), At(0, None)) for p in pointers]
sets += [(base, base, base[1:], n, 3, (1, 16), At(0, None)) for n in numbers]
sets += [(base, base, 0.5, 7, k, (1, 16), At(0, None)) for k in numbers[:7]]
sets += [(base, base, 0.5, 7, 3, (a, b), At(0, None)) for a in (1, 3, 16) for b in (1, 3, 1 << 40)]
sets += [(base, base, 0.5, 7, 3, (1, 16), At(a, b)) for a in (1, 3, 32) for b in (None, 5)]
with no_device() as launches:
    seen = set()
    for constants in (dict(W=16), dict(W=32, TWICE=True), dict(W=32, num_warps=1)):
        for args in sets:
            # another set of the same kinds comes first, and another kind before that
            for _ in range(2):
                launch(add, 3, *args, **constants)
            add[(3,)](*args, **constants)
            first, again, plain = launches[-3:]
            assert first[:2] == again[:2] == plain[:2], (args, constants)
            seen.add(plain[0])
            def value(a):
                if isinstance(a, torch.Tensor):
                    return a.data_ptr()
                return tuple(map(value, a)) if isinstance(a, tuple) else a
            assert value(again[2]) == value(plain[2]) == value(first[2]), (again, plain)
print(len(sets), len(seen), len(module._KEPT))
"""


@pytest.mark.slow(4)
def test_the_kernels_are_those_that_triton_chooses(tmp_path):
    script = tmp_path / "same.py"
    script.write_text(SAME)
    done = child(str(script))
    assert done.returncode == 0, done.stderr[-3000:]
    sets, kernels, kept = map(int, done.stdout.split())
    # and not one for each
    assert 20 < kernels <= kept < 3 * sets


COUNTS = """
import sys; sys.path[:0] = ["tests", "tests/kernels"]
import torch
import sinkhorn_ot as so
from sinkhorn_ot import adapters
from counting import Operators
from no_device import no_device
from sinkhorn_ot.adapters.swav import codes as adapter
from sinkhorn_ot.kernels import codes_rows, whole
from sinkhorn_ot.problem import checks, making
from sinkhorn_ot.sweeps import choice, gpu

# as a GPU: tensors of the host, addresses that nobody reads
adapter.has_kernels = lambda S: True
checks.seen_through = lambda *_: False
codes_rows.meets = lambda device: MEETS
codes_rows.multiprocessors = lambda device: 132
calls = {
    "4096x3000": lambda: so.swav_codes(torch.empty(4096, 3000)),
    "masked": lambda: so.swav_codes(torch.empty(9, 3000), mask=torch.empty(9, dtype=torch.bool)),
    "heads": lambda: adapters.dino_codes(torch.empty(2, 32, 8192), 0.05),
    "patches": lambda: adapters.capi_codes(torch.empty(32, 600, 16)),
    "64x131072": lambda: so.swav_codes(torch.empty(64, 131072)),
    "2500x17000": lambda: so.swav_codes(torch.empty(2500, 17000)),
}
if not MEETS:
    # ten sweeps of a cost that no cache holds; weights as a GPU has them, and no look at numbers
    gpu.dense._CACHED = 0
choice._kernels = gpu.kernels
making._dtypes = lambda cost: (torch.float32, torch.float32)
sys.modules["sinkhorn_ot.solve.call"]._on_cpu = lambda cost: False
whole.serves = lambda *_: True
whole.multiprocessors = lambda device: 132
calls["solve"] = lambda: so.solve(torch.empty(400, 300), None, None, 0.1, n_iter=10)
with no_device() as launches:
    for name, call in calls.items():
        del launches[:]
        with Operators() as others:
            call()
        print(name, len(launches) + len(others.names), *others.names)
"""


@pytest.mark.slow(6)
@pytest.mark.parametrize("meets", [True, False])
def test_codes_take_few_launches(meets, tmp_path):
    script = tmp_path / "counts.py"
    script.write_text(COUNTS.replace("MEETS", str(meets)))
    done = child(str(script))
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    # where programs meet: the kernel, and the zero from which they count
    on_chip = 2 if meets else 7
    assert counts.pop("patches") == 1
    assert counts.pop("solve") <= (25 if meets else 40), done.stdout
    assert counts.pop("masked") == counts.pop("4096x3000") == counts.pop("heads") == on_chip, (
        done.stdout
    )
    assert max(counts.values()) <= 8, done.stdout
