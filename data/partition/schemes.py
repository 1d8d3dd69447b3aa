"""Which client holds which images: schemes that divide one labelled set into disjoint parts."""

import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from data.errors import DataError
from data.text import shown

PURPOSE = 0x70617274  # "part": keeps this draw apart from all others that derive from the run's seed

Parts = list[np.ndarray]


def iid(labels: np.ndarray, num_partitions: int, rng: np.random.Generator) -> Parts:
    """One permutation cut into near-equal parts, whose sizes differ by at most one.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    section 3. The Clothing1M_FedAvg notebook and FNBench draw the same, but drop the remainder.
    """
    return np.array_split(rng.permutation(len(labels)), num_partitions)


def dirichlet(
    labels: np.ndarray, num_partitions: int, rng: np.random.Generator, *, alpha: float, min_size: int = 1
) -> Parts:
    """Label skew: each class c is shared out by q ~ Dir(alpha), among the clients that hold fewer than N/K images.

    Source: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution", 2019, in the per-class form of
    Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022, which FNBench uses. They zero q for full clients,
    renormalise, and start over until the smallest client is large enough, which may never happen. Here q is drawn for
    the open clients only (the renormalised part of a Dirichlet draw is itself one), and clients that end below
    `min_size` are filled up from the largest ones.

    Args:
        labels: (n,) integers.
        num_partitions: K.
        rng: Where the draws come from.
        alpha: Concentration, above 0: small is skewed, large is even.
        min_size: Least number of images that a client holds, at least 1.
    """
    _check_dirichlet(alpha, min_size, num_partitions, len(labels))
    dealt, owners = [], []
    sizes = np.zeros(num_partitions, np.int64)
    for members in _by_class(labels):
        members = rng.permutation(members)
        # Not empty: all clients at N/K or above would hold all N images already.
        open_clients = np.flatnonzero(sizes * num_partitions < len(labels))
        shares = rng.dirichlet(np.full(len(open_clients), float(alpha)))
        cuts = np.floor(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        counts = np.diff(cuts, prepend=0, append=len(members))
        dealt.append(members)
        owners.append(np.repeat(open_clients, counts))
        sizes[open_clients] += counts
    order = np.argsort(np.concatenate(owners), kind="stable")  # class by class within each client
    return _fill_up(np.split(np.concatenate(dealt)[order], np.cumsum(sizes)[:-1]), min_size, rng)


def shards(labels: np.ndarray, num_partitions: int, rng: np.random.Generator, *, shards_per_client: int = 5) -> Parts:
    """Few classes per client: images sorted by label, cut into near-equal shards, of which each client draws some.

    Source: McMahan et al., AISTATS 2017, section 3, with 2 shards per client; FNBench deals 5, the default here. Images
    within a class are shuffled first, and no remainder is dropped: shards differ by at most one image.

    Args:
        labels: (n,) integers.
        num_partitions: K.
        rng: Where the draws come from.
        shards_per_client: At least 1, and at most n/K.
    """
    _check_shards(shards_per_client, num_partitions, len(labels))
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    pieces = np.array_split(by_label, num_partitions * shards_per_client)
    dealt = rng.permutation(len(pieces)).reshape(num_partitions, shards_per_client)
    return [np.concatenate([pieces[piece] for piece in row]) for row in dealt]


def bernoulli_dirichlet(
    labels: np.ndarray,
    num_partitions: int,
    rng: np.random.Generator,
    *,
    p: float = 0.9,
    alpha: float = 2.0,
    min_size: int = 1,
) -> Parts:
    """Label skew with absent classes: client k holds class c with probability p, and holders share it by Dir(alpha).

    Source: FedCorr (Xu et al., CVPR 2022; p=0.7, alpha=10) and FedNoRo (Wu et al., IJCAI 2023; p=0.9, alpha=2, the
    default here). Each image goes to a holder of its class by a draw from q. Clients without any class are drawn
    again; a class that nobody drew goes to one random client. Clients below `min_size` are filled up as in
    `dirichlet`.

    Args:
        labels: (n,) integers.
        num_partitions: K.
        rng: Where the draws come from.
        p: Above 0, at most 1.
        alpha: Concentration, above 0.
        min_size: Least number of images that a client holds, at least 1.
    """
    _check_bernoulli(p, alpha, min_size, num_partitions, len(labels))
    classes = _by_class(labels)
    holds = rng.random((num_partitions, len(classes))) < p
    while (empty := np.flatnonzero(~holds.any(axis=1))).size:
        holds[empty] = rng.random((len(empty), len(classes))) < p
    owner = np.empty(len(labels), np.int64)
    for column, members in enumerate(classes):
        holders = np.flatnonzero(holds[:, column])
        if not holders.size:
            holders = rng.integers(num_partitions, size=1)
        shares = rng.dirichlet(np.full(len(holders), float(alpha)))
        owner[members] = holders[rng.choice(len(holders), len(members), p=shares)]
    return _fill_up([np.flatnonzero(owner == client) for client in range(num_partitions)], min_size, rng)


def quantity(
    labels: np.ndarray, num_partitions: int, rng: np.random.Generator, *, alpha: float = 0.5, min_size: int = 1
) -> Parts:
    """Size skew: labels mixed evenly, numbers of images by q ~ Dir(alpha) over the clients.

    Source: Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022, section IV-C, as in FedNoisy. Clients
    below `min_size` are filled up as in `dirichlet`.

    Args:
        labels: (n,) integers; only their number matters.
        num_partitions: K.
        rng: Where the draws come from.
        alpha: Concentration, above 0: small is skewed, large is even.
        min_size: Least number of images that a client holds, at least 1.
    """
    _check_dirichlet(alpha, min_size, num_partitions, len(labels), scheme="quantity")
    shares = rng.dirichlet(np.full(num_partitions, float(alpha)))
    cuts = np.floor(np.cumsum(shares)[:-1] * len(labels)).astype(np.int64)
    return _fill_up(np.split(rng.permutation(len(labels)), cuts), min_size, rng)


PARTITIONS: dict[str, Callable[..., Parts]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "shards": shards,
    "bernoulli-dirichlet": bernoulli_dirichlet,
    "quantity": quantity,
}


def partition(scheme: str, labels: np.ndarray, num_partitions: int, seed: int, /, **args: Any) -> Parts:
    """Divide a set of images into `num_partitions` disjoint parts that together cover it.

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


def check_args(scheme: str, args: dict[str, Any]) -> None:
    """Check a scheme's arguments as far as that is possible without images and clients.

    Raises:
        DataError: An unknown argument, a missing one, or a value that no images would make right.
    """
    given = _known_args(scheme, args)
    if scheme in CHECKS:
        parameters = inspect.signature(PARTITIONS[scheme]).parameters.values()
        defaults = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
        CHECKS[scheme](**{**defaults, **given}, num_partitions=1, num_images=sys.maxsize)


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


def _by_class(labels: np.ndarray) -> list[np.ndarray]:
    """For each class that there is, where its images are, in order; one pass, however many classes there are."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _check_dirichlet(
    alpha: Any, min_size: Any, num_partitions: int, num_images: int, scheme: str = "dirichlet"
) -> None:
    if type(alpha) not in (int, float) or not 1e-6 <= alpha <= 1e6:
        raise DataError(f"'alpha' of {scheme} is {shown(alpha)}; it must be a number above 0, from 1e-6 to 1e6.")
    _check_whole(scheme, "min-size", min_size, num_partitions, num_images)


