"""Checks and warnings before round 1 about replies and memory."""

import logging
from pathlib import Path

import pytest
from torch import nn

from config.run_config import ConfigError, RunConfig
from server_app import strategy as needs
from server_app.strategy import MIB, check_needs, make_strategy
from tests.fakes import run_in_process

MODEL = nn.Linear(1024, 1024, bias=False)  # 4 MiB


def _check(clients: int, strategy: str, args: str = "", fraction_train: float = 1.0) -> None:
    config = RunConfig(strategy=strategy, strategy_args=args, fraction_train=fraction_train)
    check_needs(config, make_strategy(config), clients, MODEL)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    logging.getLogger("flwr").propagate = True
    caplog.set_level("INFO")
    return caplog


@pytest.mark.parametrize(
    ("strategy", "args", "clients", "least"),
    [
        ("krum", "", 2, 3),
        ("krum", "num-malicious-nodes=2", 4, 5),
        ("multikrum", "num-malicious-nodes=1 num-nodes-to-select=5", 5, 6),
        ("bulyan", "num-malicious-nodes=1", 6, 7),
    ],
)
def test_too_few_replies_are_refused(strategy: str, args: str, clients: int, least: int) -> None:
    with pytest.raises(ConfigError) as caught:
        _check(clients, strategy, args)
    assert str(caught.value) == (
        f"run config: 'strategy' is '{strategy}', which needs at least {least} replies a round, but 'fraction-train'"
        f" 1 samples {clients} of {clients} clients."
    )
    _check(least, strategy, args)


def test_sampled_clients_count_and_not_all_clients() -> None:
    with pytest.raises(ConfigError, match=r"'fraction-train' 0\.29 samples 29 of 100 clients"):
        _check(100, "krum", "num-malicious-nodes=27", fraction_train=0.29)
    _check(100, "krum", "num-malicious-nodes=26", fraction_train=0.29)
    _check(100, "krum", "num-malicious-nodes=27 min-train-nodes=30", fraction_train=0.29)


def test_the_run_ends_before_its_folder_is_created(tmp_path: Path, tiny_sample: Path) -> None:
    with pytest.raises(ConfigError, match="needs at least 3 replies a round"):
        run_in_process(tmp_path, data_dir=str(tiny_sample), strategy="krum")  # two of four clients
    assert list(tmp_path.iterdir()) == []


def test_memory_is_logged_for_strategies_that_hold_all_replies(logged: pytest.LogCaptureFixture) -> None:
    _check(10, "fedmedian")
    (line,) = logged.messages
    # Ten replies and two models of 4 MiB, a quarter model of each and of the result, two blocks of 65,536 float64 each.
    assert line == f"fedmedian holds all 10 replies of a round in memory: about {12 * 4 + 11 + 10} MiB."


def test_nothing_is_logged_for_strategies_that_stream(logged: pytest.LogCaptureFixture) -> None:
    _check(1000, "fedadam")
    _check(1000, "flwr.serverapp.strategy:FedAvg")  # its needs are unknown
    assert logged.messages == []


@pytest.mark.parametrize(("free", "warned"), [(68 * MIB, True), (69 * MIB, False), (None, False)])
def test_too_little_memory_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture, free: int | None, warned: bool
) -> None:
    monkeypatch.setattr(needs, "memory_bytes", lambda kind: free)
    _check(10, "fedmedian")
    warnings = [record.getMessage() for record in logged.records if record.levelname == "WARNING"]
    assert len(warnings) == warned
    if warned:
        assert warnings[0].startswith("This machine has 68 MiB free: the run may be killed for lack of memory.")
        assert "fedavg" in warnings[0]
