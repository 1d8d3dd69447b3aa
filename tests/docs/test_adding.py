"""The code of docs/adding-*.md does what the pages promise."""

import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord
from PIL import Image

from server_app.callbacks import History, RoundResult
from tests.docs.pages import ROOT, blocks, module_of, quotes, run

DOCS = ROOT / "docs"


def _module(path: str) -> Any:
    return importlib.import_module(module_of(path))


def test_a_method_made_of_what_its_page_quotes_passes_its_page_s_test() -> None:
    page = DOCS / "adding-a-method.md"
    parts = [code for source, code in quotes(page) if source == "methods/elr.py"]
    assert len(parts) == 4
    names = {**_module("methods/elr.py").__dict__}
    given = names.pop("ELR")
    exec(compile("\n".join(parts), page.name, "exec"), names)
    test, _ = blocks(page)
    assert "from methods.elr import ELR\n" in test
    exec(compile(test.replace("from methods.elr import ELR\n", ""), page.name, "exec"), names)
    assert names["ELR"] is not given
    names["test_the_first_step_by_hand"]()


def test_a_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(DOCS / "adding-a-strategy.md")
    names["test_momentum_carries_over"]()
    monkeypatch.setitem(sys.modules, "custom.square_root", sys.modules[__name__])
    monkeypatch.setitem(globals(), "SquareRootAvg", names["SquareRootAvg"])
    config = _module("config/run_config.py").RunConfig(**_last_command("adding-a-strategy.md"))
    strategy = _module("server_app/strategy.py").build_strategy(config)
    replies = [names["train_reply"]({"w": np.array([value])}, count) for value, count in ((0.0, 16), (3.0, 256))]
    assert names["one_round"](strategy, {"w": np.zeros(1)}, replies)["w"] == pytest.approx(
        [2.0]
    )  # 16^0.25 = 2, 256^0.25 = 4


def test_a_method_of_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks(DOCS / "adding-a-method.md")[-1], "page", "exec"), names)
    monkeypatch.setitem(sys.modules, "custom.confidence", sys.modules[__name__])
    monkeypatch.setitem(globals(), "ConfidencePenalty", names["ConfidencePenalty"])
    config = _module("config/run_config.py").RunConfig(**_last_command("adding-a-method.md"))
    method = _module("methods/__init__.py").build_method(config)
    labels, logits = torch.tensor([0]), torch.zeros(1, 2)  # both the loss and the entropy are log 2
    batch = _module("tests/batches_of.py").batch_of(labels, logits)
    loss = method.loss(batch, _module("tests/batches_of.py").visit_of(labels))
    assert loss.item() == pytest.approx(0.8 * np.log(2))


def _last_command(page: str) -> dict[str, Any]:
    """The keys that the last `flwr run` of a page sets."""
    line = [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if line.startswith("flwr run")][-1]
    pairs: dict[str, Any] = _module("data/arguments.py").parse_pairs(shlex.split(line)[-1])
    return pairs


def _result(evaluation: Any, server_round: int) -> RoundResult:
    return RoundResult(
        server_round=server_round, arrays=ArrayRecord(), test=evaluation, validation=None, train_loss=0.7,
        num_examples=20, seconds=10.0, slowest_client_seconds=6.0, slowest_training_seconds=5.0,
        evaluation_seconds=2.0, images_seen=120, images_per_second=12.0, sampled_partitions=[0, 1],
    )  # fmt: skip


def test_a_metric_of_the_global_model_and_a_callback(tmp_path: Path) -> None:
    names = run(DOCS / "adding-a-metric.md")
    evaluation = names["Evaluation"](1.5, np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]]))
    assert names["worst_recall"](evaluation) == 0.5
    table = tmp_path / "recall.csv"
    kept = {"round": 1, "per-class-recall": [0.25, 0.5, None]}
    for _ in range(2):  # the second time a resumed run, which does round 2 again
        callback = names["RecallTable"](table, ("boots", "coat", "hat"))
        callback.on_start(History(1, [kept]))
        callback.after_round(_result(evaluation, 2))
        callback.on_end()
    assert table.read_text(encoding="utf-8").splitlines() == [
        "round,boots,coat,hat", "1,0.250000,0.500000,", "2,0.750000,0.500000,",
    ]  # fmt: skip


