"""Synthetic label noise on top of the labels that a client holds, for clean splits and imported folders.

Levels as in FNBench: one `rate` for all clients alike, or levels that grow from client to client, where client ``i``
of ``n`` gets ``min_rate + i * (max_rate - min_rate) / n``.

Or, with a `noisy_share` rho, as in FedCorr (Xu et al., CVPR 2022) and FedNoRo (Wu et al., IJCAI 2023): some clients are
noisy, each at its own level from ``U(min_rate, max_rate)``, and the others are clean. In the papers a client is noisy
with probability rho; here exactly ``round(rho * n)`` of them are, so that no run ends up with none. The reference code
draws a replacement uniformly from 0 to 9, which may be the true label and is never a class above 9; here a changed
label is always another class, out of all classes.

Exactly ``floor(n_i * rate_i)`` of a client's ``n_i`` labels are changed, picked at random. The files on disk keep the
released labels.
"""

from typing import Any

import numpy as np

from data.errors import DataError
from data.noise.published import CONFUSION, draw_from_rows
from data.text import shown

PURPOSE = 0x6E6F6973  # "nois": keeps these draws apart from all others that derive from the run's seed
LEVELS_PURPOSE = 0x6C657665  # "leve": who is noisy and how much: every client draws the same
NOISES = ("none", "symmetric", "pairflip", "confusion")
LEVELS = ("rate", "min_rate", "max_rate", "noisy_share")


def corrupt(
    labels: np.ndarray, scheme: str, num_classes: int, client: int, num_clients: int, seed: int, /, **args: Any
) -> np.ndarray:
    """Change some of a client's labels.

    ``symmetric`` takes one of the other classes, uniformly; ``pairflip`` the class before, cyclically; ``confusion``
    draws every label from Clothing1M's published P(noisy | true), has no level, and needs its 14 classes.

    Args:
        labels: (n,) int32.
        scheme: One of `NOISES`.
        num_classes: C.
        client: From 0.
        num_clients: Of the run.
        seed: Of the run; the same one changes the same labels.
        args: `rate`, or `min_rate` and `max_rate`, each at least 0 and below 1, and with them `noisy_share`, from 0 to
            1, if only some clients are noisy.

    Returns:
        (n,) int32, a new array.

    Raises:
        DataError: An unknown scheme or argument, a value out of range, or other classes than Clothing1M's.
    """
    if scheme not in NOISES:
        raise DataError(f"there is no label noise '{scheme}'; it must be one of {', '.join(NOISES)}.")
    if scheme in ("none", "confusion") and args:
        raise DataError(f"label noise {scheme} takes no arguments, but {_shown(next(iter(args)))!r} is given.")
    rng = np.random.default_rng([seed, PURPOSE, client])
    if scheme == "confusion":
        if num_classes != len(CONFUSION):
            raise DataError(
                f"label noise confusion is Clothing1M's and needs its 14 classes; there are {num_classes} here."
            )
        return draw_from_rows(CONFUSION, labels, rng)
    changed = labels.copy()
    if scheme != "none":
        rate = level(scheme, client, num_clients, seed, **args)
        # The small term keeps products such as 0.29 * 100 = 28.999999999999996 from losing a label.
        rows = rng.permutation(len(labels))[: int(len(labels) * rate + 1e-9)]
        steps = rng.integers(1, num_classes, len(rows)) if scheme == "symmetric" else num_classes - 1
        changed[rows] = (labels[rows] + steps) % num_classes
    return changed


def level(scheme: str, client: int, num_clients: int, seed: int, /, **args: Any) -> float:
    """The share of its labels that client `client` of `num_clients` gets wrong; `args` as for `corrupt`.

    Raises:
        DataError: Neither `rate` alone nor `min_rate` and `max_rate` together, or a value out of range.
    """
    for name, value in args.items():
        if name not in LEVELS:
            known = ", ".join(map(_shown, LEVELS))
            raise DataError(f"label noise {scheme} has no argument {_shown(name)!r}; it must be one of: {known}.")
        is_share = name == "noisy_share"
        if type(value) not in (int, float) or not (0 <= value < 1 or (is_share and value == 1)):
            allowed = "from 0 to 1" if is_share else "of at least 0, below 1"
            raise DataError(f"{_shown(name)!r} of {scheme} is {shown(value)}; it must be a number {allowed}.")
    if args.keys() == {"rate"}:
        return float(args["rate"])
    if args.keys() - {"noisy_share"} != {"min_rate", "max_rate"} or args["min_rate"] > args["max_rate"]:
        raise DataError(
            f"label noise {scheme} needs 'rate', or 'min-rate' and a 'max-rate' that is not below it (and may have"
            " 'noisy-share' with these two)."
        )
    low, high = float(args["min_rate"]), float(args["max_rate"])
    if "noisy_share" not in args:
        return low + client * (high - low) / num_clients
    rng = np.random.default_rng([seed, LEVELS_PURPOSE])
    noisy = rng.permutation(num_clients)[: round(args["noisy_share"] * num_clients)]
    return float(rng.uniform(low, high, num_clients)[client]) if client in noisy else 0.0


def _shown(name: str) -> str:
    return name.replace("_", "-")
