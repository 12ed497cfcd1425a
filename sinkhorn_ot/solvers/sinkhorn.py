"""The Sinkhorn loop: anneal, sweep, accelerate, stop; for every cost, batch and device."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, checks, shown
from sinkhorn_ot.results import Solution, Status
from sinkhorn_ot.sweeps import Accelerates, Coarsens, Moves, Rules, Sweep, Whole, weightless

from .acceleration import Acceleration, Anderson, Steps, needs_exact
from .price import Price
from .progress import Callback
from .stage import ErrorReader, Stage
from .state import Keeper, Memory, State, holdable, taken, told


# sweeps that a stage of a slow schedule takes, about
_SWEEPS = 5
# how a solve in one launch ends, by its number
_ENDS = (Status.CONVERGED, Status.MAX_ITER, Status.STALLED)


@holdable
@dataclass(frozen=True)
class Anneal:
    """Solve at larger `reg` first, dividing it until the wanted one is reached.

    Args:
        start: First `reg`, about, as a fraction of the cost's spread; none larger is worth a stage.
        factor: What `reg` is divided by between stages.
        tol: Marginal error at which a stage before the last one ends.
        max_iter: Sweeps at which a stage before the last one ends.
        follow: Degree of the polynomial in `reg` along which potentials, in units of the cost, are
            continued from stage to stage; 0 hands them on.
    """

    start: float = 0.005
    factor: float = 4.0
    tol: float = 0.1
    max_iter: int = 40
    follow: int = 0

    def __post_init__(self) -> None:
        for name in ("start", "tol"):
            checks.positive(name, getattr(self, name))
        checks.count("max_iter", self.max_iter)
        checks.count("follow", self.follow, at_least=0)
        if not checks.positive("factor", self.factor) > 1:
            raise ValueError(f"factor must be above 1, got {self.factor!r}")

    def stages(self, spread: float, reg: float) -> list[float]:
        """Return the factors on `reg`, ending in 1."""
        first = self.start * spread / reg
        if not math.isfinite(first) or first <= 1:
            return [1.0]
        steps = round(math.log(first, self.factor))
        return [self.factor**k for k in range(steps, -1, -1)]

    def below(self, factor: float) -> list[float]:
        """Return the factors that follow one, ending in 1."""
        steps = max(1, round(math.log(factor, self.factor)))
        return [self.factor**k for k in range(steps - 1, -1, -1)]


@shown
@dataclass(eq=False)
class _Course(State):
    """How far a solve has come along its schedule.

    Attributes:
        factors: What reg is multiplied by at this stage and at those to come.
        psi: Column potentials g / reg that this stage begins with, (B, m).
        how: How it is accelerated.
        anneal: The schedule that it belongs to.
        n_iter: Sweeps made before it.
        path: The factors of earlier stages, and their potentials in units of the cost.
        stopped: Whether the callback has stopped it.
    """

    factors: tuple[float, ...]
    psi: Tensor
    how: Acceleration
    anneal: Anneal | None
    n_iter: int = 0
    path: tuple[tuple[float, Tensor], ...] = ()
    stopped: bool = False


@dataclass(frozen=True)
class Sinkhorn:
    """Alternate scaling of rows and columns, annealed and accelerated.

    Source: M. Cuturi, Sinkhorn distances, NeurIPS 2013; annealing as in B. Schmitzer, Stabilized
    sparse scaling algorithms, SIAM J. Sci. Comput. 2019.

    Args:
        acceleration: `Anderson()`, `Nesterov()`, `Plain()`, `Newton()`, or `Switch()` from one to
            another.
        anneal: Schedule of larger `reg` to pass through, or None for none.
        patience: Sweeps without progress after which a problem counts as stalled.
        check_every: Sweeps between two looks at the error; None means every sweep on a CPU and
            every fifth on an accelerator, where the host reads each look one look late. Nobody
            looks where a GPU solves in one launch.
        slow: Schedule that takes over after a stage whose steps crawled and changed their kind, as
            those of `Switch` do; None hands over neither the schedule nor the kind.
    """

    acceleration: Acceleration = field(default_factory=Anderson)
    anneal: Anneal | None = field(default_factory=Anneal)
    patience: int = 1000
    check_every: int | None = None
    slow: Anneal | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not callable(getattr(self.acceleration, "start", None)):
            raise ValueError(f"acceleration must be such as Anderson(), got {self.acceleration!r}")
        for name in ("anneal", "slow"):
            if not isinstance(getattr(self, name), Anneal | None):
                raise ValueError(f"{name} must be an Anneal or None, got {getattr(self, name)!r}")
        checks.count("patience", self.patience)
        if self.check_every is not None:
            checks.count("check_every", self.check_every)

    @property
    def name(self) -> str:
        """How the method is called in a result."""
        own = type(self.acceleration).__name__.lower()
        return "anderson, newton where it crawls" if own == "switch" else own

    @property
    def needs_exact(self) -> bool:
        """Whether it serves exact marginals only, which its acceleration says."""
        return needs_exact(self.acceleration)

    def __call__(
        self,
        sweep: Sweep,
        *,
        tol: float,
        max_iter: int,
        v: Tensor | None = None,
        callback: Callback | None = None,
        price: Price | None = None,
        keeper: Keeper | None = None,
    ) -> Solution:
        """Solve the problem that `sweep` serves.

        Args:
            sweep: Implementation of the primitive, bound to a problem.
            tol: Relative L1 marginal error to reach.
            max_iter: Sweeps allowed in all.
            v: Scaled column potentials to start from, (B, m); they replace the annealing.
            callback: Called with a `Progress` after every sweep; True stops.
            price: When a problem of a batch is given up, because it costs less alone; None: never.
            keeper: Who keeps where the run stands, and knows where it stood.
        """
        # inside autocast the products of a sweep would be half precision
        with torch.autocast(sweep.problem.a.device.type, enabled=False):
            factors = self._factors(sweep.problem, max_iter, v)
            if callback is None and keeper is None:
                found = self._unwatched(sweep, tol, max_iter, v, len(factors))
                if found is not None:
                    return found
            course = self._course(sweep, max_iter, v, factors, callback, keeper)
            known, memory = (None, None) if keeper is None else keeper.begin(tol, max_iter)
            if known is not None:
                return known
            found = self._annealed(sweep, tol, max_iter, course, callback, price, keeper, memory)
            if keeper is not None:
                keeper.end(found)
            return found

    def _factors(self, p: Problem, max_iter: int, v: Tensor | None) -> list[float]:
        """Return what reg is multiplied by at each stage."""
        spread = p.bounds.high - p.bounds.low
        # beside a free marginal the first sweep is the answer
        if not self.anneal or v is not None or not math.isfinite(spread) or 0 in p.relax:
            return [1.0]
        # every stage takes a sweep, and the last one must have its own
        return self.anneal.stages(spread, p.least_reg)[-max_iter:]

    def _course(  # noqa: PLR0913
        self,
        sweep: Sweep,
        max_iter: int,
        v: Tensor | None,
        factors: list[float],
        callback: Callback | None,
        keeper: Keeper | None,
    ) -> _Course:
        """Return where a solve begins: where fewer points have led, if the sweep knows such."""
        p, anneal = sweep.problem, self.anneal
        psi = torch.zeros_like(p.b) if v is None else weightless(v, p.b.log())
        begun = _Course(tuple(factors), psi, self.acceleration, anneal)
        if len(factors) == 1 or not isinstance(sweep, Coarsens) or not (fewer := sweep.coarser()):
            return begun
        assert anneal is not None
        few, most, ratio = fewer.sweep, max_iter // 2, fewer.factor
        heard = callback and (lambda now: callback(now.at(ratio)))
        found = self(few, tol=anneal.tol, max_iter=most, callback=heard, keeper=keeper)
        psi = fewer.extend(weightless(found.v, few.problem.b.log()))
        stopped, n_iter = Status.STOPPED in found.status, int(found.n_iter[0])
        left = (ratio, *anneal.below(ratio)) if ratio > 1 else (1.0,)
        # every stage takes a sweep; who stops wants no more of them
        left = (1.0,) if stopped else left[n_iter - max_iter :]
        psi = psi * ratio if stopped else psi
        return replace(begun, factors=left, psi=psi, n_iter=n_iter, stopped=stopped)

    def _annealed(  # noqa: PLR0913
        self,
        sweep: Sweep,
        tol: float,
        max_iter: int,
        course: _Course,
        callback: Callback | None,
        price: Price | None,
        keeper: Keeper | None,
        memory: Memory,
    ) -> Solution:
        def keep(run: Stage, over: bool) -> None:
            assert keeper is not None
            last = over and (run.stopped or len(course.factors) == 1)
            keeper.keep(run.n_iter, lambda: {"course": told(course), "run": run.told()}, last)

        if memory is not None:
            course = taken(memory["course"], course)
        while True:
            run = self._stage(sweep, course, callback)
            if memory is not None:
                run.take(memory["run"])
                memory = None
            if keeper is not None and not course.stopped:
                run.keep = keep
            if (left := len(course.factors) - 1) == 0:
                break
            assert course.anneal is not None
            most = min(max_iter - left, course.n_iter + course.anneal.max_iter)
            run.until(course.anneal.tol, most)
            course = self._next(course, run, max_iter)
        run.stopped = course.stopped
        return run.until(tol, max_iter, price).solution(sweep.problem)

    def _next(self, course: _Course, run: Stage, max_iter: int) -> _Course:
        """Return where the stage begins that follows one."""
        factor, *factors = course.factors
        how, anneal = course.how, course.anneal
        if self.slow and (how := run.heir(how)) != course.how:
            anneal = self.slow
            # fewer stages where few sweeps are left: the last one must have some
            factors = anneal.below(factor)[-max(1, (max_iter - run.n_iter) // _SWEEPS) :]
        # potentials keep their units while reg shrinks
        path = (*course.path, (factor, run.psi * factor))
        if run.stopped:
            return _Course((1.0,), path[-1][1], how, anneal, run.n_iter, path, stopped=True)
        assert anneal is not None
        psi = _continued(path[-1 - anneal.follow :], factors[0]) / factors[0]
        return _Course(tuple(factors), psi, how, anneal, run.n_iter, path)

    def _unwatched(
        self, sweep: Sweep, tol: float, max_iter: int, v: Tensor | None, stages: int
    ) -> Solution | None:
        """Solve in one launch if the sweep can, with one wait at its end; None if it cannot."""
        how, anneal = self.acceleration, self.anneal or Anneal()
        if not isinstance(how, Anderson) or not isinstance(sweep, Whole):
            return None
        rules = Rules(
            tol=tol,
            max_iter=max_iter,
            patience=self.patience,
            stages=stages,
            factor=anneal.factor,
            rough_tol=anneal.tol,
            rough_iter=anneal.max_iter,
            **asdict(how),
        )
        if (found := sweep.annealed(rules, v)) is None:
            return None
        u, v, *told = found
        ends = told[2].tolist()
        if max(ends) > len(_ENDS) - 1:
            # the loop knows what to do with numbers that are none
            return None
        status = [_ENDS[int(end)] for end in ends]
        return Solution(u, v, told[0].to(u.dtype), told[1].to(torch.int64), status)

    def _stage(self, sweep: Sweep, course: _Course, callback: Callback | None) -> Stage:
        p, how, (factor, *_) = sweep.problem, course.how, course.factors
        if factor != 1 or course.n_iter:
            sweep = sweep.at(p.reg * factor)
        steps: Steps | Moves | None = None
        free = 0 in p.relax
        if isinstance(how, Anderson) and not free and isinstance(sweep, Accelerates):
            steps = sweep.moves(**asdict(how))
        if steps is None:
            steps = how.start(p.b)
        look = ErrorReader(self.check_every, course.psi.device)
        return Stage(sweep, course.psi, steps, look, self.patience, callback, course.n_iter, factor)


def _continued(path: Sequence[tuple[float, Tensor]], to: float) -> Tensor:
    """Return potentials at `to`, of the polynomial in reg through those of a path."""
    out = torch.zeros_like(path[-1][1])
    for k, (at, potential) in enumerate(path):
        share = math.prod((to - r) / (at - r) for j, (r, _) in enumerate(path) if j != k)
        out += share * potential
    return out
