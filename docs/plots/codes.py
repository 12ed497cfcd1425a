"""SwAV's codes beside the softmax that they replace: the same scores, evenly spread."""

from functools import cache

import data
import torch
from matplotlib.figure import Figure
from style import DASHES, Theme, table

import sinkhorn_ot as so


EPS = 0.05


@cache
def both() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the scores and, by name, what is made of them."""
    S = data.scores()
    # prototypes in the order of their popularity under the softmax
    S = S[:, torch.softmax(S / EPS, -1).sum(0).argsort(descending=True)]
    S = S[S.argmax(1).argsort(stable=True)]
    made = {
        "softmax(scores / eps)": torch.softmax(S / EPS, -1),
        "swav_codes(scores)": so.swav_codes(S, eps=EPS),
        "swav_codes(…, n_iter=None)": so.swav_codes(S, eps=EPS, n_iter=None),
    }
    return S, made


def draw(theme: Theme) -> Figure:
    """Codes as pictures above, mass of each prototype below."""
    S, made = both()
    N, K = S.shape
    figure = Figure(figsize=(9.6, 4.2))
    above, below = figure.subplots(
        2, 3, height_ratios=[2.1, 1], gridspec_kw=dict(hspace=0.16, wspace=0.1)
    )
    for k, (name, Q) in enumerate(made.items()):
        image, bars = above[k], below[k]
        image.imshow(Q.sqrt(), aspect="auto", cmap=theme.mass, vmin=0, vmax=1)
        image.set_title(name)
        image.set(xticks=[], yticks=[])
        for spine in image.spines.values():
            spine.set(visible=True, color=theme.faint)
        bars.bar(range(K), Q.sum(0) * K / N, color=theme.series[0], width=0.8)
        bars.axhline(1, color=theme.series[1], linestyle=DASHES[1], linewidth=1.2)
        bars.set(xticks=[], xlim=(-0.5, K - 0.5), xlabel="prototypes")
        bars.set_ylim(0, 1.08 * float(made["softmax(scores / eps)"].sum(0).max()) * K / N)
        if k:
            bars.set_yticklabels([])
    above[0].set_ylabel(f"{N} samples")
    below[0].set_ylabel("mass / share")
    return figure


def tables() -> None:
    """Write how far the prototypes' masses are from their share."""
    S, made = both()
    N, K = S.shape
    rows = []
    for name, Q in made.items():
        mass = Q.sum(0) * K / N
        rows.append([f"`{name}`", f"{float(mass.min()):.2f}", f"{float(mass.max()):.2f}"])
    table("codes", ["codes", "least mass / share", "most mass / share"], rows)
