"""Draw every figure and write every table of the documentation.

python docs/plots/make.py                     all of them
python docs/plots/make.py plans bounds        these only
python docs/plots/make.py --preview /tmp/x    also as PNG, on both page colours
"""

import argparse
import importlib
import time
from pathlib import Path

import style
import torch


FIGURES = (
    "plans",
    "clouds",
    "drawn",
    "maps",
    "metrics",
    "unbalanced",
    "gradients",
    "sweep",
    "convergence",
    "annealing",
    "error_vs_reg",
    "bounds",
    "distance",
    "barycenters",
    "line",
    "beyond",
    "large",
    "ragged",
    "near",
    "codes",
    "problems",
    "rooms",
    "errors",
    "measured",
    "learnt",
    "precision",
    "grid",
    "profiles",
    "ratios",
    "coming",
    "gpu",
    "ranks",
    "predicted",
    "gallery",
    "shown",
)


def main() -> None:
    """Make what was asked for."""
    parser = argparse.ArgumentParser(description="Draw the documentation's figures.")
    parser.add_argument("names", nargs="*", default=FIGURES, help="figures to make; all by default")
    parser.add_argument("--preview", type=Path, help="folder for PNG copies")
    options = parser.parse_args()
    # one thread gives the same last digits on every machine
    torch.set_num_threads(1)
    for folder in (style.IMAGES, options.preview):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        began = time.perf_counter()
        module = importlib.import_module(name)
        if hasattr(module, "tables"):
            module.tables()
        if hasattr(module, "draw"):
            style.save(name, module.draw, options.preview)
        if hasattr(module, "thumbnails"):
            for small, draw in module.thumbnails().items():
                style.save(f"{name}/{small}", draw, options.preview)
        print(f"{name:14s} {time.perf_counter() - began:5.1f} s")


if __name__ == "__main__":
    main()
