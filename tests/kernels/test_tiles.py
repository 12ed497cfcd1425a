import numpy as np
import torch
import triton
import triton.language as tl

from sinkhorn_ot.kernels.tiles import exp2


@triton.jit
def _exp2(x, y, N: tl.constexpr):
    k = tl.arange(0, N)
    tl.store(y + k, exp2(tl.load(x + k)))


def powers(x):
    y = torch.full_like(x, torch.nan)
    _exp2[(1,)](x, y, N=len(x))
    return y


def test_powers_of_two_in_float64_are_right_to_a_rounding():
    spread = torch.linspace(-1021, 1023.4, 2**14, dtype=torch.float64)
    near = torch.linspace(-1.6, 1.6, 2**14, dtype=torch.float64)
    for x in (spread, near):
        truth = np.exp2(x.numpy().astype(np.longdouble))
        # a GPU rounds each step of the polynomial once, the interpreter twice
        rounding = np.spacing(truth.astype(np.float64))
        assert (abs(powers(x).numpy() - truth) / rounding).max() < 1.5
    whole = torch.arange(-1022, 1024, dtype=torch.float64)
    whole = torch.nn.functional.pad(whole, (0, 2))
    assert torch.equal(powers(whole), torch.exp2(whole))


def test_powers_of_two_at_the_ends_of_float64():
    inf, nan = torch.inf, torch.nan
    x = torch.tensor([-inf, -1e300, -1e12, -1023, 0, 1023.6, inf, nan], dtype=torch.float64)
    want = torch.tensor([0, 0, 0, 0, 1, inf, inf, nan], dtype=torch.float64)
    torch.testing.assert_close(powers(x), want, rtol=0, atol=0, equal_nan=True)
    assert powers(-x.abs())[-1].isnan()


def test_float32_takes_the_instruction():
    x = torch.linspace(-140, 120, 64)
    torch.testing.assert_close(powers(x), torch.exp2(x))
