"""The grid: its judge knows right from wrong, and a peer that hangs costs only itself."""

import time

import pytest
import torch

from bench.cpu.cases import Case, Problem
from bench.cpu.grid.child import _heard, in_child
from bench.cpu.grid.selection import problems, solvers
from bench.cpu.grid.trial import Row, Started, Stopped, trial
from bench.cpu.judge import judged
from bench.peers import ALL, Answer, Peer
from sinkhorn_ot import testing


@pytest.fixture
def known():
    p = testing.random(7, 5, 0.1, zeros=True, seed=0)
    return Case("", p.cost, p.a, p.b), testing.judge(p.cost, p.a, p.b, p.reg), p.reg


def test_the_gap_of_the_answer_is_zero(known):
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
    case, truth, reg = known
    product = case.a[:, None] * case.b
    g = torch.zeros_like(case.b)
    error, gap = judged(case, reg, product, g)
    assert error < 1e-12
    assert gap is not None
    assert gap > 1e-3
    assert judged(case, reg, truth.plan * 1.01, g)[0] == pytest.approx(0.02)
    assert judged(case, reg, truth.plan * torch.nan, g) == (float("inf"), None)


def test_columns_without_weight_do_not_spoil_the_gap():
    """Cheap columns that carry nothing lie further above the others than an exponential reaches."""
    a, b = (torch.tensor(w, dtype=torch.float64) for w in ([0.3, 0.7], [0.4, 0.0, 0.6]))
    # rows do not tell columns apart: the plan is independent
    C = torch.tensor([[1.0, 0.0, 1.0]]).double().expand(2, 3)
    error, gap = judged(Case("", C, a, b), 1e-4, a[:, None] * b, torch.zeros(3))
    assert error < 1e-15
    assert gap is not None
    assert abs(gap) < 1e-12


def test_a_batch_is_as_good_as_its_worst(known):
    case, truth, reg = known
    many = Case("", case.C, case.a.expand(2, -1), case.b.expand(2, -1))
    plans = torch.stack([truth.plan, 1.1 * truth.plan])
    assert judged(many, reg, plans, None)[0] == pytest.approx(0.2)


def test_every_problem_of_the_grid_can_be_made():
    asked = problems()
    assert len(set(asked)) == len(asked)
    assert {name for p in asked for name in solvers(p)} <= set(ALL)
    for kind in sorted({p.kind for p in asked}):
        case = Problem(kind, 8, 0.1).case()
        assert float(case.C.min()) >= 0
        assert float(case.C.max()) <= 1
        torch.testing.assert_close(case.a.sum(-1), case.b.sum(-1))


def test_a_trial_reports_errors_and_stops_where_it_fell_short(monkeypatch):
    def load(case, reg):
        plan = case.a[:, None] * case.b
        return lambda stop: lambda: Answer(plan * (1 + 5e-5), None, True)

    monkeypatch.setitem(ALL, "product", Peer("product", "torch", load))
    words = list(trial(Problem("points", 8, 0.1), "product", (1e-3, 1e-6, 1e-9)))
    rows = [word for word in words if isinstance(word, Row)]
    assert [(row.error, row.status) for row in rows] == [(1e-3, "reached"), (1e-6, "wrong")]
    assert rows[0].reached == pytest.approx(1e-4)
    clocks = [type(word) for word in words if not isinstance(word, Row)]
    assert clocks == [Started, Stopped] * (len(clocks) // 2)


class _Line:
    """A far end that says what it is told to, then nothing."""

    def __init__(self, words):
        self.words = list(words)

    def poll(self, seconds):
        return bool(self.words)

    def recv(self):
        return self.words.pop(0)


def test_who_hangs_is_over_its_time_and_who_raises_has_failed():
    first = Row(1e-3, "reached", 0.1)
    caps = {1e-3: 1.0, 1e-6: 2.0, 1e-9: 3.0}

    def heard(*words):
        left, rows = dict(caps), []
        for row in _heard(_Line(words), left):
            left.pop(row.error)
            rows.append(row)
        return rows

    start = time.monotonic()
    rows = heard(Started(1e-3), Stopped(), first, Started(1e-6))
    assert time.monotonic() - start < 1
    assert rows == [first, Row(1e-6, "over", 2.0), Row(1e-9, "over", 2.0)]
    rows = heard(Started(1e-3), Stopped(), first, Row(0.0, "failed", why="no"))
    assert rows == [first, Row(1e-6, "failed", why="no"), Row(1e-9, "failed", why="no")]


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(ALL, "nobody", Peer("nobody", "no_such_package", None))
    rows = list(in_child(None, Problem("points", 8, 0.1), "nobody", {1e-3: 1.0}))
    assert [row.status for row in rows] == ["absent"]
