import pytest
from compiling import child


@pytest.mark.slow(50)
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_every_kernel_keeps_its_bounds(target):
    done = child("-m", "bench", "gate", target)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "_sweep_rows" in done.stdout


SPILLING = """
import torch, triton, triton.language as tl
from bench.gate.bounds import Bound
from bench.gate.compile import compiled
from sinkhorn_ot.kernels.configs import OPTIONS

@triton.jit
def greedy(x, y, n, W: tl.constexpr):
    j = tl.arange(0, W)
    total = tl.zeros([W], tl.float32)
    for i in range(n):
        total += tl.exp2(tl.load(x + i * W + j))
    tl.store(y + j, total)

def case(width):
    return lambda new: greedy[(1,)](new(9, width), new(width), 9, W=width, num_warps=1, **OPTIONS)

bounds = {"greedy": Bound(("W",), instructions=4, mufu=1)}
for width in (1024, 8192):
    for row, bound in compiled({"": case(width)}, bounds, ["sm_90"]):
        print(width, row.target, row.code.spills, list(row.violations(bound)))
slow = Bound(("W",), instructions=1, mufu=0.5, wide=False)
for row, _ in compiled({"": case(1024)}, bounds, ["sm_90"]):
    print("slow", len(list(row.violations(slow))))
"""


@pytest.mark.slow(8)
def test_the_gate_catches_a_kernel_that_spills(tmp_path):
    script = tmp_path / "spilling.py"
    script.write_text(SPILLING)
    done = child(str(script))
    assert done.returncode == 0, done.stderr[-3000:]
    sound, spilling, slow = done.stdout.splitlines()
    assert sound.startswith("1024")
    assert sound.endswith("[]")
    assert spilling.startswith("8192")
    assert " spills" in spilling
    assert slow == "slow 2"
