"""Small pictures of the gallery, each of what its example in docs/examples/ makes."""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import near
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from shown import ENTRIES
from style import DASHES, Theme
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits, training


sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

import barycenter_of_digits
import batch_of_histograms
import colour_transfer
import dino
import domain_adaptation
import exact_and_certificate
import gradient_flow
import learn_a_cost
import moe_router
import sela_fifty_thousand
import single_cell
import solve_over_ranks
import solve_points


def thumbnails() -> dict[str, Callable[[Theme], Figure]]:
    """Return what draws each picture, by its name."""
    return {e.picture: partial(_framed, globals()[e.picture]) for e in ENTRIES}


def _framed(paint: Callable[[Theme, Axes], None], theme: Theme) -> Figure:
    """A picture without axes; what is many points is kept as pixels, fine enough to enlarge."""
    figure = Figure(figsize=(2, 1.45), dpi=160)
    axes = figure.add_axes((0, 0, 1, 1))
    paint(theme, axes)
    axes.set(xticks=[], yticks=[])
    axes.minorticks_off()
    for spine in axes.spines.values():
        spine.set(visible=True, color=theme.faint, linewidth=0.6)
    return figure


def points(theme: Theme, axes: Axes) -> None:
    """Where each point of a ring is sent."""
    x, y = solve_points.clouds(140)
    sent = so.solve(so.PointCloud(x, y), reg=0.05).barycentric(y)
    ways = torch.stack([x, sent], 1).numpy()
    axes.add_collection(LineCollection(ways, colors=theme.soft, linewidths=0.4, alpha=0.6))
    axes.scatter(*x.T, s=4, color=theme.series[1], linewidths=0)
    axes.scatter(*y.T, s=4, color=theme.series[0], linewidths=0)
    axes.set_aspect("equal", adjustable="datalim")


def colours(theme: Theme, axes: Axes) -> None:
    """A photograph, and right of the middle in the colours of another, which stands in a corner."""
    source, target = (colour_transfer.photograph(k, 6) for k in ("china.jpg", "flower.jpg"))
    x, y = (colour_transfer.some(image.reshape(-1, 3), 1000) for image in (source, target))
    sent = so.solve(so.PointCloud(x, y), reg=0.01).map(source.reshape(-1, 3)).view_as(source)
    half = source.shape[1] // 2
    shown = torch.cat([source[:, :half], sent[:, half:]], 1)
    shown[-22:, -32:] = target[:66:3, :96:3]
    axes.imshow(shown.clamp(0, 1).numpy(), aspect="auto")
    axes.axvline(half - 0.5, color=theme.page, linewidth=1)


def cells(theme: Theme, axes: Axes) -> None:
    """Cells of four days, and which share of their descendants is of one kind."""
    adata = single_cell.made_up(400)
    found = single_cell.join(adata)
    last = torch.from_numpy(adata.obs["bias"])[found.of[-1]] > 0
    share = found.comes_to(last.double())
    tint = theme.mass.from_list("fates", [theme.series[0], theme.faint, theme.series[1]])
    axes.scatter(*found.places[:, :2].T, c=share, cmap=tint, s=4, linewidths=0, rasterized=True)


def histograms(theme: Theme, axes: Axes) -> None:
    """Digits, and right of each those that are nearest."""
    data = digits.load(400)
    mass = data.pixels.double()
    mass /= mass.sum(1, keepdim=True)
    asked = torch.tensor([0, 1, 6])
    r = batch_of_histograms.distances(mass[asked], mass[9:], 0.5)
    nearest = 9 + r.value_linear.argsort(1)[:, :4]
    _tiles(theme, axes, data.images[torch.cat([asked[:, None], nearest], 1)][:, :, 0])
    axes.axvline(8.5, color=theme.series[1], linewidth=1.2)


def domains(theme: Theme, axes: Axes) -> None:
    """Digits as they are, and as a map makes them that was fitted on others, without a label."""
    images, _ = domain_adaptation.digits()
    pale = domain_adaptation.pale(images[900:1300])
    r = so.solve(so.PointCloud(images[:400], pale), reg=0.2)
    some = images[400:404]
    _tiles(theme, axes, torch.stack([some, r.map(some)]).view(2, 4, 8, 8).float())


def flow(theme: Theme, axes: Axes) -> None:
    """Where points begin, what they are to be, and where they are after twenty steps."""
    x, y = gradient_flow.clouds(120)
    loss = so.SinkhornDivergence(reg=0.3)
    end = gradient_flow.flow(lambda x: loss(x, y), x, 20)
    ways = torch.stack([x, end], 1).numpy()
    axes.add_collection(LineCollection(ways, colors=theme.soft, linewidths=0.4, alpha=0.5))
    axes.scatter(*y.T, s=7, color=theme.series[0], linewidths=0, alpha=0.5)
    for at, colour in ((x, theme.soft), (end, theme.series[1])):
        axes.scatter(*at.T, s=4, color=colour, linewidths=0)
    axes.set_aspect("equal", adjustable="datalim")


def cost(theme: Theme, axes: Axes) -> None:
    """What four ways to differ weigh, step by step, and what they weigh in truth."""
    ways, plans = learn_a_cost.observed(30)
    told = torch.stack([weights for _, weights in learn_a_cost.learn(ways[:6], plans[:6], 40)])
    for weights, truth, colour in zip(told.T, learn_a_cost.TRUTH, theme.series, strict=True):
        axes.axhline(float(truth), color=theme.soft, linestyle=DASHES[2], linewidth=0.8)
        axes.plot(weights, color=colour, linewidth=1.4)
    axes.set_ylim(-0.06, 1.06 * float(told.max()))


