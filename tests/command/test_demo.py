"""The demo runs in its quick mode; its parts are what they say they are."""

import sys
from pathlib import Path

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.command import demo
from sinkhorn_ot.command.demo import digits, figures, judge, training


@pytest.fixture(scope="module")
def data() -> digits.Digits:
    return digits.load(300)


def test_the_quick_demo_proves_its_plans_and_shows_its_figures(tmp_path: Path, capsys):
    demo.main(["--quick", "--out", str(tmp_path / "new" / "folder")])
    said, progress = capsys.readouterr()
    figures = sorted(path.name for path in tmp_path.rglob("*.png"))
    assert figures == ["clusters.png", "transport_clouds.png", "transport_images.png"]
    assert all(name in said.split("Figures:")[1] for name in figures)
    assert said.count("OPTIMAL") == 2
    assert said.count("CONVERGED") == 6
    assert "SwAV features, k-means" in said
    assert "SwAV: 100%" in progress
    assert "SeLa: 100%" in progress


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [
        m for m in sys.modules if m.startswith(("matplotlib.", "sinkhorn_ot.command.demo."))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("sinkhorn_ot.command.demo.figures", raising=False)
    monkeypatch.delattr("sinkhorn_ot.command.demo.tour", raising=False)
    with pytest.raises(SystemExit, match=r"pip install 'sinkhorn-ot\[demo\]'"):
        demo.main(["--quick"])


def test_training_is_reproducible(data: digits.Digits):
    first, second = (training.train_swav(data.images, 1, progress=False) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_self_given_labels_do_not_collapse(data: digits.Digits):
    _, found = training.train_sela(data.images, 1, heads=2, progress=False)
    assert found.labels.shape == (2, 300)
    assert bool(found.converged.all())
    assert torch.equal(found.counts.sum(-1), torch.tensor([300, 300]))
    assert int(found.counts.max()) < 90


def test_swapped_prediction_is_swav_s_loss():
    torch.manual_seed(0)
    views = tuple(torch.nn.functional.normalize(torch.randn(40, 8), dim=1) for _ in range(3))
    crops = []
    for t in (0, 1):
        codes = so.swav_codes(views[t])
        for s in {0, 1, 2} - {t}:
            crops.append(-(codes * torch.log_softmax(views[s] / 0.1, 1)).sum() / 40)
    loss = training.swapped_prediction(views)
    torch.testing.assert_close(loss, torch.stack(crops).mean())
    assert float(training.swapped_prediction((views[0],) * 2)) < float(loss)


def test_judges_of_clusters():
    labels = torch.arange(10).repeat(5)
    renamed = (labels + 3) % 10
    assert judge.mutual_information(renamed, labels) == pytest.approx(1.0)
    assert judge.accuracy(renamed, labels) == 1.0
    assert judge.accuracy(torch.zeros_like(labels), labels) == pytest.approx(0.1)


def test_the_way_starts_at_the_source_and_ends_at_the_target(data: digits.Digits):
    a, b = (data.pixels[i].double() / data.pixels[i].sum() for i in (0, 1))
    grid = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).double()
    P = so.solve(so.PointCloud(grid, grid), a, b, reg=0.5).plan
    for t, mass in ((0.0, a), (1.0, b)):
        torch.testing.assert_close(figures.on_the_way(P, grid, t).flatten(), mass)
    assert float(figures.on_the_way(P, grid, 0.3).sum()) == pytest.approx(1.0)
