"""The line that `import` prints runs as it stands."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.common.config import parse_config_args
from PIL import Image
from typer.testing import CliRunner

from config.run_config import RunConfig
from data.__main__ import app
from data.next_run import image_size_for, run_line
from data.release import open_release
from tests.data.made_cifar import cifar10_python
from tests.fakes import rounds_of, run_in_process


def _said(line: str) -> tuple[dict[str, int], dict[str, Any]]:
    """Federation and run config, as Flower reads them."""
    words = shlex.split(line)
    assert words[:4] == ["flwr", "run", ".", "--stream"]
    assert (words[4], words[6]) == ("--federation-config", "-c")
    return parse_config_args([words[5]]), parse_config_args([words[7]])


@pytest.mark.parametrize("images", [4, 5, 7, 8, 36, 63, 64, 127, 128, 200, 319, 320, 639, 640, 5000, 10**6])
def test_clients_hold_a_batch_and_two_of_them_train(images: int) -> None:
    federation, config = _said(run_line(Path("/photos"), images) or "")
    clients, settings = federation["num-supernodes"], RunConfig.from_flat(config)
    assert 2 <= clients <= 10
    assert 2 <= settings.batch_size <= min(16, images // clients)
    assert int(clients * settings.fraction_train + 1e-9) >= 2
    assert settings.data_dir == "/photos"


@pytest.mark.parametrize("path", ["/my photos", "/o'hara", "/a$HOME`x`", '/say "hi"', "/back\\slash", "/50 %!"])
def test_paths_survive_the_shell_and_flower(path: str) -> None:
    _, config = _said(run_line(Path(path), 100) or "")
    assert config["data-dir"] == path


@pytest.mark.parametrize(("path", "images"), [("/x", 3), ("/x", 0), ("/a'b\"c", 100), ("/a'b\\c", 100), ("/a\nb", 100)])
def test_no_line_is_better_than_one_that_fails(path: str, images: int) -> None:
    assert run_line(Path(path), images) is None


def test_sixty_photos_train_with_the_line_that_import_prints(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("cats", "dogs", "birds"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    done = CliRunner().invoke(app, ["import", str(tmp_path / "photos"), "--out", str(tmp_path / "release")])
    assert done.exit_code == 0, done.output
    *_, title, line = done.output.splitlines()
    assert title == "To train on them, in the app's folder:"
    federation, config = _said(line)
    clients = federation["num-supernodes"]
    assert (clients, config["batch-size"], config["fraction-train"]) == (2, 8, 1.0)
    assert config["image-size"] == 24  # of the photos, which are smaller than a run's inputs are by default
    values = {key.replace("-", "_"): value for key, value in config.items()}
    run_dir = run_in_process(tmp_path / "runs", clients, model="cnn", num_server_rounds=1, **values)
    assert rounds_of(run_dir)[0]["num-examples"] == 36


@pytest.mark.parametrize(
    ("sides", "size"), [([8], 16), ([24, 24, 500], 24), ([(32, 40)], 32), ([64], 64), ([65], None), ([300], None)]
)
def test_small_images_are_trained_on_as_they_are(
    tmp_path: Path, sides: list[int | tuple[int, int]], size: int | None
) -> None:
    for row, side in enumerate(sides * 9):
        path = tmp_path / "photos" / f"class {row % 2}" / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", side if isinstance(side, tuple) else (side, side)).save(path)
    assert image_size_for(open_release(tmp_path / "photos"), "noisy_train") == size


def test_a_pack_of_pixels_is_trained_on_at_its_own_size(tmp_path: Path) -> None:
    cifar10_python(tmp_path, 20)
    line = ["import", "cifar10", str(tmp_path), "--out", str(tmp_path / "a.pack")]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    federation, config = _said(done.stdout.splitlines()[-1])
    assert (config["image-size"], config["val-split"]) == (32, "none")
    values = {key.replace("-", "_"): value for key, value in config.items()}
    run_dir = run_in_process(
        tmp_path / "runs", federation["num-supernodes"], model="cnn", num_server_rounds=1, **values
    )
    assert rounds_of(run_dir)[0]["num-examples"] == 100


def test_too_few_photos_are_said_to_be_too_few(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    done = CliRunner().invoke(app, ["import", str(tmp_path / "photos"), "--out", str(tmp_path / "release")])
    assert done.exit_code == 0
    assert "These are too few to train on" in done.output
