"""Keypoints of two views matched through `so.normalize`: dustbins take those without a partner.

Points of a plane are seen from two places, related by a homography; some are hidden from either
view, and descriptors are noisy. A network that makes descriptors comparable, and the score of the
dustbins, are learnt from the likelihood of the true matches, as SuperGlue learns them.
"""

import argparse

import torch
from torch import Tensor, nn

import sinkhorn_ot as so


WIDTH = 16


def views(pairs: int, points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return descriptors of both views, (pairs, points, WIDTH + 2), and which points are hidden.

    The first two numbers of a descriptor are where the point is seen; point k is point k of the
    other view.
    """
    at = 2 * torch.rand(pairs, points, 2) - 1
    homography = torch.eye(3) + 0.15 * torch.randn(pairs, 3, 3)
    moved = torch.cat([at, torch.ones(pairs, points, 1)], -1) @ homography.mT
    # a plane that turns its edge to the camera is not seen at all
    there = moved[..., :2] / moved[..., 2:].clamp(min=0.3)
    look = torch.randn(pairs, points, WIDTH)
    first, second = (look + 0.7 * torch.randn_like(look) for _ in range(2))
    hidden = torch.rand(2, pairs, points) < 0.2
    # a hidden point leaves something else in its place
    other = torch.randn(2, pairs, points, WIDTH)
    first = torch.where(hidden[0, ..., None], other[0], first)
    second = torch.where(hidden[1, ..., None], other[1], second)
    return torch.cat([at, first], -1), torch.cat([there, second], -1), hidden.any(0)


class Matcher(nn.Module):
    """Descriptors to the log of a matrix of matches, with a dustbin at the end of each side."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(WIDTH + 2, 64), nn.ReLU(), nn.Linear(64, 64))
        self.dustbin = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scores = self.embed(x) @ self.embed(y).mT / 8
        n, m = scores.shape[-2:]
        padded = nn.functional.pad(scores, (0, 1, 0, 1))
        bins = torch.zeros(n + 1, m + 1, dtype=torch.bool)
        bins[-1], bins[:, -1] = True, True
        padded = torch.where(bins, self.dustbin, padded)
        # every point has a mass of one, and a dustbin has room for the whole other side
        a, b = torch.ones(n + 1), torch.ones(m + 1)
        a[-1], b[-1] = m, n
        return so.normalize(padded, 20, a, b, log=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--points", type=int, default=32)
    options = parser.parse_args()

    torch.manual_seed(0)
    model, n = Matcher(), options.points
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(options.steps + 1):
        x, y, hidden = views(16, n)
        log_P = model(x, y)
        own = log_P.diagonal(dim1=-2, dim2=-1)[..., :n]
        binned = (log_P[..., :n, -1] + log_P[..., -1, :n]) / 2
        loss = -torch.where(hidden, binned, own).mean()
        if step in (0, options.steps):
            print(f"step {step:4d}  negative log likelihood {loss.item():.3f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        x, y, hidden = views(100, n)
        P = model(x, y).exp()
    best = P[..., :n, :].argmax(-1)
    # who finds each other
    mutual = (best < n) & (
        P[..., :n].argmax(-2).gather(-1, best.clamp(max=n - 1)) == torch.arange(n)
    )
    right = mutual & ~hidden & (best == torch.arange(n))
    precision, recall = right.sum() / mutual.sum(), right.sum() / (~hidden).sum()
    print(f"matches: precision {precision:.3f}, recall {recall:.3f}")


if __name__ == "__main__":
    main()
