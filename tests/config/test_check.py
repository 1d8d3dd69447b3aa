"""All that is wrong with the settings of a run is said at once, in sentences, whatever they are."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from config import choices
from config.__main__ import app
from config.check import KEYS, check_settings, differences, examine
from config.errors import ConfigError
from config.known import METHODS, PRIVACY, STRATEGIES
from config.pairs import read_pairs
from config.run_config import RunConfig
from tests.odd_values import ODD, TEXTS, is_a_sentence

ROOT = Path(__file__).parents[2]
NAMED: dict[str, Any] = {"method": METHODS, "strategy": STRATEGIES, "privacy": PRIVACY}


def _problems(**values: Any) -> list[str]:
    return examine({key.replace("_", "-"): value for key, value in values.items()})[1]


@pytest.mark.parametrize("key", KEYS)
def test_any_value_of_any_key_ends_in_sentences(key: str) -> None:
    for value in ODD:
        config, problems = examine({key: value})
        assert all(map(is_a_sentence, problems)), (value, problems)
        if not any(f"'{key}' " in problem for problem in problems):
            assert type(getattr(config, key.replace("-", "_"))) is type(getattr(RunConfig(), key.replace("-", "_")))


@pytest.mark.parametrize("key", NAMED)
def test_any_pairs_end_in_sentences(key: str) -> None:
    for name in NAMED[key]:
        for text in TEXTS:
            assert all(map(is_a_sentence, _problems(**{key: name, f"{key}_args": text}))), (name, text)


@pytest.mark.parametrize("name", choices.PARTITIONS)
def test_any_pairs_of_a_partition_end_in_sentences(name: str) -> None:
    for text in TEXTS:
        assert all(map(is_a_sentence, _problems(partition=name, partition_args=text))), text


@pytest.mark.parametrize("name", choices.LABEL_NOISES)
def test_any_pairs_of_label_noise_end_in_sentences(name: str) -> None:
    for text in TEXTS:
        assert all(map(is_a_sentence, _problems(label_noise=name, label_noise_args=text))), text


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=12), st.one_of(
    st.text(max_size=30), st.integers(), st.floats(), st.booleans()
), max_size=6))  # fmt: skip
def test_any_settings_end_in_sentences(values: dict[str, Any]) -> None:
    config, problems = examine(values)
    assert all(map(is_a_sentence, problems)), problems
    assert RunConfig.from_flat(config.to_flat()) == config


@given(st.lists(st.text(max_size=60), max_size=3))
def test_whatever_is_typed_is_read_or_refused(texts: list[str]) -> None:
    values, problems = read_pairs("-c", texts)
    assert all(map(is_a_sentence, problems)), problems
    assert all(type(value) in (bool, int, float, str) for value in values.values())


def test_every_fault_is_said_at_once() -> None:
    problems = _problems(lr=0.1, optimizer="adam", preset="notebok", method="gcee", batch_size=0, weight_decay=1e300)
    said = " ".join(problems)
    assert len(problems) == 6
    for part in (
        "'learning-rate'",
        "(did you mean 'adamw'?)",
        "'notebook'",
        "'gce'",
        "'batch-size' is 0",
        "'weight-decay' is 1e+300",
    ):
        assert part in said
    with pytest.raises(ConfigError) as caught:
        check_settings({"lr": 0.1, "batch-size": 0})
    assert "'lr'" in str(caught.value)
    assert "'batch-size'" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"learnig-rate": 1}, "there is no key 'learnig-rate' (did you mean 'learning-rate'?)"),
        ({"learning_rate": 1}, "(did you mean 'learning-rate'?)"),
        ({"eta": 1.0}, "it is a parameter of fedadagrad, fedadam, fedyogi: strategy-args='eta=...'"),
        ({"min-train-nodes": 1}, "it is a parameter of every strategy"),
        ({"nesterov": True}, "it is a parameter of sgd: optimizer-args='nesterov=...'"),
        ({"final": 0.1}, "it is a parameter of cosine, linear: lr-schedule-args='final=...'"),
        ({"scheduler": "cosine"}, "did you mean 'lr-schedule'?"),
        ({"optimizer": "adamw", "optimizer-args": "nesterov=true"}, "names 'nesterov'; adamw takes beta1, beta2, eps"),
        ({"lr-schedule": "step", "lr-schedule-args": "every=0"}, "every of step is 0, and must be a whole number of"),
        ({"momentum": 0, "optimizer-args": "nesterov=true"}, "but 'momentum' is 0; nesterov must be false, or"),
        ({"lr-warm-up": 14}, "'lr-warm-up' is 14, but 'num-server-rounds' is 14; it must be below that"),
        ({"gradient-clipping": -1}, "'gradient-clipping' is -1; it must be a number at least 0"),
        ({"num-supernodes": 10}, "--federation-config"),
        ({"clients": 10}, "--federation-config"),
        ({"num-server-rounds": 0}, "'num-server-rounds' is 0; it must be"),
        ({"evaluate-every": 0}, "'evaluate-every' is 0; it must be"),
        ({"evaluate-every": 15}, "'evaluate-every' is 15, but 'num-server-rounds' is 14; it must be at most that"),
        ({"early_stopping": 5}, "there is no key 'early_stopping'; did you mean 'patience'?"),
        ({"patience": -1}, "'patience' is -1; it must be a whole number of at least 0"),
        ({"target-accuracy": 70}, "'target-accuracy' is 70; it must be a number at least 0 and at most 1"),
        ({"max-hours": -0.5}, "'max-hours' is -0.5; it must be a number at least 0"),
        ({"patience": 5, "val-split": "none"}, "'patience' is 5, but 'val-split' is none, and a run is ended by"),
        ({"target-accuracy": 0.7, "val-split": "none"}, "'target-accuracy' is 0.7, but 'val-split' is none, and a run"),
        ({"model": "resnet51"}, "(did you mean 'resnet50'?)"),
        ({"model": "resnet_50"}, "(did you mean 'resnet50'?)"),
        ({"model": "ResNet50"}, "(did you mean 'resnet50'?)"),
        ({"model": "ViT-B/16"}, "(did you mean 'vit_b_16'?)"),
        ({"model": "convnext"}, "(did you mean 'convnext_"),
        ({"model": "timm:"}, "or timm:NAME; docs/models.md has them all"),
        ({"model": "timm:../x"}, "or timm:NAME; docs/models.md has them all"),
        ({"model": "vit_b_16", "image-size": 50}, "is 50, but vit_b_16 needs a multiple of 16, such as 48 or 64."),
        ({"model": "vit_h_14", "image-size": 16}, "needs a multiple of 14, such as 28."),
        ({"model": "maxvit_t", "image-size": 1000}, "needs a multiple of 224, such as 896."),
        ({"model": "alexnet"}, "'image-size' is 48, but alexnet needs at least 63."),
        ({"model": "resnet18", "pretrained": "IMAGENET1K_V2"}, "it must be none, DEFAULT, IMAGENET1K_V1 or a file."),
        ({"model": "vit_h_14", "image-size": 224, "pretrained": "imagenet"},
         "it must be none, DEFAULT, IMAGENET1K_SWAG_E2E_V1, IMAGENET1K_SWAG_LINEAR_V1 or a file."),
        ({"model": "timm:resnet18", "pretrained": "imagenet"}, "it must be none, DEFAULT or a file."),
        ({"model": "swin_t", "batchnorm": "local"}, "'batchnorm' is 'local', but swin_t has no BatchNorm;"),
        ({"pretrained": "imagenet1k_v2"}, "(did you mean 'IMAGENET1K_V2'?)"),
        ({"method": "gce", "method-args": "q=2"}, "q of gce is 2, and must be a number above 0 and at most 1"),
        ({"method": "gce", "method-args": "qq=2"}, "names 'qq'; gce takes q, truncation"),
        ({"method": "sce", "method-args": "alpha=0 beta=0"}, "alpha of sce must be above 0 if beta is 0"),
        ({"method": "fednoro", "method-args": "warm-up-rounds=99"}, "'num-server-rounds' is 14; it must be below that"),
        ({"strategy": "fedadam", "strategy-args": "eta=1e308"}, "eta of fedadam is 1e+308"),
        ({"strategy": "qfedavg", "strategy-args": "q=1e308"}, "q of qfedavg is 1e+308"),
        ({"strategy": "krum", "method": "co-teaching"}, "trains 2 networks that must not be mixed"),
        ({"strategy": "../x:y"}, "'strategy' is '../x:y'; a class of your own must be named as 'module:Class'"),
        ({"strategy": "nowhere:Mine"}, "there is no module 'nowhere'"),
        ({"privacy": "server-fixed"}, "server-fixed needs clipping-norm"),
        (
            {"method": "robustfl", "privacy": "server-fixed", "privacy-args": "noise-multiplier=1 clipping-norm=1"},
            "'method' is 'robustfl', for which clients send arrays without noise beside their weights; 'privacy' must",
        ),
        ({"partition": "dirichlet"}, "needs the argument 'alpha'"),
        ({"partition": "dirichlet", "partition-args": "alpha=1 labels=1"}, "has no argument 'labels'"),
        ({"partition": "shards", "partition-args": "shards-per-client=0"}, "must be a whole number of at least 1"),
        ({"partition": "file", "partition-args": "path='nowhere'"}, "'path' is 'nowhere'; it must be an absolute path"),
        ({"label-noise": "symmetric", "label-noise-args": "rate=2"}, "'rate' of symmetric is 2"),
        ({"label-noise": "symmetric", "label-noise-args": "seed=2"}, "has no argument 'seed'"),
        ({"compile": True, "method": "feddecorr"}, "'compile' is true"),
        ({"batch-size": 1}, "set a 'batch-size' of at least 2 with drop-last=true, or an 'image-size' of at least"),
        ({"model": "cnn", "pretrained": "imagenet"}, "no such weights for the 'model' cnn"),
        ({"pretrained": "/nowhere.pt"}, "there is no such file"),
        ({"data-dir": "/nowhere"}, "there is no such folder or file"),
        ({"output-dir": "/dev/null/x"}, "/dev/null is not a folder"),
        ({"data-dir": "~nosuchuser/x"}, "it must be an absolute path that can exist"),
        ({"cache-gib": 1e300}, "'cache-gib' is 1e+300"),
        ({"seed": 2**63}, "at most 9,223,372,036,854,775,807"),
        ({"resume": "/nowhere"}, "'resume' is '/nowhere', where there is no run"),
    ],
)  # fmt: skip
def test_what_the_server_can_know_is_found(values: dict[str, Any], sentence: str) -> None:
    image = {"image-size": 32, "stem": "imagenet"} if "batch-size" in values else {}
    _, problems = examine({**values, **image})
    assert len(problems) == (2 if values == {"privacy": "server-fixed"} else 1), problems
    assert sentence in problems[-1]


def test_a_name_that_is_taken_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    values: dict[str, Any] = {"output-dir": str(tmp_path), "run-name": "mine"}
    assert "already exists; choose another name" in examine(values)[1][0]
    assert not examine({**values, "resume": "auto"})[1]


@pytest.mark.parametrize("preset", ["", *choices.PRESETS])
@pytest.mark.parametrize("method", choices.METHODS)
def test_a_preset_leaves_each_method_its_own_strategy(preset: str, method: str) -> None:
    config, problems = examine({"preset": preset, "method": method})
    assert not problems
    assert config.strategy == METHODS[method].strategy
    assert config.method == method
    assert examine({"preset": preset, "method": method, "strategy": "fedavg"})[0].strategy == "fedavg"


def test_only_what_differs_is_printed() -> None:
    assert differences(examine({})[0]) == {}
    assert differences(examine({"seed": 2, "batch-size": 16})[0]) == {"seed": 2}
    assert differences(examine({"method": "fednoro"})[0]) == {"method": "fednoro", "strategy": "daagg"}


def _check(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["check", *words])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_prints_what_differs_or_what_is_wrong(tiny_sample: Path, tmp_path: Path) -> None:
    data = f"data-dir='{tiny_sample}' output-dir='{tmp_path}'"
    assert _check("-c", f"{data} seed=2", "--clients", "4")[0] == 0
    own = "fraction-evaluate=1.0 eval-split='own' val-split='noisy' holdout-fraction=0.2 batch-size=4"
    assert _check("-c", f"{data} {own}", "--clients", "13")[0] == 0  # of clean val there are 12 images
    code, out, err = _check("-c", data, "-c", "batch-size=64 drop-last=true", "--clients", "4")
    assert (code, out) == (1, "")
    assert "'batch-size' is 64, but the smallest client holds only 30 images" in err
    for words, sentence in (
        (["-c", "method=elr"], "text needs quotes: method='elr'"),
        (["-c", "x.toml", "-c", "seed=1"], "a file cannot be combined"),
        (["-c", data, "--clients", "121"], "there are only 120 images"),
        (["-c", f"{data} fraction-evaluate=1.0 batch-size=4", "--clients", "13"], "clean val has 12 images"),
        (
            ["-c", f"{data} holdout-fraction=0.2 batch-size=25 drop-last=true", "--clients", "4"],
            "'batch-size' is 25, but the smallest client holds only 24 images to train on and 'drop-last'",
        ),
        (
            [
                "-c",
                f"{data} holdout-fraction=0.2 batch-size=23 drop-last=false image-size=32 stem='imagenet'",
                "--clients",
                "4",
            ],
            "leaves one of 24 images alone",
        ),
        (
            ["-c", f"{data} batch-size=2 drop-last=true", "--clients", "120"],
            "'batch-size' is 2, but the smallest client holds only 1 image and 'drop-last'",
        ),
        (
            ["-c", f"{data} holdout-fraction=0.2 batch-size=1 drop-last=false", "--clients", "120"],
            "'holdout-fraction' is 0.2, but the smallest client holds only 1 image; it must be 0, or each client must",
        ),
        (["-c", f"{data} strategy-args='min-available-nodes=5'", "--clients", "4"], "but there are 4 clients"),
        (
            ["-c", f"{data} image-size=32 stem='imagenet' drop-last=false batch-size=29", "--clients", "4"],
            "set drop-last=true, or an",
        ),
        (["--federation", "num-supernode=3"], "(did you mean 'num-supernodes'?)"),
        (["--federation", "num-supernodes=0"], "'num-supernodes' is 0; it must be a whole number of at least 1"),
        (["--federation", "client-resources-num-gpus=1.5"], "0, from 0.0001 to 1, or a whole number"),
        (["--federation", "client-resources-num-cpus=9999"], "each client requests 9999 CPUs, but this machine has"),
    ):
        code, _, err = _check(*words)
        assert code == 1
        assert sentence in err
    (tmp_path / "mine.toml").write_text("seed = 3\nmethod = 'elr'\n")
    assert _check("-c", str(tmp_path / "mine.toml"))[1].splitlines()[:2] == ["seed = 3", "method = 'elr'"]


def test_the_command_needs_neither_pytorch_nor_flower() -> None:
    script = """
import runpy, sys
sys.argv[1:] = ["check", "-c", "lr=0.1 method='fednoro' label-noise='symmetric'", "--clients", "10"]
try:
    runpy.run_module("config", run_name="__main__")
except SystemExit as end:
    assert end.code == 1
assert not {"torch", "flwr", "ray", "matplotlib"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "did you mean 'learning-rate'?" in done.stderr


def test_a_batch_of_one_image_is_refused_where_batchnorm_counts_it_alone() -> None:
    single: dict[str, Any] = {"batch_size": 1, "model": "resnet18", "image_size": 32, "stem": "imagenet"}
    (problem,) = _problems(**single)
    assert "a resnet18 cannot train on one image" in problem
    assert _problems(**{**single, "stem": "auto"}) == []  # with its small stem, 4 x 4 pixels are left
    for frozen in ({"batchnorm": "frozen"}, {"trainable": "head"}, {"trainable": "lora"}):
        assert _problems(**single, **frozen) == []
