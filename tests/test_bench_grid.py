"""The grid: its judge knows right from wrong, and a peer that hangs costs only itself."""

import time
from pathlib import Path

import pytest
import torch

from sinkhorn_ot import testing


BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)


@pytest.fixture
def known(bench):
    from cases import Case

    p = testing.random(7, 5, 0.1, zeros=True, seed=0)
    return Case("", p.cost, p.a, p.b), testing.judge(p.cost, p.a, p.b, p.reg), p.reg


def test_the_gap_of_the_answer_is_zero(known):
    from judge import judged

    case, truth, reg = known
    P = truth.plan
    ratio = torch.where(P > 0, P / (case.a[:, None] * case.b), 1.0).log()
    both = reg * ratio + case.C
    # f_i + g_j in a row that has mass
    row = int(case.a.argmax())
    error, gap = judged(case, reg, P, both[row])
    assert error < 1e-12
    assert gap is not None
    assert abs(gap) < 1e-12
    assert judged(case, reg, P, None) == (error, None)


def test_the_gap_sees_wrong_plans_and_potentials(known):
    from judge import judged

    case, truth, reg = known
    product = case.a[:, None] * case.b
    g = torch.zeros_like(case.b)
    error, gap = judged(case, reg, product, g)
    assert error < 1e-12
    assert gap is not None
    assert gap > 1e-3
    assert judged(case, reg, truth.plan * 1.01, g)[0] == pytest.approx(0.02)
    assert judged(case, reg, truth.plan * torch.nan, g) == (float("inf"), None)


def test_columns_without_weight_do_not_spoil_the_gap(bench):
    """Cheap columns that carry nothing lie further above the others than an exponential reaches."""
    from cases import Case
    from judge import judged

    a, b = (torch.tensor(w, dtype=torch.float64) for w in ([0.3, 0.7], [0.4, 0.0, 0.6]))
    # rows do not tell columns apart: the plan is independent
    C = torch.tensor([[1.0, 0.0, 1.0]]).double().expand(2, 3)
    error, gap = judged(Case("", C, a, b), 1e-4, a[:, None] * b, torch.zeros(3))
    assert error < 1e-15
    assert gap is not None
    assert abs(gap) < 1e-12


def test_a_batch_is_as_good_as_its_worst(known):
    from cases import Case
    from judge import judged

    case, truth, reg = known
    many = Case("", case.C, case.a.expand(2, -1), case.b.expand(2, -1))
    plans = torch.stack([truth.plan, 1.1 * truth.plan])
    assert judged(many, reg, plans, None)[0] == pytest.approx(0.2)


def test_every_problem_of_the_grid_can_be_made(bench):
    import cases
    from grid_cut import entrants, problems
    from peers import ALL

    asked = problems()
    assert len(set(asked)) == len(asked)
    assert {name for p in asked for name in entrants(p)} <= set(ALL)
    for kind in sorted({p.kind for p in asked}):
        case = cases.Problem(kind, 8, 0.1).case()
        assert float(case.C.min()) >= 0
        assert float(case.C.max()) <= 1
        torch.testing.assert_close(case.a.sum(-1), case.b.sum(-1))


def test_a_contest_reports_errors_and_stops_where_it_fell_short(bench, monkeypatch):
    import contest
    from cases import Problem
    from peers import ALL, Answer, Peer

    def enter(case, reg):
        plan = case.a[:, None] * case.b
        return lambda stop: lambda: Answer(plan * (1 + 5e-5), None, True)

    monkeypatch.setitem(ALL, "product", Peer("product", "torch", enter))
    words = list(contest.contest(Problem("points", 8, 0.1), "product", (1e-3, 1e-6, 1e-9)))
    rows = [word for word in words if isinstance(word, contest.Row)]
    assert [(row.error, row.status) for row in rows] == [(1e-3, "reached"), (1e-6, "wrong")]
    assert rows[0].reached == pytest.approx(1e-4)
    clocks = [type(word) for word in words if not isinstance(word, contest.Row)]
    assert clocks == [contest.Go, contest.Stop] * (len(clocks) // 2)


class _Line:
    """A far end that says what it is told to, then nothing."""

    def __init__(self, words):
        self.words = list(words)

    def poll(self, seconds):
        return bool(self.words)

    def recv(self):
        return self.words.pop(0)


def test_who_hangs_is_over_its_time_and_who_raises_has_failed(bench):
    from apart import _heard
    from contest import Go, Row, Stop

    first = Row(1e-3, "reached", 0.1)
    caps = {1e-3: 1.0, 1e-6: 2.0, 1e-9: 3.0}

    def heard(*words):
        left, rows = dict(caps), []
        for row in _heard(_Line(words), left):
            left.pop(row.error)
            rows.append(row)
        return rows

    start = time.monotonic()
    rows = heard(Go(1e-3), Stop(), first, Go(1e-6))
    assert time.monotonic() - start < 1
    assert rows == [first, Row(1e-6, "over", 2.0), Row(1e-9, "over", 2.0)]
    rows = heard(Go(1e-3), Stop(), first, Row(0.0, "failed", why="no"))
    assert rows == [first, Row(1e-6, "failed", why="no"), Row(1e-9, "failed", why="no")]


def test_what_is_not_installed_is_said(bench, monkeypatch):
    from apart import apart
    from cases import Problem
    from peers import ALL, Peer

    monkeypatch.setitem(ALL, "nobody", Peer("nobody", "no_such_package", None))
    rows = list(apart(None, Problem("points", 8, 0.1), "nobody", {1e-3: 1.0}))
    assert [row.status for row in rows] == ["absent"]
