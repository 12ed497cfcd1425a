"""SeLa on 50,000 samples: a schedule, several heads, and labels that are kept with the model.

The samples are views of digits, each drawn once. Between relabellings the network learns from
mini-batches; a relabelling reads the features of all, and starts from the last.
"""

import argparse
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits, judge
from sinkhorn_ot.command.demo.training import batches, epochs_of


def views(samples: int) -> tuple[Tensor, Tensor]:
    """Return views of digits, (N, 1, 8, 8), and which digit each one shows."""
    data, random = digits.load(), torch.Generator().manual_seed(0)
    which = torch.arange(samples) % len(data.images)
    return digits.view(data.images[which], random), data.labels[which]


class Labeller(nn.Module):
    """A network with several heads of labels, and the labels of all samples."""

    def __init__(self, samples: int, heads: int, K: int) -> None:
        super().__init__()
        self.backbone = digits.Backbone()
        self.weight = nn.Parameter(0.05 * torch.randn(heads, K, self.backbone.width))
        # a buffer: saved and loaded with the model, potentials too
        self.bank = so.LabelBank(samples, K, heads)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (heads, N, K)."""
        return self.backbone(images) @ self.weight.mT

    @torch.no_grad()
    def relabel(self, images: Tensor) -> so.SelaLabels:
        """Give all samples labels in equal shares; logits are made block by block."""
        features = torch.cat([self.backbone(part) for part in images.split(1000)])
        return self.bank.update(so.linear_heads(features, self.weight), tol=1e-4)


def train(images: Tensor, epochs: int, heads: int, K: int) -> tuple[Labeller, so.SelaLabels]:
    """Train, and say what every relabelling took."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    net = Labeller(len(images), heads, K)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    steps = [index for _ in range(epochs) for index in batches(len(images), random)]
    # often at first, when labels move, and seldom later
    due = so.SelaSchedule.power(epochs, 2 * epochs).steps(len(steps) // epochs)
    bar = iter(epochs_of("SeLa", epochs, optimizer, progress=True))
    for step, index in enumerate(steps):
        if step % (len(steps) // epochs) == 0:
            next(bar)
        if step in due:
            began = time.perf_counter()
            found = net.relabel(images)
            moved = time.perf_counter() - began
            print(f"step {step}: {len(images)} samples, {heads} heads of {K} labels, "
                  f"{int(found.n_iter.max())} sweeps, {moved:.2f} s")  # fmt: skip
        predicted = net(digits.view(images[index], random))
        loss = F.cross_entropy(predicted.flatten(0, 1), net.bank[index].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    return net, net.relabel(images)


def draw(found: so.SelaLabels, alone: Tensor) -> Figure:
    """How many samples each label of the first head has, and would have by the largest logit."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for counts, name in ((alone, "largest logit"), (found.counts[0], "SeLa")):
        axes.step(range(len(counts)), counts.sort(descending=True).values.numpy(), label=name)
    axes.set(xlabel="labels, by size", ylabel="samples")
    axes.legend(frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--labels", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("sela_fifty_thousand.png"))
    options = parser.parse_args()

    images, truth = views(options.samples)
    net, found = train(images, options.epochs, options.heads, options.labels)
    with torch.no_grad():
        best = torch.cat([net(part)[0].argmax(-1) for part in images.split(1000)])
    alone = torch.bincount(best, minlength=options.labels)
    print(f"converged: {found.converged.tolist()}, labels of {int(found.counts.min())} to "
          f"{int(found.counts.max())} samples; by the largest logit "
          f"{int(alone.min())} to {int(alone.max())}")  # fmt: skip
    for head, labels in enumerate(found.labels):
        told = judge.mutual_information(labels, truth)
        print(f"head {head}: NMI of labels and digits {told:.3f}")
    draw(found, alone).savefig(options.out, dpi=150)
    print(f"figure: {options.out}")


if __name__ == "__main__":
    main()
