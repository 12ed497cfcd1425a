"""Mixing matrices of residual streams, one for each token, learnt through `so.normalize`.

Four streams are mixed by a doubly stochastic matrix that depends on the token, as in manifold-
constrained hyper-connections. A linear map from the token to 16 logits learns to mix as a hidden
one does.
"""

import argparse

import torch
from torch import nn

import sinkhorn_ot as so


STREAMS, WIDTH = 4, 8


def mixed(logits: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
    """Return the streams, (tokens, 4, WIDTH), each a mean of all with weights that are learnt."""
    matrices = so.normalize(logits.unflatten(-1, (STREAMS, STREAMS)))
    return matrices @ streams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=512)
    options = parser.parse_args()

    torch.manual_seed(0)
    hidden, learnt = nn.Linear(WIDTH, STREAMS**2), nn.Linear(WIDTH, STREAMS**2)
    with torch.no_grad():
        hidden.weight *= 5
    optimizer = torch.optim.Adam(learnt.parameters(), lr=0.05)
    losses = []
    for _ in range(options.steps):
        token = torch.randn(options.tokens, WIDTH)
        streams = torch.randn(options.tokens, STREAMS, WIDTH)
        with torch.no_grad():
            target = mixed(hidden(token), streams)
        loss = (mixed(learnt(token), streams) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"loss: {losses[0]:.4f} at first, {losses[-1]:.6f} after {options.steps} steps")

    token = torch.randn(10_000, WIDTH)
    with torch.no_grad():
        P, true = (
            so.normalize(f(token).unflatten(-1, (STREAMS, STREAMS))) for f in (learnt, hidden)
        )
    print(f"matrices: off by {(P - true).abs().mean():.4f} of the hidden ones, on average")
    rows, columns = ((P.sum(axis) - 1).abs().max().item() for axis in (-1, -2))
    print(f"sums: rows within {rows:.1e} of one, columns within {columns:.1e}")


if __name__ == "__main__":
    main()
