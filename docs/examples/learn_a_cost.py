"""Learn what a cost weighs, so that plans match matchings that were observed."""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor

import sinkhorn_ot as so


TRUTH = torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64)


def observed(points: int) -> tuple[Tensor, Tensor]:
    """Return how pairs of eight problems differ, in four ways, and how they were matched."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(8, points, 4, generator=random, dtype=torch.float64)
    y = torch.randn(8, points, 4, generator=random, dtype=torch.float64)
    ways = (x[:, :, None] - y[:, None]).square()
    # those who matched cared about two
    return ways, so.solve(ways @ TRUTH, reg=0.5).plan


def learn(ways: Tensor, plans: Tensor, steps: int) -> Iterator[tuple[float, Tensor]]:
    """Yield the loss of each step, and what the cost weighs by then."""
    raw = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.2)
    for _ in range(steps):
        weights = torch.nn.functional.softplus(raw)
        r = so.solve(ways @ weights, reg=0.5)
        # how surprised the model is by what was observed
        loss = -(plans * r.log_plan).sum((-2, -1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item(), torch.nn.functional.softplus(raw).detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()

    ways, plans = observed(options.points)
    train, test = slice(0, 6), slice(6, 8)
    weights = torch.ones(4)
    for step, (loss, weights) in enumerate(learn(ways[train], plans[train], options.steps), 1):
        if step % 20 == 0 or step in (1, options.steps):
            print(f"step {step:3d}: loss {loss:.4f}, weights {_shown(weights)}")
    plan = so.solve(ways[test] @ weights, reg=0.5).plan
    off = (plan - plans[test]).abs().sum((-2, -1)).mean() / 2
    print(f"true weights {_shown(TRUTH)}; of unseen mass {off.item():.1%} is matched otherwise")


def _shown(weights: Tensor) -> str:
    return " ".join(f"{w:.2f}" for w in weights.tolist())


if __name__ == "__main__":
    main()
