"""Clients' last models in whole runs: what travels, and runs that are killed at any moment."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message

from client_app.app import app as client_app
from config.run_config import ConfigError
from data.whole_files import round_path
from messages import keys
from messages.arrays import as_numpy
from messages.payload import lengthen, shorten, unpack
from methods import METHODS
from server_app.checkpoint_file import load_checkpoint
from server_app.client_models import ClientModels
from server_app.files import CLIENT_MODELS
from server_app.stopping import RunStoppedError
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of
from tests.server_app.sharing_models import CLIENTS, Sharing, SharingOnServer, files_of, named, run


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "ce", Sharing)


# What travels.


@pytest.mark.parametrize("payload", ["fp32", "bf16"])
def test_a_client_gets_the_last_model_of_another_as_the_payload_says(
    tmp_path: Path, tiny_sample: Path, payload: str
) -> None:
    """With half precision, rounded as the global model is; what the server keeps is exact."""
    sent: dict[tuple[int, int], dict[str, np.ndarray]] = {}

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            client = int(context.node_config["partition-id"])
            server_round = int(message.content["config"]["server-round"])  # type: ignore[arg-type]
            records = message.content.array_records
            others = [name for name in records if name.startswith(keys.CLIENT_MODEL)]
            assert others in ([], [keys.CLIENT_MODEL + "the next"])
            if others:
                sent[client, server_round] = {name: np.array(v) for name, v in unpack(records[others[0]]).items()}
        return client_app(message, context)

    kept: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    keep = ClientModels.keep

    def watched(self: ClientModels, client: int, server_round: int, model: ArrayRecord) -> None:
        kept[client, server_round] = {name: np.array(as_numpy(array)) for name, array in model.items()}
        keep(self, client, server_round, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClientModels, "keep", watched)
        run(tmp_path, tiny_sample, handler=handler, payload=payload)
    assert len(sent) > 4
    for (client, server_round), found in sent.items():
        last = max(number for other, number in kept if other == (client + 1) % CLIENTS and number < server_round)
        expected = kept[(client + 1) % CLIENTS, last]
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].tobytes() == lengthen(shorten(value, payload, name)).tobytes()
            assert found[name].dtype == value.dtype


def test_bytes_count_with_the_others(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = run(tmp_path, tiny_sample, fraction_train=1.0, num_server_rounds=2)
    first, second = rounds_of(run_dir)
    assert second["sent-bytes"] == 2 * first["sent-bytes"]
    assert second["received-bytes"] == first["received-bytes"]


# Whole runs.


def test_a_run_keeps_those_models_that_its_checkpoints_need(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "flwr"):
        run_dir = run(tmp_path, tiny_sample)
    found = sorted((run_dir / "checkpoints").iterdir())
    assert set(files_of(run_dir)) == set().union(*(named(load_checkpoint(path).visits) for path in found))
    (line,) = [one for one in caplog.messages if "last model" in one]
    assert line.startswith(f"The server keeps each client's last model in {run_dir / CLIENT_MODELS}: ")


def test_a_run_of_another_method_keeps_none(tmp_path: Path, tiny_sample: Path) -> None:
    assert not (run(tmp_path, tiny_sample, method="sce", num_server_rounds=1) / CLIENT_MODELS).exists()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> tuple[Any, dict[str, str]]:
    """Outcome and files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "ce", Sharing)
        run_dir = run(tmp_path_factory.mktemp("undisturbed"), tiny_sample)
    return outcome_of(run_dir), files_of(run_dir)


def _dying(owner: Any, name: str, nth: int, *, after: bool) -> Callable[[pytest.MonkeyPatch], None]:
    """The process is killed when a function is called for the nth time."""

    def patched(patch: pytest.MonkeyPatch) -> None:
        original, left = getattr(owner, name), [nth]

        def dies(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if after:
                    original(*args, **kwargs)
                raise CutOffError
            return original(*args, **kwargs)

        patch.setattr(owner, name, dies)

    return patched


# Two clients a round: in which call the process is killed.
MOMENTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before the first model": _dying(ClientModels, "keep", 1, after=False),
    "between a round's models": _dying(ClientModels, "keep", 5, after=True),
    "before a round's checkpoint": _dying(ClientModels, "keep", 6, after=True),
    "before old models go": _dying(ClientModels, "remove_all_but", 4, after=False),
    "after old models have gone": _dying(ClientModels, "remove_all_but", 4, after=True),
    "before the next round is read": _dying(ClientModels, "load", 3, after=False),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_at_any_moment_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, undisturbed: tuple[Any, dict[str, str]], moment: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "ce", Sharing)
        MOMENTS[moment](patch)
        with pytest.raises(CutOffError):
            run(tmp_path, tiny_sample, resume="auto")
    _assert_same(run(tmp_path, tiny_sample, resume="auto"), undisturbed)


