"""What became of a row, by what Flower says, the log, and the run's folder."""

import pytest

from experiments.attempt import Outcome, judged, reason_in

RESUME = "INFO :      To resume:\nINFO :        flwr run . --stream -c \"resume='/runs/a'\"\n"
STOPPED = "ERROR :     The run stopped: run config: 'seed' is -1; it must be at least 0.\n" + RESUME
CRASHED = (
    "INFO :      Run folder  /runs/a\nERROR :     ServerApp raised an exception\nTraceback (most recent call last):\n"
    "  File \"x.py\", line 1, in <module>\nKeyError: 'w'\n" + RESUME
)
KILLED = "INFO :      Run folder  /runs/a\nINFO :        1/3     8.33%     8.33% (1)\n"
BOX = "╭─ Error ──────╮\n│ Invalid run configuration: 'x' │\n╰──────────────╯\n"


@pytest.mark.parametrize(
    ("said", "certain", "reason"),
    [
        (STOPPED, True, "run config: 'seed' is -1; it must be at least 0."),
        (CRASHED, True, "KeyError: 'w'"),
        (KILLED, True, ""),
        (KILLED + RESUME, True, ""),
        ("", True, ""),
        (BOX, False, "Invalid run configuration: 'x'"),
        ("", False, "no reason given"),
        ("ERROR :  a\x1b]0;title\x07b\n", True, "a?]0;title?b"),
    ],
)
def test_the_reason_is_what_the_app_said_last(said: str, certain: bool, reason: str) -> None:
    assert reason_in(said, certain) == reason


@pytest.mark.parametrize(
    ("status", "said", "finished", "outcome"),
    [
        ("finished:completed", KILLED, True, Outcome()),
        ("finished:completed", KILLED, False, Outcome("Flower says that it has completed, but its folder does not")),
        ("finished:failed", STOPPED, False, Outcome("run config: 'seed' is -1; it must be at least 0.")),
        ("finished:failed", STOPPED, True, Outcome("run config: 'seed' is -1; it must be at least 0.")),
        ("finished:failed", KILLED, False, Outcome("its process was killed", cut_off=True)),
        ("", STOPPED, False, Outcome("Flower's SuperLink ended", cut_off=True)),
        ("refused", BOX, False, Outcome("Invalid run configuration: 'x'")),
    ],
)
def test_a_row_is_complete_if_flower_and_its_folder_say_so(
    status: str, said: str, finished: bool, outcome: Outcome
) -> None:
    assert judged(status, said, lambda: finished) == outcome
