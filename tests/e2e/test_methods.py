"""Every method killed once, resumed, and equal to an undisturbed run in one process.

One method for each kind of state goes through `flwr run`, because another actor must find that again: two networks,
and a server half with arrays beside the weights and a state per image. The others are cut off and resumed in one
process, without Ray; `test_experiments.py` kills runs of elr through Ray.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from data.sample import draw_sample
from methods import METHODS
from tests.e2e.superlink import SuperLink, has_ended, pairs, wait_for
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

ROOT = Path(__file__).parents[2]
CLIENTS = 4
TINY: dict[str, Any] = {
    "model": "cnn", "image_size": 16, "batch_size": 8, "precision": "fp32", "num_server_rounds": 8,
    "fraction_train": 0.75, "local_epochs": 4, "val_split": "none",
}  # fmt: skip
# Half of the clients hold wrong labels, and are found and treated as noisy.
TWO_STAGES = {
    "train_split": "clean", "label_noise": "symmetric", "label_noise_args": "noisy-share=0.5 min-rate=0.8 max-rate=0.9",
    "method_args": "warm-up-rounds=3", "local_epochs": 4,
}  # fmt: skip
SPECIAL: dict[str, dict[str, Any]] = {
    "gce": {"strategy": "fedavgm", "strategy_args": "server-momentum=0.5"},
    "xiao": {"strategy": "fedavgm", "strategy_args": "server-momentum=0.5"},
    "elr": {"strategy": "fedadam", "strategy_args": "eta=0.01", "method_args": "weight-averaging=0.9"},
    "selfie": {"method_args": "warm-up-rounds=1 history=4"},
    "joint-optimization": {"method_args": "warm-up-rounds=1 history=4"},
    "fedlsr": {"strategy": "fedexp"},
    "co-teaching": {"strategy": "fedmedian"},
    "co-teaching-plus": {"method_args": "start-rounds=2"},
    "dividemix": {"method_args": "warm-up-rounds=2"},
    "fedclean": {"method_args": "alone-epochs=2"},
    "robustfl": {"method_args": "pseudo-start-rounds=3"},
    **dict.fromkeys(("fednoro", "fedelc", "maskedoptim", "dualoptim"), TWO_STAGES),
    "feddiv": TWO_STAGES,
    "fedrn": {"method_args": "warm-up-rounds=2"},
}
THROUGH_RAY = ("co-teaching", "dualoptim")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "release"
    draw_sample(out, train=320, clean_train=320, val=12, test=60, image_size=32, seed=3)
    return out


@pytest.mark.e2e
@pytest.mark.parametrize("method", THROUGH_RAY)
def test_a_method_that_is_killed_and_resumed_ends_like_an_undisturbed_one(
    superlink: SuperLink, release: Path, tmp_path: Path, method: str
) -> None:
    # Enough rounds for a kill among them, however slow the machine is just then.
    settings = {**TINY, **SPECIAL.get(method, {}), "num_server_rounds": 20, "method": method, "data_dir": str(release)}
    config = pairs(**settings, output_dir=tmp_path, run_name="run", resume="auto")
    federation = f"num-supernodes={CLIENTS} client-resources-num-cpus=1 init-args-num-cpus={1 + len(method) % 2}"
    run = (ROOT, "--federation-config", federation, "-c", config)
    pid = superlink.submit(*run)
    metrics = tmp_path / "run" / "metrics.jsonl"
    # In the middle of a round, after the first round of stage 2 if the method has one.
    wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") >= 4)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: has_ended(pid))
    assert len(rounds_of(tmp_path / "run")) < settings["num_server_rounds"]
    pid = superlink.submit(*run)
    wait_for(lambda: has_ended(pid))
    _assert_undisturbed(tmp_path, settings)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("ce", *THROUGH_RAY)])
def test_a_method_that_is_cut_off_and_resumed_ends_like_an_undisturbed_one(
    release: Path, tmp_path: Path, method: str
) -> None:
    settings = {**TINY, "local_epochs": 1, **SPECIAL.get(method, {}), "method": method, "data_dir": str(release)}
    in_round_5 = 4 * round(TINY["fraction_train"] * CLIENTS) + 2
    with pytest.raises(CutOffError):
        run_in_process(tmp_path, clients=CLIENTS, handler=cut_off_in(in_round_5), **settings)
    assert len(rounds_of(tmp_path / "run")) == 4
    run_in_process(tmp_path, clients=CLIENTS, resume="auto", **settings)
    _assert_undisturbed(tmp_path, settings)


def _assert_undisturbed(folder: Path, settings: dict[str, Any]) -> None:
    expected = run_in_process(folder / "undisturbed", clients=CLIENTS, **settings)
    assert outcome_of(folder / "run") == outcome_of(expected)
    if "label_noise" in settings:
        found = rounds_of(expected)[-1]
        assert found["noisy-clients-recall"] == 1
        # feddiv judges clients one by one, and after so few rounds losses of right and wrong labels overlap.
        assert (found["noisy-clients"], found["noisy-clients-precision"]) == (2, 1) or settings["method"] == "feddiv"
