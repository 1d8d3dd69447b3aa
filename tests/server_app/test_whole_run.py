"""The real ServerApp and ClientApp in one process without Ray: what a run writes, and how it ends on errors."""

import json
import logging
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.supercore.exit import exit_handler

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from data.errors import DataError
from data.pack_writer import Packing, write_pack
from data.partition.file import save_partition
from data.partition.schemes import partition
from data.release import open_release
from messages.fingerprint import code_fingerprint
from server_app.start import app as server_app
from server_app.stopping import OneSentence, RunStoppedError
from task import derived_generator
from tests.fakes import TIMES, InProcessGrid, outcome_of, partitions, rounds_of, run_in_process


def test_its_config_file_alone_repeats_a_run(tmp_path: Path, tiny_sample: Path) -> None:
    """A named one; with another number of clients it would be another run, and is refused at once."""
    first = run_in_process(tmp_path, data_dir=str(tiny_sample), run_name="mine")
    values = tomllib.loads((first / "config.toml").read_text(encoding="utf-8"))
    refused = "'num-clients' is 4, but there are 5 clients; set num-supernodes=4 in --federation-config, or set num-cl"
    with pytest.raises(ConfigError, match=refused):
        _repeat(values, 5)
    _repeat(values, 4)
    (second,) = set(tmp_path.iterdir()) - {first}
    assert outcome_of(second) == outcome_of(first)


def _repeat(values: dict[str, Any], clients: int) -> None:
    """What `flwr run -c config.toml` does: the file's values are the user's."""
    grid = InProcessGrid(client_app, partitions(clients), values)
    server_app(grid, Context(1, 1, {}, RecordDict(), {**RunConfig().to_flat(), **values}))


def _drop_a_weight(message: Message) -> None:
    """Make the client fail, without changing the arrays, which all messages of a round share in this process."""
    kept = {name: array for name, array in message.content.array_records["arrays"].items() if name != "fc.weight"}
    message.content = RecordDict({"arrays": ArrayRecord(kept), "config": message.content.config_records["config"]})


def test_a_run_writes_what_it_promises(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = run_in_process(
        tmp_path, data_dir=str(tiny_sample), fraction_evaluate=0.5, model="resnet18", pictures=True
    )
    assert sorted(path.name for path in run_dir.iterdir()) == [
        ".lock", "accuracy.png", "checkpoints", "clients.jsonl", "config.toml", "confusion.png", "metrics.jsonl",
        "model.safetensors", "run.json",
    ]  # fmt: skip
    text = (run_dir / "config.toml").read_text(encoding="utf-8")
    assert text.startswith(f"# Flower's run 1, code {code_fingerprint()}, flwr ")
    saved = tomllib.loads(text)
    assert RunConfig.from_flat(saved).to_flat() == saved
    assert (saved["num-server-rounds"], saved["num-clients"], saved["run-name"]) == (2, 4, "")

    rounds = rounds_of(run_dir)
    assert [entry["round"] for entry in rounds] == [1, 2]
    for entry in rounds:
        confusion = np.array(entry["confusion-matrix"])
        assert confusion.shape == (14, 14)
        assert confusion.sum() == 40
        assert entry["test-accuracy"] == pytest.approx(np.trace(confusion) / 40)
        assert len(entry["per-class-recall"]) == 14
        assert entry["num-examples"] == 60  # two of four clients with 30 images each
        assert len(entry["sampled-partitions"]) == 2
        assert entry["failed-partitions"] == []
        assert entry["eval-accuracy"] >= 0
        assert (entry["clients"], entry["flower-run"]) == (4, "1")
        for key in ("test-loss", "macro-f1", "train-loss", "images-per-second"):
            assert entry[key] >= 0
        assert 0 < entry["slowest-training-seconds"] < entry["slowest-client-seconds"] < entry["exchange-seconds"]
        assert entry["evaluation-seconds"] > 0
        assert entry["slowest-client-seconds"] + entry["evaluation-seconds"] < entry["seconds"]

    with safetensors.safe_open(run_dir / "model.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["class-names"])[:2] == ["T-Shirt", "Shirt"]
        assert file.metadata()["round"] == "2"
        assert file.get_tensor("fc.weight").shape == (14, 512)
        assert file.get_tensor("bn1.num_batches_tracked").dtype == np.int64


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path, tiny_sample: Path) -> None:
    def outcome(name: str, **overrides: Any) -> tuple[Any, Any]:
        run_dir = run_in_process(tmp_path, data_dir=str(tiny_sample), run_name=name, **overrides)
        rounds = [{key: value for key, value in entry.items() if key not in TIMES} for entry in rounds_of(run_dir)]
        weights = safetensors.numpy.load_file(run_dir / "model.safetensors")
        return rounds, {name: value.tobytes() for name, value in weights.items()}

    first = outcome("one")
    assert outcome("two") == first
    other = outcome("three", seed=2)
    assert other[0] != first[0]
    assert other[1] != first[1]


def test_every_round_samples_and_shuffles_anew(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, ...]] = []

    def recording(seed: int, purpose: str, *numbers: int) -> Any:
        drawn.append((seed, purpose, *numbers))
        return derived_generator(seed, purpose, *numbers)

    monkeypatch.setattr("client_app.app.derived_generator", recording)
    run_dir = run_in_process(
        tmp_path, clients=8, data_dir=str(tiny_sample), fraction_train=0.25, num_server_rounds=4, seed=3
    )
    sampled = [entry["sampled-partitions"] for entry in rounds_of(run_dir)]
    assert len({tuple(sorted(partitions)) for partitions in sampled}) > 1
    expected = [(3, "local training", i, one + 1) for i, partitions in enumerate(sampled, 1) for one in partitions]
    assert sorted(drawn) == sorted(expected)


