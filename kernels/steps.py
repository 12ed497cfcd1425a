"""Anderson's step after any sweep, in two launches: what is learnt, and where that leads.

The rules and the memory are those of `whole`, whose pieces these are; what it carries from sweep to
sweep in registers is held here. A problem's columns are cut into slices: the first launch writes
each slice's part of the scalar products, the second adds them up, decides alike in every slice, and
moves it. What decides is read from one tensor and written to another, so that no slice waits.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import OPTIONS, power_of_two
from .launch import launch
from .relaxed import answer
from .tiles import LN2
from .whole_steps import (
    HELD,
    KINDS,
    LAST_PSI,
    LAST_R,
    MEMORY,
    SUMS,
    add_up,
    advance,
    differences,
    kind,
    number,
    only_if,
    write_products,
)


# what is known of a problem: its Gram matrix, three vectors beside it, and its marks
_KNOWN = MEMORY.value + 4


@triton.jit
def _columns(psi, log_s, b, mass, problem, c, m, RELAXED: tl.constexpr):
    """Return the columns' state: potentials, residuals, weights, errors, and who has weight.

    For relaxed ones `log_s` are the residuals themselves.
    """
    b_c = tl.load(b + problem * m + c, mask=c < m, other=0.0)
    log_c = tl.load(log_s + problem * m + c, mask=c < m, other=-float("inf"))
    live = b_c > 0
    log_b = tl.where(live, tl.log2(b_c) * LN2, 0.0)
    if RELAXED:
        r = tl.where(live, log_c, 0.0)
    else:
        # a sum of zero means that no pair is allowed: nothing to answer
        r = tl.where(live & (log_c != -float("inf")), log_b - log_c, 0.0)
    psi_c = tl.where(live, tl.load(psi + problem * m + c, mask=c < m, other=0.0), 0.0)
    w = b_c.to(tl.float64) / tl.load(mass + problem)
    off = tl.where(c < m, tl.abs(tl.exp(log_c) - b_c), 0.0)
    return psi_c, r, w, off, live


@triton.jit(do_not_specialize=["m", "slices", "memory"])
def _learn(
    psi,
    log_s,
    b,
    mass,
    held,
    known,
    dots,
    m,
    slices,
    memory,
    COLS: tl.constexpr,
    RELAXED: tl.constexpr,
):
    """Keep what changed since the step before, and write a slice's scalar products."""
    problem = (tl.program_id(0) // slices).to(tl.int64)
    c = tl.program_id(0) % slices * COLS + tl.arange(0, COLS)
    psi_c, r, w, off, live = _columns(psi, log_s, b, mass, problem, c, m, RELAXED)
    held += problem * HELD * m
    marks = known + (problem * (MEMORY + 4) + MEMORY + 3) * MEMORY
    count, valid = tl.load(marks + 5).to(tl.int32), tl.load(marks + 6).to(tl.int32)
    moving, slot = tl.load(marks + 7).to(tl.int32), count % memory
    before = only_if(valid, live)
    last_psi = tl.load(held + LAST_PSI * m + c, mask=before, other=0.0)
    last_r = tl.load(held + LAST_R * m + c, mask=before, other=0.0)
    dx, dr = differences(held, psi_c, r, last_psi, last_r, slot, valid, m, c, live)
    used = tl.minimum(count + valid, memory)
    write_products(
        held, dots, psi_c, r, dx, dr, off, w, slot, used, moving, m, c, live, not RELAXED
    )  # fmt: skip


@triton.jit(do_not_specialize=["m", "slices", "memory", "growth", "wait", "begin"])
def _move(
    psi, log_s, b, mass, held, known, dots, scratch, new_psi, new_known, error,
    m, slices, memory, growth, wait, begin,
    COLS: tl.constexpr, PB: tl.constexpr, RELAXED: tl.constexpr,
):  # fmt: skip
    """Move a slice of the columns; the first slice of a problem writes what is known after it."""
    problem = (tl.program_id(0) // slices).to(tl.int64)
    part = tl.program_id(0) % slices
    c, k = part * COLS + tl.arange(0, COLS), tl.arange(0, MEMORY)
    psi_c, r, w, off, live = _columns(psi, log_s, b, mass, problem, c, m, RELAXED)
    total, largest = add_up(dots + problem * slices * KINDS * MEMORY, slices, PB)
    sums = kind(total, SUMS)
    off_all, mean = number(sums, 0) / tl.load(mass + problem), number(sums, 1)
    if RELAXED:
        off_all = tl.load(error + problem).to(tl.float64)
    at = known + problem * (MEMORY + 4) * MEMORY
    gram = tl.load(at + k[:, None] * MEMORY + k[None, :])
    means, marks = tl.load(at + MEMORY * MEMORY + k), at + (MEMORY + 3) * MEMORY
    changes, moves = (
        tl.load(at + (MEMORY + 1) * MEMORY + k),
        tl.load(at + (MEMORY + 2) * MEMORY + k),
    )
    best, best_mean, waiting = tl.load(marks), tl.load(marks + 1), tl.load(marks + 2)
    penalty, t, count = tl.load(marks + 3), tl.load(marks + 4), tl.load(marks + 5).to(tl.int32)
    valid, moving = tl.load(marks + 6).to(tl.int32), tl.load(marks + 7).to(tl.int32)
    state = best, best_mean, waiting, penalty, t, count, valid, moving
    moved, state, gram, means, changes, moves = advance(
        held + problem * HELD * m, scratch + tl.program_id(0) * (MEMORY + 1) * MEMORY,
        total, largest, psi_c, r, off_all, mean, state, gram, means, changes, moves,
        m, c, live, memory, growth, wait, begin,
    )  # fmt: skip
    tl.store(new_psi + problem * m + c, moved, mask=c < m)
    if part == 0:
        to = new_known + problem * (MEMORY + 4) * MEMORY
        tl.store(to + k[:, None] * MEMORY + k[None, :], gram)
        tl.store(to + MEMORY * MEMORY + k, means)
        tl.store(to + (MEMORY + 1) * MEMORY + k, changes)
        tl.store(to + (MEMORY + 2) * MEMORY + k, moves)
        for q in tl.static_range(8):
            tl.store(to + (MEMORY + 3) * MEMORY + q, state[q].to(tl.float64))
        if not RELAXED:
            tl.store(error + problem, off_all)


class Relaxed(NamedTuple):
    """What decides how relaxed columns answer: see `relaxed.answer` for the fields."""

    a: Tensor
    reg: Tensor
    relax: tuple[float, float]
    dtype: torch.dtype

    def select(self, index: Tensor) -> "Relaxed":
        """Keep the problems at `index`."""
        return self._replace(a=self.a[index], reg=self.reg[index])


class Run:
    """An accelerated run over a batch of problems."""

    def __init__(
        self, b: Tensor, relaxed: Relaxed | None = None, *,
        memory: int, growth: float, wait: int, begin: float,
    ) -> None:  # fmt: skip
        """Begin.

        Args:
            b: Column weights (B, m), float32 or float64, in which potentials are.
            relaxed: What decides where marginals are relaxed; None where they are exact.
            memory: Differences of past steps kept, at most `HELD_STEPS`.
            growth: An error this many times the best so far is a failure.
            wait: Steps of the fallback after the first failure.
            begin: Error below which extrapolation begins.
        """
        B, m = b.shape
        self._b, self._relaxed = b.contiguous(), relaxed
        self._rules = memory, growth, wait, begin
        self._mass = b.sum(-1, dtype=torch.float64)
        self._held = torch.empty(B, HELD.value, m, device=b.device, dtype=b.dtype)
        self._known = torch.zeros(B, _KNOWN, MEMORY.value, device=b.device, dtype=torch.float64)
        # the least error, how long to wait, and Nesterov's t
        self._known[:, -1, 0], self._known[:, -1, 3] = float("inf"), float(wait)
        self._known[:, -1, 4] = 1.0

    def step(self, u: Tensor, psi: Tensor, log_s: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next column potentials (B, m), and the marginal error at those given (B,).

        Args:
            u: Scaled row potentials that answer those given (B, n).
            psi: Column potentials g / reg (B, m).
            log_s: Logarithms of the plan's column sums at these (B, m).
        """
        B, m = psi.shape
        COLS = min(512, power_of_two(-(-m // 128), 64))
        slices = triton.cdiv(m, COLS)
        new = psi.new_empty(B, m)
        dots = psi.new_empty(B * slices, KINDS.value, MEMORY.value, dtype=torch.float64)
        scratch = psi.new_empty(B * slices, MEMORY.value + 1, MEMORY.value, dtype=torch.float64)
        known = torch.empty_like(self._known)
        if self._relaxed is None:
            said, error = log_s.contiguous(), psi.new_empty(B)
        else:
            a, reg, relax, dtype = self._relaxed
            said, error = answer(psi, u, log_s, a, self._b, reg, relax, dtype)
        given = psi.contiguous(), said, self._b, self._mass, self._held, self._known
        memory, growth, wait, begin = self._rules
        switches = dict(COLS=COLS, RELAXED=self._relaxed is not None, num_warps=4, **OPTIONS)
        launch(_learn, B * slices, *given, dots, m, slices, memory, **switches)
        launch(
            _move, B * slices, *given, dots, scratch, new, known, error, m, slices,
            memory, growth, wait, begin, PB=min(64, power_of_two(slices, 1)), **switches,
        )  # fmt: skip
        self._known = known
        return new, error

    def select(self, index: Tensor) -> "Run":
        """Keep the problems at `index`."""
        kept = object.__new__(Run)
        kept._rules = self._rules
        kept._relaxed = self._relaxed and self._relaxed.select(index)
        for name in ("_b", "_mass", "_held", "_known"):
            setattr(kept, name, getattr(self, name)[index])
        return kept
