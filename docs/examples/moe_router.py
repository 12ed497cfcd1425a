"""A mixture of experts on digits: each image goes to one expert, chosen from a transport plan.

In training the plan chooses, so that no expert starves; the softmax of the logits weighs what the
chosen expert says, and carries the gradients. Afterwards each image takes its best expert. This
example learns from labels: what it says of clusters is which digits go to one expert.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits, judge
from sinkhorn_ot.command.demo.training import epochs_of


class Mixture(nn.Module):
    """Experts behind a router; `balanced` lets transport choose."""

    def __init__(self, dim: int, experts: int, classes: int, balanced: bool) -> None:
        super().__init__()
        self.router, self.balanced = nn.Linear(dim, experts), balanced
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 16), nn.ReLU(), nn.Linear(16, classes))
            for _ in range(experts)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs, and which expert each sample was sent to."""
        logits = self.router(x)
        if self.training and self.balanced:
            chosen = so.adapters.moe_router(logits).top_k(1)
        else:
            chosen = logits.topk(1, -1).indices
        weight = F.softmax(logits, -1).gather(-1, chosen)
        said = torch.stack([expert(x) for expert in self.experts], 1)
        return weight * said[torch.arange(len(x)), chosen[:, 0]], chosen[:, 0]


def train(data: digits.Digits, net: Mixture, epochs: int, name: str) -> Tensor:
    """Train, and return how many digits each expert had in the last epoch."""
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    load = torch.zeros(len(net.experts))
    for _ in epochs_of(name, epochs, optimizer, progress=True):
        load.zero_()
        for index in torch.randperm(len(data.images)).split(128):
            outputs, chosen = net(data.pixels[index])
            loss = F.cross_entropy(outputs, data.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            load += torch.bincount(chosen, minlength=len(load))
    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("moe_router.png"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    data, other = digits.load(options.images), digits.held_out()
    found = {}
    for name, balanced in {"best expert": False, "transport plan": True}.items():
        torch.manual_seed(options.seed)
        net = Mixture(64, options.experts, 10, balanced)
        load = train(data, net, options.epochs, name)
        shares = ", ".join(f"{x:.0%}" for x in load / load.sum())
        print(f"{name:<14} loads in the last epoch: {shares}")
        net.eval()
        said = net(other.pixels)[0].argmax(-1)
        right = float((said == other.labels).double().mean())
        print(f"{name:<14} held-out digits named rightly: {right:.1%}")
        found[name] = judge.clusters(net(data.pixels)[1], data)
    judge.show(data, found, options.out)


if __name__ == "__main__":
    main()
