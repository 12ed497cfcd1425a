"""What a message says of a batch, in sentences."""

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.results import in_words, worst


GOOD, EXACT, LATE = so.Status.CONVERGED, so.Status.OPTIMAL, so.Status.MAX_ITER
BROKEN, FIXED = so.Status.NOT_FINITE, so.Status.FIXED
SAID = {
    (GOOD,): f"{GOOD.value} Reached 1e-9.",
    (GOOD, GOOD): "Both problems converged: their marginals match to within tol. The worst reached"
    " 1e-9.",
    (GOOD, EXACT, GOOD): "All 3 problems converged: their marginals match to within tol. The worst"
    " reached 1e-9.",
    (EXACT,) * 4: "All 4 problems have exact plans, proved optimal by their dual potentials. The"
    " worst reached 1e-9.",
    (GOOD, LATE): f"1 of 2 problems did not converge. {LATE.value} It reached 1e-9.",
    (LATE, LATE, EXACT): f"2 of 3 problems did not converge. {LATE.value} The worst reached 1e-9.",
    (LATE,) * 3: f"3 of 3 problems did not converge. {LATE.value} The worst reached 1e-9.",
    (LATE, BROKEN, GOOD, LATE): "3 of 4 problems did not converge: 1 NOT_FINITE, 2 MAX_ITER."
    f" {BROKEN.value} The worst reached 1e-9.",
    (FIXED, FIXED): f"{FIXED.value} The worst reached 1e-9.",
    (FIXED, BROKEN): f"1 of 2 problems did not converge. {BROKEN.value} It reached 1e-9.",
    (): "There are no problems.",
}


@pytest.mark.parametrize("statuses", SAID, ids=lambda s: "-".join(x.name for x in s) or "none")
def test_how_many_ended_how(statuses):
    assert in_words(statuses, reached="1e-9") == SAID[statuses]
    assert in_words(statuses, kind="pairs").count("pairs") == ("problems" in SAID[statuses])
    assert worst(statuses) is max(statuses, key=list(so.Status).index, default=so.Status.CONVERGED)


@pytest.mark.filterwarnings("ignore::sinkhorn_ot.ConvergenceWarning")
def test_results_say_it_of_themselves():
    C = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(0))
    for r in (
        so.solve(C, reg=0.1),
        so.solve_exact(C),
        so.sinkhorn_distance(C, alpha=0.1),
        so.barycenter(C.softmax(-1), C[0, :5], reg=0.5),
        so.sinkhorn_divergence(C, C + 1, reg=0.1),
    ):
        assert r.message.startswith("All 3 ")
        assert r.message.count("All 3 ") == 1
    late = so.solve(C, reg=0.1, max_iter=1)
    assert late.message.startswith("3 of 3 problems did not converge. Ran out of iterations: ")
    assert late.message.endswith(" after 1 iteration.")
