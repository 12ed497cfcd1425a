"""The families of cases: each makes of random numbers a call, and of its answer a verdict."""

from collections.abc import Callable

from bench.cpu.fuzz import calls, distances, entropic, exact, gradients, labels
from bench.cpu.fuzz.draws import Random
from bench.cpu.fuzz.verdict import Verdict


def stored(rng: Random) -> Verdict:
    """Solve with a stored cost."""
    return entropic.solved(rng, calls.with_options(rng, calls.regularised(rng, calls.stored(rng))))


def forbidden(rng: Random) -> Verdict:
    """Solve with forbidden pairs, with and without a plan."""
    call = calls.regularised(rng, calls.forbidding(rng))
    return entropic.solved(rng, calls.with_options(rng, call))


def clouds(rng: Random) -> Verdict:
    """Solve between points."""
    return entropic.solved(rng, calls.with_options(rng, calls.regularised(rng, calls.clouds(rng))))


def streamed(rng: Random) -> Verdict:
    """Solve with a cost that is read block by block."""
    return entropic.solved(
        rng, calls.with_options(rng, calls.regularised(rng, calls.streamed(rng)))
    )


def relaxed(rng: Random) -> Verdict:
    """Solve with penalties."""
    return entropic.solved(rng, _relaxed(rng))


def _relaxed(rng: Random) -> calls.Call:
    maker = _one_of(rng, calls.stored, calls.forbidding, calls.clouds, calls.streamed)
    call = calls.relaxed(rng, calls.regularised(rng, maker(rng)))
    return calls.with_options(rng, call)


def _one_of(rng: Random, *makers: Callable[[Random], calls.Call]) -> Callable[[Random], calls.Call]:
    """Return one of the makers, the first half of the time."""
    return makers[int(rng.integers(len(makers)))] if rng.random() < 0.5 else makers[0]


def warm(rng: Random) -> Verdict:
    """Solve from a start."""
    if rng.random() < 0.3:
        return entropic.warmed(rng, _relaxed(rng))
    maker = _one_of(rng, calls.stored, calls.forbidding, calls.clouds)
    return entropic.warmed(rng, calls.with_options(rng, calls.regularised(rng, maker(rng))))


def fixed(rng: Random) -> Verdict:
    """Run a number of sweeps."""
    if rng.random() < 0.3:
        return entropic.repeated(rng, _relaxed(rng))
    maker = _one_of(rng, calls.stored, calls.forbidding, calls.clouds, calls.streamed)
    return entropic.repeated(rng, calls.regularised(rng, maker(rng)))


FAMILIES: dict[str, Callable[[Random], Verdict]] = {
    "stored": stored,
    "forbidden": forbidden,
    "clouds": clouds,
    "streamed": streamed,
    "relaxed": relaxed,
    "warm": warm,
    "fixed": fixed,
    "exact": exact.optimal,
    "distance": distances.bounded,
    "balanced": labels.balanced,
    "sela": labels.sela,
    "swav": labels.swav,
    "moe": labels.moe,
    "gradients": gradients.differentiated,
}
