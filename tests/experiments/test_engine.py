"""Which row is started when, and what is made of how it ends; rows are done by a fake SuperLink."""

import io
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from experiments.attempt import Outcome
from experiments.display import Counts, Screen
from experiments.engine import STARTS, Scheduler, cores_of, drop_large, run_rows
from experiments.errors import ExperimentError
from experiments.plan import Experiment, Plan, Row, load

CUT = Outcome("its process was killed", cut_off=True)
FAILED = Outcome("the learning rate is odd")


class FakeLink:
    """Does each row with the outcomes that are given for it, one per start; others succeed."""

    def __init__(self, outcomes: dict[str, list[Outcome]] | None = None, seconds: float = 0.0) -> None:
        self.outcomes = outcomes or {}
        self.seconds = seconds
        self.together = 1  # so many rows wait for each other, but for the first
        self.starts: list[str] = []
        self.at_once = self.most_at_once = 0
        self.is_alive = True
        self.stopped = self.interrupted = threading.Event()
        self._lock = threading.Condition()

    def do(self, row: Row) -> Outcome:
        with self._lock:
            self.starts.append(row.name)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self._lock.notify_all()
            if row.name != "row-1":
                self._lock.wait_for(lambda: self.most_at_once >= self.together, 600)
        cut = self.stopped.wait(self.seconds)
        with self._lock:
            self.at_once -= 1
            known = self.outcomes.get(row.name)
        return CUT if cut else known.pop(0) if known else Outcome()

    def simulations(self) -> list[int]:
        return []

    def interrupt(self) -> None:
        self.interrupted.set()

    def stop(self) -> None:
        self.is_alive = False
        self.stopped.set()


