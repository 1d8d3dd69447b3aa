"""Whole runs through `flwr run`: Flower's SuperLink, Ray's actors, this app's bundle."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from data.sample import draw_sample
from task import build_model
from tests.e2e.superlink import SuperLink, pairs
from tests.fakes import TIMES, rounds_of, run_in_process

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
ROUNDS = 5  # of README's first line
ONE_CPU = "client-resources-num-cpus=1 init-args-num-cpus=2"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "release"
    draw_sample(out, train=240, clean_train=20, val=12, test=60, image_size=32, seed=3)
    return out


SMALL = {"model": "cnn", "image_size": 32, "batch_size": 8, "num_server_rounds": 2, "fraction_train": 0.5}


def test_runs_with_one_actor_and_two_are_equal_bit_for_bit(superlink: SuperLink, release: Path, tmp_path: Path) -> None:
    """A network that draws while it trains: dropout, and stochastic depth."""
    settings = {
        **SMALL, "model": "efficientnet_b0", "optimizer": "adamw", "lr_schedule": "cosine", "gradient_clipping": 1.0,
        "learning_rate": 0.001, "precision": "fp32",
    }  # fmt: skip
    for actors in (1, 2):
        config = pairs(**settings, data_dir=release, output_dir=tmp_path, run_name=f"actors-{actors}")
        outcome = superlink.run(
            ROOT,
            "--federation-config",
            f"num-supernodes=6 client-resources-num-cpus=1 init-args-num-cpus={actors}",
            "-c",
            config,
        )
        assert outcome.status == "finished:completed", outcome.log
        assert "round  accuracy  best (round)  loss (training) seconds     left" in outcome.log
        assert re.search(r"  2/2 +[\d.]+%  ", outcome.log)
        assert f"Machine     {actors} CPU" in outcome.log
        assert "Clients     6, each with 1 CPU and no GPU\n" in outcome.log
        assert "Each round  3 of them train; room for" in outcome.log
        for noise in ("configure_train", "FutureWarning", "Manually terminating"):
            assert noise not in outcome.log
        assert outcome.log.index("clothing1m-fl: loading PyTorch") < outcome.log.index("Roll call")
        assert f"Run folder  {tmp_path / f'actors-{actors}'}" in outcome.log
        assert "answered from" not in outcome.log  # which machine, where there are several
        assert "Traceback" not in outcome.log
    runs = [tmp_path / "actors-1", tmp_path / "actors-2"]
    assert {path.name for path in runs[0].iterdir()} == {
        ".lock", "accuracy.png", "checkpoints", "clients.jsonl", "config.toml", "confusion.png", "metrics.jsonl",
        "model.safetensors", "run.json",
    }  # fmt: skip
    one, two = ([{k: v for k, v in entry.items() if k not in TIMES} for entry in rounds_of(run)] for run in runs)
    assert one == two
    weights = [safetensors.numpy.load_file(run / "model.safetensors") for run in runs]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name], err_msg=name)


def test_scanned_digits_go_through_import_training_and_evaluation(tmp_path: Path) -> None:
    """Real pixels, ten classes instead of fourteen: the 1,797 digits that scikit-learn ships; without Ray."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    folder = tmp_path / "digits"
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 - pixels * 15.9).astype(np.uint8)).resize((32, 32)).save(path)
    command = [sys.executable, "-m", "data", "import", str(folder), "--out", str(tmp_path / "release")]
    subprocess.run([*command, "--noise-rate", "0.2", "--seed", "1"], cwd=ROOT, check=True, timeout=300)

    run_dir = run_in_process(
        tmp_path / "runs", data_dir=str(tmp_path / "release"), model="cnn", batch_size=16, num_server_rounds=4,
        fraction_train=1.0, local_epochs=2, learning_rate=0.02, precision="auto",
    )  # fmt: skip
    last = rounds_of(run_dir)[-1]
    assert np.array(last["confusion-matrix"]).shape == (10, 10)
    assert last["test-accuracy"] > 0.5  # chance is 10 %


OWN = """
from dataclasses import dataclass
from methods.ce import CE
from server_app.strategies.fedavg import StreamingFedAvg

@dataclass(kw_only=True, eq=False)
class MyStrategy(StreamingFedAvg):
    pass

@dataclass(frozen=True)
class MyMethod(CE):
    times: float = 1.0

    def loss(self, batch, visit):
        return self.times * super().loss(batch, visit)
"""


