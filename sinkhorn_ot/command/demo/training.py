"""Two ways to learn without labels: SwAV's codes in every step, SeLa's labels in every epoch.

And the parts that the other examples are made of.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

import sinkhorn_ot as so

from .digits import Backbone, view


BATCH = 256


def train_swav(
    images: Tensor, epochs: int = 30, *, prototypes: int = 30, seed: int = 0, progress: bool = True
) -> nn.Module:
    """Return a network trained to predict the code of one view from another view.

    Args:
        images: Digits, (N, 1, 8, 8).
        epochs: Times that every digit is seen.
        prototypes: Directions among which the codes are spread.
        seed: Fixes weights, batches and views.
        progress: Show a progress bar.
    """
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    backbone = Backbone()
    head = nn.Sequential(
        nn.Linear(backbone.width, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32)
    )
    directions = nn.Linear(32, prototypes, bias=False)
    network = nn.Sequential(backbone, head)
    weights = [*network.parameters(), *directions.parameters()]
    optimizer = torch.optim.Adam(weights, lr=2e-3, weight_decay=1e-6)
    for epoch in epochs_of("SwAV", epochs, optimizer, progress):
        for index in batches(len(images), random):
            with torch.no_grad():
                directions.weight.copy_(F.normalize(directions.weight, dim=1))
            batch = images[index]
            views = torch.cat([view(batch, random) for _ in range(4)])
            scores = directions(F.normalize(network(views), dim=1))
            loss = swapped_prediction(scores.chunk(4))
            optimizer.zero_grad()
            loss.backward()
            if epoch == 0:
                # the paper keeps the prototypes where they are for the first epoch
                directions.weight.grad = None
            optimizer.step()
    return backbone


def swapped_prediction(scores: tuple[Tensor, ...], temperature: float = 0.1) -> Tensor:
    """Return SwAV's loss: the codes of each of the first two views, predicted by all the others."""
    losses = [
        -(codes * F.log_softmax(other / temperature, dim=1)).sum(1).mean()
        for t, codes in enumerate(map(so.swav_codes, scores[:2]))
        for s, other in enumerate(scores)
        if s != t
    ]
    return torch.stack(losses).mean()


def train_sela(
    images: Tensor, epochs: int = 40, *, heads: int = 3, seed: int = 0, progress: bool = True
) -> tuple[nn.Module, so.SelaLabels]:
    """Return a network trained on labels that it gave itself, and the labels, (heads, N).

    Each head has ten labels in equal shares. While training they are found in random views, in the
    end in the images as they are.

    Args:
        images: Digits, (N, 1, 8, 8).
        epochs: Times that every digit is seen; labels are refreshed before each.
        heads: Labellings found side by side; they share the network.
        seed: Fixes weights, batches and views.
        progress: Show a progress bar.
    """
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    backbone = Backbone()
    classify = nn.Linear(backbone.width, heads * 10)
    weights = [*backbone.parameters(), *classify.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-5)
    found: so.SelaLabels | None = None

    def log_probs(batch: Tensor) -> Tensor:
        """Of ten labels in each head, (heads, N, 10)."""
        logits: Tensor = classify(backbone(batch))
        return F.log_softmax(logits.view(len(batch), heads, 10), -1).transpose(0, 1)

    def relabel(batch: Tensor) -> so.SelaLabels:
        with torch.no_grad():
            everyone = torch.cat([log_probs(part) for part in batch.split(BATCH)], 1)
        return so.sela_labels(everyone, lamb=25.0, tol=1e-3, init=found)

    for _ in epochs_of("SeLa", epochs, optimizer, progress):
        found = relabel(view(images, random))
        for index in batches(len(images), random):
            predicted = log_probs(view(images[index], random))
            loss = F.nll_loss(predicted.flatten(0, 1), found.labels[:, index].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    backbone.eval()
    return backbone, relabel(images)


def epochs_of(
    name: str, epochs: int, optimizer: torch.optim.Optimizer, progress: bool
) -> Iterator[int]:
    """Yield the number of each epoch; the learning rate falls along a half cosine."""
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in tqdm(range(epochs), desc=name, unit="epoch", disable=not progress):
        yield epoch
        schedule.step()


def batches(n: int, random: torch.Generator, size: int = BATCH) -> tuple[Tensor, ...]:
    """Return the indices of one epoch's batches, all of one size."""
    size = min(size, n)
    order = torch.randperm(n, generator=random)
    return torch.split(order[: n - n % size], size)


class Cosines(nn.Module):
    """Backbone, head and prototypes: images (N, 1, 8, 8) to cosines with each prototype, (N, K)."""

    def __init__(self, prototypes: int = 30) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Sequential(
            nn.Linear(self.backbone.width, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32)
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, 32))

    def embed(self, images: Tensor) -> Tensor:
        """Return unit vectors, (N, 32)."""
        return F.normalize(self.head(self.backbone(images)), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the cosines."""
        return self.embed(images) @ F.normalize(self.prototypes, dim=1).T

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Move a little towards a student."""
        for kept, moved in zip(self.parameters(), student.parameters(), strict=True):
            kept.lerp_(moved, 1 - momentum)


def teacher_of(student: Cosines) -> Cosines:
    """Return a copy that moves only when it follows."""
    return copy.deepcopy(student).requires_grad_(False)
