"""Ten uses of every day, which both type checkers must take as they stand."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

import sinkhorn_ot as so
import sinkhorn_ot.compat.pot as ot


# a plan of arrays, of tensors, of lists
cost = np.random.default_rng(0).random((20, 30))
r = so.solve(cost, reg=0.1)
plan: Tensor = r.plan
told: str = r.check().message
so.solve(torch.from_numpy(cost), None, torch.full((30,), 1 / 30), 0.1, on_fail="raise")
so.solve([[0.0, 1.0], [1.0, 0.0]], [0.5, 0.5], np.array([1, 1]) / 2, reg=torch.tensor(0.1))

# a method, a warm start, penalties, a padded batch
so.solve(cost, reg=0.05, method="newton", init=r)
so.solve(cost, reg=0.05, method=so.Sinkhorn(so.Nesterov(), anneal=None), init=(None, r.g))
so.solve(cost, reg=0.1, unbalanced=(so.KL(1.0), so.Between(high=np.ones(30))))
so.solve(torch.rand(4, 20, 30), reg=[0.1, 0.2, 0.3, 0.4], mask=(torch.tensor([5, 6, 7, 8]), None))

# clouds, and a metric of one's own
cloud = so.PointCloud(np.random.rand(40, 2), np.random.rand(50, 2), metric="euclidean", power=1.5)
so.solve(cloud, reg=0.1, callback=lambda p: p.marginal_error < 1e-3, progress=False)
so.PointCloud(torch.rand(3, 2), torch.rand(4, 2), lambda x, y: torch.cdist(x, y))
so.solve(so.GridCost([8, 8]), reg=0.01)

# exact, with a proof
exact = so.solve_exact(cost, engine="network simplex")
gap: float = float(exact.gap)

# distances and barycentres
value: Tensor = so.sinkhorn_divergence(plan, plan, reg=0.1, metric="sqeuclidean").value
so.sinkhorn_distance(cost, alpha=0.5).value.item()
so.solve_1d(np.arange(5.0), [1.0, 2.0], p=1).distance.item()
so.sliced_distance(torch.rand(9, 3), torch.rand(8, 3), directions=64).value.item()
middle: Tensor = so.barycenter(torch.rand(3, 20), cost[:, :20], reg=0.05).histogram
so.free_barycenter([torch.rand(5, 2), torch.rand(6, 2)], n=4).points.mean()

# SwAV in a training loop
loss_of = so.SwAVLoss(queues=[so.SwAVQueue(128, 16), so.SwAVQueue(128, 16)])
scores = torch.rand(64, 10, requires_grad=True)
codes: Tensor = so.swav_codes(scores.detach(), eps=0.05, last=32)
loss: Tensor = so.swapped_prediction_loss([scores, scores], [codes, codes])
loss = loss + loss_of([scores, scores], torch.rand(64, 16), torch.rand(10, 16))


# SeLa on a data set that is read in blocks
def blocks() -> Iterator[tuple[Tensor, Tensor]]:
    for k in range(4):
        yield torch.arange(10) + 10 * k, torch.rand(10, 5).log_softmax(-1)


labels: Tensor = so.sela_labels(blocks, lamb=20, rounding="argmax").labels
counts: Tensor = so.balanced_labels(np.random.rand(12, 3), mode="exact").counts

# a layer, a loss, a router
matrix: Tensor = so.normalize(torch.rand(4, 5), n_iter=5, first="columns", log=True)
so.SinkhornDivergence(0.1, metric="euclidean")(torch.rand(5, 2), torch.rand(6, 2))
experts: Tensor = so.adapters.moe_router(torch.rand(32, 8), on_fail="warn").top_k(2)

# POT's calls: arrays in, arrays out
a, b = np.full(20, 1 / 20), np.full(30, 1 / 30)
row_sums = ot.sinkhorn(a, b, cost, 0.1).sum(axis=1)
P, log = ot.emd(a, b, cost, log=True)
potential = P[0] @ log["v"]
distance, _ = ot.emd2(torch.rand(3), torch.rand(3), torch.rand(3, 3), log=True)
distance.item()
ot.solve(cost, reg=0.1).plan.sum()

# save, load, and go on
so.solve(cost, reg=0.1, checkpoint="run.ckpt")
torch.save({"f": r.f, "g": r.g}, "start.pt")
