"""Labels of which no more is known than that they are wrong: kept in a file of their own, and counted as wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message
from typer.testing import CliRunner

from client_app.app import app as client_app
from client_app.dealing import with_label_noise
from config.run_config import RunConfig
from data.__main__ import app
from data.check import begin_check
from data.errors import DataError
from data.layout.finding import WRONG, WRONG_LABELS
from data.layout.writer import Labelled, write_annotations
from data.match import match_names
from data.noise_text import noise_text
from data.pack_writer import Packing, write_pack
from data.release import Split, open_release
from data.summary import Pairs, Summary, as_table, summarize
from data.whole_folders import complete_or_absent
from runs.labels.doubted import read_doubted
from runs.labels.photos import Photos
from runs.labels.truth import score
from tests.data.made_sets import write_image
from tests.fakes import run_in_process
from tests.runs.kept import write_state

KEYS = [f"images/{number % 10}/00/{number},{number}.jpg" for number in range(12)]
# Of noisy train: right, wrong, unknown, wrong without a true label, likewise, right.
TRUE = [0, 1, -1, WRONG, WRONG, 2]
NOISY = [0, 2, 1, 1, 0, 2]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Six images of noisy train, two of each clean list."""
    unknown = np.full(2, -1)
    splits = {"noisy_train": Labelled(KEYS[:6][::-1], np.array(TRUE[::-1]), np.array(NOISY[::-1]))}
    for place, name in enumerate(("clean_train", "clean_val", "clean_test")):
        splits[name] = Labelled(KEYS[6 + 2 * place : 8 + 2 * place], np.array([0, 2]), unknown)
    with complete_or_absent(tmp_path / "release") as folder:
        write_annotations(folder, ["a", "b", "c"], ["a", "b", "c"], splits, np.random.default_rng(1))
        for number, key in enumerate(KEYS):
            write_image(folder / key, (20 * number, 0, 0))
    return tmp_path / "release"


def test_the_file_is_a_sorted_list_of_keys_and_true_labels_are_apart(release: Path) -> None:
    assert (release / "wrong_label_key_list.txt").read_text() == f"{KEYS[3]}\n{KEYS[4]}"
    lines = (release / "true_label_kv.txt").read_text().splitlines()
    assert sorted(lines) == [f"{KEYS[0]} 0", f"{KEYS[1]} 1", f"{KEYS[5]} 2"]
    split = open_release(release).split("noisy_train")
    assert [key.decode() for key in split.keys.tolist()] == KEYS[:6]
    assert (split.true.tolist(), split.labels.tolist()) == (TRUE, NOISY)


def test_without_such_labels_there_is_no_file(tiny_sample: Path) -> None:
    assert not (tiny_sample / WRONG_LABELS).exists()


def test_a_list_that_changes_is_read_again(release: Path) -> None:
    open_release(release).split("noisy_train")
    (release / WRONG_LABELS).write_bytes(b"\xef\xbb\xbf" + f"{KEYS[2]}\r\n{KEYS[4]}\r\n".encode())
    assert open_release(release).split("noisy_train").true.tolist() == [0, 1, WRONG, -1, WRONG, 2]
    (release / WRONG_LABELS).unlink()
    assert open_release(release).split("noisy_train").true.tolist() == [0, 1, -1, -1, -1, 2]


def test_it_may_cover_more_than_noisy_train_which_check_notes(release: Path) -> None:
    """As after somebody has taken images out of the lists."""
    (release / WRONG_LABELS).write_text("\n".join([KEYS[3], KEYS[11], "images/0/00/99,99.jpg"]))
    assert open_release(release).split("noisy_train").true.tolist() == [0, 1, -1, WRONG, -1, 2]
    assert open_release(release).split("clean_test").true.tolist() == [0, 2]
    findings = begin_check(release).findings
    assert [subject for subject, _ in findings.found["unlisted key"]] == ["images/0/00/99,99.jpg", KEYS[11]]
    assert findings.num_problems == 0


