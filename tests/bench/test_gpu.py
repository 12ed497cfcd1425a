"""The GPU script without a GPU: it runs to its end at toy sizes, and its verdicts can be bad."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu.budget import Wrong, within
from bench.gpu.called.call import judged
from bench.gpu.called.profile import counted
from bench.gpu.checks.poison import poisoned
from bench.gpu.items import Item, beside, chosen, label, part, timed
from bench.gpu.pool import Settings, Worker
from bench.gpu.report import Report
from bench.gpu.timed.table import ratio


ROOT = Path(__file__).parents[2]


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "bench", "gpu", *map(str, arguments)],
        capture_output=True, text=True, timeout=900, cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
    )  # fmt: skip


@pytest.mark.slow(2)
@pytest.mark.parametrize("arguments", [(), ("--out", "results")])
def test_without_a_gpu_it_says_so(arguments):
    done = run(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("No GPU here")


@pytest.mark.slow(65)
def test_everything_runs_at_toy_sizes(tmp_path):
    pytest.importorskip("triton", reason="triton is not installed, so there are no kernels")
    done = run("--cpu", "--out", tmp_path, "--seed", 0)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "gpu-cpu-toy-sizes.json").read_text())
    # strict: what JSON cannot hold must not have been written
    json.dumps(found, allow_nan=False)
    assert found["toy"]
    assert {c["status"] for c in found["checks"]} == {"passed", "skipped"}
    kernels = {c["kernel"] for c in found["checks"] if c["status"] == "passed"}
    assert kernels == {
        "dense sweep", "codes", "batched", "point cloud", "log sums", "apply", "router"
    }  # fmt: skip
    assert all(r["status"] in ("measured", "skipped") for r in found["rows"])
    timed = [r for r in found["rows"] if r["status"] == "measured"]
    assert {r["problem"] for r in timed} == {r["problem"] for r in found["rows"]}
    # whoever solves a problem finds the same answer
    assert max(r["error"] for r in timed) < 1e-4
    calls = found["calls"]
    assert all(r["status"] == "measured" or r["problem"].startswith("float") for r in calls)
    cells = [r for r in calls if r["part"] == "solve"]
    assert len(cells) == 18
    assert all(r["converged"] and r["error"] <= r["allowed"] for r in cells)
    assert not any("wrong" in r for r in calls if not r["peer"])
    assert all(t["measured"] is None or t["verdict"] == "no GPU" for t in found["targets"])
    page = (tmp_path / "gpu-cpu-toy-sizes.md").read_text()
    assert "measures nothing" in page
    assert "## `solve` to a tolerance, as called" in page


@pytest.mark.slow(2)
def test_a_run_out_of_time_says_what_it_left_out(tmp_path):
    done = run("--cpu", "--out", tmp_path, "--seconds", 0)
    assert done.returncode == 0
    assert "no time left" in done.stdout
    assert not list(tmp_path.iterdir()), "nothing was measured, so nothing is written"


def report(share, status="passed"):
    found = Report(None, {"toy": False, "seed": 0, "peers": False})
    found.add("check", {"kernel": "dense sweep", "check": "one", "status": status})
    row = {"problem": "dense 4096x3000 fp32", "who": "dense sweep kernel", "status": "measured"}
    found.add("row", {**row, "share": share})
    return found


@pytest.mark.parametrize(
    ("share", "status", "verdict"),
    [(0.9, "passed", "met"), (0.8, "passed", "not met"), (0.9, "failed", "a check failed")],
)
def test_a_verdict(share, status, verdict):
    by_name = {t["problem"]: t for t in report(share, status).targets()}
    assert by_name["dense 4096x3000 fp32"]["verdict"] == verdict
    assert by_name["dense 16384x16384 fp32"]["verdict"] == "not measured"


def test_what_is_asked_for_is_run():
    both = chosen([*beside(), *timed()], ["checks", "swav 64x131072"])
    assert {part(i) for i in both} == {"checks", "calls"}
    assert {label(i)["problem"] for i in both if part(i) == "calls"} == {"swav 64x131072"}
    peers = [label(i)["who"] for i in timed(peers=True)]
    assert "FlashSinkhorn, alternating, fp32" in peers
    assert "solve(PointCloud, n_iter=5)" in peers
    assert not {label(i)["who"] for i in timed()} & {"KeOps, alternating", "OTT-JAX"}


def test_what_was_built_since_the_last_card_is_timed_and_checked():
    names = [label(i) for i in [*beside(), *timed()]]
    calls = {r["problem"] for r in names if r.get("part") == "calls"}
    for word in ("relaxed", "with holes", "moe_router", "clouds", "fp64"):
        assert any(word in name for name in calls), word
    checks = {r["check"] for r in names if "check" in r}
    assert {"8192x64", "relaxed solve to 1e-5, 1000x3000"} <= checks


def test_a_part_does_not_take_the_place_of_the_whole(tmp_path, monkeypatch):
    """It has a file of its own, and fills what the whole left out in the pages' tables."""
    row = {"problem": "one", "who": "us", "status": "measured"}
    other = row | {"problem": "two"}
    left_out = {"status": "skipped", "why": "no time"}
    for only, rows in (
        ("", [row | {"ms": 1.0}, other | left_out]),
        ("kernels", [other | {"ms": 2.0}, row | left_out]),
    ):
        found = Report(tmp_path, {"toy": False, "seed": 0, "peers": False, "only": only})
        found.add("card", {"card": "NVIDIA Toy", "status": "measured"})
        for r in rows:
            found.add("row", r)
        found._page = list
        found.write()
    assert {p.name for p in tmp_path.glob("*.json")} == {
        "gpu-nvidia-toy.json", "gpu-nvidia-toy-only-kernels.json"
    }  # fmt: skip
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "plots"))
    import cards

    monkeypatch.setattr(cards, "RESULTS", tmp_path)
    (seen,) = cards.cards().values()
    assert [r.get("ms") for r in seen["rows"]] == [1.0, 2.0]


