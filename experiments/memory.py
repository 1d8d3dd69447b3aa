"""How much memory a row takes, and whether there is room for another one."""

from collections.abc import Sequence

from experiments.processes import Descendants, pss_of

SPARE = 1.2  # a row may take more than those before it


def has_room(free: int | None, most: int, now: Sequence[int]) -> bool:
    """Whether another row fits.

    Args:
        free: Bytes that can be used without swapping; None if the system does not say.
        most: Bytes that any row has taken so far.
        now: Bytes that each running row takes. Those that have just begun will take more, which is not free.
    """
    return free is None or free - sum(max(0, most - taken) for taken in now) > SPARE * most


class Usage:
    """Memory of runs, in bytes of PSS: what their processes share counts once.

    Attributes:
        most: That one run took at one time.
        now: By process id of each simulation that lives.
    """

    def __init__(self) -> None:
        self.most = 0
        self.now: dict[int, int] = {}
        self._trees: dict[int, Descendants] = {}

    def look(self, simulations: Sequence[int]) -> None:
        """Measure each of these processes with all that it started."""
        self._trees = {pid: self._trees.get(pid) or Descendants(pid) for pid in simulations}
        self.now = {pid: sum(map(pss_of, tree())) for pid, tree in self._trees.items()}
        self.most = max([self.most, *self.now.values()])
