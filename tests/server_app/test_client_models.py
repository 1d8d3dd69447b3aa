"""Clients' last models, which the server keeps for methods that send some of them to others."""

import errno
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from client_app.app import app as client_app
from config.combinations import check_combination
from config.run_config import ConfigError, RunConfig
from data.sealed import read_sealed, write_sealed
from data.whole_files import round_path
from learning.method import Batch, Method, Visit
from learning.server_half import ServerHalf
from messages import keys
from messages.arrays import as_numpy
from messages.payload import lengthen, shorten, unpack
from methods import METHODS, build_method
from runs.removing import LARGE
from server_app import client_models
from server_app.callbacks import History
from server_app.callbacks.client_model_files import ClientModelFiles
from server_app.checkpoint_file import load_checkpoint, save_checkpoint
from server_app.client_models import ClientModels, Outgoing, version_of
from server_app.files import CLIENT_MODELS, tidy
from server_app.stopping import RunStoppedError
from server_app.strategy import make_strategy
from tests.fakes import CutOffError, cut_off_in, outcome_of, record, rounds_of, run_in_process
from tests.server_app.test_checkpoint_file import checkpoint

CLIENTS = 4
TINY: dict[str, Any] = {"method": "ce", "model": "cnn", "image_size": 16, "num_server_rounds": 5, "clients": CLIENTS}
MODEL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b.num_batches_tracked": np.array(7)}


# A method that needs no more than its server half: the loss of each client depends on the model of the next one.


@dataclass(frozen=True)
class Sharing(Method):
    shares_models = True

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        scale = sum(float(value.float().abs().mean()) for one in visit.models.values() for value in one.values())
        return cross_entropy(batch.logits, batch.labels) * (1 + scale / 1000)

    def on_server(self) -> ServerHalf:
        return SharingOnServer()


class SharingOnServer(ServerHalf):
    reads_data = False
    keeps_models = True

    def __init__(self) -> None:
        self._heard: set[int] = set()

    def heard(self, server_round: int, replies: Mapping[int, Any]) -> None:
        self._heard |= set(replies)

    def tell_models(self, partition: int) -> dict[str, int]:
        following = (partition + 1) % CLIENTS
        return {"the next": following} if following in self._heard else {}

    def state(self) -> dict[str, np.ndarray]:
        return {"heard": np.array(sorted(self._heard), dtype=np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._heard = set(state["heard"].tolist())


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "ce", Sharing)


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    return run_in_process(out, data_dir=str(sample), **{**TINY, **changes})


def _files(run_dir: Path) -> dict[str, str]:
    """By name, a hash of the arrays in each."""
    found = {}
    for path in sorted((run_dir / CLIENT_MODELS).iterdir()):
        _, arrays = read_sealed(path, client_models.FORMAT)
        found[path.name] = hashlib.sha256(b"".join(value.tobytes() for value in arrays.values())).hexdigest()
    return found


def _named(visits: Mapping[int, int]) -> set[str]:
    return {f"client-{client:05}-round-{server_round:05}.safetensors" for client, server_round in visits.items()}


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
        _run(tmp_path, tiny_sample, handler=handler, payload=payload)
    assert len(sent) > 4
    for (client, server_round), found in sent.items():
        last = max(number for other, number in kept if other == (client + 1) % CLIENTS and number < server_round)
        expected = kept[(client + 1) % CLIENTS, last]
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].tobytes() == lengthen(shorten(value, payload, name)).tobytes()
            assert found[name].dtype == value.dtype


