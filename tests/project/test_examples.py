"""Every example runs alone, at small settings, and says what it should."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "examples"
SMALL = ["--epochs", "2", "--images", "300"]
# methods whose figure stands beside their four numbers
JUDGED = ("swav", "sela", "clot", "deepcluster", "deepcluster_v2", "deepercluster", "dino", "msn")
# script: (arguments, a line of its output)
RUNS = {
    "solve_points": (["--points", "60"], "status=CONVERGED"),
    "exact_and_certificate": (["--points", "40"], "OPTIMAL, by exact"),
    "batch_of_histograms": (["--images", "30"], "all converged: True"),
    "sinkhorn_distance": (["--images", "25"], "one call, 3 alphas"),
    "unbalanced": (["--points", "40"], "targets free: CONVERGED"),
    "warm_start_and_progress": (["--points", "60", "--steps", "2"], "callback: STOPPED"),
    "swav": (SMALL, "SwAV features  NMI 0."),
    "sela": (SMALL, "SeLa features  NMI 0."),
    "clot": (SMALL, "CLOT features  NMI 0."),
    "deepcluster": (SMALL, "DeepCluster features  NMI 0."),
    "deepcluster_v2": (SMALL, "DeepCluster-v2 features  NMI 0."),
    "deepercluster": (SMALL, "DeeperCluster features  NMI 0."),
    "balanced": (["--images", "200"], "equal, exact: value -"),
    "swav_loop": ([*SMALL, "--batch", "64", "--queue", "200"], "queues ready: [True, True]"),
    "dino": (SMALL, "DINO features  NMI 0."),
    "msn": (SMALL, "MSN features  NMI 0."),
    "moe_router": (SMALL, "transport plan loads in the last epoch:"),
    "ddp_swav": (SMALL, "processes: 1"),
    "table": ([*SMALL, "--seeds", "1", "--out", "table.json"], "MSN                NMI 0."),
}


def test_every_example_is_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(RUNS)


def run(folder: Path, *command: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", RUNS)
def test_example_runs_alone(name: str, tmp_path: Path):
    arguments, line = RUNS[name]
    done = run(tmp_path, "-W", "error", FOLDER / f"{name}.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert line in done.stdout
    pictures = list(tmp_path.glob("*.png"))
    for path in pictures:
        assert path.read_bytes()[:4] == b"\x89PNG"
    said = [text for text in done.stdout.splitlines() if text.startswith("figure: ")]
    assert len(said) == len(pictures)
    if name in (*JUDGED, "swav_loop", "ddp_swav"):
        assert len(pictures) == 1
        numbers = re.findall(r"NMI 0\.\d+  ACC 0\.\d+  ARI 0\.\d+  k-NN 0\.\d+", done.stdout)
        assert len(numbers) >= 2
        assert "100%" in done.stderr


def test_ranks_run_under_torchrun(tmp_path: Path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run(tmp_path, *launch, FOLDER / "ddp_swav.py", "--epochs", "1", "--images", "300")
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout
    assert "SwAV features  NMI 0." in done.stdout
