"""`python -m runs labels`: what the model doubts, in the right order, and nothing that a spreadsheet would run."""

from pathlib import Path

import numpy as np
import pytest

from client_app.client_state import FORMAT
from data.release import open_release
from data.sealed import write_sealed
from runs.labels.doubted import read_doubted
from runs.labels.sheets import file_of
from tests.fakes import run_in_process
from tests.runs.kept import CLASSES, Runs, key, rows_of, write_state


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Two clients of one run, without images: mean margins -2, 1 and -2 (of four visits), -3."""
    folder = tmp_path / "state-dir" / "run"
    write_state(folder, 0, [key(5), key(2)], [0, 1], [-2, 1], [1, 1])
    write_state(folder, 7, [key(1), key(9)], [2, 1], [-8, -12], [0, 1], visits=4)
    return folder.parent


def test_images_are_ranked_by_mean_margin(state: Path, tmp_path: Path, runs: Runs) -> None:
    """Equal margins stand in the order of clients, whose numbers of visits differ."""
    said = runs("labels", state, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    rows = rows_of(tmp_path / "out")
    ranking = [(row["rank"], row["client"], row["key"], row["mean-margin"], row["visits"]) for row in rows]
    assert ranking == [
        ("1", "7", "images/0/00/9,9.jpg", "-3.0000", "4"),
        ("2", "0", "images/0/00/5,5.jpg", "-2.0000", "1"),
        ("3", "7", "images/0/00/1,1.jpg", "-2.0000", "4"),
        ("4", "0", "images/0/00/2,2.jpg", "1.0000", "1"),
    ]
    assert [row["given"] for row in rows] == ["1", "0", "2", "1"]
    assert [row["suggested"] for row in rows] == ["1", "1", "0", "1"]
    assert [row["suggested-name"] for row in rows] == ["keep", "'=x", "a/b", "keep"]
    assert {row["probability"] for row in rows} == {"0.5000"}
    assert "believed" not in rows[0]
    assert said.out.startswith("4 images of 2 clients: the model would label 2 differently.\n")


def test_equal_margins_of_a_client_stand_in_the_order_of_keys(tmp_path: Path) -> None:
    write_state(tmp_path / "run", 0, [key(3), key(1), key(2)], [0, 0, 0], [1, 1, 1])
    assert read_doubted(tmp_path).keys.tolist() == [key(1), key(2), key(3)]


def test_what_is_no_number_comes_last_and_is_an_empty_cell(tmp_path: Path, runs: Runs) -> None:
    """After a model that diverged; a spreadsheet would take -inf for a formula."""
    write_state(tmp_path / "run", 0, [key(1), key(2), key(3)], [0, 0, 0], [np.nan, 5, -np.inf])
    assert runs("labels", tmp_path, "--out", tmp_path / "out").code == 0
    found = [(row["key"][-5], row["mean-margin"]) for row in rows_of(tmp_path / "out")]
    assert found == [("3", ""), ("2", "5.0000"), ("1", "")]


def test_sites_may_have_the_same_keys(tmp_path: Path) -> None:
    """Whoever imports photos with the same seed draws the same ones."""
    for client in (0, 1):
        write_state(tmp_path / "run", client, [key(1)], [client], [client])
    doubted = read_doubted(tmp_path)
    assert doubted.keys.tolist() == [key(1)] * 2
    assert doubted.given.tolist() == [0, 1]


def test_no_cell_is_a_formula(tmp_path: Path, runs: Runs) -> None:
    classes = ["=x", "+1", "-1", "@SUM(A1)", "\u4e1c"]
    keys = [key(number) for number in range(5)]
    write_state(tmp_path / "run", 0, keys, range(5), range(5), [1, 2, 3, 4, 0], classes=classes)
    runs("labels", tmp_path, "--out", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["given-name"] for row in rows] == ["'=x", "'+1", "'-1", "'@SUM(A1)", "\u4e1c"]
    assert [row["suggested-name"] for row in rows] == ["'+1", "'-1", "'@SUM(A1)", "\u4e1c", "'=x"]
    numbers = ("mean-margin", "probability")  # a minus sign before digits is no formula
    assert not [
        value for row in rows for name, value in row.items() if name not in numbers and value[:1] in "=+-@" and value
    ]


def test_what_a_method_believes_is_told(tmp_path: Path, runs: Runs) -> None:
    write_state(tmp_path / "run", 0, [key(1), key(2)], [0, 1], [1, 2], more={"corrected": np.array([2, 1], np.int32)})
    write_state(tmp_path / "run", 1, [key(3)], [0], [3])
    runs("labels", tmp_path, "--out", tmp_path / "out")
    assert [(row["believed"], row["believed-name"]) for row in rows_of(tmp_path / "out")] == [
        ("2", CLASSES[2]),
        ("1", "'=x"),
        ("", ""),
    ]


def test_sheets_are_named_whatever_classes_are_called(state: Path, tmp_path: Path, runs: Runs) -> None:
    runs("labels", state, "--out", tmp_path / "out")
    sheets = sorted(path.name for path in (tmp_path / "out" / "sheets").iterdir())
    assert sheets == ["00-a-b.jpg", "01-x.jpg", f"02-{'Y' * 40}.jpg"]
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert all(f'src="sheets/{name}"' in page for name in sheets)


@pytest.mark.parametrize(
    ("name", "file"), [("../x", "x"), ("...", ""), ("\u886c\u886b", "\u886c\u886b"), ("\u886c" * 200, "\u886c" * 40)]
)
def test_no_class_leads_out_of_the_folder(name: str, file: str) -> None:
    assert file_of(3, name) == f"sheets/03{'-' * bool(file)}{file}.jpg"


def test_a_name_is_shown_as_it_is_on_the_page(tmp_path: Path, runs: Runs) -> None:
    classes = ["<script>alert(1)</script>", "{images}"]
    write_state(tmp_path / "run", 0, [key(1), key(2)], [0, 1], [1, 2], classes=classes)
    runs("labels", tmp_path, "--out", tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert ">01 {images}<" in page


def test_without_its_images_a_report_has_the_table_and_says_so(state: Path, tmp_path: Path, runs: Runs) -> None:
    said = runs("labels", state, "--out", tmp_path / "out")
    assert (
        "Images of 2 clients cannot be shown, since their data is gone; if it has moved, --data names where it is now."
        " Of client 0: /nowhere does not exist"
    ) in said.out
    assert [row["file"] for row in rows_of(tmp_path / "out")] == [""] * 4
    assert "their data is gone" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_a_report_is_beside_the_states_and_never_over_another(state: Path, tmp_path: Path, runs: Runs) -> None:
    """In the current folder it might travel with the app, or be committed."""
    for name in ("label-report", "label-report-2"):
        assert runs("labels", state, "--json").json["folder"] == str(state / "run" / name)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    said = runs("labels", state, "--out", tmp_path / "full")
    assert said.code == 1
    assert "full exists already; it must be a folder that does not exist yet, or an empty one." in said.err


def test_a_report_of_a_run_is_in_its_folder(home: Path, runs: Runs) -> None:
    run = home / "clothing1m-fl-runs" / "mine"
    write_state(run / "state" / "abc", 0, [key(1)], [0], [1])
    (run / "config.toml").touch()
    said = runs("labels", "mine", "--json").json
    assert (said["folder"], said["run"]) == (str(run / "label-report"), "mine")
    page = (run / "label-report" / "index.html").read_text(encoding="utf-8")
    assert "1 image of 1 client, run mine." in page
    assert 'alt="the most doubted image"' in page
    assert runs("labels", run / "state", "--json").json["run"] == "abc"


def test_what_has_no_report_is_told_in_a_sentence(tmp_path: Path, runs: Runs) -> None:
    def refusal(folder: Path) -> str:
        said = runs("labels", folder, "--out", tmp_path / "out")
        assert said.code == 1
        assert said.err.count("\n") == 1
        assert not (tmp_path / "out").exists()
        return said.err

    (tmp_path / "empty").mkdir()
    assert (
        "empty has no clients' state; it must be a run's folder, or that run's 'state-dir', and the run's"
        in refusal(tmp_path / "empty")
    )
    assert "RUN is " in refusal(tmp_path / "nowhere")
    path = write_state(tmp_path / "states" / "one", 0, [key(1)], [0], [1])
    write_sealed(path, FORMAT, {"digest": "d"}, {"state/x": np.zeros(1)})
    assert "the run's 'inspection' was none, so the next run must set it to before or both." in refusal(
        tmp_path / "states"
    )
    write_state(tmp_path / "states" / "two", 0, [key(1)], [0], [1])
    assert "has clients of the runs one, two; it must be the folder of one of them, such as" in refusal(
        tmp_path / "states"
    )


def test_the_newest_state_that_is_valid_is_used(tmp_path: Path, runs: Runs) -> None:
    for server_round, margin in ((1, 1), (2, 2), (3, 3)):
        newest = write_state(tmp_path / "run", 0, [key(1)], [0], [margin], server_round=server_round)
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    said = runs("labels", tmp_path, "--out", tmp_path / "out")
    assert said.code == 0
    assert said.err.endswith("using round-00002.safetensors, the newest state that is valid.\n")
    assert rows_of(tmp_path / "out")[0]["mean-margin"] == "2.0000"


def test_a_run_leaves_what_a_report_needs(tiny_sample: Path, tmp_path: Path, runs: Runs) -> None:
    """Two of its four clients are asked in each of three rounds; `elr` also says what it believes."""
    run = run_in_process(
        tmp_path, data_dir=str(tiny_sample), method="elr", model="cnn", image_size=16, num_server_rounds=3,
        inspection="before",
    )  # fmt: skip
    said = runs("labels", run, "--json").json
    rows = rows_of(Path(said["folder"]))
    visits = {row["client"]: int(row["visits"]) for row in rows}
    assert sum(visits.values()) == 6
    assert len(rows) == said["images"] == 30 * len(visits)
    split = open_release(tiny_sample).split("noisy_train")
    given = dict(zip(split.keys.tolist(), split.labels.tolist(), strict=True))
    assert [given[row["key"].encode()] for row in rows] == [int(row["given"]) for row in rows]
    assert all(row["believed-name"] in open_release(tiny_sample).class_names for row in rows)
    assert said["truth"]["known"] == said["images"]
    assert not any(sheet["unreadable"] for sheet in said["sheets"])
