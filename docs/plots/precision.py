"""How far the codes and labels of each method are from dense float64 code, measured now."""

import sys
from pathlib import Path

from style import table


sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))


def tables() -> None:
    """Write the table."""
    from adapters.precision import CASES, cells

    header = ["method", "call", "problem", "error", "scores x 10,000", "its test"]
    table("precision", header, [cells(case) for case in CASES])
