"""The codes of DINOv2, iBOT, CAPI and MSN against their formulas."""

import math

import pytest
import torch
from adapters import oracles
from adapters.oracles import total_variation
from torch import Tensor

import sinkhorn_ot as so


def randn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("temperature", [0.04, 0.07])
@pytest.mark.parametrize("scale", [0.3, 3.0, 1e4])
def test_both_global_crops_are_one_problem(temperature, scale):
    x = randn(2, 24, 65, scale=scale)
    Q = so.adapters.dino_codes(x, temperature)
    assert Q.shape == x.shape
    oracle = oracles.swav_codes(x.reshape(48, 65), temperature, 3)
    assert total_variation(Q.reshape(48, 65), oracle) < 1e-6
    flat = so.adapters.dino_codes(x.reshape(48, 65), temperature)
    torch.testing.assert_close(flat, Q.flatten(0, 1))


@pytest.mark.parametrize("used", [0, 1, 17, 40])
def test_masked_patches_in_a_padded_buffer(used):
    x, mask = randn(40, 33), torch.arange(40) < used
    x[used:] = math.nan
    Q = so.adapters.dino_codes(x, 0.05, mask=mask)
    assert bool((Q[used:] == 0).all())
    if used:
        assert total_variation(Q[:used], oracles.swav_codes(x[:used], 0.05, 3)) < 1e-6


def test_a_mask_of_many_dimensions():
    x, mask = randn(2, 9, 7), torch.rand(2, 9, generator=torch.Generator().manual_seed(0)) < 0.6
    Q = so.adapters.dino_codes(x, 0.1, mask=mask)
    assert total_variation(Q[mask], oracles.swav_codes(x[mask], 0.1, 3)) < 1e-6


def full_queue(length: int, dim: int) -> so.SwAVQueue:
    queue = so.SwAVQueue(length, dim)
    queue.push(randn(length, dim, seed=7))
    return queue


@pytest.mark.parametrize("n_iter", [3, None])
@pytest.mark.parametrize("masked", [False, True])
def test_a_queue_stands_in_front_of_both_crops(masked, n_iter):
    z, C, queue = randn(2, 9, 8), randn(7, 8, seed=1), full_queue(30, 8)
    x, mask = z @ C.mT, torch.arange(18).reshape(2, 9) % 4 > 0
    if masked:
        x[~mask] = math.nan
    before = queue.features.clone()
    options = {"mask": mask} if masked else {}
    Q = so.adapters.dino_codes(x, 0.5, n_iter=n_iter, queue=queue, prototypes=C, **options)
    assert Q.shape == x.shape
    kept = x[mask] if masked else x.flatten(0, 1)
    oracle = oracles.swav_codes(torch.cat([before @ C.mT, kept]), 0.5, n_iter or 3000)[30:]
    bound = 1e-6 if n_iter else 1e-5
    assert total_variation(Q[mask] if masked else Q.flatten(0, 1), oracle) < bound
    assert not masked or bool((Q[~mask] == 0).all())
    # it is only read
    assert torch.equal(queue.features, before)
    half = so.adapters.dino_codes(x.half(), 0.5, queue=queue, prototypes=C.half(), **options)
    assert half.dtype == torch.float32


def test_a_queue_that_is_not_full_is_left_out():
    x, C, queue = randn(9, 7), randn(7, 8, seed=1), so.SwAVQueue(30, 8)
    queue.push(randn(29, 8))
    Q = so.adapters.dino_codes(x, 0.1, queue=queue, prototypes=C.requires_grad_())
    assert torch.equal(Q, so.adapters.dino_codes(x, 0.1))