REFUSED = {
    "a true label as well": (KEYS[0], r"has images/0/00/0,0\.jpg, whose true label is known; it must hold only images"),
    "a key twice": (f"{KEYS[3]}\n{KEYS[3]}", r"line 2: .* is in line 1 already; a key must appear once\."),
    "a label": (f"{KEYS[3]} 1", r"line 1 is .*; it must be one key and nothing else\."),
    "a blank line": (f"{KEYS[3]}\n\n{KEYS[4]}", r"line 2 is ''; it must be a key"),
    "climbing": ("images/../x.jpg", r"line 1 is .*; it must be a key without '/\.\.'"),
    "absolute": ("/images/0/00/1,1.jpg", r"line 1 is .*; it must be a key that starts with images/"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_run_refuses_check_finds(release: Path, kind: str) -> None:
    text, sentence = REFUSED[kind]
    (release / WRONG_LABELS).write_text(text)
    with pytest.raises(DataError, match=sentence) as error:
        open_release(release).split("noisy_train")
    assert "wrong_label_key_list.txt" in str(error.value)
    assert begin_check(release).findings.num_problems == 1


@pytest.mark.parametrize("packing", [Packing(), Packing(image_size=16, decoded=True)])
def test_packs_keep_them(release: Path, packing: Packing, tmp_path: Path) -> None:
    write_pack(open_release(release), tmp_path / "one.pack", packing)
    assert open_release(tmp_path / "one.pack").split("noisy_train").true.tolist() == TRUE
    assert begin_check(tmp_path / "one.pack").findings.num_problems == 0


def test_a_release_of_links_has_them_too(release: Path, tmp_path: Path) -> None:
    (release / KEYS[0]).rename((release / KEYS[0]).with_suffix(".JPG"))
    match_names(release, tmp_path / "matched")
    assert open_release(tmp_path / "matched").split("noisy_train").true.tolist() == TRUE


def test_nothing_is_known_of_a_label_that_noise_puts_in_place_of_a_wrong_one(release: Path) -> None:
    split = open_release(release).split("noisy_train")
    changed = split.with_labels(np.array([1, 2, 1, 2, 0, 2], np.int32))  # of images 0 and 3
    assert changed.true.tolist() == [0, 1, -1, -1, WRONG, 2]
    assert changed.true.dtype == np.int32
    assert split.true.tolist() == TRUE
    many = Split("noisy_train", np.repeat(split.keys, 50), np.repeat(split.labels, 50), np.repeat(split.true, 50))
    noise = RunConfig(label_noise="symmetric", label_noise_args="rate=0.5")
    noisy = with_label_noise(many, noise, 3, 0, 1)
    was_wrong, stays = many.true == WRONG, noisy.labels == many.labels
    assert 0 < (was_wrong & ~stays).sum() < was_wrong.sum()
    np.testing.assert_array_equal(noisy.true, np.where(was_wrong & ~stays, -1, many.true))


def test_show_counts_them_in_the_rate_and_not_in_the_matrix(release: Path, tmp_path: Path) -> None:
    """Known: 5 of 6 labels, of which 3 are wrong; of three true classes one is labelled as another."""
    summary = summarize(open_release(release))
    assert (len(summary.drawn), summary.known_wrong) == (3, 2)
    assert as_table(summary).splitlines()[-2:] == [
        "3 images of noisy train have a known true label; 66.7% of their noisy labels are right.",
        "2 noisy labels are known to be wrong, while nobody knows what their images show.",
    ]
    said = CliRunner().invoke(app, ["show", str(release)])
    assert said.output.splitlines()[-6:] == [
        "Noise rate of noisy train: 60.0% (3 of 5 labels of which it is known whether they are right).",
        "Noise matrix: of the images that show a class (row), the percentage with each given label (column).",
        "     true class    0    1    2       images",
        "  0  a           100    .    .            1",
        "  1  b             .    .  100            1",
        "  2  c             .    .  100            1",
    ]
    write_pack(open_release(release), tmp_path / "r.pack", Packing())
    assert CliRunner().invoke(app, ["show", str(tmp_path / "r.pack")]).output == said.output


def _summary(classes: int, true: list[int], noisy: list[int], known_wrong: int = 0) -> Summary:
    none = Pairs(np.empty(0, np.int16), np.empty(0, np.int16))
    drawn = Pairs(np.array(true, np.int16), np.array(noisy, np.int16))
    return Summary(tuple(f"class {number}" for number in range(classes)), {}, none, drawn, known_wrong)


def test_of_many_classes_the_largest_confusions_are_listed() -> None:
    """Of 300 classes: 1 -> 2 three times of eight, 299 -> 0 twice of two, 7 -> 8, 7 -> 9, ... once each."""
    pairs = [(1, 2)] * 3 + [(1, 1)] * 5 + [(299, 0)] * 2 + [(7, given) for given in range(8, 20)]
    true, noisy = ([pair[place] for pair in pairs] for place in (0, 1))
    lines = noise_text(_summary(300, true, noisy)).splitlines()
    assert lines[0] == (
        "Noise rate of noisy train: 77.3% (17 of 22 labels of which it is known whether they are right)."
    )
    assert lines[2:6] == [
        "class 1 -> class 2 37.5 % (3 of 8 images)",
        "class 299 -> class 0 100.0 % (2 of 2 images)",
        "class 7 -> class 8 8.3 % (1 of 12 images)",
        "class 7 -> class 9 8.3 % (1 of 12 images)",
    ]
    assert len(lines) == 2 + 10


def test_what_is_not_known_is_not_printed() -> None:
    assert noise_text(_summary(3, [], [])) == ""
    assert noise_text(_summary(3, [], [], known_wrong=4)).splitlines() == [
        "Noise rate of noisy train: 100.0% (4 of 4 labels of which it is known whether they are right)."
    ]
    assert len(noise_text(_summary(300, [5, 5], [5, 5])).splitlines()) == 1  # nothing is confused
    matrix = noise_text(_summary(3, [0, 0, 0], [0, 0, 1])).splitlines()
    assert matrix[-1].split() == ["2", "class", "2", ".", ".", ".", "0"]
    assert matrix[-3].split() == ["0", "class", "0", "67", "33", ".", "3"]


def test_the_label_report_counts_them_and_not_those_that_a_runs_noise_changed(release: Path, tmp_path: Path) -> None:
    """Ranked by margins: image 3 (wrong, as it is), 0 (right), 1 (wrong), 4 (changed by noise), 5 (right)."""
    rows, given, margins = [3, 0, 1, 4, 5], [1, 0, 2, 2, 2], [-3, -2, -1, 0, 1]
    write_state(
        tmp_path / "run", 0, [KEYS[row].encode() for row in rows], given, margins, [2, 0, 1, 2, 2], root=release,
        classes=("a", "b", "c"),
    )  # fmt: skip
    doubted = read_doubted(tmp_path / "run")
    true = Photos(doubted.roots).true(doubted)
    assert true.tolist() == [WRONG, 0, 1, -1, 2]
    found = score(doubted, true)
    assert found is not None
    assert (found.known, found.true_known, found.wrong, found.auc) == (4, 3, 2, 0.75)
    assert found.suggested == 1.0  # of image 1 alone: what image 3 shows nobody knows
    assert found.sentence().startswith(
        "Of 4 images it is known whether their labels are right: 2 labels (50.0 %) are wrong."
    )
    assert found.sentence().endswith(" is right for 100.0 % of the wrong labels whose true class is known.")
    alone = score(doubted, np.array([WRONG, 0, -1, -1, 2]))
    assert alone is not None
    assert alone.suggested is None
    assert "suggested" not in alone.sentence()


@pytest.fixture
def with_verdicts(tiny_sample: Path, tmp_path: Path) -> Callable[[], Path]:
    """The sample, of whose wrong labels no more is known than that: the noise rate stays what it was."""

    def make() -> Path:
        shutil.copytree(tiny_sample, tmp_path / "verdicts")
        split = open_release(tiny_sample).split("noisy_train")
        wrong = {key.decode() for key in split.keys[split.labels != split.true].tolist()}
        assert 20 < len(wrong) < 100
        path = tmp_path / "verdicts" / "true_label_kv.txt"
        lines = [line for line in path.read_text().splitlines() if line.split(" ")[0] not in wrong]
        path.write_text("".join(f"{line}\n" for line in lines))
        (tmp_path / "verdicts" / WRONG_LABELS).write_text("\n".join(sorted(wrong)))
        return tmp_path / "verdicts"

    return make


def test_a_client_counts_them_when_noisy_clients_are_looked_for(
    with_verdicts: Callable[[], Path], tiny_sample: Path, tmp_path: Path
) -> None:
    """FedNoRo's server hears as many known and as many wrong labels as if all true ones were known."""
    answers: dict[str, list[tuple[int, float, float]]] = {"exact": [], "verdicts": []}
    places = {"exact": tiny_sample, "verdicts": with_verdicts()}
    assert summarize(open_release(places["verdicts"])).drawn.agreement == 1.0
    for name, place in places.items():
        found = answers[name]

        def handler(message: Message, context: Context, found: list[tuple[int, float, float]] = found) -> Message:
            reply = client_app(message, context)
            if message.metadata.message_type.endswith("class_losses"):
                metrics = reply.content.metric_records["metrics"]
                known, wrong = metrics["images-known"], metrics["labels-wrong"]
                found.append((int(context.node_config["partition-id"]), float(str(known)), float(str(wrong))))
            return reply

        run_in_process(
            tmp_path / name, clients=3, handler=handler, data_dir=str(place), method="fednoro",
            method_args="warm-up-rounds=1", model="cnn", image_size=16, fraction_train=1.0, num_server_rounds=2,
        )  # fmt: skip
    assert answers["verdicts"] == answers["exact"]
    assert sorted(partition for partition, _, _ in answers["exact"]) == [0, 1, 2]
    assert all(known == 40 and 5 < wrong < 30 for _, known, wrong in answers["exact"])
