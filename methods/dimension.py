"""Local intrinsic dimension (LID): how many dimensions a cloud of points has, as seen from each of its points.

    LID(x) = -k / sum_{i=1..k} log(r_i / r_k),    r_i the distance of x to the i-th nearest of the other points

This is the estimator of Amsaleg et al. (KDD 2015), as FedCorr writes it (Xu et al., CVPR 2022, arXiv 2204.04677):
around a point of a smooth m-dimensional cloud, the number of neighbours within r grows like r^m. Ma et al. (ICML 2018,
arXiv 1806.02612) found that a network which starts to learn wrong labels spreads its answers over more dimensions.

All distances between n points would be n^2 numbers, 800 MB for 10,000. They are computed for some rows at a time, so
that memory stays at a few times `PAIRS` numbers, and the time, which grows with n^2, is all that large clients pay.
"""

import torch
from torch import Tensor

PAIRS = 2**20  # distances that are held at once, 8 MB
LEAST = 1e-12  # distances below it count as it: differences of probabilities that float64 can hardly tell from rounding
LARGEST = 1000.0  # of a dimension; there is no largest one if all neighbours are equally far away
FEWEST = 3  # points: with two there is one distance, of which nothing follows


def local_dimensions(points: Tensor, neighbours: int = 20) -> Tensor:
    """The LID at each point: (n,) float64 from 0 to `LARGEST`, on the points' device.

    It is 0 where the k nearest points equal this one, and at all points if there are fewer than `FEWEST`.

    Args:
        points: (n, d) finite floating-point numbers.
        neighbours: k, at least 2; all other points, if they are fewer.
    """
    count, exact = len(points), points.double()
    if count < FEWEST:
        return torch.zeros(count, dtype=torch.float64, device=points.device)
    found, rows = [], max(1, PAIRS // count)
    for start in range(0, count, rows):
        some = exact[start : start + rows]
        # From differences: |x|^2 - 2xy + |y|^2 would lose the smallest distances, which count most.
        distances = torch.cdist(some, exact, compute_mode="donot_use_mm_for_euclid_dist")
        own = torch.arange(len(some), device=points.device)
        distances[own, start + own] = torch.inf  # nobody is one's own neighbour
        nearest = distances.topk(min(neighbours, count - 1), largest=False).values
        found.append(_dimensions(nearest))
    return torch.cat(found)


def _dimensions(nearest: Tensor) -> Tensor:
    """(b,) from distances (b, k) in ascending order."""
    logs = nearest.clamp(min=LEAST).log()
    total = (logs[:, -1:] - logs).sum(dim=1)  # at least 0
    dimensions = (nearest.shape[1] / total).clamp(max=LARGEST)  # 1 / 0 is infinite, and clamped
    return torch.where(nearest[:, -1] > LEAST, dimensions, torch.zeros_like(total))
