"""What goes wrong on one rank of several, in the middle of a call: all hear, and nothing hangs."""

import pytest
from ranks import run


pytestmark = pytest.mark.slow(5)

# groups of three ranks each, the middle one of which is lost
LOST = """
import datetime, os, signal, time

calls = ("solve", "sela", "balanced", "balanced early", "silent")
three = [dist.new_group([3 * k, 3 * k + 1, 3 * k + 2],
                        timeout=datetime.timedelta(seconds=2 if name == "silent" else 60))
         for k, name in enumerate(calls)]
name, own, lost = calls[rank // 3], three[rank // 3], rank % 3 == 1
S = torch.randn(400, 12, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
S = torch.log_softmax(4 * S, -1)

def die():
    if name == "silent":
        time.sleep(6)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)

def told(progress):
    if lost and progress.n_iter >= 2:
        die()

if lost and name.startswith("balanced"):
    # in the middle of the exchange, or of what comes before
    left, reduce = [3 if name == "balanced early" else 12], dist.all_reduce

    def dying(*args, **options):
        left[0] -= 1
        if left[0] == 0:
            die()
        return reduce(*args, **options)

    dist.all_reduce = dying

start = time.monotonic()
said["error"] = refused({
    "solve": lambda: so.solve(-S, reg=1e-3, tol=1e-14, group=own, callback=told),
    "sela": lambda: so.sela_labels(S, tol=1e-14, group=own, callback=told),
    "silent": lambda: so.sela_labels(S, tol=1e-14, group=own, callback=told),
}.get(name, lambda: so.balanced_labels(S, group=own)))
said["name"], said["after"] = name, time.monotonic() - start
"""


def test_a_rank_that_is_killed_or_silent_ends_in_an_error_on_the_others():
    lost = tuple(3 * k + 1 for k in range(5))
    told = run(15, LOST, dying=lost)
    assert [said["name"] for said in told[::2]] == [
        "solve",
        "sela",
        "balanced",
        "balanced early",
        "silent",
    ]
    for said in told:
        assert said["error"].startswith("RuntimeError: a rank of the group cannot be reached")
        # at once, or after the timeout of the group
        assert said["after"] < 15, said["name"]


# the last of three ranks fails, survives, and the group goes on
RAISED = """
bad = rank == world - 1
S = torch.randn(500, 12, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
S = torch.log_softmax(4 * S, -1)
def calling(times, error):
    \"\"\"A callback that fails at its so many-th call.\"\"\"
    left = [times]
    def told(progress):
        left[0] -= 1
        if bad and left[0] == 0:
            raise error
    return told

def blocks(passes, error=None):
    \"\"\"Rows whose so many-th pass fails, or ends early.\"\"\"
    left = [passes]
    def begin():
        left[0] -= 1
        yield S[:300]
        if bad and left[0] == 0:
            if error is None:
                return
            raise error()
        yield S[300:]
    return begin

class Odd(Exception):
    pass

def sela(source=S, **options):
    return so.sela_labels(source, tol=1e-12, group=group, **options)

def costs(passes, error=None):
    return so.Streamed(blocks(passes, error), sign=-1)

def solve(cost, **options):
    return so.solve(cost, reg=0.01, tol=1e-12, group=group, **options)

# how often a call reads the rows, so that the last pass may fail too
def passes_of(call):
    count = [0]
    def begin():
        count[0] += 1
        yield S
    call(begin)
    return count[0]

reads = {"sela": passes_of(sela),
         "solve": passes_of(lambda begin: solve(so.Streamed(begin, sign=-1)))}
said["reads"] = reads
def lost():
    return OSError("the disk is gone")

calls = {
    "callback of solve": lambda: solve(-S, callback=calling(3, ValueError("enough"))),
    "callback of sela": lambda: sela(callback=calling(2, KeyError("enough"))),
    "another error": lambda: sela(callback=calling(1, Odd("odd"))),
    "first pass": lambda: sela(blocks(1, lost)),
    "second pass": lambda: sela(blocks(2, lost)),
    "in the middle": lambda: sela(blocks(reads["sela"] // 2, lost)),
    "before the last pass": lambda: sela(blocks(reads["sela"] - 1, lost)),
    "last pass": lambda: sela(blocks(reads["sela"], lost)),
    "soft": lambda: sela(blocks(reads["sela"] + 1, lost), soft=True),
    "aligned": lambda: sela(blocks(2, lost), marginal=so.zipf_marginal(12), align=True),
    "shorter": lambda: sela(blocks(4)),
    **{f"solve, pass {k}": lambda k=k: solve(costs(k, lost))
       for k in (2, 3, reads["solve"] // 2, reads["solve"] - 1, reads["solve"])},
    "solve, newton": lambda: solve(costs(9, lost), method="newton"),
    "solve, shorter": lambda: solve(costs(5)),
    "afterwards": lambda: solve(costs(reads["solve"] + 1, lost)).apply_transpose(
        torch.ones(500).double()),
    "certificate": lambda: solve(costs(reads["solve"] + 1, lost)).certificate(),
}
said["raised"] = {name: refused(call) for name, call in calls.items()}
said["after"] = so.balanced_labels(S, group=group).value
"""
DISK = "RuntimeError: OSError: the disk is gone, on rank 2 of the group"
SHORT = "must give the same rows at every pass: the first had 500 of width 12, a later one has 300"
RULES = {
    "callback of solve": "ValueError: enough, on rank 2 of the group",
    "callback of sela": "RuntimeError: KeyError: 'enough', on rank 2 of the group",
    "another error": "RuntimeError: Odd: odd, on rank 2 of the group",
    "shorter": SHORT,
    "solve, shorter": SHORT,
}


def test_what_one_rank_raises_in_the_middle_all_raise():
    told = run(3, RAISED)
    assert all(said["reads"] == told[0]["reads"] for said in told)
    for said in told:
        for name, text in said["raised"].items():
            assert RULES.get(name, DISK) in text, name
        assert len(said["raised"]) == 20
        assert said["after"] == told[0]["after"]
