"""What a label report shows of the images, and how well it ranks them, where their truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.contact_sheet import MOST
from data.release import open_release
from runs.labels import command
from runs.labels.doubted import read_doubted
from runs.labels.photos import Photos
from runs.labels.sheets import numbered, tile_of
from runs.labels.truth import score
from tests.runs.kept import Runs, key, rows_of, write_state


@pytest.fixture
def on_sample(tiny_sample: Path, tmp_path: Path) -> Path:
    """A run's states on ten images of the sample, whose margins are lower where labels are wrong, but for one pair."""
    split = open_release(tiny_sample).split("noisy_train")
    wrong = np.flatnonzero(split.labels != split.true)[:4]
    right = np.flatnonzero(split.labels == split.true)[:6]
    part = split.take(np.concatenate([wrong, right]))
    margins = [-4, -3, -2, 1, 0, 2, 3, 4, 5, 6]
    names = open_release(tiny_sample).class_names
    predicted = np.concatenate([part.true[:3], part.labels[3:]])
    write_state(
        tmp_path / "run", 0, part.keys.tolist(), part.labels.tolist(), margins, predicted.tolist(),
        root=tiny_sample, classes=names,
    )  # fmt: skip
    return tmp_path / "run"


def test_the_ranking_is_judged_where_the_truth_is_known(on_sample: Path, tmp_path: Path, runs: Runs) -> None:
    """One of 4 x 6 pairs of a wrong and a right label stands in the wrong order."""
    said = runs("labels", on_sample.parent, "--out", tmp_path / "out", "--json")
    assert said.json["truth"] == {
        "known": 10, "true-known": 10, "wrong": 4, "auc": pytest.approx(23 / 24), "first-tenth": 1.0,
        "first-as-many": 0.75, "missed": 0.25, "suggested": 0.75,
    }  # fmt: skip
    assert said.json["labelled-differently"] == 3
    assert said.json["folder"] == str(tmp_path / "out")
    assert sum(sheet["images"] for sheet in said.json["sheets"]) == 10
    assert sum(sheet["unreadable"] for sheet in said.json["sheets"]) == 0
    text = runs("labels", on_sample.parent).out
    assert (
        "True classes of 10 images are known: 4 labels (40.0 %) are wrong. ROC AUC of the ranking 0.958; 100.0 % of its"
        " first tenth are wrong, and 75.0 % of its first 4, which miss 25.0 % of the wrong labels. The suggested"
        " class is right for 75.0 % of the wrong labels.\n"
    ) in text


def test_there_is_nothing_to_judge_without_a_wrong_label(on_sample: Path) -> None:
    doubted = read_doubted(on_sample)
    assert score(doubted, doubted.given) is None
    assert score(doubted, (doubted.given + 1) % 14) is None
    assert score(doubted, np.full(10, -1)) is None


def test_sheets_show_the_images(on_sample: Path, tiny_sample: Path, tmp_path: Path, runs: Runs) -> None:
    sheet = runs("labels", on_sample.parent, "--out", tmp_path / "out", "--json").json["sheets"][0]
    with Image.open(tmp_path / "out" / sheet["file"]) as image:
        colours = np.unique(np.asarray(image).reshape(-1, 3), axis=0)
    assert len(colours) > 1000
    row = next(row for row in rows_of(tmp_path / "out") if row["given"] == str(sheet["label"]))
    assert Path(row["file"]) == tiny_sample / row["key"]


def test_images_that_cannot_be_read_have_a_place(
    on_sample: Path, tiny_sample: Path, tmp_path: Path, runs: Runs
) -> None:
    doubted = read_doubted(on_sample)
    names = open_release(tiny_sample).class_names
    write_state(
        on_sample, 0, [*doubted.keys.tolist(), key(0)], [*doubted.given.tolist(), 0], [*doubted.margins.tolist(), -9],
        root=tiny_sample, classes=names, server_round=2,
    )  # fmt: skip
    said = runs("labels", on_sample.parent, "--out", tmp_path / "out")
    assert (
        "1 of 11 images on the sheets cannot be read; if they have moved, --data names where they are now.\n"
        in said.out
    )
    assert len(rows_of(tmp_path / "out")) == 11


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A site's own photos, in a folder per class; the second class has no letter that the font of sheets knows."""
    for name, file in (("T Shirt", "photo 5%.jpg"), ("\u886c\u886b", "1.jpg")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "photos" / name / file)
    return tmp_path / "photos"


