"""Lists what there is to measure, or runs one of it: `python -m bench [NAME [arguments]]`."""

import argparse
import ast
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple


class Entry(NamedTuple):
    """Something to run.

    Attributes:
        module: A file below bench/ with `main(options)`, and `add_options(parser)` if it takes any.
        takes: About how long it takes at its defaults, on a machine with nothing else to do.
    """

    module: str
    takes: str


TABLE = {
    "crosscheck": Entry("cpu.crosscheck", "half a minute"),
    "stress": Entry("cpu.stress", "a minute"),
    "gradients": Entry("cpu.gradients.run", "5 minutes"),
    "gradient_cost": Entry("cpu.gradients.cost", "3 minutes"),
    "fuzz": Entry("cpu.fuzz.run", "a minute or more"),
    "memory": Entry("cpu.vs.memory", "3 minutes"),
    "scale": Entry("cpu.scale", "2 minutes"),
    "near": Entry("cpu.near", "4 minutes"),
    "exact_scale": Entry("cpu.exact_scale", "3 minutes"),
    "grid": Entry("cpu.grid.run", "22 minutes a call"),
    "annealed": Entry("cpu.annealed", "half a minute"),
    "busy": Entry("cpu.busy", "half a minute"),
    "ranks": Entry("cpu.ranks", "a minute"),
    "vs_batches": Entry("cpu.vs.batches", "10 minutes"),
    "ratios": Entry("ratios.run", "45 min to measure"),
    "vs_small": Entry("cpu.vs.small", "3 minutes"),
    "vs_relaxed": Entry("cpu.vs.relaxed", "5 minutes"),
    "vs_neighbours": Entry("cpu.vs.neighbours", "6 minutes"),
    "vs_clouds": Entry("cpu.vs.clouds", "4 minutes"),
    "vs_divergence": Entry("cpu.vs.divergence", "3 minutes"),
    "vs_ragged": Entry("cpu.vs.ragged", "a minute"),
    "vs_l1": Entry("cpu.vs.l1", "8 minutes"),
    "vs_grid": Entry("cpu.vs.grid", "5 minutes"),
    "vs_threads": Entry("cpu.vs.threads", "2 minutes"),
    "vs_published": Entry("cpu.vs.published", "half a minute"),
    "vs_sela": Entry("cpu.vs.sela", "a minute"),
    "vs_layers": Entry("cpu.vs.layers", "a minute"),
    "vs_simplex": Entry("cpu.vs.simplex", "a minute"),
    "vs_emd": Entry("cpu.vs.emd", "half a minute"),
    "gpu": Entry("gpu.run", "5 minutes of a card"),
    "host": Entry("host.run", "a minute"),
    "gate": Entry("gate.compile", "9 minutes"),
}


def main(given: list[str]) -> int:
    """Run what is named, with the arguments after it; list everything if nothing is."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Runs one measurement; without a name, lists them."
    )
    parser.add_argument("name", nargs="?", choices=TABLE, metavar="NAME", help="what to run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its own; --help lists them")
    asked = parser.parse_args(given)
    if asked.name is None:
        listed()
        return 0
    return run(asked.name, asked.arguments)


def listed() -> None:
    """Print a line about each, without importing any."""
    for name, entry in TABLE.items():
        print(f"{name:13s} {entry.takes:18s}   {about(entry)}")


def about(entry: Entry) -> str:
    """Return the first line of a module's docstring."""
    path = Path(__file__).parent.joinpath(*entry.module.split(".")).with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.splitlines()[0]


def run(name: str, arguments: list[str]) -> int:
    """Run one; return its exit status."""
    module = import_module(f"bench.{TABLE[name].module}")
    return module.main(parsed(name, module, arguments)) or 0


def parsed(name: str, module: ModuleType, arguments: list[str]) -> argparse.Namespace:
    """Return what is asked of one."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if hasattr(module, "add_options"):
        module.add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
