"""Who comes with another package's words is told ours."""

import numpy as np
import pytest

import sinkhorn_ot as so


C = np.array([[0.0, 2.0, 1.0], [1.0, 0.5, 3.0]])
a, b = np.array([0.5, 0.5]), np.full(3, 1 / 3)
x, y = np.zeros((2, 4)), np.ones((3, 4))


@pytest.mark.parametrize(
    ("call", "given", "said"),
    [
        (so.solve, {"eps": 0.1}, r"solve\(\) has no argument 'eps': write reg="),
        (so.solve, {"epsilon": 0.1}, "write reg="),
        (so.solve, {"lamb": 10}, "has no argument 'lamb'"),
        (so.solve, {"lambd": 10}, "write reg=$"),
        (so.solve, {"reg": 1, "numItermax": 5}, "'numItermax': write max_iter="),
        (so.solve, {"reg": 1, "stopThr": 5}, "'stopThr': write tol="),
        (so.solve, {"reg": 1, "log": True}, "properties of the result"),
        (so.solve, {"reg": 1, "verbose": True}, "write progress="),
        (so.solve, {"reg": 1, "max_itr": 3}, "write max_iter="),
        (so.solve, {"reg": 1, "reg_m": 3}, "write unbalanced="),
        (so.solve, {"reg": 1, "tau_a": 0.5}, r"rho = reg \* tau"),
        (so.solve, {"reg": 1, "colour": 3}, "has no argument 'colour'$"),
        (so.solve_exact, {"numItermax": 5}, "write max_iter="),
        (so.balanced_labels, {"numItermax": 5}, r"balanced_labels\(\) has no argument"),
        (so.sela_labels, {"eps": 5}, "write lamb="),
    ],
)
def test_an_argument_of_others_is_answered_with_ours(call, given, said):
    with pytest.raises(TypeError, match=said):
        call(C, **given)


def test_a_loss_of_others_is_answered():
    with pytest.raises(TypeError, match=r"write reg=, reg = blur \*\* p"):
        so.sinkhorn_divergence(x, y, blur=0.05)


@pytest.mark.parametrize("call", [lambda: so.solve(a, b, C, 0.1), lambda: so.solve_exact(a, b, C)])
def test_weights_before_the_cost_are_told_the_order(call):
    with pytest.raises(ValueError, match=r"got \(2,\): the cost comes first, .*\(cost, a, b"):
        call()


def test_two_clouds_for_a_cost_are_told_of_point_clouds():
    with pytest.raises(ValueError, match=r"PointCloud\(x, y\)"):
        so.solve(x, y, reg=0.1)
    with pytest.raises(ValueError, match=r"PointCloud\(x, y\)"):
        so.solve_exact(x, y)


def test_batched_weights_that_do_not_fit_are_not_taken_for_points():
    with pytest.raises(ValueError, match="a must have shape") as told:
        so.solve(C, np.ones((5, 4)) / 4, b, 0.1)
    assert "PointCloud" not in str(told.value)


@pytest.mark.parametrize(("name", "said"), [("sinkhorn", "solve"), ("emd2", "solve_exact")])
def test_a_call_of_others_is_answered(name, said):
    with pytest.raises(
        AttributeError, match=rf"{name}.*so\.{said}.*import sinkhorn_ot\.compat\.pot$"
    ):
        getattr(so, name)


@pytest.mark.parametrize(
    ("method", "said"),
    [(so.Newton, r"Sinkhorn\(Newton\(\)\)$"), (so.Sinkhorn, r"not its class: pass Sinkhorn\(\)$")],
)
def test_a_class_for_a_solver_is_told_to_be_called(method, said):
    with pytest.raises(ValueError, match=said):
        so.solve(C, reg=0.1, method=method)


def test_what_nobody_has_is_a_plain_error():
    with pytest.raises(AttributeError, match="^module 'sinkhorn_ot' has no attribute 'nothing'$"):
        so.nothing  # noqa: B018
    assert not hasattr(so, "__path_of_nothing__")