@pytest.mark.parametrize("is_there", [True, False])
def test_tiles_name_the_photo_and_the_number_of_the_class(photos: Path, is_there: bool, tmp_path: Path) -> None:
    release = open_release(photos)
    keys = release.index.keys.tolist()
    assert keys[0] == b"images/T%20Shirt/photo%205%25.jpg"
    root = photos if is_there else tmp_path / "gone"
    write_state(tmp_path / "run", 0, keys, [0, 1], [1, 2], [1, 1], root=root, classes=release.class_names)
    doubted = read_doubted(tmp_path / "run")
    opened = Photos(doubted.roots)
    tiles = [tile_of(doubted, opened, row) for row in range(2)]
    assert [tile.lines[2] for tile in tiles] == ["photo 5%.jpg", "1.jpg"]
    assert [tile.lines[0] for tile in tiles] == ["50.0 %  01 \u886c\u886b", "50.0 %  keep"]
    assert [tile.pixels is not None for tile in tiles] == [is_there] * 2
    assert numbered(doubted, 0) == "00 T Shirt"


def test_photos_that_have_moved_are_named(photos: Path, tmp_path: Path, runs: Runs) -> None:
    release = open_release(photos)
    keys = release.index.keys.tolist()
    write_state(tmp_path / "run", 0, keys, [0, 1], [1, 2], root=photos, classes=release.class_names)
    photos.rename(tmp_path / "elsewhere")
    assert "if it has moved, --data names where it is now." in runs("labels", tmp_path / "run").out
    there = runs("labels", tmp_path / "run", "--json", "--data", tmp_path / "elsewhere").json["sheets"]
    assert not any(sheet["unreadable"] for sheet in there)


def test_data_that_has_moved_is_named(on_sample: Path, tiny_sample: Path, tmp_path: Path, runs: Runs) -> None:
    doubted = read_doubted(on_sample)
    moved = tmp_path / "moved" / "run"
    write_state(
        moved, 0, doubted.keys.tolist(), doubted.given.tolist(), doubted.margins.tolist(),
        classes=open_release(tiny_sample).class_names,
    )  # fmt: skip
    gone = runs("labels", moved, "--json").json["sheets"]
    there = runs("labels", moved, "--json", "--data", tiny_sample).json["sheets"]
    assert all(sheet["unreadable"] == sheet["shown"] for sheet in gone)
    assert not any(sheet["unreadable"] for sheet in there)
    wrong = runs("labels", moved, "--data", tmp_path / "nowhere")
    assert wrong.code == 1
    assert "nowhere does not exist; it must be a folder in Clothing1M's released layout." in wrong.err


@pytest.mark.parametrize("top", [1, 2])
def test_a_sheet_has_the_first_of_its_class(tmp_path: Path, runs: Runs, top: int) -> None:
    write_state(tmp_path / "run", 0, [key(1), key(2), key(3)], [0, 0, 1], [1, 2, 3])
    sheets = runs("labels", tmp_path, "--top", top, "--json").json["sheets"]
    assert [(sheet["images"], sheet["shown"]) for sheet in sheets] == [(2, top), (1, 1)]


def test_nothing_is_written_into_a_dataset(on_sample: Path, tiny_sample: Path, tmp_path: Path, runs: Runs) -> None:
    said = runs("labels", on_sample.parent, "--out", tiny_sample / "report")
    assert said.code == 1
    assert f"which is inside the dataset {tiny_sample}; it must be elsewhere." in said.err
    assert not (tiny_sample / "report").exists()


def test_the_most_images_of_a_sheet_are_those_that_it_has_room_for() -> None:
    assert command.MOST == MOST


def test_the_same_states_give_the_same_report(on_sample: Path, tmp_path: Path, runs: Runs) -> None:
    def written(folder: Path) -> dict[str, Any]:
        runs("labels", on_sample.parent, "--out", folder)
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert written(tmp_path / "a") == written(tmp_path / "b")
