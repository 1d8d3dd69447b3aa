"""`normalization='release'`: measured before anybody is asked, recorded, sent, and kept by whoever resumes."""

import logging
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from typer.testing import CliRunner

import data.__main__
from client_app import local_data
from client_app.app import app as client_app
from config.normalization import given_normalization
from config.run_config import ConfigError
from data.errors import DataError
from data.images.loading import load_images
from data.release import open_release
from data.sample import draw_sample
from experiments.state import state_of
from messages import keys
from runs.comparing import differing, warnings_of
from runs.model.judging import judge
from runs.model.labelled import Labelled
from runs.model.opened import open_model
from runs.model.predicting import classify
from runs.model.traced import logits_of
from runs.run import read_run
from server_app.checkpoint_file import load_checkpoint
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

ROUNDS = 2
LEFT_OUT = "mean=[0.1, 0.2, 0.3] deviation=[0.4, 0.5, 0.6]"


def run(out: Path, sample: Path, **changes: Any) -> Path:
    settings = {"model": "cnn", "image_size": 16, "num_server_rounds": ROUNDS, "data_dir": str(sample)}
    return run_in_process(out, **{**settings, "normalization": "release", **changes})


def config_of(run_dir: Path) -> dict[str, Any]:
    return tomllib.loads((run_dir / "config.toml").read_text(encoding="utf-8"))


