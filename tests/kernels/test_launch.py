"""Launches without triton's own way reach the same compiled kernels with the same arguments."""

import pytest
import test_gate


SAME = """
import sys; sys.path.insert(0, "tests/kernels")
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


@pytest.mark.slow(12)
def test_the_kernels_are_those_that_triton_chooses(tmp_path):
    script = tmp_path / "same.py"
    script.write_text(SAME)
    done = test_gate.child(str(script))
    assert done.returncode == 0, done.stderr[-3000:]
    sets, kernels, kept = map(int, done.stdout.split())
    # and not one for each
    assert 20 < kernels <= kept < 3 * sets