def swav(theme: Theme, axes: Axes) -> None:
    """Features of digits that were learnt without a label, in a plane; colours are the digits."""
    from sklearn.manifold import TSNE

    data, backbone = _swav()
    seen = digits.features(backbone, data.images)
    at = TSNE(random_state=0, init="pca", perplexity=30).fit_transform(seen.numpy())
    axes.scatter(*at.T, c=data.labels, cmap="tab10", s=1.6, linewidths=0, rasterized=True)


def sela(theme: Theme, axes: Axes) -> None:
    """Samples of each label, by size: equal shares, and the largest logit."""
    counts, alone = _sela()
    for colour, many in ((theme.series[1], alone), (theme.series[0], counts)):
        axes.stairs(many.sort(descending=True).values, color=colour, fill=True, alpha=0.7)


def codes(theme: Theme, axes: Axes) -> None:
    """Codes of a teacher, a row for each image; images are sorted by digit."""
    made = _dino()
    axes.imshow(made.sqrt(), aspect="auto", cmap=theme.mass, vmin=0, vmax=1)


def experts(theme: Theme, axes: Axes) -> None:
    """What share of the images eight experts see: by the best logit, and by a plan."""
    for k, (load, colour) in enumerate(zip(_loads(), theme.series[1::-1], strict=True)):
        shares = (load / load.sum()).sort(descending=True).values
        axes.bar(torch.arange(8) + 0.4 * k, shares, 0.36, color=colour)
    axes.axhline(1 / 8, color=theme.soft, linestyle=DASHES[1], linewidth=0.8)


def bounds(theme: Theme, axes: Axes) -> None:
    """At each reg the interval in which the exact optimum is proved to lie."""
    C = exact_and_certificate.costs(100)
    found = [so.solve(C, reg=reg).certificate() for reg in exact_and_certificate.REGS]
    exact = float(so.solve_exact(C).value)
    exact_and_certificate.draw(axes, exact, found, list(theme.series))
    axes.set_xlim(0.02, 4.5)


def barycentre(theme: Theme, axes: Axes) -> None:
    """Digits at places by chance, and what they have in common."""
    images = barycenter_of_digits.strewn(3, 20, 32)
    common = so.barycenter(
        images.flatten(1), so.GridCost((32, 32)), 1e-3, debiased=True, tol=1e-4
    ).histogram.view(1, 32, 32)
    shown = torch.cat([images[:3], common])
    _tiles(theme, axes, (shown / shown.amax((1, 2), keepdim=True)).view(2, 2, 32, 32))


def many(theme: Theme, axes: Axes) -> None:
    """The tiles of a matrix between clouds that can count at a small reg."""
    live, _ = near.tiles(2, 1e-4)
    axes.imshow(live.double(), aspect="auto", cmap=theme.mass, vmin=0, vmax=2)


def ranks(theme: Theme, axes: Axes) -> None:
    """A plan whose rows lie on two ranks."""
    random = torch.Generator().manual_seed(0)
    x = torch.rand(48, 1, generator=random).sort(0).values
    y = torch.rand(36, 1, generator=random).square().sort(0).values
    axes.imshow(so.solve(so.PointCloud(x, y), reg=0.01).plan.sqrt(), aspect="auto", cmap=theme.mass)
    for rank, colour in enumerate(theme.series[:2]):
        own = solve_over_ranks.part(len(x), rank, 2)
        axes.axhspan(own.start - 0.5, own.stop - 0.5, color=colour, alpha=0.15, linewidth=0)
        axes.axhspan(own.start - 0.5, own.stop - 0.5, 0, 0.03, color=colour, linewidth=0)


def _tiles(theme: Theme, axes: Axes, images: Tensor) -> None:
    """Show (rows, columns, h, w) with a pixel between images."""
    framed = torch.nn.functional.pad(images, (1, 0, 1, 0))
    whole = torch.cat([torch.cat(list(row), -1) for row in framed], -2)
    axes.imshow(whole, aspect="auto", cmap=theme.mass, vmin=0, vmax=1)


@cache
def _swav() -> tuple[digits.Digits, torch.nn.Module]:
    data = digits.load()
    return data, training.train_swav(data.images, 60, progress=False)


@cache
def _sela() -> tuple[Tensor, Tensor]:
    images, _ = sela_fifty_thousand.views(10_000)
    net, found = sela_fifty_thousand.train(images, 4, 1, 64)
    with torch.no_grad():
        best = net(images)[0].argmax(-1)
    return found.counts[0], torch.bincount(best, minlength=64)


@cache
def _dino() -> Tensor:
    data = digits.load()
    teacher = dino.train(data.images, 60)
    some = data.labels[:400].argsort(stable=True)
    made = so.adapters.dino_codes(teacher(data.images[:400][some]), 0.05)
    # prototypes in the order of the images that they stand for
    middle = (made * torch.arange(len(made))[:, None]).sum(0) / made.sum(0)
    return made[:, middle.argsort()]


@cache
def _loads() -> tuple[Tensor, Tensor]:
    data = digits.load()

    def load(balanced: bool) -> Tensor:
        torch.manual_seed(0)
        return moe_router.train(data, moe_router.Mixture(64, 8, 10, balanced), 15, "experts")

    return load(False), load(True)
