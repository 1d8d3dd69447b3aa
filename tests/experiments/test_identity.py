"""What makes a row another run, and what does not."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.check import with_strategy
from config.rules import NAME
from config.run_config import RunConfig
from data.layout.finding import CATEGORIES, LIST_FILES, NOISY_LABELS
from data.layout.groups import GROUP_NAMES, GROUPS
from data.pack_writer import Packing, write_pack
from data.release import open_release
from data.sample import draw_sample, sample_folder
from experiments.identity import Contents, mark_of, name_of
from experiments.plan import Row
from runs.run import PLACES

CONFIG = with_strategy(RunConfig())


def mark(config: RunConfig = CONFIG, clients: int = 4, code: str = "c0de") -> str:
    return mark_of(config, clients, Contents(), code)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "release"
    draw_sample(folder, train=12, clean_train=2, val=2, test=2, image_size=16, seed=1)
    return folder


def test_a_mark_is_the_same_wherever_things_are() -> None:
    places = replace(
        CONFIG, output_dir="/somewhere", run_name="x", resume="auto", tracking="tensorboard", cache_dir="/c",
        cache_gib=1, state_dir="/s", preset="notebook", num_clients=4,
    )  # fmt: skip
    assert mark(places) == mark()
    assert len(mark()) == 12
    assert int(mark(), 16) >= 0


def test_every_key_that_can_change_a_result_changes_the_mark() -> None:
    others = {
        "seed": 2, "num-server-rounds": 3, "evaluate-every": 2, "train-split": "clean", "val-split": "none",
        "bad-images": "skip", "partition": "dirichlet", "partition-args": "alpha=0.5", "label-noise": "symmetric",
        "label-noise-args": "rate=0.4", "strategy": "fedadam", "strategy-args": "eta=0.1", "privacy": "server-fixed",
        "privacy-args": "clipping-norm=1.0", "max-update-ratio": 2.0, "payload": "bf16", "method": "elr",
        "method-args": "x=1", "model": "cnn", "pretrained": "imagenet", "normalization": "clothing1m",
        "augmentation": "flip", "precision": "fp32", "drop-last": False, "autotune": False, "compile": True,
        "momentum": 0.5, "trainable": "head", "trainable-args": "rank=2", "batchnorm": "frozen", "optimizer": "adamw",
        "optimizer-args": "eps=0.1", "lr-schedule": "cosine", "lr-schedule-args": "final=0.5", "test-split": "none",
        "eval-split": "own", "inspection": "both", "normalization-args": "mean=[0, 0, 0]", "stem": "small",
    }  # fmt: skip
    flat = CONFIG.to_flat()
    for key in flat.keys() - others.keys() - PLACES - {"data-dir", "num-clients"}:
        value = flat[key]
        others[key] = value + 1 if isinstance(value, int) else value / 2 if value else 0.5  # type: ignore[operator]
    marks = {mark(RunConfig.from_flat({**flat, key: value})) for key, value in others.items()}
    assert len(marks | {mark()}) == len(others) + 1


def test_clients_and_code_change_the_mark() -> None:
    assert len({mark(), mark(clients=5), mark(code="other")}) == 3


def test_the_sample_need_not_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = mark()
    assert not sample_folder().exists()
    draw_sample(sample_folder(), train=4, clean_train=2, val=2, test=2, image_size=16, seed=1)
    assert mark() == before


def test_data_are_what_they_hold_and_not_where_they_are(release: Path, tmp_path: Path) -> None:
    def of(folder: Path) -> str:
        return mark(replace(CONFIG, data_dir=str(folder)))

    before = of(release)
    copied = tmp_path / "copied"
    (copied).mkdir()
    for path in release.iterdir():
        target = copied / path.name
        target.symlink_to(path) if path.is_dir() else target.write_bytes(path.read_bytes())
    assert of(copied) == before != mark()
    lines = (copied / NOISY_LABELS).read_text().splitlines()
    key, label = lines[0].split()
    lines[0] = f"{key} {(int(label) + 1) % 14}"
    (copied / NOISY_LABELS).write_text("\n".join(lines) + "\n")
    relabelled = of(copied)
    assert relabelled != before
    (copied / CATEGORIES).write_text((copied / CATEGORIES).read_text().replace("Shawl", "Scarf"))
    assert len({before, relabelled, of(copied)}) == 3


def test_groups_change_the_mark(release: Path, tmp_path: Path) -> None:
    """Since they say who holds what with partition='natural'; their names alone change nothing."""

    def of(numbers: list[int], names: str) -> str:
        folder = Path(shutil.copytree(release, tmp_path / f"{names}-{sum(numbers)}"))
        keys = (folder / LIST_FILES["noisy_train"]).read_text().split()
        lines = [f"{key} {number}\n" for key, number in zip(keys, numbers, strict=True)]
        (folder / GROUPS).write_text("".join(lines))
        (folder / GROUP_NAMES).write_text("\n".join(names))
        return mark(replace(CONFIG, data_dir=str(folder), partition="natural"))

    first = of([0] * 6 + [1] * 6, "ab")
    assert first == of([0] * 6 + [1] * 6, "cd")
    assert len({first, of([0] * 5 + [1] * 7, "ab"), mark(replace(CONFIG, data_dir=str(release)))}) == 3


def test_a_pack_of_files_is_its_release_and_others_are_not(release: Path, tmp_path: Path) -> None:
    marks = [mark(replace(CONFIG, data_dir=str(release)))]
    for number, packing in enumerate((Packing(), Packing(16), Packing(16, decoded=True), Packing(32))):
        write_pack(open_release(release), tmp_path / f"{number}.pack", packing)
        marks.append(mark(replace(CONFIG, data_dir=str(tmp_path / f"{number}.pack"))))
    assert marks[0] == marks[1]
    assert len(set(marks)) == 4


def test_data_are_read_once(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counted(root: Path) -> object:
        opened.append(root)
        return open_release(root)

    monkeypatch.setattr("experiments.identity.open_release", counted)
    contents = Contents()
    config = replace(CONFIG, data_dir=str(release))
    assert mark_of(config, 4, contents, "") != mark_of(replace(config, seed=2), 4, contents, "")
    assert opened == [release]


@pytest.mark.parametrize(
    "changes",
    [
        {"pretrained": "{}.pt"},
        {"method": "forward", "method-args": "transition='{}.pt'"},
        {"partition": "file", "partition-args": "path='{}.pt'"},
    ],
)
def test_a_named_file_is_what_it_holds(changes: dict[str, str], tmp_path: Path) -> None:
    def of(name: str, content: str) -> str:
        (tmp_path / f"{name}.pt").write_text(content)
        named = {key: value.format(tmp_path / name) for key, value in changes.items()}
        return mark(RunConfig.from_flat({**CONFIG.to_flat(), **named}))

    assert of("a", "1") == of("a", "1") != of("a", "2")
    assert (of("a", "1") == of("b", "1")) == ("partition" in changes)  # only a partition may move and be resumed


NAMES = st.text(min_size=1, max_size=80)


@given(NAMES, NAMES | st.just(""), st.integers(0, 2**63 - 1))
def test_names_are_plain_folder_names(label: str, setting: str, seed: int) -> None:
    name = name_of(Row("", label, setting, seed, {}, {}, "0123abcd"))
    assert NAME.holds(name)
    assert len(name.encode()) <= 100
    assert name.endswith(f"s{seed}-0123abcd")
    assert name[0] not in "-."


def test_names_say_what_a_row_is() -> None:
    row = Row("", "gce, lr 0.1", "对称 40 %", 3, {}, {}, "0123abcd")
    assert name_of(row) == "gce-lr-0.1-对称-40-s3-0123abcd"
    assert name_of(replace(row, label="x" * 90, setting="")) == f"{'x' * 36}-s3-0123abcd"
