import pytest
from compiling import child


@pytest.mark.slow(60)
@pytest.mark.parametrize(
    ("target", "every"), [("sm_80", 5), ("sm_90", 2), ("sm_100", 5), ("gfx942", 5)]
)
def test_every_kernel_keeps_its_bounds(target, every):
    """At some of the shapes; all of them take ten minutes of `python -m bench gate`."""
    done = child("-m", "bench", "gate", target, "--every", str(every))
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


@pytest.mark.parametrize("meets", [False, True])
@pytest.mark.parametrize("forgets", [0, 1])
def test_the_gate_catches_programs_that_meet_and_forget_nothing(meets, forgets):
    """Who waits for others must not read what its own cache held before."""
    from bench.gate.bounds import Bound
    from bench.gate.compile import Row
    from bench.gate.machine_code import Code

    code = Code(32, 0, 0, 1, forgets, 10, 1)
    found = list(Row("k", "", "sm_90", "", code, 10.0, meets).violations(Bound((), 2, 2)))
    assert bool(found) == (meets and not forgets)
