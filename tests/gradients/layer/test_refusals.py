"""What `normalize` does not take, and how it says so."""

import math
import re

import numpy as np
import pytest
import torch

import sinkhorn_ot as so


X = torch.randn(2, 3, 4)
ROWS = {
    "whole numbers": (lambda: so.normalize(torch.ones(3, 3, dtype=torch.int64)), "logits must be floating point, got int64"),
    "complex": (lambda: so.normalize(X.to(torch.complex64)), "logits must be floating point, got complex64"),
    "words": (lambda: so.normalize("logits"), "logits must hold real numbers"),
    "sparse": (lambda: so.normalize(X[0].to_sparse()), "logits must be a strided tensor"),
    "one dimension": (lambda: so.normalize(X[0, 0]), "logits must have shape (..., n, m), not empty, got (4,)"),
    "no columns": (lambda: so.normalize(X[..., :0]), "not empty, got (2, 3, 0)"),
    "nan": (lambda: so.normalize(X.index_fill(2, torch.tensor([1]), math.nan)), "logits must be numbers below inf, got nan at index (0, 0, 1)"),
    "inf": (lambda: so.normalize(X.index_fill(1, torch.tensor([2]), math.inf)), "got inf at index (0, 2, 0)"),
    "fewer than no steps": (lambda: so.normalize(X, -1), "n_iter must be a whole number of at least 0, got -1"),
    "half a step": (lambda: so.normalize(X, 2.5), "n_iter must be a whole number"),
    "a truth of steps": (lambda: so.normalize(X, True), "n_iter must be a whole number"),
    "negative": (lambda: so.normalize(X, a=torch.tensor([1.0, -1, 1])), "a must be non-negative, got -1 at index 1"),
    "nan in weights": (lambda: so.normalize(X, b=torch.tensor([1.0, math.nan, 1, 1])), "b must be finite, got nan at index 1"),
    "all zeros": (lambda: so.normalize(X, a=torch.zeros(3)), "a must have some positive weight"),
    "all zeros in one": (lambda: so.normalize(X, a=torch.stack([torch.zeros(3), torch.ones(3)])), "all zeros in problem 0"),
    "too few": (lambda: so.normalize(X, b=np.ones(3)), "b must have shape (..., 4), got (3,)"),
    "a number": (lambda: so.normalize(X, a=torch.tensor(1.0)), "a must have shape (..., 3), got ()"),
    "another batch": (lambda: so.normalize(X, a=torch.ones(5, 3)), "a must broadcast with logits, of batch shape (2,), got (5, 3)"),
    "a larger batch": (lambda: so.normalize(X[0], a=torch.ones(2, 3)), "a must broadcast with logits, of batch shape (), got (2, 3)"),
    "complex weights": (lambda: so.normalize(X, a=torch.ones(3, dtype=torch.complex64)), "a must hold real numbers"),
    "another device": (lambda: so.normalize(X, a=torch.ones(3, device="meta")), "a must be on the device of logits"),
    "no temperature": (lambda: so.normalize(X, reg=0), "reg must be a finite number above zero, got 0"),
    "a temperature too small": (lambda: so.normalize(X, reg=1e-320), "reg must be a number whose inverse float64 holds"),
    "one that learns": (lambda: so.normalize(X, reg=torch.tensor(1.0, requires_grad=True)), "divide the logits by a temperature that learns"),
    "another side": (lambda: so.normalize(X, first="row"), "first must be one of 'rows', 'columns', got 'row'"),
    "a number for a truth": (lambda: so.normalize(X, log=1), "log must be True or False, got 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_says_what_is_wrong(name):
    call, said = ROWS[name]
    with pytest.raises(ValueError, match=re.escape(said)):
        call()


def test_names_the_first_index_in_the_callers_order():
    x = torch.zeros(2, 3)
    x[1, 2] = math.nan
    with pytest.raises(ValueError, match=r"at index \(1, 2\)"):
        so.normalize(x, first="columns")


def test_nan_stays_in_its_matrix_where_nobody_may_look():
    x = torch.zeros(2, 3, 3)
    x[0, 0, 0] = math.nan
    P = torch.vmap(so.normalize)(x)
    assert P[0].isnan().any()
    torch.testing.assert_close(P[1], torch.full((3, 3), 1 / 3))


def test_mixed_weights_are_taken():
    whole = so.normalize(X, 3, torch.tensor([1, 2, 3]), torch.ones(2, 1, 4)[:, 0].double())
    assert whole.dtype == torch.float32
