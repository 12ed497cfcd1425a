"""What ended above its tolerance says so in every call: by a warning, an error, or not at all."""

import dataclasses
import functools
import inspect
import re
import warnings

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.adapters.balanced.task import Task
from sinkhorn_ot.adapters.swav import codes


S = 4 * torch.randn(60, 7, generator=torch.Generator().manual_seed(0))
CUT = {
    "sela_labels": lambda **how: so.sela_labels(S, tol=1e-12, max_iter=2, **how),
    "sela_labels, heads": lambda **how: so.sela_labels(S.expand(3, -1, -1), max_iter=2, **how),
    "sela_labels, balanced": lambda **how: so.sela_labels(
        S, max_iter=2, rounding="balanced", **how
    ),
    "clot_labels": lambda **how: so.adapters.clot_labels(S, max_iter=2, **how),
    "moe_router": lambda **how: so.adapters.moe_router(S, max_iter=2, **how),
}
CODES = {
    "swav_codes": lambda **how: so.swav_codes(S, n_iter=None, **how),
    "swav.assign": lambda **how: so.adapters.swav.assign(S, n_iter=None, **how),
    "dino_codes": lambda **how: so.adapters.dino_codes(S, 0.05, n_iter=None, **how),
    "capi_codes": lambda **how: so.adapters.capi_codes(S[:, None], n_iter=None, **how),
    "msn_codes": lambda **how: so.adapters.msn_codes(S, n_iter=None, **how),
}


@pytest.fixture
def cut_short(monkeypatch):
    """Let codes that are iterated to a tolerance have two sweeps."""
    monkeypatch.setattr(codes, "potentials", functools.partial(codes.potentials, max_iter=2))


def heard(call, name):
    """Return what is told of a call cut short, which must be the same in every way of telling."""
    with pytest.warns(so.ConvergenceWarning, match=f"^{name}: ") as caught:
        answer = call()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.raises(so.ConvergenceError) as error:
        call(on_fail="raise")
    assert str(error.value) == str(caught[0].message)
    assert type(error.value.result) is type(answer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(on_fail="ignore")
    with pytest.raises(ValueError, match="on_fail must be one of 'warn', 'raise', 'ignore', got 1"):
        call(on_fail=1)
    return str(error.value)


@pytest.mark.parametrize("name", CUT)
def test_labels_cut_short_are_told_of(name):
    said = heard(CUT[name], name.partition(",")[0])
    assert "after 2 iterations: raise max_iter or tol" in said
    assert ("3 of 3 problems" in said) == ("heads" in name)


@pytest.mark.usefixtures("cut_short")
@pytest.mark.parametrize("name", CODES)
def test_codes_that_do_not_converge_are_told_of(name):
    said = heard(CODES[name], name)
    assert "ran out of iterations, with a marginal_error of" in said
    assert "after 2 iterations: raise" in said
    assert said.endswith("or give n_iter")


@pytest.mark.usefixtures("cut_short")
def test_losses_pass_on_what_to_do():
    z, views = torch.rand(60, 3), (S, S + 0.1)
    for loss, given in (
        (so.SwAVLoss(n_iter=None, on_fail="raise"), (views,)),
        (so.adapters.CLOTLoss(tol=1e-30, on_fail="raise"), (*views, z, z.flip(0))),
    ):
        with pytest.raises(so.ConvergenceError):
            loss(*given)
    with pytest.raises(ValueError, match="on_fail must be one of"):
        so.SwAVLoss(on_fail="never")
    with pytest.raises(ValueError, match="on_fail must be one of"):
        so.adapters.CLOTLoss(on_fail="never")


def test_labels_in_exact_counts_say_where_they_are_not_proved(monkeypatch):
    fine = so.balanced_labels(S.expand(2, -1, -1), on_fail="raise")
    assert fine.proved.tolist() == [True, True]
    assert fine.check() is fine
    assert "no labels in such counts are better" in fine.message
    rough = so.balanced_labels(S, mode="fast", on_fail="raise")
    assert bool(rough.proved) == (float(rough.gap) < 1e-9)
    repaired = Task._repaired

    def worse(task, prices, largest):
        labels, prices = repaired(task, prices, largest)
        return labels.roll(1), prices

    monkeypatch.setattr(Task, "_repaired", worse)
    said = heard(lambda **how: so.balanced_labels(S, **how), "balanced_labels")
    assert re.search(r"labels are not proved best, others may be better by [1-9]", said)
    with pytest.warns(so.ConvergenceWarning, match="2 of 2 problems are not proved"):
        so.balanced_labels(S.expand(2, -1, -1))


def test_who_stops_a_solve_is_not_told():
    found = so.sela_labels(S, tol=1e-12, callback=lambda _: True)
    assert found.status is so.Status.STOPPED
    assert "stopped" in found.message
    with pytest.raises(so.ConvergenceError):
        so.sela_labels(S, tol=1e-12, callback=lambda _: True, on_fail="raise")


def test_fixed_iterations_never_say_anything():
    for call in (
        lambda how: so.swav_codes(S, n_iter=1, on_fail=how),
        lambda how: so.adapters.dino_codes(S, 0.05, n_iter=1, on_fail=how),
        lambda how: so.adapters.moe_router(S, n_iter=1, on_fail=how),
    ):
        for how in ("warn", "raise"):
            call(how)
    with pytest.raises(ValueError, match="on_fail must be one of"):
        so.swav_codes(S, on_fail="no")


# labellings that k-means may take, and no tolerance
BOUNDED = {"k_means", "deepercluster_labels"}
PUBLIC = {
    **{name: getattr(so, name) for name in so.__all__},
    **{name: getattr(so.adapters, name) for name in so.adapters.__all__},
    "swav.assign": so.adapters.swav.assign,
}


def iterates(call):
    """Say whether a call may end before it has arrived."""
    if dataclasses.is_dataclass(call) or not inspect.getmodule(call) or not callable(call):
        # results, and descriptions of methods that solve is given
        return False
    if isinstance(call, type) and not issubclass(call, torch.nn.Module):
        return False
    taken = inspect.signature(call).parameters
    count = taken.get("n_iter")
    return bool({"tol", "max_iter"} & set(taken)) or (
        count is not None and "None" in str(count.annotation)
    )


def test_whoever_iterates_to_a_tolerance_takes_on_fail():
    found = {name for name, call in PUBLIC.items() if iterates(call)}
    assert {"solve", "solve_exact", "sela_labels", "moe_router", "swav_codes"} < found
    taking = {
        name
        for name in found
        if (given := inspect.signature(PUBLIC[name]).parameters.get("on_fail"))
        and given.default == "warn"
    }
    assert found - taking == BOUNDED
    for name in BOUNDED:
        assert re.search(r"no tolerance|as in `k_means`", PUBLIC[name].__doc__)
