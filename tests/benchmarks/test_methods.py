"""The methods' grids: what their rows are, the data that they name, and what visits cost."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.methods import cost as method_cost
from benchmarks.methods import data as method_data
from benchmarks.methods.cost import GRIDS, Pair, as_measured
from benchmarks.methods.data import TRANSITIONS, digits, link_to, sample_and_truth, transition_of
from benchmarks.tools.in_process import SMALL
from client_app.app import app as client_app
from config import choices
from config.check import examine
from config.named import parse_args
from config.resolve import app_defaults
from config.run_config import RunConfig, Value
from data.errors import DataError
from data.noise.synthetic import corrupt
from data.release import open_release
from data.sample import SampleSize
from experiments.grid import Grid, combinations, doubly_set
from experiments.grid_file import read_grid
from experiments.plan import Row
from methods import METHODS, build_method
from probe.errors import NoRoomError

FOR_CLIENTS = "noisy-clients"


def _grids() -> Iterator[tuple[str, Grid]]:
    for path in GRIDS:
        grid, problems = read_grid(path)
        assert not problems
        yield path.stem, grid


def _rows(name: str, seed: int = 1) -> dict[str, Row]:
    """A grid's rows with a seed, by label."""
    rows = [one.row for one in combinations(dict(_grids())[name]) if one.row.seed == seed]
    return {row.label: row for row in rows}


def test_there_are_five_grids_of_three_seeds_each_compared_with_cross_entropy() -> None:
    grids = dict(_grids())
    assert [*grids] == ["digits-pairflip", "digits-symmetric", "iid", "mixed", FOR_CLIENTS]
    assert {name: grid.size for name, grid in grids.items()} == dict.fromkeys(grids, 69) | {"iid": 72, FOR_CLIENTS: 36}
    for grid in grids.values():
        assert (grid.baseline, grid.seeds, grid.keep) == ("ce", (1, 2, 3), "results")
        assert not doubly_set(grid)


@pytest.mark.parametrize("name", [path.stem for path in GRIDS])
def test_every_row_is_a_run_that_the_app_accepts(name: str, tmp_path: Path) -> None:
    for row in _rows(name).values():
        assert str(row.config["data-dir"]).startswith(f"{method_data.PLACE}/")
        values = {**row.config, "data-dir": str(tmp_path)}
        if "transition='~" in str(values.get("method-args", "")):
            assert f"{method_data.PLACE}/transition-{name}.txt" in str(values["method-args"])
            values["method-args"] = f"transition='{tmp_path}'"
        config, problems = examine(values, app_defaults())
        assert problems == []
        build_method(config)
        # Or what visits cost would be measured with other settings, and accuracies would be those of other networks.
        assert SMALL.keys() - {"stem"} <= row.config.keys()
        assert config.stem == SMALL["stem"] == "imagenet"


def test_every_method_has_a_row_in_every_grid_but_xiao() -> None:
    for name, _ in _grids():
        found = {str(row.config["method"]) for row in _rows(name).values()}
        if name == FOR_CLIENTS:
            assert found >= {method for method, kind in METHODS.items() if kind.finds_noisy_clients}
        else:
            assert found == set(choices.METHODS) - ({"xiao"} if name != "iid" else set())


def test_the_ceiling_alone_has_no_noise_and_is_otherwise_like_cross_entropy() -> None:
    for name, _ in _grids():
        rows = _rows(name, seed=3)
        others = ["fedclean"] if name == FOR_CLIENTS else ["dividemix", "fedclean"]
        assert [row.label for row in rows.values() if row.reference] == ["ceiling", *others]
        noisy, clean = (RunConfig.from_flat(rows[label].config).to_flat() for label in ("ce", "ceiling"))
        differing = {key for key in noisy if noisy[key] != clean[key]}
        assert differing == ({"data-dir"} if name == "iid" else {"label-noise", "label-noise-args"})
        assert (clean["label-noise"], clean["label-noise-args"]) == ("none", "")
        assert noisy["seed"] == 3


def test_a_forget_rate_is_the_grid_s_share_of_wrong_labels() -> None:
    rates = {name: _rows(name)["co-teaching"].config["method-args"] for name, _ in _grids()}
    shares = {"iid": 0.395, **{name: wrong for name, (_, _, wrong) in TRANSITIONS.items()}}
    assert rates == {name: f"forget-rate={share:g}" for name, share in shares.items()}
    for name, share in shares.items():
        assert f"forget-rate={share:g}" in str(_rows(name)["robustfl"].config["method-args"])
        if name != FOR_CLIENTS:
            assert f"noise-rate={share:g}" in str(_rows(name)["selfie"].config["method-args"])