def test_the_code_that_runs_is_the_submitted_one(release: Path, tmp_path: Path) -> None:
    """A SuperLink started in one checkout runs another checkout's ClientApp and data, with its code as it is now."""
    first, second = tmp_path / "first", tmp_path / "second"
    for checkout in (first, second):
        shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "tests", "__pycache__"))
    other = tmp_path / "other-data"
    draw_sample(other, train=60, clean_train=10, val=10, test=20, image_size=32, seed=4)

    def mark(checkout: Path, text: str) -> None:
        """Make the client report `text` as its device, which the server logs in the roll call."""
        source = ROOT / "client_app" / "app.py"
        changed = source.read_text(encoding="utf-8").replace("COMPUTE: str(compute)", f'COMPUTE: "{text}"')
        assert text in changed
        (checkout / "client_app" / "app.py").write_text(changed, encoding="utf-8")
        # Files of one's own travel with the rest.
        (checkout / "custom" / "mine.py").write_text(OWN, encoding="utf-8")

    mark(first, "code of the first")
    mark(second, "code of the second")
    link = SuperLink(tmp_path / "flwr", working_directory=first)
    try:
        federation = ("--federation-config", f"num-supernodes=2 {ONE_CPU}", "-c")
        own = {"strategy": "custom.mine:MyStrategy", "method": "custom.mine:MyMethod", "method_args": "times=2.0"}
        small = {**SMALL, **own, "num_server_rounds": 1, "output_dir": tmp_path}
        out = link.run(second, *federation, pairs(**small, data_dir=release, run_name="one"))
        assert out.status == "finished:completed", out.log
        assert "code of the second" in out.log
        assert "code of the first" not in out.log
        assert f"Data        {release}" in out.log

        mark(second, "code of the second, changed")
        out = link.run(second, *federation, pairs(**small, data_dir=other, run_name="two"), cwd=tmp_path)
        assert out.status == "finished:completed", out.log
        assert "code of the second, changed" in out.log
        assert f"Data        {other}" in out.log
    finally:
        link.stop()


@pytest.mark.parametrize(
    ("overrides", "sentence"),  # of the config alone, and of the data; tests/server_app has many more
    [
        ({"num_server_rounds": "x"}, "The run stopped: run config: 'num-server-rounds' is 'x'; it must be a whole"),
        ({"batch_size": 1000}, "run config: 'batch-size' is 1000, but the smallest client holds only 120 images"),
    ],
)
def test_bad_settings_fail_the_run_in_one_sentence(
    superlink: SuperLink, release: Path, tmp_path: Path, overrides: dict[str, Any], sentence: str
) -> None:
    config = pairs(**{**SMALL, "data_dir": release, "output_dir": tmp_path, **overrides})
    outcome = superlink.run(ROOT, "--federation-config", f"num-supernodes=2 {ONE_CPU}", "-c", config)
    assert outcome.status == "finished:failed"
    assert sentence in outcome.log
    assert "Traceback" not in outcome.log
    assert list(tmp_path.iterdir()) == []


def test_clients_that_do_not_fit_end_the_run_in_one_sentence(
    superlink: SuperLink, release: Path, tmp_path: Path
) -> None:
    """`tests/simulation` has the other sentences."""
    config = pairs(**{**SMALL, "data_dir": release, "output_dir": tmp_path})
    asked = "client-resources-num-cpus=1 client-resources-num-gpus=0.5 init-args-num-gpus=0 init-args-num-cpus=2"
    outcome = superlink.run(ROOT, "--federation-config", f"num-supernodes=2 {asked}", "-c", config)
    assert outcome.status == "finished:failed"
    sentence = "1 CPU and 0.5 GPU, but this machine has 2 CPUs and no GPU; set client-resources-num-gpus=0."
    assert f"The run stopped: --federation-config: each client requests {sentence}" in outcome.log
    assert "Traceback" not in outcome.log
    assert list(tmp_path.iterdir()) == []


def test_the_notebook_preset_runs_at_224_pixels(superlink: SuperLink, tmp_path: Path) -> None:
    """One round of one epoch, on a small sample of large images, with weights from a file instead of a download."""
    weights = tmp_path / "resnet50.pth"
    torch.save(build_model("resnet50", 1000, seed=1).state_dict(), weights)
    release = tmp_path / "release"
    draw_sample(release, train=128, clean_train=4, val=4, test=20, image_size=224, seed=2)
    config = pairs(
        preset="notebook", data_dir=release, output_dir=tmp_path, run_name="notebook",
        num_server_rounds=1, local_epochs=1, pretrained=weights,
    )  # fmt: skip
    outcome = superlink.run(ROOT, "--federation-config", f"num-supernodes=2 {ONE_CPU}", "-c", config)
    assert outcome.status == "finished:completed", outcome.log
    (entry,) = rounds_of(tmp_path / "notebook")
    assert len(entry["sampled-partitions"]) == 1
    assert entry["num-examples"] == 64


def test_the_readmes_first_line_learns_from_noisy_labels(superlink: SuperLink, tmp_path: Path) -> None:
    """The main job as a newcomer types it, except for the output folder: ResNet-50, ten clients, the default sample.

    Five of its 14 rounds show that it learns: they would take ten minutes, and three times as long without bfloat16.
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    line = readme.split("<!-- run -->\n```bash\n")[1].split("\n")[0]
    words = shlex.split(line.split(" flwr run ")[1])
    assert words[:2] == [".", "--stream"]
    config = pairs(output_dir=tmp_path, run_name="main", num_server_rounds=ROUNDS)
    outcome = superlink.run(ROOT, *words[2:], "-c", config)
    assert outcome.status == "finished:completed", outcome.log
    rounds = rounds_of(tmp_path / "main")
    assert len(rounds) == ROUNDS
    assert all(entry["failed-partitions"] == [] for entry in rounds)
    assert len({partition for entry in rounds for partition in entry["sampled-partitions"]}) > 5
    assert rounds[-1]["test-accuracy"] >= 0.30  # chance is 7 %, and 38 % of the labels are wrong
    saved = safetensors.numpy.load_file(tmp_path / "main" / "model.safetensors")
    assert saved["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)  # ResNet-50's, not a smaller stand-in's
