"""Labelling that is cut off goes on as if it had not been, alone and over ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import run
from torch import Tensor

import sinkhorn_ot as so


class Cut(Exception):
    """The end of a process, as a callback sees it."""


def scores(N: int = 3000, K: int = 12) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.log_softmax(3 * torch.randn(N, K, generator=g, dtype=torch.float64), -1)


def same(one: so.SelaLabels, other: so.SelaLabels) -> None:
    for name in ("labels", "potentials", "n_iter", "marginal_error", "converged"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("at", [1, 4, 6])
def test_labels_that_are_cut_off_are_those_of_a_call_that_was_not(tmp_path, at, monkeypatch):
    """A sample is solved first, as for data of which it is a small part."""
    monkeypatch.setattr("sinkhorn_ot.adapters.sela.solving._LEAST", 500)
    np.save(tmp_path / "S.npy", scores().numpy())
    S, seen = np.load(tmp_path / "S.npy", mmap_mode="r"), []

    def told(progress: so.Progress) -> None:
        seen.append(progress)
        if len(seen) == at:
            raise Cut

    paths = [so.Checkpoint(tmp_path / name, seconds=0) for name in ("whole", "cut")]
    whole = so.sela_labels(S, lamb=30.0, tol=1e-9, checkpoint=paths[0])
    with pytest.raises(Cut):
        so.sela_labels(S, lamb=30.0, tol=1e-9, checkpoint=paths[1], callback=told)
    sweeps: list[so.Progress] = []
    on = so.sela_labels(S, lamb=30.0, tol=1e-9, checkpoint=paths[1], callback=sweeps.append)
    same(on, whole)
    more: list[so.Progress] = []
    same(so.sela_labels(S, lamb=30.0, tol=1e-9, checkpoint=paths[1], callback=more.append), whole)
    assert sweeps
    assert not more


def test_other_scores_are_refused(tmp_path):
    path = tmp_path / "c"
    so.sela_labels(scores(), checkpoint=path)
    with pytest.raises(ValueError, match="of another problem, whose cost was"):
        so.sela_labels(2 * scores(), checkpoint=path)
    with pytest.raises(ValueError, match="of another problem, whose weights was"):
        so.sela_labels(scores(), marginal=so.zipf_marginal(12), checkpoint=path)


OVER_RANKS = """
import pathlib, shutil
folder = pathlib.Path({folder!r})
g = torch.Generator().manual_seed(0)
S = torch.log_softmax(3 * torch.randn(3000, 12, generator=g, dtype=torch.float64), -1)
mine = S[[slice(0, 2000), slice(2000, 3000)][rank]]

def label(name, at=None, **options):
    def told(progress):
        if progress.n_iter == at:
            raise RuntimeError("cut")
        sweeps.append(progress.n_iter)
    sweeps = []
    kept = so.Checkpoint(folder / name, seconds=0)
    found = so.sela_labels(
        mine, tol=1e-10, lamb=40.0, callback=told, checkpoint=kept, group=group, **options
    )
    return found, sweeps

def cut(name, at=5):
    try:
        label(name, at)
    except RuntimeError:
        pass
    dist.barrier()

said["whole"] = label("whole")
cut("cut")
said["cut"] = label("cut")
cut("behind")
if rank:
    # as if it had been stopped before its last write
    own = folder / "behind.rank-1"
    shutil.move(f"{{own}}.before", own)
said["behind"] = label("behind")
cut("lost")
if rank:
    (folder / "lost.rank-1").unlink()
    (folder / "lost.rank-1.before").unlink()
said["lost"] = refused(lambda: label("lost"))
cut("altered")
if rank:
    (folder / "altered.rank-1").write_bytes(b"nothing")
said["altered"] = refused(lambda: label("altered"))
"""


@pytest.mark.slow(6)
def test_ranks_go_on_from_what_all_have_kept(tmp_path: Path):
    for said in run(2, OVER_RANKS.format(folder=str(tmp_path))):
        whole, sweeps = said["whole"]
        for name, first in (("cut", 5), ("behind", 4)):
            found, left = said[name]
            assert left == sweeps[first - 1 :]
            same(found, whole)
        assert "must be of the same sweep on every rank" in said["lost"]
        assert "rank-1 is no checkpoint" in said["altered"]
    assert {p.name for p in tmp_path.glob("cut*")} == {
        f"cut.rank-{k}{end}" for k in (0, 1) for end in ("", ".before")
    }