def test_a_metric_of_the_clients() -> None:
    names = run(DOCS / "adding-a-metric.md")
    task, training = _module("task.py"), _module("learning/training.py")
    config = _module("config/run_config.py").RunConfig(model="cnn", image_size=16, batch_size=4)
    images = torch.zeros(8, 16, 16, 3, dtype=torch.uint8)
    compute = task.Compute(torch.device("cpu"), torch.float32)
    report = training.train_locally(
        task.build_model("cnn", 3, seed=1), images, torch.arange(8) % 3, names["WatchedCrossEntropy"](), config,
        compute, task.derived_generator(1, "test"),
    )  # fmt: skip
    assert 0 < report.visit.metrics["entropy"] <= np.log(3) + 1e-6
    half = names["WatchedCrossEntropy"]().on_server()
    half.heard(1, {0: {"num-examples": 10, "entropy": 1.0}, 4: {"num-examples": 30, "entropy": 0.6}})
    assert half.metrics(1) == {"local-entropy": pytest.approx(0.7)}


def test_every_metric_has_a_row() -> None:
    evaluation = _module("learning/evaluation.py").Evaluation(1.5, np.eye(2, dtype=np.int64))
    line = _module("server_app/callbacks/metrics_file.py").as_json(_result(evaluation, 1))
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert [key for key in line if f"`{key}`" not in text] == []


