"""A server of real nodes that needs no data opens none: what the classes are, the nodes say in the roll call."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from flwr.app import Context, Message

from client_app.app import app as client_app
from client_app.dealing import release_at
from config.combinations import LEAST_FOR_LABEL_WAVE
from config.run_config import ConfigError, RunConfig
from data.layout.finding import CATEGORIES
from data.layout.key_files import MAX_CLASSES
from data.release import open_release
from data.sample import draw_sample
from messages import keys
from server_app import attendance
from server_app.checkpoint_file import load_checkpoint
from server_app.roll_call import call_roll, introduce, roll_call_messages
from server_app.roll_call_answers import judge
from server_app.run_record import read_record
from server_app.stopping import RunStoppedError
from tests.fakes import CutOffError, InProcessGrid, cut_off_in, outcome_of, rounds_of, run_in_process

SITES = 3
NO_DATA: dict[str, Any] = {"test_split": "none", "val_split": "label-wave", "inspection": "before", "data_dir": ""}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A release for each site, with images of its own."""
    folder = tmp_path_factory.mktemp("sites")
    for number in range(SITES):
        draw_sample(folder / str(number), train=40, clean_train=20, val=12, test=40, image_size=32, seed=20 + number)
    return [folder / str(number) for number in range(SITES)]


@pytest.fixture(autouse=True)
def _remote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes are real ones, and the server may look at no release."""
    monkeypatch.setattr("server_app.app.is_remote", lambda grid: True)
    for name in ("open_release", "default_sample"):
        monkeypatch.setattr(f"server_app.server_data.{name}", lambda *args: pytest.fail("the server opened data"))


def nodes(sites: list[Path], out: Path) -> list[dict[str, Any]]:
    return [{"data-dir": str(site), "state-dir": str(out / "state")} for site in sites]


def run(out: Path, sites: list[Path], handler: Any = None, **changes: Any) -> Path:
    out.mkdir(exist_ok=True)
    common = {"model": "cnn", "image_size": 16, "learning_rate": 0.05, "num_server_rounds": 6, "fraction_train": 1.0}
    settings = {**common, **NO_DATA, **changes}
    if settings["num_server_rounds"] < LEAST_FOR_LABEL_WAVE:
        settings["val_split"] = "none"
    return run_in_process(out, handler=handler, nodes=nodes(sites, out), **settings)


@pytest.fixture(scope="module")
def whole(sites: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server_app.app.is_remote", lambda grid: True)
        return run(tmp_path_factory.mktemp("whole"), sites)


def test_the_run_is_as_with_data_but_for_what_the_server_measures(whole: Path, sites: list[Path]) -> None:
    names = open_release(sites[0]).class_names
    with safetensors.safe_open(whole / "model.safetensors", "np") as file:
        assert tuple(json.loads(file.metadata()["class-names"])) == names
    checkpoint = load_checkpoint(whole / "checkpoints" / "round-00006.safetensors")
    assert (checkpoint.class_names, checkpoint.lists) == (names, {})
    record = read_record(whole)
    assert record is not None
    assert (record.data, record.clients) == ({}, SITES)
    assert [line["test-accuracy"] for line in rounds_of(whole)] == [None] * 6
    assert (whole / "checkpoints" / "best.safetensors").exists()
    assert (whole / "prediction-changes.png").exists()
    assert not (whole / "confusion.png").exists()


def test_killed_and_resumed_it_is_the_same(whole: Path, sites: list[Path], tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(CutOffError):
            run(tmp_path, sites, cut_off_in(2 * SITES + 2), resume="auto")
    run(tmp_path, sites, resume="auto")
    assert outcome_of(tmp_path / "run") == outcome_of(whole)
    best, wanted = (load_checkpoint(one / "checkpoints" / "best.safetensors") for one in (tmp_path / "run", whole))
    assert (best.server_round, best.best) == (wanted.server_round, wanted.best)
    assert all(np.array_equal(best.model[name], wanted.model[name]) for name in wanted.model)


def test_a_resumed_run_knows_its_classes_whoever_is_there(
    sites: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two nodes that come, one now has other classes: there is no majority, and none is needed."""
    monkeypatch.setattr(attendance, "RETURN_SECONDS", 0.0)
    own = [shutil.copytree(site, tmp_path / site.name) for site in sites]
    alone = {"strategy_args": "min-train-nodes=1 min-available-nodes=1"}
    run(tmp_path, own, num_server_rounds=2, **alone)
    renamed(own[1], "Poncho")
    caplog.set_level(logging.WARNING)
    logging.getLogger("flwr").propagate = True
    run_dir = run(tmp_path, own[:2], num_server_rounds=3, resume="auto", **alone)
    assert "names 14 classes; number 1 is 'Poncho', and the server has 'T-Shirt' there" in caplog.text
    assert rounds_of(run_dir)[-1]["round"] == 3