class Interrupting(FakeLink):
    """Calls something once a row has begun, which then goes on until it is stopped."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(seconds=600)
        self._call = call

    def do(self, row: Row) -> Outcome:
        self._call()
        return super().do(row)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.engine.LOOK_SECONDS", 0.005)
    monkeypatch.setattr("experiments.engine.MEMORY_SECONDS", 0.0)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    rows = [Row(f"row-{n}", "ce", "", n, {}, {"init-args-num-cpus": 1}, "0" * 8) for n in range(1, 5)]
    return Experiment(tmp_path, Plan("a grid", tuple(rows)))


def scheduler(
    experiment: Experiment, link: FakeLink, at_once: int = 2, free: Callable[[], int | None] = lambda: None
) -> tuple[Scheduler, io.StringIO]:
    said = io.StringIO()
    screen = Screen(Counts(), Console(file=said))
    return Scheduler(experiment, experiment.plan.rows, at_once, lambda: link, screen, free), said


def test_rows_are_started_in_order_and_all_are_done(experiment: Experiment) -> None:
    link = FakeLink()
    one, said = scheduler(experiment, link, at_once=1)
    assert one.run() == {}
    assert link.starts == ["row-1", "row-2", "row-3", "row-4"]
    assert link.most_at_once == 1
    assert (one.counts.done, one.counts.waiting, one.counts.failed) == (4, 0, 0)
    assert said.getvalue().count("done in") == 4
    assert not link.is_alive  # nothing is left


def test_as_many_run_at_once_as_may_after_the_first(experiment: Experiment) -> None:
    link = FakeLink()
    link.together = 3
    one, said = scheduler(experiment, link, at_once=3)
    assert one.run() == {}
    assert link.most_at_once == 3
    first, second, *_ = (line.split("  ", 1)[1] for line in said.getvalue().splitlines())
    assert first == "ce, seed 1: started"
    assert second.startswith("ce, seed 1: done")  # since nobody knew how much memory it takes


def test_without_memory_one_runs_at_a_time(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.engine.Usage.look", lambda self, simulations: setattr(self, "most", 100))
    link = FakeLink(seconds=0.05)
    one, _ = scheduler(experiment, link, at_once=3, free=lambda: 120)
    assert one.run() == {}
    assert link.most_at_once == 1


def test_a_row_that_fails_is_written_down_and_the_others_go_on(experiment: Experiment) -> None:
    experiment.failures = {"row-2": "an old reason", "row-3": "an old reason"}
    one, said = scheduler(experiment, FakeLink({"row-2": [FAILED]}))
    assert one.run() == {"row-2": FAILED.reason}
    assert load(experiment.folder).failures == {"row-2": FAILED.reason}
    assert one.counts.done == 3
    assert f"ce, seed 2: failed: {FAILED.reason}" in said.getvalue()


def test_a_row_that_is_cut_off_is_started_again_but_not_for_ever(experiment: Experiment) -> None:
    link = FakeLink({"row-1": [CUT] * (STARTS - 1), "row-2": [CUT] * STARTS, "row-3": [CUT, FAILED]})
    one, said = scheduler(experiment, link)
    assert one.run() == {
        "row-2": f"it was started {STARTS} times and cut off each time: {CUT.reason}",
        "row-3": FAILED.reason,
    }
    assert Counter(link.starts) == {"row-1": STARTS, "row-2": STARTS, "row-3": 2, "row-4": 1}
    assert f"ce, seed 3: started again: {CUT.reason}\n" in said.getvalue()


def test_a_superlink_that_died_is_started_again(experiment: Experiment) -> None:
    dying, next_one = FakeLink({"row-1": [CUT]}), FakeLink()
    links = [dying, next_one]

    class Dies(FakeLink):
        def do(self, row: Row) -> Outcome:
            self.is_alive = False
            return CUT

    links[0] = Dies()
    one = Scheduler(
        experiment, experiment.plan.rows, 1, lambda: links.pop(0), Screen(Counts(), Console(file=io.StringIO()))
    )
    assert one.run() == {}
    assert next_one.starts == ["row-1", "row-2", "row-3", "row-4"]


def test_a_superlink_that_does_not_start_is_one_error(experiment: Experiment) -> None:
    def fails() -> FakeLink:
        raise ExperimentError("it did not start")

    with pytest.raises(ExperimentError, match="it did not start"):
        Scheduler(experiment, experiment.plan.rows, 1, fails, Screen(Counts(), Console(file=io.StringIO()))).run()
    assert experiment.failures == {}


def test_what_runs_is_ended_when_it_is_stopped_and_is_no_failure(experiment: Experiment) -> None:
    link = Interrupting(lambda: one.stop.set())
    one, _ = scheduler(experiment, link)
    assert one.run() == {}
    assert link.starts == ["row-1"]
    assert link.interrupted.is_set()
    assert experiment.failures == {}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_rows_and_the_status_tells_which(
    experiment: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    status: int,
) -> None:
    link = Interrupting(lambda: os.kill(os.getpid(), number))
    monkeypatch.setattr("experiments.engine.FlowerLink", lambda experiment, threads: link)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        run_rows(experiment, experiment.plan.rows, 1)
    assert ended.value.code == status
    assert "to go on, start the same command again" in " ".join(capsys.readouterr().err.split())
    assert signal.getsignal(number) is before


def test_rows_share_the_cores_whatever_runs_beside_them(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)))
    assert [cores_of(row) for row in experiment.plan.rows] == [1] * 4
    assert cores_of(Row("a", "ce", "", 1, {}, {}, "0" * 8)) == 6
    given: list[int | None] = []
    link = FakeLink()

    def start(experiment: Experiment, threads: int | None) -> FakeLink:
        given.append(threads)
        return link

    monkeypatch.setattr("experiments.engine.FlowerLink", start)
    monkeypatch.setattr("experiments.engine.memory_bytes", lambda kind: None)
    for jobs in (None, 1, 3):
        link.is_alive = True
        link.stopped.clear()
        link.most_at_once, link.together = 0, {None: 3, 1: 1, 3: 3}[jobs]
        run_rows(experiment, experiment.plan.rows, jobs)
        assert link.most_at_once == link.together
    assert given == [1, 1, 1]


def test_only_results_are_kept_where_a_grid_says_so(experiment: Experiment, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for row in experiment.plan.rows:
        folder = experiment.run_dir(row)
        (folder / "checkpoints" / "deep").mkdir(parents=True)
        for name in ("model.safetensors", "best.safetensors", "metrics.jsonl", "checkpoints/deep/a"):
            (folder / name).touch()
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (experiment.run_dir(experiment.plan.rows[0]) / "state").symlink_to(elsewhere)
    experiment.plan = Plan("a grid", experiment.plan.rows, keep="results")
    one, _ = scheduler(experiment, FakeLink({"row-2": [FAILED]}))
    one.run()
    left = {row.name: sorted(path.name for path in experiment.run_dir(row).iterdir()) for row in experiment.plan.rows}
    small = ["best.safetensors", "metrics.jsonl"]
    assert left["row-1"] == [*small, "state"]
    assert left["row-2"] == [*small[:1], "checkpoints", small[1], "model.safetensors"]
    assert left["row-3"] == left["row-4"] == small
    assert (elsewhere / "kept").exists()


def test_the_folder_of_a_run_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "there" / "state").mkdir(parents=True)
    (tmp_path / "here").symlink_to(tmp_path / "there")
    drop_large(tmp_path / "here")
    assert (tmp_path / "there" / "state").exists()
    drop_large(tmp_path / "there")
    assert not (tmp_path / "there" / "state").exists()


def test_a_row_that_is_done_says_its_last_accuracy_to_two_decimals(experiment: Experiment) -> None:
    class Trains(FakeLink):
        def do(self, row: Row) -> Outcome:
            run_dir = experiment.run_dir(row)
            run_dir.mkdir(parents=True)
            lines = ({"round": number, "test-accuracy": accuracy} for number, accuracy in ((1, 0.5), (2, 0.61254)))
            (run_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            return super().do(row)

    one, said = scheduler(experiment, Trains(), at_once=1)
    assert one.run() == {}
    assert said.getvalue().count(" s, 61.25 % after 2 rounds\n") == 4