def test_the_matrix_of_a_grid_is_that_of_its_noise() -> None:
    for name, (noise, classes, wrong) in TRANSITIONS.items():
        row = _rows(name)["ce"].config
        assert row["label-noise"] == noise
        args = parse_args("label-noise-args", str(row["label-noise-args"]))
        share = args["rate"] if "rate" in args else args["noisy_share"] * (args["min_rate"] + args["max_rate"]) / 2
        assert share == pytest.approx(wrong)
        matrix = transition_of(noise, classes, wrong)
        true = np.repeat(np.arange(classes, dtype=np.int32), 1000)
        given = corrupt(true, noise, classes, 0, 10, 1, rate=wrong)
        shares = np.zeros(matrix.shape)
        np.add.at(shares, (true, given), 1 / 1000)
        np.testing.assert_allclose(shares, matrix, atol=0.05)
        np.testing.assert_allclose(matrix.sum(axis=1), 1)
        np.testing.assert_array_equal(shares > 0, matrix > 0)


def test_what_the_grids_name_is_made_once_and_renewed_by_its_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(folder: Path, size: SampleSize = method_data.SIZE) -> tuple[Path, Path]:
        mark = f"{size.train}-" * (size != method_data.SIZE) + str(version)
        pair = folder / f"sample-{mark}", folder / f"truth-{mark}"
        for release in pair:
            release.mkdir(exist_ok=True)
        return pair

    monkeypatch.setattr(method_data, "sample_and_truth", drawn)
    monkeypatch.setattr(method_data, "digits", lambda folder: drawn(folder)[0])
    wanted = {str(row.config["data-dir"]) for name, _ in _grids() for row in _rows(name).values()}
    version = 1
    made = method_data.make(tmp_path / "deep")
    assert {f"{method_data.PLACE}/{path.name}" for path in made} >= wanted
    assert (tmp_path / "deep" / "truth").resolve().name == "truth-1"
    for name, noise in TRANSITIONS.items():
        found = np.loadtxt(tmp_path / "deep" / f"transition-{name}.txt")
        np.testing.assert_array_equal(found, transition_of(*noise))
    version = 2
    assert method_data.make(tmp_path / "deep") == made
    assert (tmp_path / "deep" / "truth").resolve().name == "truth-2"


def test_a_folder_where_a_link_belongs_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    with pytest.raises(DataError, match=r"sample is in the way; it must be a link to sample-1, so move it away\.$"):
        link_to(tmp_path / "sample-1", tmp_path / "sample")


def test_the_truth_is_the_same_images_under_what_they_show(tmp_path: Path) -> None:
    size = SampleSize(train=60, clean_train=5, val=5, test=5, image_size=16, seed=1)
    released, truth = (open_release(path) for path in sample_and_truth(tmp_path, size))
    noisy, true = released.split("noisy_train"), truth.split("noisy_train")
    np.testing.assert_array_equal(true.labels, noisy.true)
    np.testing.assert_array_equal(true.keys, noisy.keys)
    assert (noisy.labels != noisy.true).any()
    assert truth.split("clean_test").digest == released.split("clean_test").digest
    key = bytes(true.keys[0]).decode()
    assert (truth.root / key).samefile(released.root / key)
    before = json.dumps(sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.txt")))
    assert sample_and_truth(tmp_path, size) == (released.root, truth.root)
    assert json.dumps(sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.txt"))) == before


def test_digits_are_the_ones_that_scikit_learn_ships(tmp_path: Path) -> None:
    release = open_release(digits(tmp_path))
    train, test = release.split("noisy_train"), release.split("clean_test")
    assert (len(train.labels), len(test.labels)) == (1398, 359)
    np.testing.assert_array_equal(train.labels, train.true)
    with Image.open(release.root / bytes(test.keys[0]).decode()) as image:
        seen = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX)).astype(float)
    scans = load_digits()
    nearest = np.abs(255 - scans.images * (255 / 16) - seen).mean(axis=(1, 2)).argmin()
    assert scans.target[nearest] == test.labels[0]
    assert digits(tmp_path) == release.root


