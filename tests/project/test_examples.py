"""Every example runs alone, at small settings, and says what it should."""

import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from processes import start


ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "examples"
SMALL = ["--epochs", "2", "--images", "300"]
# methods whose figure stands beside their four numbers
JUDGED = ("swav", "sela", "clot", "deepcluster", "deepcluster_v2", "deepercluster", "dino", "msn")
# script: (arguments, a line of its output)
RUNS = {
    "solve_points": (["--points", "60"], "status=CONVERGED"),
    "ten_to_the_five": (["--points", "2100", "--reg", "1e-3"], "left out: at most "),
    "exact_and_certificate": (["--points", "40"], "OPTIMAL, by exact"),
    "batch_of_histograms": (["--images", "30"], "all converged: True"),
    "ragged_digits": (["--images", "30"], "all converged: True"),
    "learn_a_cost": (["--points", "12", "--steps", "40"], "true weights 1.00 0.50 0.00 0.00"),
    "sinkhorn_distance": (["--images", "25"], "one call, 3 alphas"),
    "colour_transfer": (["--pixels", "100", "--shrink", "8"], "fitted in"),
    "domain_adaptation": (["--fit", "150"], "taught by digits that the map made pale: 0.9"),
    "gradient_flow": (["--points", "40", "--steps", "8"], "divergence: 98% as wide"),
    "single_cell": (["--cells", "60"], "day 2: growth correlates with the truth by 0."),
    "unbalanced": (["--points", "40"], "targets free: CONVERGED"),
    "no_empty_cluster": (["--samples", "200"], "mass=0.75: moves 0.75, to outliers 0.000"),
    "barycenter_of_digits": (["--images", "10", "--side", "20"], "debiased: CONVERGED"),
    "coming_from_pot": (["--points", "30"], "all agree to 1e-4: True"),
    "warm_start_and_progress": (["--points", "60", "--steps", "2"], "callback: STOPPED"),
    "swav": (SMALL, "SwAV features  NMI 0."),
    "sela": (SMALL, "SeLa features  NMI 0."),
    "sela_fifty_thousand": (
        ["--samples", "1000", "--epochs", "1", "--heads", "2", "--labels", "10"],
        "converged: [True, True]",
    ),
    "clot": (SMALL, "CLOT features  NMI 0."),
    "deepcluster": (SMALL, "DeepCluster features  NMI 0."),
    "deepcluster_v2": (SMALL, "DeepCluster-v2 features  NMI 0."),
    "deepercluster": (SMALL, "DeeperCluster features  NMI 0."),
    "balanced": (["--images", "200"], "equal, exact: value -"),
    "swav_loop": ([*SMALL, "--batch", "64", "--queue", "200"], "queues ready: [True, True]"),
    "dino": (SMALL, "DINO features  NMI 0."),
    "msn": (SMALL, "MSN features  NMI 0."),
    "mixing_matrices": (["--steps", "100"], "columns within"),
    "match_keypoints": (["--steps", "60"], "matches: precision 0."),
    "moe_router": (SMALL, "transport plan loads in the last epoch:"),
    "ddp_swav": (SMALL, "processes: 1"),
    "solve_over_ranks": (["--points", "80"], "agree to 1e-10: True"),
    "table": ([*SMALL, "--seeds", "1", "--out", "table.json"], "MSN                NMI 0."),
}
# started as a reader does; the others find loaded what all load, which takes longer than they do
STARTED = ("solve_points", "coming_from_pot")


def test_every_example_is_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(RUNS)


def run(folder: Path, *command: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_forked(folder: Path, script: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    process = start(_interpret, folder, script, arguments)
    process.join(120)
    process.kill()
    process.join()
    out, err = ((folder / name).read_text() for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(script, process.exitcode or 0, out, err)


def _interpret(folder: Path, script: Path, arguments: tuple[str, ...]) -> None:
    """Be the interpreter that was started with a script, where the package is loaded."""
    os.chdir(folder)
    for stream in (sys.stdout, sys.stderr):
        file = os.open(stream.name.strip("<>"), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream.fileno())
    tests = str(ROOT / "tests")
    sys.path[:] = [str(script.parent), *(path for path in sys.path if path != tests)]
    sys.argv = [str(script), *arguments]
    warnings.simplefilter("error")
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.slow(3)
@pytest.mark.parametrize("name", RUNS)
def test_example_runs_alone(name: str, tmp_path: Path):
    arguments, line = RUNS[name]
    script = FOLDER / f"{name}.py"
    if name in STARTED:
        done = run(tmp_path, "-W", "error", script, *arguments)
    else:
        done = run_forked(tmp_path, script, *arguments)
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


@pytest.mark.slow(14)
def test_ranks_run_under_torchrun(tmp_path: Path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run(tmp_path, *launch, FOLDER / "ddp_swav.py", "--epochs", "1", "--images", "300")
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout
    assert "SwAV features  NMI 0." in done.stdout


@pytest.mark.slow(8)
def test_a_problem_over_ranks_runs_under_torchrun(tmp_path: Path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run(tmp_path, *launch, FOLDER / "solve_over_ranks.py", "--points", "80")
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout
    assert "agree to 1e-10: True" in done.stdout
