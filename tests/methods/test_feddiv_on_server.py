"""The server half of feddiv, and whole runs: turns, who is noisy, what a reply holds, and resuming in every stage."""

import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from learning.schema import Number, Numbers
from learning.server_half import Choice, ServerHalf
from methods import METHODS, build_method
from methods.federated_mixture import DEVIATIONS, LEAST_DEVIATION, MEANS, MIXTURE, REPORTED, WEIGHTS
from methods.two_stages import NOISY
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

SIX = {MEANS, DEVIATIONS, WEIGHTS}


def _half(args: str = "warm-up-rounds=2", rounds: int = 10) -> ServerHalf:
    config = RunConfig(method="feddiv", method_args=args, num_server_rounds=rounds)
    half = build_method(config).on_server()
    half.prepare(config, None)  # type: ignore[arg-type]
    return half


def _reply(noisy: bool = False, images: int = 100, right: int = 100, low: float = 0.2, **others: Any) -> dict[str, Any]:
    six = {MEANS: [low, 3.0], DEVIATIONS: [0.3, 1.0], WEIGHTS: [0.75, 0.25]}
    counts = {"num-examples": images, "images-known": images, "labels-right": right}
    return {**six, **counts, NOISY: float(noisy), **others}


def test_it_tells_the_mean_of_all_that_it_has_heard() -> None:
    half = _half()
    assert half.tell(0) == {}
    half.heard(1, {3: _reply(images=100, low=0.2)})
    assert half.tell(0)[MIXTURE] == pytest.approx([0.2, 3, 0.3, 1, 0.75, 0.25], abs=1e-5)
    half.heard(2, {0: _reply(images=300, low=0.6)})
    assert half.tell(3)[MIXTURE] == pytest.approx([0.5, 3, 0.3, 1, 0.75, 0.25], abs=1e-5)  # 1/4 .2 + 3/4 .6
    half.heard(3, {3: _reply(images=100, low=1.0)})
    assert half.tell(3)[MIXTURE][0] == pytest.approx(0.7, abs=1e-5)  # type: ignore[index]


def test_weights_of_the_mixture_count_all_images_also_if_the_model_counts_those_used() -> None:
    half = _half("warm-up-rounds=2 weigh-by='used'")
    half.heard(2, {0: _reply(images=300, low=0.6), 1: _reply(images=300, low=0.2)})
    half.heard(3, {0: _reply(images=300, low=0.6) | {"num-examples": 1}})
    assert half.tell(0)[MIXTURE][0] == pytest.approx(0.4, abs=1e-5)  # type: ignore[index]


def _turns(half: ServerHalf, clients: int, usual: int, rounds: int, seed: int = 0) -> list[list[int]]:
    rng, sampled = np.random.default_rng(seed), []
    for server_round in range(1, rounds + 1):
        choice = half.choose(server_round, range(clients), usual)
        assert choice is not None
        some = sorted(rng.choice(list(choice.clients), min(choice.count, len(choice.clients)), replace=False).tolist())
        half.heard(server_round, {partition: _reply() for partition in some})
        sampled.append(some)
    return sampled


@pytest.mark.parametrize(
    ("clients", "usual", "rounds", "iterations", "count"),
    [(10, 3, 2, 0, 5), (10, 8, 2, 0, 8), (40, 8, 8, 0, 8), (7, 1, 3, 0, 3), (10, 3, 4, 2, 5), (10, 9, 5, 1, 2)],
)
def test_everybody_has_trained_when_the_warm_up_ends(
    clients: int, usual: int, rounds: int, iterations: int, count: int
) -> None:
    half = _half(f"warm-up-rounds={rounds} iterations={iterations}", rounds=rounds + 2)
    sampled = _turns(half, clients, usual, rounds)
    assert {len(some) for some in sampled} == {min(count, clients)}
    visits = Counter(client for some in sampled for client in some)
    assert set(visits) == set(range(clients))
    assert max(visits.values()) - min(visits.values()) <= 1
    assert min(visits.values()) >= max(1, iterations)
    assert half.choose(rounds + 1, range(clients), usual) is None


def test_a_client_that_missed_the_warm_up_is_judged_when_it_comes() -> None:
    half = _half()
    assert half.choose(1, [0, 1, 2], 1) == Choice([0, 1, 2], 2)
    half.heard(1, {0: _reply(), 1: _reply()})
    half.heard(2, {})  # nobody answered
    half.heard(3, {2: _reply(noisy=True)})
    assert half.noisy_clients() == {2: True}


