"""Hard problems: nothing hangs, nothing is NaN, and whatever is called converged is."""

import pytest

from bench.cpu import stress


FAMILIES = [
    "identical clouds",
    "equal weights",
    "separated clouds",
    "one heavy atom",
    "tiny weights",
    "hidden permutation",
    "constant cost",
    "huge offset",
    "duplicated points",
    "zero weights",
    "one row",
    "nearly tied",
]
# large enough for most: a thousand iterations is what a hopeless one may take
CAP = 1000


def test_every_family_is_here():
    assert list(stress.FAMILIES) == FAMILIES


@pytest.mark.parametrize("reg", [1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_said_is_true(family, reg):
    row = stress.stressed(family, 40, reg, CAP)
    assert not stress.wrong(row), row
    assert row["n_iter"] <= CAP
    if row["status"] == "CONVERGED":
        assert row["said_error"] <= stress.TOL
    else:
        assert row["status"] in ("MAX_ITER", "STALLED")
        # the error that is told is the error that is there
        assert row["error"] == pytest.approx(row["said_error"], rel=0.2)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"huge offset"}))
def test_moderate_reg_is_reached(family):
    assert stress.stressed(family, 40, 1e-3)["status"] == "CONVERGED"


def test_a_wrong_claim_is_seen():
    fine = {"status": "CONVERGED", "error": stress.TOL}
    assert not stress.wrong(fine)
    assert stress.wrong(fine | {"error": 2 * stress.TOL})
    assert stress.wrong({"status": "STALLED", "error": float("inf")})
    assert stress.wrong({"status": "CONVERGED", "error": float("nan")})
