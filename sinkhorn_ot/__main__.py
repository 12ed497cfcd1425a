"""The command line: `python -m sinkhorn_ot`."""

import sys

from sinkhorn_ot.command import main


if __name__ == "__main__":
    sys.exit(main())
