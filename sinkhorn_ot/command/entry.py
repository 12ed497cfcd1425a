"""What a shell calls: read the arguments, act, say how it ended by a number."""

import sys
from collections.abc import Sequence

import torch

from sinkhorn_ot.exact import NoPlan

from . import demo, labelling, solving
from .ending import BAD_INPUT, INTERRUPTED, NO_PLAN
from .parser import parser


_ACTS = {"solve": solving.act, "labels": labelling.act}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the name of the program; None takes it from the shell.

    Returns:
        0 where the tolerance was reached or an exact plan is proved, 3 where sweeps or seconds ran
        out, 4 where the error stalled, 5 where no plan exists, 6 where numbers left their range, 2
        for bad input, 130 where it was interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["demo"]:
        demo.main(given[1:])
        return 0
    options = parser().parse_args(given)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        return _ACTS[options.act](options)
    except (ValueError, OSError) as error:
        print(f"sinkhorn-ot: {error}", file=sys.stderr)
        return NO_PLAN if isinstance(error, NoPlan) else BAD_INPUT
    except KeyboardInterrupt:
        kept = "; the same call goes on from its checkpoint" if options.checkpoint else ""
        print(f"sinkhorn-ot: interrupted{kept}", file=sys.stderr)
        return INTERRUPTED