def test_clients_are_judged_after_the_warm_up_by_their_last_visit() -> None:
    half = _half()
    half.heard(2, {partition: _reply(noisy=True) for partition in range(4)})  # no client has a say then
    assert half.noisy_clients() is None
    half.heard(3, {1: _reply(noisy=True, right=40), 0: _reply()})
    assert half.noisy_clients() == {0: False, 1: True}
    half.heard(4, {1: _reply(right=40), 2: _reply(noisy=True)})
    assert half.noisy_clients() == {0: False, 1: False, 2: True}


def test_shares_of_wrong_labels_where_all_true_labels_are_known() -> None:
    half = _half()
    unknown: dict[str, Any] = {"images-known": 99, "labels-right": 50}
    half.heard(1, {0: _reply(right=100), 1: _reply(right=40), 2: _reply(**unknown)})
    half.heard(3, {3: _reply(right=7, images=8) | {"num-examples": 5}})
    assert half.wrong_labels() == {0: 0.0, 1: 0.6, 3: 0.125}


def test_what_a_client_claims_never_breaks_the_half() -> None:
    half = _half()
    claims = {0: _reply(right=100) | {"images-known": 0}, 1: _reply(right=100, images=1), 2: {**_reply()}}
    for name in SIX:
        del claims[2][name]
    half.heard(1, claims)
    half.heard(3, claims)
    assert all(0 <= share <= 1 for share in half.wrong_labels().values())
    assert half.noisy_clients() == {0: False, 1: False, 2: False}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 99), st.booleans())), max_size=6))
def test_a_half_that_is_resumed_after_any_round_goes_on_bit_for_bit(rounds: list[list[Any]]) -> None:
    half = _half()
    for server_round, replies in enumerate(rounds, start=1):
        resumed = _half()
        resumed.load_state(half.state())
        heard = {}
        for partition, noisy, right, sends in replies:
            heard[partition] = _reply(noisy, right=right, low=right / 10)
            if not sends:
                del heard[partition][MEANS]
        assert resumed.choose(server_round, range(6), 2) == half.choose(server_round, range(6), 2)
        half.heard(server_round, heard)
        resumed.heard(server_round, dict(reversed(heard.items())))
        states = [{name: value.tobytes() for name, value in one.state().items()} for one in (half, resumed)]
        assert states[0] == states[1]
        assert resumed.tell(0) == half.tell(0)
        assert (resumed.noisy_clients(), resumed.wrong_labels()) == (half.noisy_clients(), half.wrong_labels())


def test_a_new_half_has_no_state() -> None:
    assert _half().state() == {}
    half = _half()
    half.load_state({})
    assert half.tell(0) == {}
    assert half.noisy_clients() is None


def test_the_log_has_the_end_of_the_warm_up_and_few_lines_about_clients(caplog: pytest.LogCaptureFixture) -> None:
    half = _half(rounds=100)
    with caplog.at_level(logging.INFO, "flwr"):
        half.heard(1, {0: _reply()})
        half.heard(2, {1: _reply()})
        half.heard(3, {1: _reply()})
        half.heard(4, {0: _reply(noisy=True)})
        half.heard(5, {0: _reply(noisy=True)})
        for server_round in range(6, 40):
            half.heard(server_round, {1: _reply(noisy=server_round % 2 == 0)})
    assert caplog.messages[:3] == [
        "The warm-up ends: by 2 clients, right labels cost 0.20 +- 0.30 nats and wrong ones 3.00 +- 1.00.",
        "Round 3: 0 of 1 clients that were judged are noisy.",
        "Round 4: 1 of 2 clients that were judged are noisy: 0.",
    ]
    assert len(caplog.messages) == 1 + 10
    assert caplog.messages[-1].endswith(" Changes from here on are in noisy-clients.json alone.")


def test_what_passes_as_a_reply() -> None:
    schema = METHODS["feddiv"]().reports({}, 14)
    assert schema.keys() == {NOISY, *SIX}
    assert schema[NOISY] == Number(0, 1, whole=True)
    assert all(isinstance(rule, Numbers) and rule.length == 2 and not rule.needed for rule in REPORTED.values())
    assert schema[DEVIATIONS].problem([LEAST_DEVIATION, 5.0]) is None


def test_a_warm_up_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="warm-up-rounds to 10, but 'num-server-rounds' is 10"):
        _half("warm-up-rounds=10")


