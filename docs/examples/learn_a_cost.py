"""Learn what a cost weighs, so that plans match matchings that were observed."""

import argparse

import torch

import sinkhorn_ot as so


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()

    random = torch.Generator().manual_seed(0)
    # every pair differs in four ways, of which those who matched cared about two
    x = torch.randn(8, options.points, 4, generator=random, dtype=torch.float64)
    y = torch.randn(8, options.points, 4, generator=random, dtype=torch.float64)
    ways = (x[:, :, None] - y[:, None]).square()
    truth = torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    observed = so.solve(ways @ truth, reg=0.5).plan
    train, test = slice(0, 6), slice(6, 8)

    raw = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.2)
    for step in range(options.steps):
        weights = torch.nn.functional.softplus(raw)
        r = so.solve(ways[train] @ weights, reg=0.5)
        # how surprised the model is by what was observed
        loss = -(observed[train] * r.log_plan).sum((-2, -1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == options.steps - 1:
            print(f"step {step:3d}: loss {loss.item():.4f}, weights {_shown(weights)}")
    weights = torch.nn.functional.softplus(raw).detach()
    plan = so.solve(ways[test] @ weights, reg=0.5).plan
    off = (plan - observed[test]).abs().sum((-2, -1)).mean() / 2
    print(f"true weights {_shown(truth)}; of unseen mass {off.item():.1%} is matched otherwise")


def _shown(weights: torch.Tensor) -> str:
    return " ".join(f"{w:.2f}" for w in weights.tolist())


if __name__ == "__main__":
    main()
