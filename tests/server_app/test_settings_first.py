"""Bad settings end a run before PyTorch is imported; what only clients know is said at the roll call, with advice."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, Message, MetricRecord

from learning.evaluation import Evaluation
from server_app.callbacks import RoundResult
from server_app.callbacks.failure_gate import FailureGate
from server_app.stopping import RunStoppedError
from server_app.strategies.fedavg import StreamingFedAvg
from tests.fakes import rounds_of, run_in_process

ROOT = Path(__file__).parents[2]
REFUSED = """
import sys
from dataclasses import replace
from types import SimpleNamespace
from flwr.app import Context, RecordDict
from config.errors import ConfigError
from config.run_config import RunConfig
from server_app.start import app
{simulation}
from simulation import refusal
values = {{"method": "gcee", "batch-size": 0, "data-dir": "/nowhere"}}
grid = SimpleNamespace(run=SimpleNamespace(override_config=values))
try:
    app(grid, Context(1, 1, {{}}, RecordDict(), {{**RunConfig().to_flat(), **values}}))
except ConfigError as error:
    for part in ("'method' is 'gcee'", "(did you mean 'gce'?)", "'batch-size' is 0", "'data-dir' is '/nowhere'"):
        assert part in str(error), error
    assert refusal.is_refused() is {refused}
else:
    raise AssertionError
assert not {{"torch", "matplotlib"}} & sys.modules.keys()
"""


@pytest.mark.parametrize("simulation", [True, False])
def test_bad_settings_end_the_run_before_pytorch_is_imported(simulation: bool) -> None:
    line = 'sys.modules["flwr.simulation.run_simulation"] = None' if simulation else ""
    script = REFUSED.format(simulation=line, refused=simulation)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert ("The run stopped: run config: 'method' is 'gcee'" in done.stdout + done.stderr) is simulation


SLICES = """
import sys
from types import SimpleNamespace
from flwr.app import Context, RecordDict
from config.errors import ConfigError
from config.run_config import RunConfig
from server_app.start import CLIENT_APP, app
from simulation import refusal
sys.modules["flwr.simulation.run_simulation"] = sys.modules[CLIENT_APP] = None
values = {values!r}
grid = SimpleNamespace(run=SimpleNamespace(override_config=values), get_node_ids=lambda: range(10))
try:
    app(grid, Context(1, 1, {{}}, RecordDict(), {{**RunConfig().to_flat(), **values}}))
except ConfigError as error:
    assert {said!r} in str(error), error
    assert refusal.is_refused()
else:
    raise AssertionError
assert not {{"torch", "matplotlib"}} & sys.modules.keys()
"""


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch-size": 13}, "'batch-size' is 13, but the smallest client holds only 12 images"),
        (
            {"partition": "shards", "partition-args": "shards-per-client=20", "batch-size": 1},
            "'partition' is 'shards', 'partition-args' is 'shards-per-client=20': ",
        ),
        (
            {"batch-size": 1, "fraction-evaluate": 1.0, "strategy-args": "min-available-nodes=11"},
            "there are 10 clients",
        ),
        ({"num-clients": 4, "batch-size": 13}, "there are 10 clients; set num-supernodes=4 in --federation-config"),
    ],
)
def test_a_simulation_refuses_what_its_clients_would_before_pytorch_is_imported(
    values: dict[str, Any], said: str, tiny_sample: Path
) -> None:
    script = SLICES.format(values={"data-dir": str(tiny_sample), "image-size": 64, **values}, said=said)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def _result(asked: int, failed: int) -> RoundResult:
    evaluation: Any = Evaluation
    failures = dict.fromkeys(range(failed), "client: x.")
    return RoundResult(
        server_round=1, arrays=ArrayRecord(), test=evaluation, validation=None, train_loss=0.7, num_examples=20,
        seconds=1.0, slowest_client_seconds=1.0, slowest_training_seconds=1.0, evaluation_seconds=1.0, images_seen=1,
        images_per_second=1.0, sampled_partitions=list(range(asked)), failures=failures,
    )  # fmt: skip


def test_exactly_the_fraction_of_replies_is_enough() -> None:
    for asked in range(1, 201):
        for usable in range(asked + 1):
            gate = FailureGate(usable / asked)
            gate.after_round(_result(asked, asked - usable))
            if usable:
                with pytest.raises(RunStoppedError, match=f"only {usable - 1} of {asked} clients"):
                    gate.after_round(_result(asked, asked - usable + 1))
    for hundredths in range(1, 100):
        FailureGate(hundredths / 100).after_round(_result(100, 100 - hundredths))


class Silent(StreamingFedAvg):
    """A strategy that says nothing about its round."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return super().aggregate_train(server_round, replies)[0], None


def test_a_strategy_need_not_report_the_loss(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "silent", sys.modules[__name__])
    settings: dict[str, Any] = {"data_dir": str(tiny_sample), "model": "cnn", "num_server_rounds": 1}
    mine = run_in_process(tmp_path, strategy="silent:Silent", run_name="mine", **settings)
    ours = run_in_process(tmp_path, strategy="fedavg", run_name="ours", **settings)
    assert rounds_of(mine)[0]["train-loss"] == rounds_of(ours)[0]["train-loss"] > 0


def test_a_batch_of_one_image_is_refused_with_advice_that_works(tmp_path: Path, tiny_sample: Path) -> None:
    """Four clients with 30 images each."""
    settings: dict[str, Any] = {
        "data_dir": str(tiny_sample),
        "num_server_rounds": 1,
        "fraction_train": 0.25,
        "model": "resnet18",
    }
    settings["stem"] = "imagenet"
    with pytest.raises(
        RunStoppedError, match=r"'batch-size' is 29, which leaves one of 30 images alone; .*: set drop-last=true, or an"
        r" 'image-size' of at least 33\."
    ):  # fmt: skip
        run_in_process(tmp_path, batch_size=29, drop_last=False, **settings)
    assert not list(tmp_path.iterdir())
    for name, advice in (("dropped", {"drop_last": True}), ("larger", {"drop_last": False, "image_size": 33})):
        run_in_process(tmp_path, batch_size=29, run_name=name, **advice, **settings)