def test_the_final_model_is_where_training_ended(tmp_path: Path, tiny_sample: Path) -> None:
    """One client, one round: the server's model is that client's, bit for bit."""
    replies: list[Any] = []

    def spy(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if message.metadata.message_type == "train":
            replies.append({name: array.numpy() for name, array in reply.content.array_records["arrays"].items()})
        return reply

    run_dir = run_in_process(
        tmp_path, clients=1, handler=spy, data_dir=str(tiny_sample), num_server_rounds=1, fraction_train=1.0
    )
    saved = safetensors.numpy.load_file(run_dir / "model.safetensors")
    for name, value in replies[0].items():
        np.testing.assert_array_equal(saved[name], value, err_msg=name)


def test_an_interrupted_run_stops_waiting_and_logs_how_to_resume(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted_in_round_2(message: Message, context: Context) -> Message | None:
        if message.metadata.message_type == "train" and message.content["config"]["server-round"] == 2:
            exit_handler.trigger_exit_handlers(run_before_force_exit=False)  # what Flower does on Ctrl-C
            return None
        return client_app(message, context)

    with caplog.at_level(logging.INFO, "flwr"), pytest.raises(RunStoppedError, match=r"interrupted while clients"):
        run_in_process(
            tmp_path, handler=interrupted_in_round_2, data_dir=str(tiny_sample), run_name="run", num_server_rounds=3
        )
    run_dir = tmp_path / "run"
    assert len(rounds_of(run_dir)) == 1
    command = f"  flwr run . --stream -c \"resume='{run_dir}'\""
    before = [caplog.messages[row - 1] for row, message in enumerate(caplog.messages) if message == command]
    assert before == [
        "--federation-config or connection, and with",
        "Interrupted; finished rounds are kept. To resume:",
    ]
    assert len(rounds_of(run_in_process(tmp_path, data_dir=str(tiny_sample), resume=str(run_dir)))) == 2


def test_folder_pack_and_pixels_train_to_the_same_weights(tmp_path: Path, tiny_sample: Path) -> None:
    """Also without a cache of decoded images, and with a partition from a file."""
    release = open_release(tiny_sample)
    write_pack(release, tmp_path / "files.pack", Packing())
    write_pack(release, tmp_path / "pixels.pack", Packing(image_size=32, decoded=True))
    noisy = release.split("noisy_train")
    parts = partition("iid", noisy.labels, 4, 1)
    save_partition(tmp_path / "parts", noisy.keys, parts, {})
    runs: dict[str, dict[str, Any]] = {
        "folder": {"data_dir": str(tiny_sample)},
        "pack": {"data_dir": str(tmp_path / "files.pack")},
        "pixels": {"data_dir": str(tmp_path / "pixels.pack")},
        "uncached": {"data_dir": str(tiny_sample), "cache_gib": 0.0},
        "dealt": {
            "data_dir": str(tmp_path / "files.pack"),
            "partition": "file",
            "partition_args": f"path='{tmp_path / 'parts'}'",
        },
    }
    weights = {
        name: (run_in_process(tmp_path / "runs", run_name=name, **values) / "model.safetensors").read_bytes()
        for name, values in runs.items()
    }
    tensors = {name: safetensors.numpy.load(raw) for name, raw in weights.items()}
    for name, arrays in tensors.items():
        for key, value in arrays.items():
            assert np.array_equal(value, tensors["folder"][key]), (name, key)


def test_one_failing_client_costs_only_its_reply(tmp_path: Path, tiny_sample: Path) -> None:
    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 2:
            _drop_a_weight(message)
        return client_app(message, context)

    run_dir = run_in_process(
        tmp_path, handler=handler, data_dir=str(tiny_sample), fraction_train=1.0, num_server_rounds=1
    )
    (entry,) = rounds_of(run_dir)
    assert entry["sampled-partitions"] != [2]
    assert entry["failed-partitions"] == [2]
    assert entry["num-examples"] == 90


def test_a_reply_that_is_not_finite_is_left_out(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 1:
            reply.content.array_records["arrays"]["fc.bias"] = Array(np.full(14, np.nan, dtype=np.float32))
        return reply

    logging.getLogger("flwr").propagate = True
    with caplog.at_level("WARNING"):
        run_dir = run_in_process(
            tmp_path, handler=handler, data_dir=str(tiny_sample), fraction_train=1.0, num_server_rounds=1
        )
    assert "client 1: 'fc.bias' holds a value that is not finite." in caplog.text
    assert rounds_of(run_dir)[0]["failed-partitions"] == [1]


def test_a_damaged_test_image_ends_the_run_by_name(tmp_path: Path, tiny_sample: Path) -> None:
    release_dir = tmp_path / "damaged"
    shutil.copytree(tiny_sample, release_dir)
    release = open_release(release_dir)
    key = release.split("clean_test").keys[3]
    Path(release.store.place(key)).write_bytes(b"")
    with pytest.raises(DataError, match=rf"image {re.escape(key.decode())} cannot be read .* \(it is empty\)"):
        run_in_process(tmp_path / "out", data_dir=str(release_dir), num_server_rounds=1)


def test_when_every_client_fails_the_run_stops_and_keeps_finished_rounds(tmp_path: Path, tiny_sample: Path) -> None:
    calls = []

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            calls.append(1)
            if len(calls) > 2:
                _drop_a_weight(message)
        return client_app(message, context)

    with pytest.raises(RunStoppedError, match=r"round 2: none of 2 clients gave a usable reply; client [0-3]: Value"):
        run_in_process(tmp_path, handler=handler, data_dir=str(tiny_sample))
    run_dir = tmp_path / "run"
    assert [entry["round"] for entry in rounds_of(run_dir)] == [1]
    with safetensors.safe_open(run_dir / "model.safetensors", "numpy") as file:
        assert file.metadata()["round"] == "1"


def test_expected_errors_are_logged_as_one_sentence_and_others_with_a_traceback() -> None:
    def record(error: Exception) -> logging.LogRecord:
        try:
            raise error
        except Exception as caught:
            info = (type(caught), caught, caught.__traceback__)
        made = logging.LogRecord("flwr", logging.ERROR, "", 1, "%s raised an exception", ("Simulation",), info)
        OneSentence().filter(made)
        return made

    expected = record(ConfigError("run config: 'seed' is -1; it must be a whole number of at least 0."))
    assert expected.exc_info is None
    assert (
        expected.getMessage() == "The run stopped: run config: 'seed' is -1; it must be a whole number of at least 0."
    )
    assert record(KeyError("bug")).exc_info is not None