def test_every_visit_but_the_first_is_paired_with_one_of_plain_cross_entropy(
    tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, int]] = []
    answer = client_app

    def spy(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            config = message.content.config_records["config"]
            kind = "plain" if message.metadata.message_id == "plain" else "own"
            seen.append((kind, str(config["method-args"]), int(str(context.node_config["partition-id"]))))
        return answer(message, context)

    monkeypatch.setattr("benchmarks.methods.cost.client_app", spy)
    threads = torch.get_num_threads()
    config: dict[str, Value] = {
        "data-dir": str(tiny_sample),
        "model": "cnn",
        "method": "ce",
        "method-args": "label-smoothing=0.1",
    }
    try:
        found = method_cost.pairs_of(config, clients=2, rounds=3)
    finally:
        torch.set_num_threads(threads)
    assert [pair.server_round for pair in found] == [2, 3]
    assert all(0 < pair.time < 100 for pair in found)
    assert all(pair.sent == pair.returned and 2 * pair.sent == pair.plain_bytes > 80_000 for pair in found)
    assert [entry[:2] for entry in seen] == [
        ("own", "label-smoothing=0.1"), ("plain", ""), ("plain", ""), ("own", "label-smoothing=0.1"),
        ("own", "label-smoothing=0.1"), ("plain", ""),
    ]  # fmt: skip
    assert [entry[2] for entry in seen[::2]] == [entry[2] for entry in seen[1::2]]  # of the same client


@pytest.mark.parametrize(
    ("args", "late"),
    [
        ("", ""),
        ("beta=0.7", "beta=0.7"),
        ("warm-up-rounds=12 history=10", "warm-up-rounds=1 history=10"),
        (
            "preprocessing-rounds=20 fine-tuning-rounds=10 alpha=1.0",
            "preprocessing-rounds=1 fine-tuning-rounds=1 alpha=1.0",
        ),
        ("start-rounds=0 warm-up-rounds=-1", "start-rounds=0 warm-up-rounds=-1"),
    ],
)
def test_every_stage_but_the_last_takes_one_round(args: str, late: str) -> None:
    assert as_measured({"method": "x", "method-args": args}, "last") == {"method": "x", "method-args": late}
    assert as_measured({"method": "x", "method-args": args}, "first") == {"method": "x", "method-args": args}
    assert as_measured({"method": "ce"}, "last")["method-args"] == ""


def test_memory_is_that_of_a_process_that_trains_one_client(tiny_sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Value] = {"data-dir": str(tiny_sample), "model": "cnn", "image-size": 16, "precision": "fp32"}
    assert 50 << 20 < method_cost.memory_of(config, clients=4) < 8 << 30

    def full(*_: object) -> None:
        raise NoRoomError("a client was ended by signal 9")

    monkeypatch.setattr(method_cost, "try_clients", full)
    with pytest.raises(DataError, match=r"^a client was ended by signal 9\.$"):
        method_cost.memory_of(config, clients=4)


def test_costs_are_those_of_a_grid_s_rows_in_their_second_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, int]] = []
    probed: list[tuple[str, str]] = []

    def pairs_of(config: dict[str, Value], clients: int) -> list[Pair]:
        seen.append((str(config["method-args"]), clients))
        return [Pair(2, 1.5, 80, 20, 50), Pair(3, 1.0, 80, 20, 50), Pair(4, 1.2, 81, 20, 50)]

    def memory_of(config: dict[str, Value], clients: int) -> int:
        probed.append((str(config["method"]), str(config["method-args"])))
        return (500 if config["method"] == "ce" else 530) << 20

    grid = tmp_path / "mine.toml"
    text = next(path for path in GRIDS if path.stem == "mixed").read_text(encoding="utf-8")
    grid.write_text(text.replace(method_data.PLACE, str(tmp_path)), encoding="utf-8")
    monkeypatch.setattr(method_cost, "pairs_of", pairs_of)
    monkeypatch.setattr(method_cost, "memory_of", memory_of)
    with pytest.raises(DataError, match=r"truth is missing; run `python -m benchmarks\.methods\.data` first\.$"):
        method_cost.main([grid], ["elr"])
    (tmp_path / "truth").mkdir()
    method_cost.main([grid], ["fednoro", "elr"])
    assert seen == [("beta=0.7 strength=3.0", 20), ("warm-up-rounds=1", 20)]
    assert probed == [("ce", ""), ("elr", "beta=0.7 strength=3.0"), ("fednoro", "warm-up-rounds=4")]
    said = capsys.readouterr()
    assert "mine, fednoro: 1.20" in said.err
    assert json.loads(said.out.splitlines()[-1])["rows"][1] == {
        "grid": "mine", "method": "fednoro", "time, x ce": 1.2, "least": 1.0, "most": 1.5, "sent, B": 80,
        "returned, B": 20, "bytes, x ce": pytest.approx(301 / 150), "memory, MiB": 530.0, "more than ce": 30.0,
    }  # fmt: skip
    method_cost.main([grid], ["fednoro"], stage="first", memory=False)
    assert seen[2:] == [("warm-up-rounds=4", 20)]
    assert len(probed) == 3
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [*rows[0]] == list(method_cost.COLUMNS[:-2])
    with pytest.raises(DataError, match=r"nowhere\.toml is no file"):
        method_cost.main([tmp_path / "nowhere.toml"])
    with pytest.raises(DataError, match=r"--method is xiao; .*mine\.toml has ceiling, ce, sce, "):
        method_cost.main([grid], ["xiao"])
