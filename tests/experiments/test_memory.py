"""The rule of memory, and what a run takes."""

import subprocess
import sys

import pytest

from experiments.memory import Usage, has_room


@pytest.mark.parametrize(
    ("free", "most", "now", "room"),
    [
        (121, 100, [100], True),
        (120, 100, [100], False),  # more than 1.2 times as much must be free
        (181, 100, [40], True),  # of which the running one may still take 60
        (180, 100, [40], False),
        (240, 100, [40, 40], False),
        (241, 100, [40, 40], True),
        (121, 100, [], True),
        (None, 100, [100], True),  # the system does not say
        (1, 0, [0], True),  # what rows take cannot be seen
    ],
)
def test_another_row_starts_where_it_fits(free: int | None, most: int, now: list[int], room: bool) -> None:
    assert has_room(free, most, now) is room


def test_the_most_that_a_run_has_taken_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is counted with its processes, and the sizes of two are not added up."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as one, subprocess.Popen(command) as other:
        sizes = {one.pid: 300, other.pid: 500}
        monkeypatch.setattr("experiments.memory.pss_of", lambda pid: sizes.get(pid, 0))
        usage = Usage()
        usage.look([one.pid, other.pid])
        assert (usage.most, usage.now) == (500, {one.pid: 300, other.pid: 500})
        other.kill()
        other.wait()
        usage.look([one.pid])
        assert (usage.most, usage.now) == (500, {one.pid: 300})
        one.kill()
