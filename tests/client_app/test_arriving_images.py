"""A visit on a GPU trains while the rest of its images are still being decoded; here on a CPU, which would wait."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from client_app import local_data
from config.run_config import RunConfig
from data.errors import BadImageError
from data.images import loading
from data.images.arriving import Arriving
from data.images.pixels import Pixels
from data.release import LIST_FILES
from server_app.stopping import RunStoppedError
from tests.fakes import outcome_of, run_in_process


@pytest.fixture
def arriving(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `client_app.app` takes where there is a GPU."""
    plain = local_data.visited_pixels
    monkeypatch.setattr(
        local_data, "visited_pixels", lambda site, split, config, beside: plain(site, split, config, True)
    )
    monkeypatch.setattr(local_data, "LOOKED_AT", 0)  # or the roll call would have decoded all
    monkeypatch.setattr(loading, "BLOCK", 2)


CONFIG: dict[str, Any] = {"model": "cnn", "fraction_train": 1.0, "local_epochs": 2, "augmentation": "crop-flip"}


def damaged(sample: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the sample, and the one training image of it that is truncated."""
    root = tmp_path / "release"
    shutil.copytree(sample, root)
    path = root / (root / LIST_FILES["noisy_train"]).read_text().splitlines()[3]
    path.write_bytes(path.read_bytes()[:-200])
    return root, path


def test_it_is_the_same_visit_bit_for_bit(
    tiny_sample: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run_in_process(tmp_path / "plain", data_dir=str(tiny_sample), **CONFIG)
    request.getfixturevalue("arriving")
    orders = []
    monkeypatch.setattr("data.images.arriving.Arriving.expect", lambda self, rows: orders.append(len(rows)))
    cache = str(tmp_path / "cache")
    assert outcome_of(run_in_process(tmp_path / "new", data_dir=str(tiny_sample), cache_dir=cache, **CONFIG)) == (
        outcome_of(plain)
    )
    assert outcome_of(run_in_process(tmp_path / "none", data_dir=str(tiny_sample), cache_gib=0.0, **CONFIG)) == (
        outcome_of(plain)
    )
    # Two epochs of four clients, once with a cache and in each of two rounds without; 30 images, without the rest.
    assert orders == [24] * 8 * 3


def test_so_is_one_that_looks_at_all_images_first(
    tiny_sample: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (_, plain) = outcome_of(run_in_process(tmp_path / "plain", data_dir=str(tiny_sample), **CONFIG))
    request.getfixturevalue("arriving")
    looking = {**CONFIG, "inspection": "both", "cache_dir": str(tmp_path / "cache")}
    assert outcome_of(run_in_process(tmp_path / "new", data_dir=str(tiny_sample), **looking))[1] == plain


@pytest.mark.usefixtures("arriving")
def test_a_bad_image_stops_the_run_as_it_does_where_all_are_decoded_first(tiny_sample: Path, tmp_path: Path) -> None:
    root, path = damaged(tiny_sample, tmp_path)
    with pytest.raises(RunStoppedError, match=f"cannot be read from {path} .*'bad-images' as 'skip'"):
        run_in_process(tmp_path, data_dir=str(root), cache_dir=str(tmp_path / "cache"), **CONFIG)
    failures = [json.loads(line) for line in (tmp_path / "run" / "failures.jsonl").read_text().splitlines()]
    assert [str(path) in entry["reason"] for entry in failures] == [True]


def test_an_image_that_no_step_used_must_be_sound_as_well(tiny_sample: Path, tmp_path: Path) -> None:
    root, path = damaged(tiny_sample, tmp_path)
    config = RunConfig(data_dir=str(root), cache_dir=str(tmp_path / "cache"), image_size=16, batch_size=8)
    site = local_data.Site.resolve({}, config)
    split = local_data.training_data(site, config)
    with (
        pytest.raises(BadImageError, match=str(path)),
        local_data.visited_pixels(site, split, config, beside=True),
    ):
        pass


def test_a_visit_that_fails_stops_its_images(
    tiny_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(data_dir=str(tiny_sample), cache_dir=str(tmp_path / "cache"), image_size=16, batch_size=8)
    site = local_data.Site.resolve({}, config)
    stopped: list[Pixels] = []
    stop = Arriving.stop

    def noted(self: Arriving) -> None:
        stopped.append(self)
        stop(self)

    monkeypatch.setattr(Arriving, "stop", noted)
    split = local_data.training_data(site, config)
    with (
        pytest.raises(FloatingPointError),
        local_data.visited_pixels(site, split, config, beside=True) as pixels,
    ):
        raise FloatingPointError
    assert stopped == [pixels]
