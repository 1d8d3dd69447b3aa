"""Which client holds which images: schemes that cut one labelled set into disjoint parts, complete together."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from data.errors import DataError

PURPOSE = 0x70617274  # "part": keeps this draw apart from every other one that derives from the run's seed

Parts = list[np.ndarray]


def iid(labels: np.ndarray, num_partitions: int, rng: np.random.Generator) -> Parts:
    """One permutation cut into near-equal parts, whose sizes differ by at most one.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    section 3. The Clothing1M_FedAvg notebook and FNBench draw the same, but leave the remainder out.
    """
    return np.array_split(rng.permutation(len(labels)), num_partitions)


def dirichlet(
    labels: np.ndarray, num_partitions: int, rng: np.random.Generator, *, alpha: float, min_size: int = 1
) -> Parts:
    """Label skew: each class c is shared out by q ~ Dir(alpha), among the clients that hold fewer than N/K images.

    Source: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution", 2019, in the per-class form of
    Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022, which FNBench uses. They zero q for full clients,
    renormalise, and start over until the smallest client is large enough, which need not end. Here q is drawn for
    the open clients only (the renormalised part of a Dirichlet draw is one itself), and clients that end below
    `min_size` are filled up from the largest ones.

    Args:
        labels: (n,) integers.
        num_partitions: K.
        rng: Where the draws come from.
        alpha: Concentration, above 0: small is skewed, large is even.
        min_size: Least number of images that a client holds, at least 1.
    """
    _check_dirichlet(alpha, min_size, num_partitions, len(labels))
    parts: list[list[np.ndarray]] = [[] for _ in range(num_partitions)]
    sizes = np.zeros(num_partitions, np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        # Not empty: all clients at N/K or above would hold all N images already.
        open_clients = np.flatnonzero(sizes * num_partitions < len(labels))
        shares = rng.dirichlet(np.full(len(open_clients), float(alpha)))
        cuts = np.floor(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for client, piece in zip(open_clients, np.split(members, cuts), strict=True):
            parts[client].append(piece)
            sizes[client] += len(piece)
    return _fill_up([np.concatenate(pieces) if pieces else np.empty(0, np.int64) for pieces in parts], min_size, rng)


PARTITIONS: dict[str, Callable[..., Parts]] = {"iid": iid, "dirichlet": dirichlet}


def partition(scheme: str, labels: np.ndarray, num_partitions: int, seed: int, **args: Any) -> Parts:
    """Cut a set of images into `num_partitions` disjoint parts that are complete together.

    Args:
        scheme: A key of `PARTITIONS`.
        labels: (n,) integers, the label that training sees.
        num_partitions: From 1 to n.
        seed: At least 0; the same seed gives the same parts on any machine.
        args: The scheme's own arguments; hyphens count as underscores.

    Returns:
        One sorted int64 array of indices into `labels` per partition.

    Raises:
        DataError: An unknown scheme or argument, more partitions than images, or a value that the scheme refuses.
    """
    if scheme not in PARTITIONS:
        raise DataError(f"there is no partition scheme '{scheme}'; it must be one of {', '.join(PARTITIONS)}.")
    if num_partitions < 1:
        raise DataError(f"{num_partitions} partitions were asked for; it must be at least 1.")
    if num_partitions > len(labels):
        raise DataError(
            f"{num_partitions} partitions were asked for, but there are only {len(labels)} images;"
            f" it must be at most {len(labels)}."
        )
    if seed < 0:
        raise DataError(f"the seed of a partition is {seed}; it must be at least 0.")
    rng = np.random.default_rng([seed, PURPOSE])
    parts = PARTITIONS[scheme](np.asarray(labels), num_partitions, rng, **_known_args(scheme, args))
    return [np.sort(part).astype(np.int64, copy=False) for part in parts]


def _known_args(scheme: str, args: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(PARTITIONS[scheme]).parameters.values()
    known = {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    given = {name.replace("-", "_"): value for name, value in args.items()}
    shown = ", ".join(name.replace("_", "-") for name in known) or "none"
    for name in given:
        if name not in known:
            name = name.replace("_", "-")
            raise DataError(f"partition scheme '{scheme}' has no argument '{name}'; its arguments are: {shown}.")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            raise DataError(f"partition scheme '{scheme}' needs the argument '{name}'; its arguments are: {shown}.")
    return given


def _check_dirichlet(alpha: Any, min_size: Any, num_partitions: int, num_images: int) -> None:
    if type(alpha) not in (int, float) or not 1e-6 <= alpha <= 1e6:
        raise DataError(f"'alpha' of dirichlet is {alpha!r}; it must be a number above 0, from 1e-6 to 1e6.")
    if type(min_size) is not int or min_size < 1:
        raise DataError(f"'min-size' of dirichlet is {min_size!r}; it must be a whole number of at least 1.")
    if min_size * num_partitions > num_images:
        raise DataError(
            f"'min-size' of dirichlet is {min_size}, too much for {num_partitions} partitions of {num_images} images;"
            f" it must be at most {num_images // num_partitions}."
        )


def _fill_up(parts: Parts, min_size: int, rng: np.random.Generator) -> Parts:
    """Bring each part to `min_size`, lowest number first, with random images of whichever part is then the largest.

    A donor gives at most half of what it can spare at a time, so that the next donor may be another.
    """
    sizes = np.array([len(part) for part in parts])
    for client in np.flatnonzero(sizes < min_size):
        while sizes[client] < min_size:
            donor = int(np.argmax(sizes))
            count = min(min_size - sizes[client], -(-(sizes[donor] - min_size) // 2))
            given, kept = np.split(rng.permutation(parts[donor]), [count])
            parts[donor], parts[client] = kept, np.concatenate([parts[client], given])
            sizes[donor] -= count
            sizes[client] += count
    return parts