def renamed(site: Path, name: str) -> None:
    """Give a site's first class another name."""
    [path] = site.rglob(CATEGORIES)
    path.write_text("\n".join([name, *path.read_text().split("\n")[1:]]))
    release_at.cache_clear()  # a process of a node opens its release once


def test_a_node_with_other_classes_is_left_out(
    sites: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = [shutil.copytree(site, tmp_path / site.name) for site in sites]
    renamed(own[2], "Poncho")
    caplog.set_level(logging.WARNING)
    logging.getLogger("flwr").propagate = True
    run_dir = run(tmp_path, own, num_server_rounds=1)
    [line] = [line for line in caplog.messages if "left out" in line]
    assert "names 14 classes; number 1 is 'Poncho', and most nodes have 'T-Shirt' there; all must have the same" in line
    assert load_checkpoint(run_dir / "checkpoints" / "round-00001.safetensors").class_names[0] == "T-Shirt"
    assert rounds_of(run_dir)[0]["clients"] == SITES - 1


def test_a_tie_stops_the_run(sites: list[Path], tmp_path: Path) -> None:
    own = [shutil.copytree(site, tmp_path / site.name) for site in sites[:2]]
    renamed(own[1], "Poncho")
    with pytest.raises(
        RunStoppedError,
        match=r"^1 node names 14 classes; number 1 is 'Poncho', and as many nodes have 'T-Shirt' .* order",
    ):
        run(tmp_path, own, num_server_rounds=1)
    assert not (tmp_path / "run").exists()


Change = Callable[[Any, Any], None]


def _names(*names: str) -> Change:
    return lambda facts, about: about.__setitem__(keys.CLASS_NAMES, list(names))


HOSTILE: dict[str, tuple[Change, str]] = {
    "too many": (_names(*map(str, range(MAX_CLASSES + 1))), "a list of 32768; it must be a list of at most 32767 "),
    "too long": (_names("a" * 201, "b"), "must be printable text of at most 200 characters"),
    "not printable": (_names("a\x1b[2J"), "must be printable text"),
    "twice": (_names("a", "a"), "of which number 2: 'a' must be a class name"),
    "blank": (_names(" "), "of which number 1: ' ' must be a class name"),
    "none": (_names(), "has 0 classes, but counts images of 14"),
    "other code": (lambda facts, about: about.__setitem__(keys.FINGERPRINT, "x"), "runs other code"),
    "fewer counts": (
        lambda facts, about: facts.__setitem__(keys.LABEL_HISTOGRAM, [40]), "has 14 classes, but counts images of 1",
    ),
    "no counts": (lambda facts, about: facts.__setitem__(keys.LABEL_HISTOGRAM, []), "of 1 to 32767 numbers"),
    "other weights": (lambda facts, about: about.__setitem__(keys.FROZEN, "x"), "has other frozen weights (x) than"),
}  # fmt: skip


@pytest.mark.parametrize("how", HOSTILE)
def test_nonsense_is_left_out_and_decides_nothing(how: str, sites: list[Path], tmp_path: Path) -> None:
    change, sentence = HOSTILE[how]
    names = open_release(sites[0]).class_names
    for honest in (1, 2):
        grid, replies = answers(sites[: honest + 1], tmp_path)
        change(replies[0].content.metric_records[keys.FACTS], replies[0].content.config_records[keys.ABOUT])
        members, counts, left_out = judge(replies, sorted(grid.nodes), None)
        assert [member.class_names for member in members] == [names] * honest
        assert len(counts) == honest
        assert sentence in left_out[0]
        assert left_out[0].isprintable()


def answers(sites: list[Path], out: Path) -> tuple[InProcessGrid, list[Message]]:
    grid = InProcessGrid(client_app, nodes(sites, out))
    config = RunConfig.from_flat({key.replace("_", "-"): value for key, value in NO_DATA.items()})
    return grid, grid.send_and_receive(roll_call_messages(sorted(grid.nodes), config))


def test_answers_that_are_left_out_have_no_vote(sites: list[Path], tmp_path: Path) -> None:
    """Two that contradict themselves, or are the few of another kind, agree on other classes than the sound one."""
    names = open_release(sites[0]).class_names
    grid, replies = answers(sites, tmp_path)
    for reply in replies[:2]:
        reply.content.config_records[keys.ABOUT][keys.CLASS_NAMES] = ["x", "y"]
    members, _, left_out = judge(replies, sorted(grid.nodes), None)
    assert [member.class_names for member in members] == [names]
    assert all("has 2 classes, but counts images of 14" in line for line in left_out)

    grid, replies = answers(sites, tmp_path)
    about, facts = replies[0].content.config_records[keys.ABOUT], replies[0].content.metric_records[keys.FACTS]
    about[keys.CLASS_NAMES], facts[keys.PARTITION_ID] = ["Poncho", *names[1:]], 0
    members, _, left_out = judge(replies, sorted(grid.nodes), None)
    assert len(members) == 2
    assert "has a 'partition-id', unlike most nodes" in left_out[0]


@pytest.mark.parametrize("splits", [{}, {"test_split": "none"}, {"val_split": "none"}])
def test_no_site_is_judged_by_a_drawn_sample(splits: dict[str, str], sites: list[Path], tmp_path: Path) -> None:
    """Neither if classes are those of the sample, nor if they are others."""
    config = RunConfig(model="cnn", image_size=16, **splits)  # type: ignore[arg-type]
    own = [shutil.copytree(site, tmp_path / site.name) for site in sites]
    for other in (False, True):
        if other:
            for site in own:
                renamed(site, "Poncho")
        grid = InProcessGrid(client_app, nodes(own, tmp_path))
        with pytest.raises(ConfigError, match=r"'data-dir' is empty, .* but 3 nodes have .* 'val-split' to none"):
            call_roll(grid, config, open_release(sites[0]).class_names, 1)


def test_slices_of_the_sample_may_be_judged_by_it(sites: list[Path], tmp_path: Path) -> None:
    slices = [{**node, "partition-id": 0, "num-partitions": 1} for node in nodes(sites[:1], tmp_path)]
    grid = InProcessGrid(client_app, slices)
    config = RunConfig(model="cnn", image_size=16, batch_size=8)
    assert len(call_roll(grid, config, open_release(sites[0]).class_names, 1)) == 1


def test_forward_with_a_matrix_needs_no_data_but_its_classes(sites: list[Path], tmp_path: Path) -> None:
    small, right = tmp_path / "small.txt", tmp_path / "right.txt"
    np.savetxt(small, np.eye(3))
    np.savetxt(right, np.eye(14) * 0.6 + 0.4 / 14)
    forward = {"method": "forward", "num_server_rounds": 1, "val_split": "none", "inspection": "none"}
    with pytest.raises(ConfigError, match=r"small.txt', a matrix of 3 classes, but the nodes have 14; it must be the"):
        run(tmp_path, sites, method_args=f"transition='{small}'", **forward)
    assert not (tmp_path / "run").exists()
    assert len(rounds_of(run(tmp_path, sites, method_args=f"transition='{right}'", **forward))) == 1


def test_frozen_weights_are_compared_once_the_classes_are_known(sites: list[Path], tmp_path: Path) -> None:
    grid, replies = answers(sites, tmp_path)
    asked: list[tuple[str, ...]] = []

    def frozen(names: tuple[str, ...]) -> str:
        asked.append(names)
        return "the server's"

    members, _, left_out = judge(replies, sorted(grid.nodes), None, frozen)
    assert asked == [open_release(sites[0]).class_names]
    assert members == []
    assert all("has other frozen weights (none) than the server (the server's)" in line for line in left_out)
    assert judge([], [1], None, frozen) == ([], {}, ["node 1: no reply in time."])


def test_a_head_alone_trains_without_data(sites: list[Path], tmp_path: Path) -> None:
    run_dir = run(tmp_path, sites, num_server_rounds=1, trainable="head")
    assert load_checkpoint(run_dir / "checkpoints" / "round-00001.safetensors").frozen


def test_a_node_that_comes_late_needs_the_runs_classes(sites: list[Path], tmp_path: Path) -> None:
    own = [shutil.copytree(site, tmp_path / site.name) for site in sites[:2]]
    renamed(own[1], "Poncho")
    grid = InProcessGrid(client_app, nodes(own, tmp_path))
    config = RunConfig.from_flat({key.replace("_", "-"): value for key, value in NO_DATA.items()})
    names = open_release(sites[0]).class_names
    [member] = introduce(grid, config, names, lambda names: "", sorted(grid.nodes))
    assert member.class_names == names


@pytest.mark.parametrize(("method", "args"), [("xiao", ""), ("forward", ""), ("custom.no_data_test:Reading", "")])
def test_a_method_that_needs_the_servers_data_is_refused_at_once(
    method: str, args: str, sites: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ":" in method:
        _own_method(monkeypatch)

    def handler(message: Message, context: Context) -> Message:
        raise AssertionError("a node was asked")

    with pytest.raises(
        ConfigError, match="whose server half works with images or labels of the server's own, but there"
    ):
        run(tmp_path, sites, handler, method=method, method_args=args)
    assert not (tmp_path / "run").exists()


def _own_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of the user's with a server half that reads the release."""
    import sys
    import types
    from dataclasses import dataclass

    from data.release import Release
    from learning.server_half import ServerHalf
    from methods.ce import CE

    class Half(ServerHalf):
        def prepare(self, config: RunConfig, release: Release) -> None:
            raise AssertionError("there is none")

    @dataclass(frozen=True)
    class Reading(CE):
        def on_server(self) -> ServerHalf:
            return Half()

    module = types.ModuleType("custom.no_data_test")
    module.Reading = Reading  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "custom.no_data_test", module)


@pytest.mark.parametrize("method", ["selfie", "fednoro"])
def test_a_method_whose_server_half_reads_no_images_needs_no_data(
    method: str, sites: list[Path], tmp_path: Path
) -> None:
    assert len(rounds_of(run(tmp_path, sites, num_server_rounds=2, method=method))) == 2


def test_a_method_gets_the_data_that_the_server_has(
    sites: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server_app.server_data.open_release", open_release)
    run_dir = run(tmp_path, sites, num_server_rounds=1, method="forward", data_dir=str(sites[0]))
    record = read_record(run_dir)
    assert record is not None
    assert record.data.keys() == {"one of the lists", "train"}


def test_a_server_with_another_set_of_classes_does_not_resume_the_run(
    whole: Path, sites: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a simulation, whose server always opens a release."""
    other = shutil.copytree(sites[0], tmp_path / "other")
    renamed(other, "Poncho")
    monkeypatch.setattr("server_app.app.is_remote", lambda grid: False)
    monkeypatch.setattr("server_app.server_data.open_release", open_release)
    own = [shutil.copytree(site, tmp_path / site.name) for site in sites]
    for site in own:
        renamed(site, "Poncho")
    with pytest.raises(ConfigError, match=r"that run had 14, .* number 1 was 'T-Shirt' and is now 'Poncho'\."):
        run(tmp_path, own, resume=str(whole), data_dir=str(other), output_dir=str(whole.parent), num_server_rounds=7)