@pytest.mark.parametrize("train_message", [2, 5, 9])
def test_a_run_that_is_killed_while_clients_train_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, undisturbed: tuple[Any, dict[str, str]], train_message: int
) -> None:
    with pytest.raises(CutOffError):
        run(tmp_path, tiny_sample, resume="auto", handler=cut_off_in(train_message))
    _assert_same(run(tmp_path, tiny_sample, resume="auto"), undisturbed)


def test_a_run_can_return_to_the_checkpoint_before_the_last(
    tmp_path: Path, tiny_sample: Path, undisturbed: tuple[Any, dict[str, str]]
) -> None:
    run_dir = run(tmp_path, tiny_sample)
    round_path(run_dir / "checkpoints", 5).unlink()
    _assert_same(run(tmp_path, tiny_sample, resume=str(run_dir)), undisturbed)


def _assert_same(run_dir: Path, undisturbed: tuple[Any, dict[str, str]]) -> None:
    outcome, files = undisturbed
    assert outcome_of(run_dir) == outcome
    assert files_of(run_dir) == files


def test_a_resume_without_a_model_ends_in_one_sentence_before_anybody_is_asked(
    tmp_path: Path, tiny_sample: Path
) -> None:
    run_dir = run(tmp_path, tiny_sample, num_server_rounds=2)
    client, server_round = min(load_checkpoint(round_path(run_dir / "checkpoints", 2)).visits.items())
    ClientModels(run_dir, "").path(client, server_round).unlink()

    def nobody(message: Message, context: Context) -> Message:
        raise AssertionError

    with pytest.raises(ConfigError, match=rf"^run config: 'resume' .* it must be the model of client {client} after r"):
        run(tmp_path, tiny_sample, num_server_rounds=3, resume="auto", handler=nobody)


def test_a_model_that_disappears_stops_the_run_which_can_be_resumed_once_it_is_back(
    tmp_path: Path, tiny_sample: Path, undisturbed: tuple[Any, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = ClientModels.load
    gone: list[Path] = []

    def hidden(self: ClientModels, client: int, server_round: int) -> ArrayRecord:
        if not gone:
            gone.append(self.path(client, server_round))
            gone[0].rename(tmp_path / "elsewhere")
        return load(self, client, server_round)

    with monkeypatch.context() as patch:
        patch.setattr(ClientModels, "load", hidden)
        with pytest.raises(
            RunStoppedError, match=r"does not exist; it must be the model of client \d after round \d: "
        ):
            run(tmp_path, tiny_sample, resume="auto")
    (tmp_path / "elsewhere").rename(gone[0])
    _assert_same(run(tmp_path, tiny_sample, resume="auto"), undisturbed)


# Halves that are not as they must be.


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"keeps_models": False}, "it has a tell_models, so its keeps_models must be True"),
        (
            {"tell_models": lambda self, p: {"x": "client 1"}},
            "tell_models of .*; it must return a dict of names to part",
        ),
        (
            {"tell_models": lambda self, p: None},
            "tell_models of .* returned None; it must return a dict of names to par",
        ),
        (
            {"tell_models": lambda self, p: {"x": 77}},
            "sends the model of client 77, of which there is none; its tell_mo",
        ),
    ],
)
def test_a_half_that_asks_for_what_there_is_not(
    members: dict[str, Any], sentence: str, tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in members.items():
        monkeypatch.setattr(SharingOnServer, name, value)
    with pytest.raises((ConfigError, RunStoppedError), match=sentence):
        run(tmp_path, tiny_sample, num_server_rounds=2)


def test_a_method_must_say_that_it_shares_models(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sharing, "shares_models", False)
    with pytest.raises(ConfigError, match="its keeps_models is True, so shares_models of the method must be as well"):
        run(tmp_path, tiny_sample, num_server_rounds=2)


def test_no_message_of_a_method_that_shares_none_carries_one(tmp_path: Path, tiny_sample: Path) -> None:
    def handler(message: Message, context: Context) -> Message:
        assert not any(name.startswith(keys.CLIENT_MODEL) for name in message.content.array_records)
        assert isinstance(message.content.config_records["config"], ConfigRecord)
        return client_app(message, context)

    run(tmp_path, tiny_sample, method="sce", handler=handler, num_server_rounds=2)
