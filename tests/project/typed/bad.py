"""What both type checkers must refuse: every line with a mark, and no other."""

import numpy as np
import torch

import sinkhorn_ot as so
import sinkhorn_ot.compat.pot as ot


C = torch.rand(20, 30)
x, y = torch.rand(20, 2), torch.rand(30, 2)
a, b = np.full(20, 1 / 20), np.full(30, 1 / 30)

so.solve("cost.npy", reg=0.1)  # refused
so.solve(C, reg="0.1")  # refused
so.solve(0.1, C)  # refused
so.solve(C, reg=0.1, method="newtons")  # refused
so.solve(C, reg=0.1, method=so.Newton)  # refused
so.solve(C, reg=0.1, method=so.Newton())  # refused
so.solve(C, reg=0.1, on_fail="error")  # refused
so.solve(C, reg=0.1, eps=0.1)  # refused
so.solve(C, reg=0.1, tol="1e-9")  # refused
so.solve(C, reg=0.1, init=C)  # refused
so.solve(C, reg=0.1, mask=C)  # refused
so.solve(C, reg=0.1, unbalanced=so.KL)  # refused
so.solve(C, reg=0.1, group=[0, 1])  # refused
so.solve(None, reg=0.1)  # refused
so.solve(C, reg=0.1, callback=lambda: True)  # refused
so.solve(C, reg=0.1).plan()  # refused
so.solve(C, reg=0.1).potential_f  # refused
so.solve(C, reg=0.1).barycentric("y")  # refused
so.PointCloud(x, y, "sqeuclid")  # refused
so.PointCloud(x)  # refused
so.KL("strong")  # refused
so.GridCost(8)  # refused
so.solve_exact(C, engine="simplex")  # refused
so.solve_exact(C, a, b, 0.1)  # refused
so.sinkhorn_divergence(x, y, reg=0.1, metric="cityblock")  # refused
so.sinkhorn_divergence(x, y, reg=0.1).plan  # refused
so.sinkhorn_distance(C)  # refused
so.sinkhorn_distance(C, alpha=0.5, on_fail=None)  # refused
so.solve_1d(x, y, p="2")  # refused
so.sliced_distance(x, y, directions="many")  # refused
so.barycenter([C, C], None, reg=0.1)  # refused
so.free_barycenter([x, y], weights="even")  # refused
so.swav_codes(C, n_iter=2.5)  # refused
so.swav_codes("scores")  # refused
so.sela_labels(C, rounding="floor")  # refused
so.sela_labels(3)  # refused
so.balanced_labels(C, mode="rough")  # refused
so.balanced_labels(C).marginal  # refused
so.normalize(C, first="row")  # refused
so.adapters.moe_router(C, on_fail="quiet")  # refused
so.adapters.k_means(x, 3, metric="euclidean")  # refused
so.adapters.k_means(x, 3, empty="drop")  # refused
so.SinkhornDivergence(0.1, metric="l2")  # refused
ot.sinkhorn(a, b, C, 0.1, method="newton")  # refused
ot.sinkhorn(a, b, C.numpy(), 0.1).backward()  # refused
ot.emd(a, b, C.numpy(), log=True).sum()  # refused
ot.solve(C, reg=0.1, reg_type="l1")  # refused