def test_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The field that the page quotes, under another name: it is all that a key needs to be known everywhere."""
    page, settings = DOCS / "adding-a-key.md", _module("config/settings.py")
    (field,) = [code for source, code in quotes(page) if source == "config/run_config.py"]
    source = (ROOT / "config" / "run_config.py").read_text(encoding="utf-8")
    assert source.count(field) == 1
    changed: Any = ModuleType("changed")
    changed.__file__ = _module("config/run_config.py").__file__
    monkeypatch.setitem(sys.modules, "changed", changed)  # dataclasses look their module up
    exec(
        compile(source.replace(field, field + field.replace("drop_last", "drop_first")), page.name, "exec"),
        vars(changed),
    )

    keys = settings.keys_of(changed.RunConfig)
    files = {name: write((ROOT / name).read_text(encoding="utf-8"), keys) for name, write in settings.WRITTEN.items()}
    assert (
        "| `drop-first` | `true` | leave out an epoch's incomplete last batch | true or false |"
        in files["docs/settings.md"]
    )
    written = tomllib.loads(files["pyproject.toml"])["tool"]["flwr"]["app"]["config"]
    assert list(written.items()) == list(changed.RunConfig().to_flat().items())
    assert written["drop-first"] is True

    sent = ConfigRecord(changed.RunConfig(drop_first=False).to_flat())
    assert changed.RunConfig.from_flat(dict(sent)).drop_first is False
    text = page.read_text(encoding="utf-8")
    with pytest.raises(changed.ConfigError) as caught:
        changed.RunConfig(drop_last=1)
    assert f"\n{caught.value}\n" in text


def test_the_rules_that_the_page_on_keys_names_allow_what_it_says() -> None:
    names = {**vars(_module("config/rules.py")), "choices": _module("config/choices.py")}
    text = (DOCS / "adding-a-key.md").read_text(encoding="utf-8")
    made = re.findall(r"^\| `(\w+\(.*\))` \|", text.split("## How it is checked")[1], re.MULTILINE)
    assert len(made) == 8
    assert all(isinstance(eval(rule, names), names["Rule"]) for rule in made)


def test_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    names, task = run(DOCS / "adding-a-model.md"), _module("task.py")
    names["test_tiny_vgg_learns"]()
    module: Any = ModuleType("models.tiny_vgg")
    module.tiny_vgg = names["tiny_vgg"]
    monkeypatch.setitem(sys.modules, "models.tiny_vgg", module)
    monkeypatch.setitem(_module("config/architectures.py").ARCHITECTURES, "tiny_vgg", names["TINY_VGG"])
    model = task.build_model("tiny_vgg", 5, seed=1)
    assert task.classifier(model) is model.fc
    assert model.fc.out_features == 5
    assert _module("config/run_config.py").RunConfig(model="tiny_vgg").model == "tiny_vgg"
    _module("tests/models/test_architectures.py").check_as_described("tiny_vgg")


def test_an_optimiser_and_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch's of the same names."""
    names, task = run(DOCS / "optimizers.md"), _module("task.py")
    config = _module("config/run_config.py").RunConfig
    tables = _module("learning/optimizer.py"), _module("learning/schedule.py")
    model = task.build_model("cnn", 3, seed=1)
    plain = task.build_model("cnn", 3, seed=1)
    ours = names["AdamArgs"](beta1=0.8).on(model)
    theirs = torch.optim.Adam(plain.parameters(), lr=0.01, betas=(0.8, 0.999), weight_decay=0.1)
    ours.begin(0.01, 0.0, 0.1)
    for number in range(3):
        inputs = torch.rand(4, 3, 16, 16, generator=task.derived_generator(1, "inputs", number))
        for network in (model, plain):
            network(inputs).square().sum().backward()
        ours.take_gradients()
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
    pairs = zip(model.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert set(tables[0].OPTIMIZERS) == {"sgd", "adamw"}  # those that the page describes

    monkeypatch.setitem(tables[1].SCHEDULES, "constant", names["Exponential"])
    made = config(learning_rate=1.0, lr_schedule_args="gamma=0.5", num_server_rounds=3)
    assert tables[1].rates(made) == [1.0, 0.5, 0.25]
    text = (DOCS / "optimizers.md").read_text(encoding="utf-8")
    known = _module("config/known.py")
    for table in (known.OPTIMIZERS, known.LR_SCHEDULES):
        for name, parameters in table.items():
            assert f"`{name}`" in text
            for parameter, one in parameters.items():
                assert f"`{parameter}` = {json.dumps(one.default)}" in text


def test_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = run(DOCS / "adding-a-dataset.md")
    release = names["release"]
    train, test = release.split("noisy_train"), release.split("clean_test")
    assert (len(train.keys), len(test.keys), release.class_names) == (120, 40, ("boots", "coat", "dress", "hat"))
    assert 0.1 < (train.labels != train.true).mean() < 0.5
    assert (test.labels == test.true).all()
    load_images = _module("data/images/loading.py").load_images
    folder = _module("data/release.py").open_release(tmp_path / "my-release")
    for size in (48, 16):
        assert (load_images(release, test.keys, size, threads=4) == load_images(folder, test.keys, size)).all()
    numbers = {key: number for number, key in enumerate(names["keys"].tolist())}
    rows = [numbers[key.decode()] for key in test.keys]
    assert (test.labels == names["true"][rows]).all()
    assert (load_images(release, test.keys, 48) == names["images"][rows]).all()
    with pytest.raises(_module("data/errors.py").DataError, match=r"image images/0/0 is not in .*my-images\.zip"):
        release.store.encoded(b"images/0/0")


def test_a_dataset_whose_true_labels_nobody_knows(tmp_path: Path) -> None:
    writer, rng = _module("data/layout/writer.py"), np.random.default_rng(1)
    keys, labels, nobody = writer.draw_keys(8, rng), np.arange(2), np.full(2, -1)
    splits = {"noisy_train": writer.Labelled(keys[:2], nobody, labels)}
    for row, split in ((2, "clean_train"), (4, "clean_val"), (6, "clean_test")):
        splits[split] = writer.Labelled(keys[row : row + 2], labels, nobody)
    writer.write_annotations(tmp_path, ["a", "b"], ["a", "b"], splits, rng)
    for key in keys:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(tmp_path / key)
    split = _module("data/release.py").open_release(tmp_path).split("noisy_train")
    assert (split.labels.tolist(), split.true.tolist()) == ([0, 1], [-1, -1])


def test_photos_are_imported_as_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    text = (DOCS / "adding-a-dataset.md").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.startswith("python -m data ")]
    assert [line.split()[3] for line in commands] == ["import", "show"]
    for command in commands:
        words = [word.replace("~", str(tmp_path)) for word in shlex.split(command)[1:]]
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True, timeout=600)
    assert (tmp_path / "photos-release" / "category_names_eng.txt").read_text(encoding="utf-8") == "cats\ndogs"
