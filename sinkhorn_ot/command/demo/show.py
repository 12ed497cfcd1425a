"""The main job on real input: transport between digits, then digits learnt without labels."""

import argparse
import sys
import time
from pathlib import Path

import torch


def main(arguments: list[str] | None = None) -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="python -m sinkhorn_ot demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for figures")
    parser.add_argument("--quick", action="store_true", help="few digits, few epochs")
    options = parser.parse_args(arguments)
    try:
        from . import tour
    except ImportError as error:
        needs = "scikit-learn and matplotlib: pip install 'sinkhorn-ot[demo]'"
        sys.exit(f"The demo needs {needs} ({error})")
    # a network this small gains nothing from threads, and results no longer depend on their number
    torch.set_num_threads(1)
    start = time.perf_counter()
    figures = tour.run(options.out, quick=options.quick)
    print(f"\nDone in {time.perf_counter() - start:.0f} s. Figures:")
    for path in figures:
        print(f"  {path}")