ROUNDS = 5
ARGS = "warm-up-rounds=2 prior-weight=1.0 confidence=0.2"


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    fixed = {"method": "feddiv", "method_args": ARGS, "model": "cnn", "image_size": 16, "val_split": "none"}
    return run_in_process(out, data_dir=str(sample), **{**fixed, "num_server_rounds": ROUNDS, **changes})


def test_a_whole_run(tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "flwr"):
        lines = rounds_of(_run(tmp_path, tiny_sample))
    assert [line["failed-partitions"] for line in lines] == [[]] * ROUNDS
    assert all(math.isfinite(line["test-loss"]) for line in lines)
    assert sorted(lines[0]["sampled-partitions"] + lines[1]["sampled-partitions"]) == [0, 1, 2, 3]
    assert "corrected-label-accuracy" in lines[-1]
    ends = [message for message in caplog.messages if message.startswith("The warm-up ends: by 4 clients")]
    assert len(ends) == 1
    assert (tmp_path / "run" / "noisy-clients.json").is_file()


@pytest.mark.parametrize("message", [2, 3, 5, 6, 8])
def test_a_run_that_is_cut_off_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, undisturbed: Any, message: int
) -> None:
    """Two clients a round: in rounds 1 and 2, at the first message after the warm-up, in that round, and in the next.

    Evaluation on clients keeps rounds apart, so that round 3 begins with message 5.
    """
    with pytest.raises(CutOffError):
        _run(tmp_path, tiny_sample, handler=cut_off_in(message), resume="auto", fraction_evaluate=0.5)
    assert len(rounds_of(tmp_path / "run")) == (message - 1) // 2
    assert outcome_of(_run(tmp_path, tiny_sample, resume="auto", fraction_evaluate=0.5)) == undisturbed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> Any:
    return outcome_of(_run(tmp_path_factory.mktemp("undisturbed"), tiny_sample, fraction_evaluate=0.5))


def _form(content: RecordDict) -> dict[str, Any]:
    """Names, types and sizes of everything in a reply, but none of its values."""
    arrays = {
        f"{name}/{key}": (array.dtype, tuple(array.shape), len(array.data))
        for name, record in content.array_records.items()
        for key, array in record.items()
    }
    values = {
        f"{name}/{key}": (len(value) if isinstance(value, list) else None)
        for name, record in content.metric_records.items()
        for key, value in record.items()
    }
    assert len(arrays) + len(values) == sum(map(len, content.values()))  # there is nothing else
    return {**arrays, **values}


class Listening:
    """The ClientApp; it keeps the form of replies to train messages, from which the server takes parts out later."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def __call__(self, message: Message, context: Context) -> Message:
        reply: Message = client_app(message, context)
        if message.metadata.message_type == "train":
            self.heard.append(_form(reply.content))
        return reply


def test_no_reply_has_an_entry_for_each_image(tmp_path: Path, tiny_sample: Path) -> None:
    """Every value of it is a weight of the model, a number, or a list of two or of one for each epoch.

    With 30 and with 40 images, all of them different ones, replies have the same names and the same sizes.
    """
    forms: list[dict[str, Any]] = []
    for clients in (4, 3):
        listening, images = Listening(), 120 // clients
        _run(tmp_path / str(clients), tiny_sample, clients=clients, handler=listening, num_server_rounds=3,
             fraction_train=1.0, local_epochs=3)  # fmt: skip
        assert len(listening.heard) == 3 * clients
        for form in listening.heard:
            assert form.keys() >= {f"metrics/{name}" for name in (NOISY, *SIX)}
            lists = {name: size for name, size in form.items() if isinstance(size, int)}
            assert lists == {"metrics/epoch-losses": 3, **{f"metrics/{name}": 2 for name in SIX}}
            assert not any(images in size[1] for size in form.values() if isinstance(size, tuple))
            assert {name.split("/")[0] for name, size in form.items() if isinstance(size, tuple)} == {"arrays"}
            forms.append(form)
    assert all(form == forms[0] for form in forms)


def test_the_server_hears_how_many_images_counted(tmp_path: Path, tiny_sample: Path) -> None:
    args = "warm-up-rounds=1 noisy-share=0.0 confidence=1.0 weigh-by='used'"
    lines = rounds_of(_run(tmp_path, tiny_sample, method_args=args, fraction_train=1.0, num_server_rounds=2))
    assert lines[0]["num-examples"] == 120
    assert lines[1]["images-seen"] <= lines[1]["num-examples"] * RunConfig().local_epochs
    assert 0 < lines[1]["num-examples"] < 120
