"""Networks that clients keep between their visits, in whole runs, cut off and resumed."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from learning.method import Visit
from methods.elr import ELR
from tests.fakes import CutOffError, cut_off_in, outcome_of, run_in_process

AVERAGING = {"method_args": "weight-averaging=0.9"}


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    settings = {"method": "elr", "image_size": 16, "num_server_rounds": 4, "fraction_train": 0.5}
    return run_in_process(out, data_dir=str(sample), **{**settings, **changes})


def _kept_networks(run_dir: Path) -> dict[str, dict[str, bytes]]:
    """The arrays of the networks that clients keep, by file."""
    return {
        f"{path.parent.name}/{path.name}": {
            name: value.tobytes()
            for name, value in safetensors.numpy.load_file(path).items()
            if name.startswith("state/own/")
        }
        for path in (run_dir / "state").glob("*/client-*/round-*.safetensors")
    }


def test_a_network_that_a_client_keeps_goes_on_from_its_last_visit(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, bytes]] = []

    def begin(method: ELR, visit: Visit) -> None:
        assert visit.own is not None
        begun.append({f"state/own/{name}": value.numpy().tobytes() for name, value in visit.own.state_dict().items()})
        real_begin(method, visit)

    real_begin = ELR.begin
    monkeypatch.setattr(ELR, "begin", begin)
    run_dir = _run(tmp_path, tiny_sample, clients=1, fraction_train=1.0, **AVERAGING)
    kept = _kept_networks(run_dir)
    assert set(kept) == {f"client-00000/round-{number:05}.safetensors" for number in (2, 3, 4)}
    assert all(kept.values())
    assert begun[2:] == [kept[f"client-00000/round-{number:05}.safetensors"] for number in (2, 3)]
    assert begun[1] != begun[0]


@pytest.mark.parametrize("message_number", [3, 6])
def test_a_run_whose_clients_keep_networks_is_cut_off_and_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, message_number: int
) -> None:
    undisturbed = _run(tmp_path / "undisturbed", tiny_sample, **AVERAGING)
    with pytest.raises(CutOffError):
        _run(tmp_path / "cut", tiny_sample, handler=cut_off_in(message_number, after=True), resume="auto", **AVERAGING)
    run_dir = _run(tmp_path / "cut", tiny_sample, resume="auto", **AVERAGING)
    assert outcome_of(run_dir) == outcome_of(undisturbed)
    assert _kept_networks(run_dir) == _kept_networks(undisturbed)
    plain = _run(tmp_path / "plain", tiny_sample)
    assert outcome_of(plain) != outcome_of(undisturbed)