@pytest.mark.parametrize("full", [False, True])
def test_a_queue_for_a_teacher_is_refused_where_it_does_not_fit(full):
    x, C, queue = randn(9, 7), randn(7, 8), full_queue(30, 8) if full else so.SwAVQueue(30, 8)
    for more, message in (
        ({"queue": queue}, "prototypes must be given with a queue, got None"),
        ({"queue": [queue], "prototypes": C}, "queue must be a SwAVQueue or None, got list"),
        ({"queue": queue, "prototypes": C[:, :6]}, r"prototypes must have shape \(K, 8\)"),
        ({"queue": queue, "prototypes": C[:6]}, "prototypes must be K = 7 rows, got 6"),
        ({"queue": queue, "prototypes": C * math.nan}, "prototypes must be finite, got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            so.adapters.dino_codes(x, 0.1, **more)
    x[2, 3] = math.nan
    with pytest.raises(ValueError, match=r"logits must be finite, got nan at index \(2, 3\)"):
        so.adapters.dino_codes(x, 0.1, queue=queue, prototypes=C)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_teachers_are_in_single_precision(dtype):
    x = randn(20, 30, scale=1e3).to(dtype)
    Q = so.adapters.dino_codes(x.requires_grad_(), 0.04)
    assert Q.dtype == torch.float32
    assert not Q.requires_grad
    assert total_variation(Q, oracles.swav_codes(x.detach(), 0.04, 3)) < 1e-6
    assert so.adapters.dino_codes(x.detach().double(), 0.04).dtype == torch.float64
    assert so.adapters.capi_codes(x[:, None]).dtype == torch.float32
    assert so.adapters.msn_codes(x).dtype == torch.float32


def test_every_patch_position_is_a_problem():
    x = randn(24, 5, 17)
    Q = so.adapters.capi_codes(x)
    for position in range(5):
        assert total_variation(Q[:, position], oracles.swav_codes(x[:, position], 0.06, 3)) < 1e-6
    both = so.adapters.capi_codes(torch.stack([x, -x]), 0.1, n_iter=2)
    torch.testing.assert_close(both[1], so.adapters.capi_codes(-x, 0.1, n_iter=2))


@pytest.mark.parametrize("scale", [1.0, 40.0, 1e4])
@pytest.mark.parametrize("shape", [(64, 30), (3, 20, 45), (1, 1), (5, 1)], ids=str)
def test_msn(shape, scale):
    S = randn(*shape, scale=scale)
    before = S.clone()
    Q = so.adapters.msn_codes(S)
    assert torch.equal(S, before)
    assert total_variation(Q, oracles.msn(S, 0.1, 0.25, 3)) < 1e-6


def test_msn_starts_from_rows_that_sum_to_one():
    S = randn(64, 30)
    plain = so.swav_codes(S, eps=0.025)
    assert total_variation(so.adapters.msn_codes(S), plain.double()) > 0.1


def test_msn_with_padding():
    S, mask = randn(30, 12), torch.arange(30) % 3 > 0
    S[~mask] = math.nan
    Q = so.adapters.msn_codes(S, tau=0.2, sharpening=0.5, mask=mask)
    assert total_variation(Q[mask], oracles.msn(S[mask], 0.2, 0.5, 3)) < 1e-6
    assert bool((Q[~mask] == 0).all())


def with_nan(*shape: int) -> Tensor:
    x = torch.zeros(shape)
    x[(1,) * len(shape)] = math.nan
    return x


BAD = {
    "nan": ("dino", (with_nan(2, 3, 4), 0.1), {}, r"logits must be finite, .*nan.*\(1, 1, 1\)"),
    "temperature": ("dino", (torch.ones(3, 4), 0), {}, "temperature must be a finite number above"),
    "vector": ("dino", (torch.ones(3), 0.1), {}, r"logits must have shape \(..., K\), got \(3,\)"),
    "empty": ("dino", (torch.ones(0, 3), 0.1), {}, "must not be empty"),
    "no prototypes": ("dino", (torch.ones(3, 0), 0.1), {}, "must not be empty"),
    "mask": ("dino", (torch.ones(3, 4), 0.1), {"mask": torch.ones(4) > 0}, "mask must have shape"),
    "flat mask": (
        "dino",
        (torch.ones(2, 3, 4), 0.1),
        {"mask": torch.ones(6) > 0},
        r"mask must have shape \(2, 3\)",
    ),
    "capi nan": ("capi", (with_nan(2, 3, 4),), {}, r"logits must be finite.*\(1, 1, 1\)"),
    "capi matrix": ("capi", (torch.ones(3, 4),), {}, r"logits must have shape \(..., N, P, K\)"),
    "msn nan": ("msn", (with_nan(3, 4),), {}, r"scores must be finite, got nan at index \(1, 1\)"),
    "msn tau": ("msn", (torch.ones(3, 4),), {"tau": -1}, "tau must be a finite number above"),
    "msn sharpening": ("msn", (torch.ones(3, 4),), {"sharpening": 0}, "sharpening must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    method, args, options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        getattr(so.adapters, f"{method}_codes")(*args, **options)


@pytest.mark.parametrize("shape", [(8, 1 << 17), (1 << 17, 3)], ids=str)
def test_codes_of_long_sides_keep_the_digits_of_single_precision(shape):
    """Term after term, sums this long lose a digit and more."""
    x = randn(*shape)
    codes = so.adapters.dino_codes(x, 0.07)
    assert total_variation(codes, oracles.swav_codes(x, 0.07, 3)) < 4e-7