def test_a_wrong_answer_of_ours_is_red_and_a_peers_is_not():
    found = report(0.9)
    about = {"part": "solve", "problem": "one", "status": "measured", "ms": 1.0, "host_ms": 1.0}
    for who, peer in (("solve", False), ("POT sinkhorn", True)):
        judge = judged({"error": math.nan, "allowed": 1e-5})
        found.add("call", {**about, "who": who, "peer": peer, "first_s": 1.0, **judge})
    assert [r["who"] for r in found.failures] == ["solve"]
    assert judged({"error": 2.0, "allowed": 1.0})["wrong"] == "error 2 over 1"
    assert "wrong" not in judged({"error": 1.0, "allowed": 1.0})


class Event:
    def __init__(self, name, device, ns=1000):
        self.name, self.device_type, self.duration_ns = (lambda: name), (lambda: device), lambda: ns
        self.is_user_annotation = lambda: name.startswith("Torch-Compiled")


def test_launches_and_waits_are_counted():
    host = ["cudaLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch", "cudaStreamSynchronize"]
    host += ["cudaDeviceSynchronize", "cudaMemcpyAsync", "aten::add", "cudaLaunchKernel"]
    events = [Event(name, "DeviceType.CPU") for name in host]
    seen = {"sweep": 2_000_000, "Memset": 1000, "Torch-Compiled Region": 3_000_000}
    events += [Event(name, "DeviceType.CUDA", ns) for name, ns in seen.items()]
    seen = counted(events)
    assert (seen["launches"], seen["waits"], seen["copies"], seen["operators"]) == (4, 1, 1, 1)
    assert (seen["kernels"], seen["device_ms"]) == (1, 2.0)


def test_what_failed_is_red():
    assert [r["check"] for r in report(0.9, "failed").failures] == ["one"]


def test_ratios_compare_like_with_like():
    ours = {"seconds_per_iteration": 1.0, "called_per_iteration": 2.0}
    peer = {"seconds_per_iteration": 8.0, "called_per_iteration": 8.0}
    assert ratio("peer", "ours")({"ours": ours, "peer": peer}) == 8
    assert ratio("peer", "ours")({"ours": ours, "peer": peer | {"capture": "no"}}) == 4
    assert ratio("peer", "ours")({"ours": ours}) is None


@pytest.mark.parametrize(
    ("got", "message"),
    [(1.001, "budget"), (math.nan, "not finite"), (math.inf, "not finite")],
)
def test_a_budget_can_be_overspent(got, message):
    one = torch.ones(3, dtype=torch.float64)
    assert within(one, one, one, 1.0) == 0
    with pytest.raises(Wrong, match=message):
        within(torch.tensor([1.0, 1.0, got]), one, one, 1.0)
    with pytest.raises(Wrong, match="infinity"):
        within(one, one, torch.tensor([1.0, 1.0, math.inf]).double(), 1.0)


def test_poison_is_lifted():
    with poisoned():
        assert torch.empty(3).isnan().all()
        assert torch.zeros(3).new_empty(3).isnan().all()
    before = torch.empty
    with pytest.raises(ZeroDivisionError), poisoned():
        _ = 1 / 0
    assert torch.empty is before


@pytest.mark.slow(2)
def test_an_item_that_hangs_or_fails_costs_only_itself():
    worker = Worker(Settings(toy=True, seed=0))
    try:
        assert worker.run(Item("card"), 0.01)["why"] == "no answer in 0 s"
        lost = worker.run(Item("row", 999, 0), 60)
        assert lost["why"].startswith("IndexError")
        assert "row_of" in lost["traceback"], "where it failed is kept"
        assert worker.run(Item("card"), 60)["status"] == "measured"
    finally:
        worker.close(timeout=10)