def test_bytes_count_with_the_others(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = _run(tmp_path, tiny_sample, fraction_train=1.0, num_server_rounds=2)
    first, second = rounds_of(run_dir)
    assert second["sent-bytes"] == 2 * first["sent-bytes"]
    assert second["received-bytes"] == first["received-bytes"]


def test_a_model_that_several_clients_get_is_read_once_and_let_go_of(tmp_path: Path) -> None:
    models = ClientModels(tmp_path, "run")
    models.keep(3, 2, record(MODEL))
    outgoing = Outgoing(models, {3: 2}, "ce")
    one = outgoing.of(3)
    models.path(3, 2).unlink()
    assert outgoing.of(3) is one
    outgoing.let_go()
    assert len(one) == 0


# Files.


def test_a_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    models = ClientModels(tmp_path, "run")
    models.keep(7, 12, record(MODEL))
    assert [path.name for path in (tmp_path / CLIENT_MODELS).iterdir()] == ["client-00007-round-00012.safetensors"]
    loaded = {name: as_numpy(array) for name, array in models.load(7, 12).items()}
    assert list(loaded) == list(MODEL)
    for name, value in MODEL.items():
        assert (loaded[name].dtype, loaded[name].shape) == (value.dtype, value.shape)
        assert loaded[name].tobytes() == value.tobytes()


@given(st.integers(0, 10**7), st.integers(1, 10**7))
def test_names_say_whose_and_when(client: int, server_round: int) -> None:
    assert version_of(ClientModels(Path(), "run").path(client, server_round).name) == (client, server_round)


@pytest.mark.parametrize(
    "name",
    ["client-1-round-00001.safetensors", "client-00001-round-00000.safetensors", "round-00001.safetensors", "notes",
     ".client-00001-round-00001.safetensors.7", "client-000001-round-00001.safetensors"],
)  # fmt: skip
def test_other_names_are_nobodys(name: str) -> None:
    assert version_of(name) is None


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 16
    path.write_bytes(bytes(data))


def _of_another(path: Path) -> None:
    write_sealed(path, client_models.FORMAT, {"run": "another", "client": 1, "round": 2}, MODEL)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "gone": (_remove, "does not exist"),
    "short": (_truncate, r"cannot be read \(.*\)"),
    "changed": (_flip, "has changed since it was written: its checksum does not match"),
    "another's": (_of_another, "is that of another client, round or run"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_model_that_is_gone_or_damaged_is_one_sentence(tmp_path: Path, case: str) -> None:
    spoil, why = DAMAGES[case]
    models = ClientModels(tmp_path, "run")
    for client in range(3):
        models.keep(client, 2, record(MODEL))
    models.check({0: 2, 1: 2, 2: 2})
    spoil(models.path(1, 2))
    models.check({0: 2, 2: 2})
    sentence = (
        rf"{re.escape(str(models.path(1, 2)))} {why}; it must be the model of client 1 after round 2: restore it, then"
        r" resume the run\."
    )
    with pytest.raises(RunStoppedError, match=rf"^{sentence}$"):
        models.load(1, 2)
    start = "run config: 'resume' continues a run that keeps its clients' models, but "
    with pytest.raises(ConfigError, match=rf"^{start}{sentence}$"):
        models.check({0: 2, 1: 2, 2: 2})


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(client_models, "write_sealed", full)
    with pytest.raises(
        RunStoppedError, match=r"client-models/client-00001-.* \(No space .*\); free some space there, "
    ):
        ClientModels(tmp_path, "run").keep(1, 2, record(MODEL))


def _result(server_round: int, visits: dict[int, int], best: int) -> Any:
    return SimpleNamespace(server_round=server_round, state=SimpleNamespace(visits=visits), pick=(best, 0.5))


def test_a_model_stays_as_long_as_some_checkpoint_refers_to_it(tmp_path: Path) -> None:
    """Of the last two rounds, and of the best; models of later rounds may come back. Also after a resume."""
    checkpoints, models = tmp_path / "checkpoints", ClientModels(tmp_path, "run")
    checkpoints.mkdir()
    history = {1: {0: 1, 1: 1}, 2: {0: 2, 1: 1}, 3: {0: 3, 1: 1}, 4: {0: 4, 1: 4}, 5: {0: 5, 1: 4}, 6: {0: 6, 1: 6}}
    expected = {
        1: {(0, 1), (1, 1)},
        2: {(0, 1), (1, 1), (0, 2)},
        3: {(0, 2), (1, 1), (0, 3)},  # round 2 is the best from now on
        4: {(0, 2), (1, 1), (0, 3), (0, 4), (1, 4)},
        5: {(0, 2), (1, 1), (0, 4), (1, 4), (0, 5)},
        6: {(0, 5), (1, 4), (0, 6), (1, 6)},  # now it is round 6
    }
    best = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 6}
    models.keep(0, 99, record(MODEL))  # of a round that is yet to come
    callback = ClientModelFiles(models, checkpoints)
    callback.on_start(History())
    for server_round, visits in history.items():
        for client in (one for one, number in visits.items() if number == server_round):
            models.keep(client, server_round, record(MODEL))
        path = round_path(checkpoints, server_round)
        save_checkpoint(path, replace(checkpoint(server_round), visits=visits))
        if best[server_round] == server_round:
            (checkpoints / "best.safetensors").write_bytes(path.read_bytes())
        if server_round > 2:
            round_path(checkpoints, server_round - 2).unlink()
        if server_round % 2:  # a resumed run finds all that in the folder
            callback = ClientModelFiles(models, checkpoints)
            callback.on_start(History(server_round - 1))
        callback.after_round(_result(server_round, visits, best[server_round]))
        found = {version_of(path.name) for path in (tmp_path / CLIENT_MODELS).iterdir()}
        assert found == expected[server_round] | {(0, 99)}


def test_what_a_killed_process_was_writing_is_tidied_up_and_a_file_in_the_folders_place_set_aside(
    tmp_path: Path,
) -> None:
    folder = tmp_path / CLIENT_MODELS
    folder.mkdir()
    (folder / ".client-00001-round-00002.safetensors.4711").write_bytes(b"half")
    (folder / "client-00001-round-00001.safetensors").write_bytes(b"whole")
    tidy(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["client-00001-round-00001.safetensors"]
    other = tmp_path / "other"
    other.mkdir()
    (other / CLIENT_MODELS).write_text("in the way")
    tidy(other)
    assert not (other / CLIENT_MODELS).exists()
    assert [path.name for path in (other / "set-aside").iterdir()] == [f"{CLIENT_MODELS}.1"]


def test_they_go_with_a_runs_other_large_files() -> None:
    assert CLIENT_MODELS in LARGE


# Whole runs.


def test_a_run_keeps_those_models_that_its_checkpoints_need(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "flwr"):
        run_dir = _run(tmp_path, tiny_sample)
    found = sorted((run_dir / "checkpoints").iterdir())
    assert set(_files(run_dir)) == set().union(*(_named(load_checkpoint(path).visits) for path in found))
    (line,) = [one for one in caplog.messages if "last model" in one]
    assert line.startswith(f"The server keeps each client's last model in {run_dir / CLIENT_MODELS}: ")


def test_a_run_of_another_method_keeps_none(tmp_path: Path, tiny_sample: Path) -> None:
    assert not (_run(tmp_path, tiny_sample, method="sce", num_server_rounds=1) / CLIENT_MODELS).exists()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> tuple[Any, dict[str, str]]:
    """Outcome and files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "ce", Sharing)
        run_dir = _run(tmp_path_factory.mktemp("undisturbed"), tiny_sample)
    return outcome_of(run_dir), _files(run_dir)


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
            _run(tmp_path, tiny_sample, resume="auto")
    _assert_same(_run(tmp_path, tiny_sample, resume="auto"), undisturbed)


@pytest.mark.parametrize("train_message", [2, 5, 9])
def test_a_run_that_is_killed_while_clients_train_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, undisturbed: tuple[Any, dict[str, str]], train_message: int
) -> None:
    with pytest.raises(CutOffError):
        _run(tmp_path, tiny_sample, resume="auto", handler=cut_off_in(train_message))
    _assert_same(_run(tmp_path, tiny_sample, resume="auto"), undisturbed)


def test_a_run_can_return_to_the_checkpoint_before_the_last(
    tmp_path: Path, tiny_sample: Path, undisturbed: tuple[Any, dict[str, str]]
) -> None:
    run_dir = _run(tmp_path, tiny_sample)
    round_path(run_dir / "checkpoints", 5).unlink()
    _assert_same(_run(tmp_path, tiny_sample, resume=str(run_dir)), undisturbed)


def _assert_same(run_dir: Path, undisturbed: tuple[Any, dict[str, str]]) -> None:
    outcome, files = undisturbed
    assert outcome_of(run_dir) == outcome
    assert _files(run_dir) == files


def test_a_resume_without_a_model_ends_in_one_sentence_before_anybody_is_asked(
    tmp_path: Path, tiny_sample: Path
) -> None:
    run_dir = _run(tmp_path, tiny_sample, num_server_rounds=2)
    client, server_round = min(load_checkpoint(round_path(run_dir / "checkpoints", 2)).visits.items())
    ClientModels(run_dir, "").path(client, server_round).unlink()

    def nobody(message: Message, context: Context) -> Message:
        raise AssertionError

    with pytest.raises(ConfigError, match=rf"^run config: 'resume' .* it must be the model of client {client} after r"):
        _run(tmp_path, tiny_sample, num_server_rounds=3, resume="auto", handler=nobody)


def test_a_model_that_disappears_stops_the_run_which_can_be_resumed_once_it_is_back(
    tmp_path: Path, tiny_sample: Path, undisturbed: tuple[Any, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    load, gone = ClientModels.load, []

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
            _run(tmp_path, tiny_sample, resume="auto")
    (tmp_path / "elsewhere").rename(gone[0])
    _assert_same(_run(tmp_path, tiny_sample, resume="auto"), undisturbed)


# Halves that are not as they must be.


def test_privacy_is_refused() -> None:
    for privacy, strategy in (("server-fixed", "fedavg"), ("client-fixed", "fedadam")):
        args = "noise-multiplier=1 clipping-norm=1"
        config = RunConfig(method="fedrn", privacy=privacy, privacy_args=args, strategy=strategy)
        with pytest.raises(
            ConfigError, match="for which the server sends clients' models without noise to other clien"
        ):
            check_combination(config, build_method(config), make_strategy(config))


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
        _run(tmp_path, tiny_sample, num_server_rounds=2)


def test_a_method_must_say_that_it_shares_models(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sharing, "shares_models", False)
    with pytest.raises(ConfigError, match="its keeps_models is True, so shares_models of the method must be as well"):
        _run(tmp_path, tiny_sample, num_server_rounds=2)


def test_no_message_of_a_method_that_shares_none_carries_one(tmp_path: Path, tiny_sample: Path) -> None:
    def handler(message: Message, context: Context) -> Message:
        assert not any(name.startswith(keys.CLIENT_MODEL) for name in message.content.array_records)
        assert isinstance(message.content.config_records["config"], ConfigRecord)
        return client_app(message, context)

    _run(tmp_path, tiny_sample, method="sce", handler=handler, num_server_rounds=2)
