"""Which problems are posed, to whom, and how long each may take: the cut of the full product.

The full product is ten kinds, four sizes, three weights, four regs and two precisions for each of
some sixteen solvers. Here every kind is posed at every reg with Dirichlet weights in float64, the
other weights and float32 where they can change the order; solvers that are far behind on a thousand
points are not asked for more. A run may take ten times what this package takes, and
fifty times on wide problems, where more is claimed.
"""

from bench.cpu.cases import Problem, own_reg


REGS = (1e-1, 1e-2, 1e-3, 1e-4)
ERRORS = {"float64": (1e-3, 1e-6, 1e-9), "float32": (1e-3, 1e-6)}
OURS = "sinkhorn_ot"
EXACT = "network simplex"

# who is asked at reg above 5e-3 and below, where other methods lead
_BROAD = ("POT", "OTT", "OTT momentum", "OTT Anderson", "MDOT-TNT")
_SHARP = ("POT", "POT log", "OTT momentum", "MDOT-TNT", "RegOT SSNS")
_LARGE_BROAD = ("POT", "OTT momentum", "MDOT-TNT")
# who is asked only about a thousand points
_ONCE = ("POT torch", "POT stabilized", "RegOT SPLR", "GeomLoss")
_BATCH = ("POT loop", "POT batch", "OTT momentum", "OTT Anderson")
_LOGITS = ("published loop", "POT", "OTT momentum", "MDOT-TNT")
# seconds that a run is given, and how many times what this package takes
_LEAST, _MOST = 0.5, 6.0
_TIMES, _WIDE_TIMES = 10.0, 50.0


def problems() -> list[Problem]:
    """Return the problems, those that decide first."""
    kinds = [("points", 1000), ("random", 1000), ("points", 2000), ("wide", 10_000)]
    kinds += [("mixtures", 1000), ("euclidean", 1000), ("points", 100), ("random", 100)]
    kinds += [("digit", 8), ("digits", 1000), ("own costs", 1000), ("random", 2000)]
    kinds += [("points", 4000), ("image", 64)]
    found = [Problem(kind, n, reg) for kind, n in kinds for reg in REGS]
    found += [Problem("random", 4000, reg) for reg in REGS[1:3]]
    found += [Problem("points", 1000, reg, w) for w in ("uniform", "zeros") for reg in REGS]
    for kind, n in (("points", 1000), ("random", 1000), ("digits", 1000)):
        found += [Problem(kind, n, reg, dtype="float32") for reg in REGS[:3]]
    for kind in ("flat logits", "peaked logits"):
        found += [Problem(kind, 50_000, reg) for reg in (own_reg(kind), own_reg(kind) / 10)]
    found += [Problem("scores", 7936, own_reg("scores"), dtype="float32")]
    return found


def solvers(problem: Problem) -> tuple[str, ...]:
    """Return who is asked beside this package."""
    if problem.batch:
        return _BATCH if problem.reg > 5e-3 else _BATCH[:1]
    if "logits" in problem.kind or problem.kind == "scores":
        return _LOGITS
    names = _SHARP if problem.reg < 5e-3 else _BROAD
    if problem.size > 1_000_000 and names is _BROAD:
        names = _LARGE_BROAD
    if problem in (Problem("points", 1000, problem.reg), Problem("random", 1000, 1e-2)):
        names = (*names, *_ONCE)
    if problem.reg > 5e-4:
        # where POT's kernel does not underflow it is always ahead of its log domain
        names = tuple(name for name in names if name != "POT log")
    # the exact solver does not see reg
    return (*names, EXACT) if problem.reg == 1e-2 else names


def cap(kind: str, name: str, ours: float | None) -> float:
    """Return the seconds that a solver's run may take, given what this package took."""
    if ours is None or name == EXACT:
        return _MOST
    times = _WIDE_TIMES if kind == "wide" else _TIMES
    return min(max(_LEAST, times * ours), max(_MOST, 2 * ours))
