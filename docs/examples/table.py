"""Every method on digits over several seeds, beside raw pixels; the table and figure of the docs.

No label is used but to judge: settings are those of the examples, and the last epoch counts. All of
it takes about twenty minutes on one core.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clot
import deepcluster
import deepcluster_v2
import deepercluster
import dino
import msn
import torch
from torch import Tensor, nn

from sinkhorn_ot.command.demo import digits, judge, training


DOCS = Path(__file__).resolve().parents[1]
# images, epochs, seed
METHODS: dict[str, Callable[[Tensor, int, int], nn.Module]] = {
    "untrained network": lambda x, epochs, seed: untrained(seed),
    "SwAV": lambda x, epochs, seed: training.train_swav(x, epochs, seed=seed),
    "SeLa": lambda x, epochs, seed: training.train_sela(x, epochs, seed=seed)[0],
    "CLOT": lambda x, epochs, seed: clot.train(x, epochs, seed)[0],
    "DeepCluster": lambda x, epochs, seed: deepcluster.train(x, epochs, seed=seed),
    "DeepCluster-v2": lambda x, epochs, seed: deepcluster_v2.train(x, epochs, seed=seed),
    "DeeperCluster": lambda x, epochs, seed: deepercluster.train(x, epochs, seed=seed),
    "DINO": lambda x, epochs, seed: dino.train(x, epochs, seed=seed).backbone,
    "MSN": lambda x, epochs, seed: msn.train(x, epochs, seed=seed),
}


def untrained(seed: int) -> nn.Module:
    """Return a network that has learnt nothing."""
    torch.manual_seed(seed)
    return digits.Backbone()


def row(name: str, seed: int, data: digits.Digits, epochs: int) -> dict[str, Any]:
    """Train once and return the judgement."""
    start = time.perf_counter()
    backbone = METHODS[name](data.images, epochs, seed)
    seconds = time.perf_counter() - start
    return numbers(name, judge.features(backbone, data)) | {"seed": seed, "seconds": seconds}


def numbers(name: str, found: judge.Found) -> dict[str, Any]:
    print(f"{name:<18} {found}", flush=True)
    names = ("nmi", "accuracy", "rand", "neighbours")
    return {"method": name} | {key: getattr(found, key) for key in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=DOCS / "plots" / "learnt.json")
    options = parser.parse_args()

    torch.set_num_threads(1)
    data = digits.load(options.images)
    # methods that are not asked for keep the rows they have
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    rows = [old for old in rows if old["method"] in set(METHODS) - set(options.methods)]
    rows.append(numbers("raw pixels", judge.pixels(data)))
    for name in options.methods:
        for seed in range(options.seeds):
            rows.append(row(name, seed, data, options.epochs))
        rows.sort(key=lambda one: ["raw pixels", *METHODS].index(one["method"]))
        text = json.dumps({"epochs": options.epochs, "rows": rows}, indent=1)
        options.out.write_text(text + "\n")
    if options.out.parent == DOCS / "plots":
        subprocess.run([sys.executable, DOCS / "plots" / "make.py", "learnt"], check=True)


if __name__ == "__main__":
    main()