def _check_bernoulli(p: Any, alpha: Any, min_size: Any, num_partitions: int, num_images: int) -> None:
    if type(p) not in (int, float) or not 1e-3 <= p <= 1:
        raise DataError(f"'p' of bernoulli-dirichlet is {shown(p)}; it must be a number from 0.001 to 1.")
    _check_dirichlet(alpha, min_size, num_partitions, num_images, scheme="bernoulli-dirichlet")


def _check_shards(shards_per_client: Any, num_partitions: int, num_images: int) -> None:
    _check_whole("shards", "shards-per-client", shards_per_client, num_partitions, num_images)


def _check_whole(scheme: str, name: str, value: Any, num_partitions: int, num_images: int) -> None:
    """A whole number from 1 to what a client holds when all hold the same number."""
    if type(value) is not int or value < 1:
        raise DataError(f"'{name}' of {scheme} is {shown(value)}; it must be a whole number of at least 1.")
    if value * num_partitions > num_images:
        raise DataError(
            f"'{name}' of {scheme} is {shown(value)}, too much for {num_partitions} partitions of {num_images} images;"
            f" it must be at most {num_images // num_partitions}."
        )


CHECKS: dict[str, Callable[..., None]] = {
    "dirichlet": _check_dirichlet,
    "shards": _check_shards,
    "bernoulli-dirichlet": _check_bernoulli,
    "quantity": partial(_check_dirichlet, scheme="quantity"),
}


def _fill_up(parts: Parts, min_size: int, rng: np.random.Generator) -> Parts:
    """Bring each part to `min_size`, lowest number first, with random images from whichever part is largest then.

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
