"""The server half of xiao: what it counts and tells, what it trains before round 1 and after each, what it refuses."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from config.run_config import ConfigError, RunConfig
from data.release import LIST_FILES, open_release
from learning.adamw import LocalAdamW
from learning.images import Images
from learning.optimizer import LocalSGD
from learning.server_half import OwnList, Workbench
from methods import build_method
from methods.clean_images import OnCleanImages
from methods.noise_types import UNKNOWN, confusing_classes
from methods.transition import count_pairs
from methods.xiao import Xiao, XiaoOnServer
from task import Compute, build_model, derived_generator
from tests.batches_of import Y, Z, batch_of, visit_of
from tests.fakes import run_in_process

CPU = Compute(torch.device("cpu"), torch.float32)
HEAD = "further_heads.noise_types."


def prepared(release: Path, args: str = "", **values: Any) -> XiaoOnServer:
    config = RunConfig(method="xiao", method_args=args, **values)
    half = build_method(config).on_server()
    assert isinstance(half, XiaoOnServer)
    half.prepare(config, open_release(release))
    return half


def relabelled(sample: Path, folder: Path, labels: Any, classes: int = 14) -> Path:
    """The sample, with each label of ``labels[file name]`` replaced; None leaves the line out."""
    root = shutil.copytree(sample, folder)
    for name, change in labels.items():
        lines = [line.rsplit(" ", 1) for line in (root / name).read_text().splitlines()]
        kept = [f"{key} {new}" for key, label in lines if (new := change(key, int(label))) is not None]
        (root / name).write_text("".join(f"{line}\n" for line in kept))
    for path in root.glob("category_names_*.txt"):
        path.write_text("".join(f"{line}\n" for line in path.read_text(encoding="utf-8").splitlines()[:classes]))
    return root


def _listed(root: Path, name: str) -> set[str]:
    return set((root / LIST_FILES[name]).read_text().splitlines())


def test_clients_are_told_the_matrix_row_by_row(tiny_sample: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "flwr"):
        half = prepared(tiny_sample)
    told = np.array(half.tell(3)["confusion"]).reshape(14, 14)
    release = open_release(tiny_sample)
    _, clean, noisy = release.double_labelled(["clean_train", "clean_val"])
    counts = np.zeros((14, 14), dtype=int)
    np.add.at(counts, (clean, noisy), 1)
    assert np.array_equal(counts, count_pairs(release))
    np.testing.assert_array_equal(told, confusing_classes(counts))
    assert not (clean == noisy).all()
    columns = told.sum(axis=0)
    assert set(columns.round(9)) == {0, 1}  # the tiny sample has classes that are never mislabelled
    assert "noise-free" in caplog.text


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"train_split": "clean"}, "but 'train-split' is 'clean'; it must be noisy or noisy-mini."),
        ({"train_split": "clean", "label_noise": "confusion"}, "but 'train-split' is 'clean'; it must be"),
        (
            {"label_noise": "symmetric", "label_noise_args": "rate=0.4"},
            "but 'label-noise' is 'symmetric'; it must be n",
        ),
        ({"val_split": "clean_train"}, "it must be clean_val or noisy or label-wave or none."),
    ],
)
def test_settings_that_spoil_it_are_refused(tiny_sample: Path, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(tiny_sample, **values)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("run config: 'method' is 'xiao', whose server trains on clean train and")


@pytest.mark.parametrize("left", [0, 1])
def test_too_few_images_with_both_labels_are_refused(tiny_sample: Path, tmp_path: Path, left: int) -> None:
    mine = sorted(_listed(tiny_sample, "clean_train"))
    spared = [key for key in mine if key.encode() in open_release(tiny_sample).double_labelled(["clean_train"])[0]]
    gone = set(mine) - set(spared[:left])
    root = relabelled(
        tiny_sample, tmp_path / "release", {"noisy_label_kv.txt": lambda key, label: None if key in gone else label}
    )
    with pytest.raises(ConfigError) as caught:
        run_in_process(tmp_path, data_dir=str(root), method="xiao", model="cnn", image_size=16)
    assert str(caught.value) == (
        "run config: 'method' is 'xiao', which learns types of noise from images of clean train that carry a noisy"
        f" label as well, but {root} has {left}; there must be at least 2."
    )
    assert not (tmp_path / "run").exists()


def test_too_few_that_can_be_read_are_refused_before_round_1(tiny_sample: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_sample, tmp_path / "release")
    for key in open_release(root).double_labelled(["clean_train"])[0][1:]:
        (root / key.decode()).write_bytes(b"")
    with pytest.raises(ConfigError, match="but 1 of them can be read; there must be at least 2"):
        run_in_process(tmp_path, data_dir=str(root), method="xiao", model="cnn", image_size=16, bad_images="skip")


# What the server minimises.


def test_the_servers_loss_by_hand() -> None:
    """Two images, of which the second has a known type."""
    network = nn.Module()
    network.further_heads = nn.ModuleDict({"noise_types": nn.Identity()})  # features are the types' logits
    visit, features = visit_of(Y, networks=[network]), torch.tensor([[9.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    goal = OnCleanImages(torch.tensor([UNKNOWN, 1]), 0.1, 0.5, "both")
    goal.begin(visit)
    types = float(torch.tensor([0.0, 1.0, 2.0]).logsumexp(0)) - 1.0
    loss = goal.loss(batch_of(Y, Z, features=features), visit)
    assert loss.item() == pytest.approx(0.1 * 0.847437 + 0.5 * types / 2, abs=1e-5)
    unknown = OnCleanImages(torch.tensor([UNKNOWN, UNKNOWN]), 0.1, 0.5, "both")
    unknown.begin(visit)
    assert unknown.loss(batch_of(Y, Z, features=features), visit).item() == pytest.approx(0.0847437, abs=1e-6)


def test_steps_go_round_the_images_as_often_as_needed() -> None:
    visit = visit_of(torch.zeros(10, dtype=torch.int64), batch_size=4, drop_last=True)
    goal = OnCleanImages(torch.zeros(10, dtype=torch.int64), 1.0, 0.0, "classes", count=5)
    used = [step.groups[0] for step in goal.steps(visit)]
    assert [len(rows) for rows in used] == [4] * 5
    assert all(len(torch.cat(used[start : start + 2]).unique()) == 8 for start in (0, 2))
    chosen = OnCleanImages(goal.types, 1.0, 0.0, "classes", rows=torch.tensor([1, 5, 7]))
    assert [sorted(step.groups[0].tolist()) for step in chosen.steps(visit)] == [[1, 5, 7]]


class Bench:
    """A workbench with 20 images of three classes, 12 of which carry a noisy label as well."""

    def __init__(self, **values: Any) -> None:
        rng = np.random.default_rng(0)
        self.config = RunConfig(**{"image_size": 16, "batch_size": 4, "num_server_rounds": 10, **values})
        self.labels = torch.arange(20) % 3
        self.noisy = torch.where(torch.arange(20) < 12, (self.labels + (torch.arange(20) % 2)) % 3, -1)
        pixels = rng.integers(0, 60, (20, 16, 16, 3), dtype=np.uint8)
        pixels[np.arange(20), :, :, self.labels] += 150  # colours are classes,
        pixels[1::2, ::2] = 0  # and stripes wrong labels
        self.asked: list[str] = []
        self.images = Images(torch.from_numpy(pixels), CPU.device)

    def own_list(self, name: str) -> OwnList:
        self.asked.append(name)
        return OwnList(self.images, self.labels, self.noisy)

    def workbench(self) -> Workbench:
        return Workbench(
            self.config, CPU, self.own_list, lambda number, purpose: derived_generator(1, f"test {purpose}", number)
        )


def _half(method: Xiao) -> XiaoOnServer:
    half = XiaoOnServer(method)
    half._confusion = confusing_classes(np.array([[6, 4, 1], [0, 6, 4], [4, 1, 6]]))
    return half


def _changed(model: nn.Module, half: XiaoOnServer, server_round: int, bench: Bench) -> set[str]:
    """Which weights a call of `train` changes; BatchNorm's statistics do not count."""
    before = {name: value.clone() for name, value in model.named_parameters()}
    half.train(server_round, model, bench.workbench())
    return {name for name, value in model.named_parameters() if not torch.equal(before[name], value)}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of each step of SGD from now on."""
    taken: list[float] = []
    step = LocalSGD.step

    def counted(self: LocalSGD) -> None:
        taken.append(self._learning_rate)
        step(self)

    monkeypatch.setattr(LocalSGD, "step", counted)
    return taken


def test_before_round_1_it_learns_classes_then_types_each_with_a_lower_rate_at_last(steps: list[float]) -> None:
    bench, model = Bench(learning_rate=0.01), build_model("cnn", 3, seed=1, heads=Xiao.heads)
    names = {name for name, _ in model.named_parameters()}
    assert _changed(model, _half(Xiao(clean_epochs=6, type_epochs=0)), 0, bench) == {
        name for name in names if not name.startswith(HEAD)
    }
    assert steps == pytest.approx([0.01] * 4 * 5 + [0.001] * 2 * 5)  # 20 images in batches of 4
    steps.clear()
    assert _changed(model, _half(Xiao(clean_epochs=0, type_epochs=5)), 0, bench) == {f"{HEAD}weight", f"{HEAD}bias"}
    assert steps == pytest.approx([0.01] * 3 * 3 + [0.001] * 2 * 3)  # the 12 with a noisy label
    assert _changed(model, _half(Xiao(clean_epochs=0, type_epochs=5, trunk="both")), 0, bench) == names
    steps.clear()
    assert _changed(model, _half(Xiao(clean_epochs=0, type_epochs=0)), 0, bench) == set()
    assert steps == []
    assert set(bench.asked) == {"clean_train"}


def test_its_rates_are_those_of_the_round(steps: list[float]) -> None:
    """Before round 1 that of round 1, which a climb makes a third; a tenth of it at last."""
    bench, model = Bench(learning_rate=0.03, lr_warm_up=2), build_model("cnn", 3, seed=1, heads=Xiao.heads)
    half = _half(Xiao(clean_epochs=3, type_epochs=0, server_steps=1))
    half.train(0, model, bench.workbench())
    assert steps == pytest.approx([0.01] * 2 * 5 + [0.001] * 5)
    for server_round, rate in ((1, 0.01), (2, 0.02), (3, 0.03), (10, 0.03)):
        steps.clear()
        half.train(server_round, model, bench.workbench())
        assert steps == pytest.approx([rate])


def test_its_steps_follow_the_runs_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    monkeypatch.setattr(LocalAdamW, "clip_gradients", lambda self, most: taken.append(most))
    bench = Bench(optimizer="adamw", gradient_clipping=2.5)
    model = build_model("cnn", 3, seed=1, heads=Xiao.heads)
    _half(Xiao(server_steps=2)).train(1, model, bench.workbench())
    assert taken == [2.5, 2.5]


def test_it_learns_both(caplog: pytest.LogCaptureFixture) -> None:
    bench, model = Bench(learning_rate=0.05, batch_size=20), build_model("cnn", 3, seed=1, heads=Xiao.heads)
    half = _half(Xiao(clean_epochs=30, type_epochs=60, trunk="both"))
    with caplog.at_level(logging.INFO, "flwr"):
        half.train(0, model, bench.workbench())
    losses = [float(message.rsplit(" ", 1)[1][:-1]) for message in caplog.messages]
    assert len(losses) == 4
    assert losses[1] < 0.2
    assert losses[3] < 0.3  # of both


def test_its_steps_are_as_many_as_those_of_an_average_client(steps: list[float]) -> None:
    bench, model = Bench(), build_model("cnn", 3, seed=1, heads=Xiao.heads)
    half = _half(Xiao())
    half.heard(1, {0: {"images-seen": 20}, 3: {"images-seen": 36}})
    half.train(1, model, bench.workbench())
    assert len(steps) == 28 / 4
    for method, expected in ((Xiao(server_share=0.5), 4), (Xiao(server_steps=3), 3), (Xiao(server_share=1e-6), 1)):
        steps.clear()
        half = _half(method)
        half.heard(1, {0: {"images-seen": 20}, 3: {"images-seen": 36}})
        half.train(1, model, bench.workbench())
        assert len(steps) == expected


@pytest.mark.parametrize(
    "method", [Xiao(server_share=0.0), Xiao(server_steps=0), Xiao(clean_weight=0.0, first_stage=1.0)]
)
def test_nothing_to_do_changes_nothing(method: Xiao, steps: list[float]) -> None:
    bench, model, half = Bench(), build_model("cnn", 3, seed=1, heads=Xiao.heads), _half(method)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    half.heard(3, {0: {"images-seen": 20}})
    half.train(3, model, bench.workbench())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert steps == []
    assert half.metrics(3) == {}


def test_types_are_learned_in_stage_2_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    goals: list[tuple[float, float]] = []
    begin = OnCleanImages.begin

    def seen(self: OnCleanImages, visit: Any) -> None:
        goals.append((self.clean_weight, self.type_weight))
        begin(self, visit)

    monkeypatch.setattr(OnCleanImages, "begin", seen)
    bench, model, half = Bench(), build_model("cnn", 3, seed=1, heads=Xiao.heads), _half(Xiao(server_steps=3))
    first, second = (_changed(model, half, number, bench) for number in (6, 7))
    assert second - first == {f"{HEAD}weight", f"{HEAD}bias"}
    assert goals == [(0.1, 0.0), (1.0, 0.1)]
    assert half.metrics(6) == {}
    assert half.metrics(7)["server-loss"] > 0


def test_a_round_depends_on_its_number_alone() -> None:
    def after(server_round: int, rounds_before: int) -> Tensor:
        bench, half = Bench(augmentation="flip"), _half(Xiao(server_steps=3))
        for number in range(rounds_before):
            half.train(number + 1, build_model("cnn", 3, seed=2, heads=Xiao.heads), bench.workbench())
        model = build_model("cnn", 3, seed=1, heads=Xiao.heads)
        half.train(server_round, model, bench.workbench())
        return model.get_parameter("conv1.weight").detach()

    assert torch.equal(after(3, 0), after(3, 2))
    assert not torch.equal(after(3, 0), after(4, 0))


def test_a_resnet_of_32_pixels_and_a_last_image_that_is_left_alone() -> None:
    """BatchNorm refuses a batch of one."""
    bench = Bench(batch_size=19)
    half, model = (
        _half(Xiao(clean_epochs=1, type_epochs=1, server_steps=2)),
        build_model("resnet18", 3, 1, 1, Xiao.heads),
    )
    for number in (0, 1, 9):
        half.train(number, model, bench.workbench())


# Whole runs.
