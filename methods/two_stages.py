"""Two stages of a run, between which the server tells noisy clients from clean ones; shared by clients and server.

Stage 1 trains everybody alike. Then the server looks for clients whose labels are noisy, and in stage 2 these learn in
a way of their own, as FedNoRo (Wu et al., IJCAI 2023, arXiv 2305.05230) and FedELC (Jiang et al., CIKM 2024, arXiv
2408.04301) do. They give stage 1 as rounds of their protocols (10 of 100, 20 of 120); here it is a share of the run's
rounds, unless it is given in rounds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from config.run_config import ConfigError, rounds_of

# What the server tells each client each round, by name.
STAGE = "stage"  # 1 or 2
NOISY = "noisy"  # bool: the client's tag, False in stage 1; in a reply's metrics 0 or 1, which aggregation reads
BEGAN = "stage-2-began"  # the first round of stage 2, from 1; absent in stage 1

CLIENTS = ("detect", "all-noisy", "all-clean")


@dataclass(frozen=True)
class TwoStages:
    """Parameters that both halves of a method in two stages share.

    Attributes:
        warm_up: Length of stage 1 as a share of the run's rounds, above 0 and below 1; a sixth is 20 rounds of 120.
        warm_up_rounds: The same in rounds, at least 1; -1 leaves it to `warm_up`.
        clients: Who is noisy in stage 2: ``detect`` asks the losses of the global model on each client's labels;
            ``all-noisy`` and ``all-clean`` ask nobody, for data where all clients are alike.
        least_gap: Detection calls nobody noisy unless the two groups' losses differ by this share of the mean loss.
    """

    warm_up: float = 1 / 6
    warm_up_rounds: int = -1
    clients: str = "detect"
    least_gap: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.warm_up < 1:
            raise ValueError("warm-up must be above 0 and below 1")
        if type(self.warm_up_rounds) is not int or not (self.warm_up_rounds == -1 or self.warm_up_rounds >= 1):
            raise ValueError("warm-up-rounds must be a whole number from 1 up, or -1 for the share that warm-up gives")
        if self.clients not in CLIENTS:
            raise ValueError(f"clients must be one of {', '.join(CLIENTS)}")
        if not 0 <= self.least_gap < math.inf:
            raise ValueError("least-gap must be at least 0")

    def first_stage(self, num_rounds: int) -> int:
        """How many rounds stage 1 takes: at least 1, and fewer than the run's, so that stage 2 exists.

        A run of one round is all stage 1.

        Raises:
            ConfigError: `warm_up_rounds` are as many as the run's rounds, or more.
        """
        if self.warm_up_rounds >= max(2, num_rounds):
            raise ConfigError(
                f"run config: 'method-args' sets warm-up-rounds to {self.warm_up_rounds}, but 'num-server-rounds' is"
                f" {num_rounds}; it must be below that."
            )
        return max(1, min(rounds_of(self.warm_up, self.warm_up_rounds, num_rounds), num_rounds - 1))


def learns_as_noisy(told: Mapping[str, object]) -> bool:
    """Whether the server calls this client noisy, and stage 2 has begun; one that is told nothing is in stage 1."""
    return told.get(STAGE, 1) == 2 and bool(told.get(NOISY, False))
