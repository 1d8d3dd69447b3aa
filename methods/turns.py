"""Whose turn it is to train: nobody's again before everybody else, as far as they are connected."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from learning.server_half import Choice


class Turns:
    """Knows in which turn each client trained last; one that was away for a while does not catch up."""

    def __init__(self) -> None:
        self._last: Counter[int] = Counter()  # turn by partition, from 1; 0: it has not trained

    def trained(self, partitions: Iterable[int]) -> None:
        """Count a round in which these have trained."""
        turn = max(self._last.values(), default=0)
        for partition in partitions:
            self._last[partition] = max(self._last[partition] + 1, turn)

    def choose(self, clients: Sequence[int], usual: int, generator: np.random.Generator) -> Choice:
        """Those whose turn it is; if they are fewer than `usual`, with some of those who come next.

        A client that fails stays among the first, and takes one place in each round.

        Args:
            clients: Partitions of all connected clients.
            usual: How many are sampled.
            generator: Decides who of those who come next.
        """
        sure: list[int] = []
        for turn in sorted({self._last[partition] for partition in clients}):
            alike = [partition for partition in clients if self._last[partition] == turn]
            if not sure and len(alike) >= usual:
                return Choice(alike, usual)  # the strategy draws
            if len(sure) + len(alike) >= usual:
                drawn = generator.permutation(alike).tolist()
                return Choice([*sure, *drawn[: usual - len(sure)]], usual)
            sure += alike
        return Choice(sure, usual)

    def choose_within(
        self, rounds: int, iterations: int, clients: Sequence[int], usual: int, generator: np.random.Generator
    ) -> Choice:
        """As `choose`, but so many that everybody has had so many turns after so many rounds.

        Args:
            rounds: In which that is to be.
            iterations: Turns of each client; 0: as many as `usual` gives, at least one.
            clients: Partitions of all connected clients.
            usual: How many are sampled otherwise.
            generator: See `choose`.
        """
        least = max(1, -(-len(clients) * max(iterations, 1) // rounds))
        return self.choose(clients, least if iterations else max(usual, least), generator)

    def completed(self, clients: Iterable[int]) -> int:
        """How many turns all of these clients have had; for one that was away, what it missed counts as had."""
        return min((self._last[partition] for partition in clients), default=0)

    def state(self) -> dict[str, np.ndarray]:
        """For checkpoints."""
        if not self._last:
            return {}
        return {"turns": np.array(sorted(self._last.items()), dtype=np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned, if it is in there."""
        self._last = Counter({int(partition): int(turn) for partition, turn in state.get("turns", ())})
