"""One item of work at a time: the card's rates, a check, or a row. An item returns a record.

A record is what JSON can hold. Its status is "passed" or "measured", or it says why it is "failed"
or "skipped".
"""

from typing import Any, NamedTuple

from bench.gpu.checks.check import Check
from bench.gpu.checks.kernels import CHECKS
from bench.gpu.checks.promises import PROMISES
from bench.gpu.timed.problems import PROBLEMS


Record = dict[str, Any]


class Item(NamedTuple):
    """What is to be done: the card, a check or a promise by its number, or a row of a problem.

    Attributes:
        kind: "card", "check", "promise" or "row".
        number: Which check, promise or row.
        problem: Which problem, for a row.
    """

    kind: str
    number: int = 0
    problem: int = 0


def all_items() -> list[Item]:
    """Return checks, promises and rows in order: what has much to compile comes last."""
    rows = [
        (Item("row", k, p), row.late)
        for p, problem in enumerate(PROBLEMS)
        for k, row in enumerate(problem.rows)
    ]
    return [
        *(Item("check", k) for k in range(len(CHECKS))),
        *(Item("promise", k) for k in range(len(PROMISES))),
        *(item for item, late in rows if not late),
        *(item for item, late in rows if late),
    ]


def label(item: Item) -> Record:
    """Return how the record of an item begins, whatever becomes of it."""
    if item.kind == "row":
        problem = PROBLEMS[item.problem]
        return {"problem": problem.name, "who": problem.rows[item.number].who}
    if item.kind == "card":
        return {}
    check = check_of(item)
    return {"kernel": check.kernel, "check": check.name}


def check_of(item: Item) -> Check:
    """Return the check, or promise, that an item asks for."""
    return (CHECKS if item.kind == "check" else PROMISES)[item.number]