def numbers_of(run_dir: Path) -> str:
    return str(config_of(run_dir)["normalization-args"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> Path:
    return run(tmp_path_factory.mktemp("whole"), tiny_sample)


@pytest.fixture
def changed(tmp_path: Path, tiny_sample: Path) -> Path:
    """The same lists, whose images are others."""
    folder = tmp_path / "changed"
    draw_sample(folder, train=120, clean_train=20, val=12, test=40, image_size=16, seed=5)
    for name in ("noisy_train_key_list.txt", "clean_test_key_list.txt"):
        assert (folder / name).read_bytes() == (tiny_sample / name).read_bytes()
    return folder


def test_the_numbers_are_recorded_and_are_those_of_the_command(whole: Path, tiny_sample: Path) -> None:
    config = config_of(whole)
    done = CliRunner().invoke(data.__main__.app, ["show", str(tiny_sample), "--normalization", "--image-size", "16"])
    assert done.output == f"normalization='release' normalization-args='{config['normalization-args']}'\n"
    assert config["normalization"] == "release"
    checkpoint = load_checkpoint(whole / "checkpoints" / f"round-{ROUNDS:05}.safetensors")
    assert checkpoint.config["normalization-args"] == config["normalization-args"]


def test_every_message_has_them(tmp_path: Path, tiny_sample: Path, whole: Path) -> None:
    sent: list[Any] = []

    def handler(message: Message, context: Context) -> Message:
        sent.append(message.content.config_records[keys.CONFIG]["normalization-args"])
        return client_app(message, context)

    run(tmp_path, tiny_sample, handler=handler, fraction_evaluate=1.0)
    assert set(sent) == {numbers_of(whole)}
    assert len(sent) > 4 + 2 * ROUNDS  # roll call, training, evaluation


def test_given_numbers_make_the_same_run(tmp_path: Path, tiny_sample: Path, whole: Path) -> None:
    """What measures and what is told are one thing; numbers that are close to others are another run."""
    spelled = numbers_of(whole).replace(", ", ",  ").replace("mean", " mean")
    again = run(tmp_path / "a", tiny_sample, normalization_args=spelled)
    assert outcome_of(again) == outcome_of(whole)
    assert config_of(again) == {**config_of(whole), "output-dir": str(tmp_path / "a")}
    other = run(tmp_path / "b", tiny_sample, normalization_args=LEFT_OUT)
    assert outcome_of(other)[1] != outcome_of(whole)[1]


@pytest.mark.parametrize(("name", "message"), [("run", 1), ("run", 3), ("", 3)])
def test_killed_and_resumed_it_is_the_same(
    tmp_path: Path, tiny_sample: Path, whole: Path, name: str, message: int
) -> None:
    """In its first round, or in its second; found by its name, or by its config."""
    with pytest.raises(CutOffError):
        run(tmp_path, tiny_sample, handler=cut_off_in(message), resume="auto")
    run(tmp_path, tiny_sample, resume="auto", run_name=name)
    (run_dir,) = tmp_path.iterdir()
    assert outcome_of(run_dir) == outcome_of(whole)
    assert numbers_of(run_dir) == numbers_of(whole)


def test_whoever_resumes_keeps_the_recorded_numbers(
    tmp_path: Path, tiny_sample: Path, changed: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the images are others now: a run has one normalisation."""
    with pytest.raises(CutOffError):
        run(tmp_path, tiny_sample, handler=cut_off_in(3), num_server_rounds=3)
    monkeypatch.setattr("server_app.measured.channels_of", lambda *args, **rules: pytest.fail("it measures again"))
    run_dir = run(tmp_path, changed, resume="auto", num_server_rounds=3)
    assert numbers_of(run_dir) == numbers_of(whole)
    assert [line["round"] for line in rounds_of(run_dir)] == [1, 2, 3]
    by_path = run(tmp_path, changed, resume=str(run_dir), num_server_rounds=4)
    assert numbers_of(by_path) == numbers_of(whole)


def test_other_numbers_than_the_recorded_are_refused(tmp_path: Path, tiny_sample: Path) -> None:
    with pytest.raises(CutOffError):
        run(tmp_path, tiny_sample, handler=cut_off_in(3))
    with pytest.raises(ConfigError, match="'normalization-args' was 'mean=") as error:
        run(tmp_path, tiny_sample, resume="auto", normalization_args=LEFT_OUT)
    assert f"and is now {LEFT_OUT!r}" in str(error.value)


def test_a_finished_run_is_recognised(tmp_path: Path, tiny_sample: Path, whole: Path) -> None:
    """By `flwr run` with the same settings, and by a grid's row, whose config has no numbers."""
    shutil.copytree(whole, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    run(tmp_path, tiny_sample, resume="auto")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before

    class Grid:
        failures: dict[str, str] = {}  # noqa: RUF012

        def run_dir(self, row: Any) -> Path:
            return tmp_path / "run"

    row: Any = None
    grid: Any = Grid()
    assert state_of(grid, row) == "done"


def test_two_such_runs_are_compared_as_equal(tmp_path: Path, tiny_sample: Path, whole: Path) -> None:
    again = run(tmp_path, tiny_sample, normalization_args=numbers_of(whole))
    pair = [read_run(whole), read_run(again)]
    assert differing(pair) == {}
    assert warnings_of(pair) == []


def test_the_model_answers_as_in_the_run(whole: Path, tiny_sample: Path) -> None:
    opened = open_model(whole)
    assert opened.facts.numbers == given_normalization(numbers_of(whole))
    found = judge(opened, Labelled.of_run(opened))
    last = rounds_of(whole)[-1]
    assert (found.evaluation.accuracy, found.evaluation.loss) == (last["test-accuracy"], last["test-loss"])
    listed = open_release(tiny_sample).split("clean_test")
    exported = logits_of(opened, load_images(open_release(tiny_sample), listed.keys, 16))  # as files of ONNX have it
    assert exported.argmax(axis=1).tolist() == found.predicted.tolist()
    photos = [tiny_sample / key.decode() for key in listed.keys]
    assert [one.classes[0] for one in classify(opened, photos)[0]] == found.predicted.tolist()


def test_features_are_kept_by_numbers(tmp_path: Path, tiny_sample: Path) -> None:
    cache = tmp_path / "cache"
    for number, args in enumerate(("", LEFT_OUT, "")):
        local_data._cache.cache_clear()
        run(
            tmp_path / str(number), tiny_sample, clients=1, fraction_train=1.0, num_server_rounds=1, seed=0,
            trainable="head", cache_dir=str(cache), normalization_args=args,
        )  # fmt: skip
    assert len(list(cache.glob("*.features"))) == 2


def test_damaged_images_are_treated_as_in_training(tmp_path: Path, tiny_sample: Path, whole: Path) -> None:
    sample = Path(shutil.copytree(tiny_sample, tmp_path / "sample"))
    release = open_release(sample)
    (sample / release.split("noisy_train").keys[5].decode()).write_bytes(b"")
    with pytest.raises(DataError, match="with 'bad-images' as 'skip', a new run leaves it out"):
        run(tmp_path / "a", sample)
    assert not (tmp_path / "a" / "run").exists()
    left_out = run(tmp_path / "b", sample, bad_images="skip", num_server_rounds=1)
    assert numbers_of(left_out) != numbers_of(whole)


REMOTE: dict[str, Any] = {"test_split": "none", "val_split": "none"}


@pytest.fixture
def _remote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.app.is_remote", lambda grid: True)


def on_nodes(out: Path, sample: Path, data_dir: str, **changes: Any) -> Path:
    nodes = [{"data-dir": str(sample), "state-dir": str(out / "state")}]
    out.mkdir(exist_ok=True)
    alone = {"strategy_args": "min-train-nodes=1 min-available-nodes=1", "fraction_train": 1.0}
    return run(out, sample, nodes=nodes, **{**alone, **REMOTE, **changes, "data_dir": data_dir})


@pytest.mark.usefixtures("_remote")
def test_a_server_without_training_images_says_who_can_measure(tmp_path: Path, tiny_sample: Path) -> None:
    def handler(message: Message, context: Context) -> Message:
        raise AssertionError("a node was asked")

    clean = Path(shutil.copytree(tiny_sample, tmp_path / "clean"))
    (clean / "noisy_train_key_list.txt").unlink()
    lists_alone = Path(shutil.copytree(tiny_sample, tmp_path / "lists"))
    for key in open_release(tiny_sample).split("noisy_train").keys:
        (lists_alone / key.decode()).unlink()
    tests = {"test_split": "clean_test"}
    for where, changes, why in (
        ("", {}, "the server has no images"),
        ("/only/on/nodes", {}, "the server has no images"),
        (str(clean), tests, f"{clean} has none"),
        (str(lists_alone), tests, "images looked for from noisy_train_key_list.txt are missing"),
    ):
        with pytest.raises(ConfigError) as error:
            on_nodes(tmp_path / "out", tiny_sample, where, handler=handler, **changes)
        said = str(error.value)
        assert why in said
        assert "'normalization-args' must give mean and deviation" in said
        assert "`python -m data show DIR --normalization --image-size 16`" in said
    with pytest.raises(ConfigError, match="--image-size 16 --train-split clean`"):
        on_nodes(tmp_path / "out", tiny_sample, "", handler=handler, train_split="clean")


@pytest.mark.usefixtures("_remote")
def test_nodes_get_the_numbers_with_each_message(tmp_path: Path, tiny_sample: Path, whole: Path) -> None:
    """Told to a server without images, or measured by one that has them: one result."""
    told = on_nodes(tmp_path / "a", tiny_sample, "", normalization_args=numbers_of(whole))
    measured = on_nodes(tmp_path / "b", tiny_sample, str(tiny_sample))
    assert numbers_of(told) == numbers_of(measured) == numbers_of(whole)
    assert outcome_of(told) == outcome_of(measured)


def test_the_log_says_what_was_measured(
    tmp_path: Path, tiny_sample: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("flwr").propagate = True
    run(tmp_path, tiny_sample, num_server_rounds=1)
    assert f"normalization-args='{numbers_of(whole)}'" in caplog.text
    assert re.search("120 training images", caplog.text)
