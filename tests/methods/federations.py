"""Federations whose truth is known: losses class by class as a global model would have them, without a model.

    python -m tests.methods.federations [--seconds 600]

simulates as many as fit, and prints how often alike clients are accused, and which share of the noisy ones is found.
True classes follow each client's mix; wrong labels are any other class. Losses have the heavy tails of real ones, and
those of right labels are larger in hard classes.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from methods.noisy_clients import Detection, detect

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
CLASSES = 14
RATES = {"half": (0.5, 0.8), "third": (0.3, 0.3)}  # of wrong labels, at noisy clients

# (generator, number) to that many losses of right labels, and of wrong ones, in nats.
LOSSES: Mapping[str, Callable[[np.random.Generator, int], tuple[Floats, Floats]]] = {
    # A trained network: right labels cost little, but for a long tail.
    "trained": lambda rng, n: (np.exp(rng.normal(-1.2, 1.3, n)), np.abs(rng.normal(3.5, 1.3, n))),
    # After a few rounds, right and wrong labels overlap.
    "fresh": lambda rng, n: (np.exp(rng.normal(0.1, 0.7, n)), np.exp(rng.normal(0.95, 0.4, n))),
    # Student's t with 2.5 degrees of freedom, whose fourth moment is infinite.
    "tails": lambda rng, n: (0.4 * np.abs(rng.standard_t(2.5, n)), 3 + np.abs(rng.standard_t(2.5, n))),
    # Nearly all right labels cost nothing, and the rest as much as wrong ones.
    "sure": lambda rng, n: (
        np.where(rng.random(n) < 0.15, np.abs(rng.normal(4, 2, n)), rng.exponential(0.05, n)),
        np.abs(rng.normal(6, 2.5, n)),
    ),
}
# One client's shares of the true classes.
MIXES: Mapping[str, Callable[[np.random.Generator], Floats]] = {
    "even": lambda rng: np.full(CLASSES, 1 / CLASSES),
    "some-missing": lambda rng: _shares((rng.random(CLASSES) < 0.9) * rng.gamma(10, size=CLASSES)),
    "dirichlet": lambda rng: _shares(rng.gamma(0.5, size=CLASSES)),
}


def _shares(weights: Floats) -> Floats:
    shares: Floats = weights / weights.sum()
    return shares


@dataclass(frozen=True)
class Federation:
    """What `detect` gets, each (clients, classes), and the truth."""

    losses: Floats
    variances: Floats
    counts: Counts
    truth: npt.NDArray[np.bool_]

    def detect(self) -> Detection:
        return detect(self.losses, self.variances, self.counts)


def federation(
    rng: np.random.Generator,
    clients: int,
    images: int,
    *,
    noise: str,
    losses: str,
    mix: str = "even",
    unlike: bool = False,
) -> Federation:
    """Simulate one.

    Args:
        rng: Draws everything.
        clients: How many.
        images: Of each client; if they are `unlike`, from a third of that to three times as many.
        noise: ``alike``, where 40 % of all clients' labels are wrong; ``none``; or a key of `RATES`, by which 20 to
            50 % of the clients are noisy and the others clean.
        losses: A key of `LOSSES`.
        mix: A key of `MIXES`.
        unlike: Whether clients hold different numbers of images.
    """
    truth = np.zeros(clients, dtype=bool)
    if noise in RATES:
        count = max(1, round(rng.uniform(0.2, 0.5) * clients))
        truth[rng.choice(clients, count, replace=False)] = True
        rates = np.where(truth, rng.uniform(*RATES[noise], clients), 0)
    else:
        rates = np.full(clients, 0.4 if noise == "alike" else 0.0)
    hardness = np.exp(rng.normal(0, 0.5, CLASSES))
    means, variances, counts = np.zeros((3, clients, CLASSES))
    for client, rate in enumerate(rates):
        size = int(images * np.exp(rng.uniform(-1, 1))) if unlike else images
        true = rng.choice(CLASSES, size, p=MIXES[mix](rng))
        wrong = rng.random(size) < rate
        given = np.where(wrong, (true + rng.integers(1, CLASSES, size)) % CLASSES, true)
        of_right, of_wrong = LOSSES[losses](rng, size)
        each = np.where(wrong, of_wrong, of_right * hardness[true])
        counts[client] = np.bincount(given, minlength=CLASSES)
        with np.errstate(invalid="ignore"):
            means[client] = np.bincount(given, each, CLASSES) / counts[client]
            squares = np.bincount(given, each**2, CLASSES) / counts[client]
        variances[client] = np.maximum(squares - means[client] ** 2, 0)
    return Federation(means, variances, counts.astype(np.int64), truth)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="How well noisy clients are found in simulated federations.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    accused: dict[tuple[int, int], list[bool]] = defaultdict(list)
    found: dict[tuple[int, int, str], list[tuple[float, int]]] = defaultdict(list)
    end = time.perf_counter() + arguments.seconds
    while time.perf_counter() < end:
        clients, images = int(rng.choice([5, 10, 20, 20, 100])), int(rng.choice([30, 100, 1000]))
        noise = str(rng.choice(["alike", "alike", "none", *RATES]))
        losses, mix = str(rng.choice(list(LOSSES))), str(rng.choice(list(MIXES)))
        unlike = bool(rng.random() < 0.5)
        one = federation(rng, clients, images, noise=noise, losses=losses, mix=mix, unlike=unlike)
        noisy = one.detect().noisy
        if noise in RATES:
            recall = float((noisy & one.truth).sum() / one.truth.sum())
            found[clients, images, noise].append((recall, int((noisy & ~one.truth).sum())))
        else:
            accused[clients, images].append(bool(noisy.any()))
    print("| clients | images each | alike: federations with accused clients | noisy: share found (clean accused) |")
    print("|---|---|---|---|")
    for (clients, images), times in sorted(accused.items()):
        shares = [
            f"{noise} {np.mean([recall for recall, _ in some]):.2f} ({np.mean([wrong for _, wrong in some]):.2f})"
            for noise in RATES
            if (some := found[clients, images, noise])
        ]
        print(f"| {clients} | {images} | {sum(times)} of {len(times)} | {', '.join(shares)} |")


if __name__ == "__main__":
    main()
