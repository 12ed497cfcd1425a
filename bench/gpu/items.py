"""One item of work at a time: the card's rates, a check, a call, or a row. Each gives a record.

A record is what JSON can hold. Its status is "passed" or "measured", or it says why it is "failed"
or "skipped".
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from bench.gpu.called.table import CALLS
from bench.gpu.card import PEERS
from bench.gpu.checks import double, kernels, promises, swept
from bench.gpu.checks.check import Check
from bench.gpu.timed.problems import PROBLEMS
from bench.gpu.timed.table import Problem, Row


Record = dict[str, Any]
CHECKS = kernels.CHECKS
# float64 first: it has the most to compile
PROMISES = [*double.CHECKS, *promises.PROMISES, *swept.CHECKS]
# what can be asked for by --only, in order
PARTS = ("checks", "double", "solve", "pot", "calls", "kernels", "compiled")
# seconds for one item, compilation included: what hangs must not take all there is
_TIMEOUT = {"card": 60.0, "check": 45.0, "promise": 60.0, "row": 40.0}
# of a peer, which may have a minute to compile
_PEER = 100.0


class Item(NamedTuple):
    """What is to be done.

    Attributes:
        kind: "card"; "check" or "promise"; "ahead", "call" or "profile" for a call that is made
            beside the checks so that it is compiled, timed, or counted; "row" of a problem.
        number: Which check, promise, call or row.
        problem: Which problem, for a row.
    """

    kind: str
    number: int = 0
    problem: int = 0


def beside() -> list[Item]:
    """Return what may run beside each other: calls to compile, checks and promises."""
    ahead = [Item("ahead", k) for k, call in enumerate(CALLS) if call.ahead]
    checks = [Item("check", k) for k in range(len(CHECKS))]
    made = [Item("promise", k) for k in range(len(PROMISES))]
    in_double = len(double.CHECKS)
    return [*made[:in_double], *ahead, *checks, *made[in_double:]]


def timed(peers: bool = False) -> list[Item]:
    """Return what is timed, one after another: what has much to compile comes last.

    Args:
        peers: Whether to time the peers that take long to compile, beside ours, and nothing else.
    """
    rows = [(Item("row", k, p), row) for p, k, row in _rows(peers)]
    late = [item for item, row in rows if row.late]
    kernels = [item for item, row in rows if not row.late]
    if peers:
        return [*kernels, *late]
    calls = [Item(kind, k) for k in range(len(CALLS)) for kind in ("call", "profile")]
    # what peers launch is their affair, and POT's profiles would take longer than its calls
    calls = [i for i in calls if i.kind == "call" or CALLS[i.number].part != "pot"]
    return [*calls, *kernels, *late]


def _rows(peers: bool) -> Iterable[tuple[int, int, Row]]:
    for p, problem in enumerate(PROBLEMS):
        if peers and not any(_foreign(row) for row in problem.rows):
            continue
        for k, row in enumerate(problem.rows):
            # beside the peers, ours of the same problem
            if _foreign(row) == peers or (peers and k == 0):
                yield p, k, row


def _foreign(row: Row) -> bool:
    return row.needs in PEERS.values()


def chosen(items: list[Item], only: list[str]) -> list[Item]:
    """Return the items of the parts that are named, or with a name in their label; else all."""
    if not only:
        return items
    return [i for i in items if any(_named(i, name) for name in only)]


def _named(item: Item, name: str) -> bool:
    if name == "double":
        return item.kind == "promise" and item.number < len(double.CHECKS)
    return name == part(item) if name in PARTS else name in called(label(item))


def part(item: Item) -> str:
    """Return the part of the run that an item belongs to."""
    if item.kind in ("check", "promise"):
        return "checks"
    if item.kind == "row":
        return "compiled" if row_of(item)[1].late else "kernels"
    return CALLS[item.number].part if item.kind != "card" else "card"


def limit(item: Item) -> float:
    """Return the seconds after which an item is given up."""
    if item.kind in ("ahead", "call", "profile"):
        return CALLS[item.number].limit
    if item.kind == "row" and _foreign(row_of(item)[1]):
        return _PEER
    return _TIMEOUT[item.kind]


def label(item: Item) -> Record:
    """Return how the record of an item begins, whatever becomes of it."""
    if item.kind == "row":
        problem, row = row_of(item)
        return {"problem": problem.name, "who": row.who}
    if item.kind in ("ahead", "call", "profile"):
        call = CALLS[item.number]
        return {"part": call.part, "problem": call.problem, "who": call.who, "peer": call.peer}
    if item.kind == "card":
        return {}
    check = check_of(item)
    return {"kernel": check.kernel, "check": check.name}


def called(record: Record) -> str:
    """Return what the record of an item is about."""
    return " / ".join(record[k] for k in ("kernel", "check", "problem", "who") if k in record)


def check_of(item: Item) -> Check:
    """Return the check, or promise, that an item asks for."""
    return (CHECKS if item.kind == "check" else PROMISES)[item.number]


def row_of(item: Item) -> tuple[Problem, Row]:
    """Return the problem and the row that an item asks for."""
    problem = PROBLEMS[item.problem]
    return problem, problem.rows[item.number]
