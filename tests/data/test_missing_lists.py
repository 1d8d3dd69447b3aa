"""A release without some of its lists: it opens, or one sentence says what it lacks."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from data.__main__ import app
from data.errors import DataError
from data.layout import index
from data.layout.finding import CATEGORIES, CLEAN_LABELS, LIST_FILES, NOISY_LABELS, TEXT_FILES
from data.pack_writer import Packing, write_pack
from data.release import SPLITS, Release, open_release
from data.summary import as_table, summarize
from tests.data.conftest import KEYS, LISTS, write_images, write_texts

Write = Callable[..., Path]
NEEDS = {"noisy_train": "'train-split'", "clean_train": "'train-split'", "clean_val": "'eval-split'",
         "clean_test": "'test-split'"}  # fmt: skip
SITE = {name.removesuffix(".txt"): None for name in (CLEAN_LABELS, *list(LIST_FILES.values())[1:])}
SERVER = {name.removesuffix(".txt"): None for name in (NOISY_LABELS, LIST_FILES["noisy_train"])}


def check_lists(release: Release, there: set[str]) -> None:
    """Each list is what it always was, or refused in one sentence; nothing depends on those that are missing."""
    for split in SPLITS:
        assert release.has(split) == (split in there)
        if split in there:
            assert [key.decode() for key in release.split(split).keys] == LISTS[split]
            assert release.split(split).labels.min() >= 0
            continue
        with pytest.raises(DataError) as refused:
            release.split(split)
        told = str(refused.value)
        assert f"{release.root} has no {LIST_FILES[split]}; without it " in told
        assert NEEDS[split] in told
        assert told.endswith(".")
        assert "\n" not in told
    keys, _, _ = release.double_labelled()
    both = {KEYS[8]: "clean_train", KEYS[9]: "clean_test"}
    listed = [key for key, split in both.items() if split in there]
    has_noisy = (release.index.noisy[release.index.clean >= 0] >= 0).any()
    assert sorted(key.decode() for key in keys) == (sorted(listed) if has_noisy else [])
    counted = summarize(release)
    assert set(counted.histograms) == there
    assert as_table(counted)


@given(st.sets(st.sampled_from(TEXT_FILES)), st.sets(st.sampled_from(TEXT_FILES)))
def test_whatever_files_are_there_it_opens_or_says_why_not(there: set[str], filled: set[str]) -> None:
    """Also if files are there and empty."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "release"
        missing = {name.removesuffix(".txt"): None for name in set(TEXT_FILES) - there}
        empty = {name.removesuffix(".txt"): "" for name in there - filled}
        write_texts(root, **missing, **empty)
        write_images(root / "images")
        listed = {split for split, file in LIST_FILES.items() if file in there}
        labels = {split: NOISY_LABELS if split == "noisy_train" else CLEAN_LABELS for split in SPLITS}
        opens = CATEGORIES in there & filled and listed and all(labels[split] in there for split in listed)
        if not opens:
            with pytest.raises(DataError) as refused:
                open_release(root)
            assert str(refused.value).endswith(".")
            assert "\n" not in str(refused.value)
            return
        release = open_release(root)
        full = {split for split in listed if LIST_FILES[split] in filled}
        if any(labels[split] not in filled for split in full):
            with pytest.raises(DataError, match=r"_label_kv\.txt is empty; it must have at least one line\.$"):
                _ = release.index
            return
        for split in listed - full:
            with pytest.raises(DataError, match=rf"{LIST_FILES[split]} is empty; without it .*{NEEDS[split]}"):
                release.split(split)
        if full == listed:
            check_lists(release, full)


@pytest.mark.parametrize(
    ("changes", "there"),
    [
        (SITE, {"noisy_train"}),
        ({**SITE, "clean_label_kv": "kept"}, {"noisy_train"}),
        (SERVER, {"clean_train", "clean_val", "clean_test"}),
        ({"clean_test_key_list": None}, {"noisy_train", "clean_train", "clean_val"}),
        ({**SERVER, "clean_train_key_list": None, "clean_val_key_list": None}, {"clean_test"}),
    ],
)
@pytest.mark.parametrize("packing", [Packing(), Packing(16, decoded=True)])
def test_folder_and_pack_are_the_same_and_check_names_what_is_missing(
    write_release: Write, tmp_path: Path, changes: dict[str, str | None], there: set[str], packing: Packing
) -> None:
    root = write_release(**{name: text for name, text in changes.items() if text != "kept"})
    check_lists(open_release(root), there)
    pack = tmp_path / "some.pack"
    write_pack(open_release(root), pack, packing)
    assert not write_pack(open_release(root), pack, packing)  # the same
    check_lists(open_release(pack), there)
    for one in (root, pack):
        done = CliRunner().invoke(app, ["check", str(one), "--out", str(tmp_path / "findings.tsv")])
        missing = [split for split in SPLITS if split not in there]
        assert done.exit_code == 0, done.output
        assert f"note  missing list: {len(missing)}\n" in done.output
        lines = [line for line in (tmp_path / "findings.tsv").read_text().splitlines() if line.startswith("missing")]
        assert sorted(line.split("\t")[1] for line in lines) == sorted(LIST_FILES[split] for split in missing)
        assert all(line.split("\t")[2].startswith("without it ") for line in lines)


def test_a_pack_is_byte_for_byte_what_it_was(write_release: Write, tmp_path: Path) -> None:
    """So that packs made before lists could be missing are read, and any code that reads packs reads these."""
    root = write_release()
    for number, key in enumerate(KEYS):
        (root / key).write_bytes(bytes([number]) * 50)
    write_pack(open_release(root), tmp_path / "whole.pack", Packing())
    digest = hashlib.sha256((tmp_path / "whole.pack").read_bytes()).hexdigest()
    assert digest == "3da5c349d117a70f18d3dcfd11143ed001b5d2478661874914eed96922cb584a"


def test_a_list_needs_its_labels(write_release: Write) -> None:
    for changes, told in (
        ({"noisy_label_kv": None}, r"noisy_label_kv\.txt is missing; the images of noisy_train_key_list\.txt need"),
        ({"clean_label_kv": None}, r"clean_label_kv\.txt is missing; the images of clean_train_key_list\.txt need"),
        ({"category_names_eng": None}, r"category_names_eng\.txt is missing; a release has the names of its classes\."),
    ):
        root = write_release(**changes)
        with pytest.raises(DataError, match=told):
            open_release(root)
        for path in root.glob("*.txt"):
            path.unlink()


def test_a_link_that_leads_nowhere_is_no_missing_list(write_release: Write) -> None:
    """A disk that is not mounted must not turn a release into one without its lists."""
    root = write_release(clean_test_key_list=None)
    (root / "clean_test_key_list.txt").symlink_to("/nowhere/clean_test_key_list.txt")
    with pytest.raises(DataError, match=r"clean_test_key_list\.txt is missing; it is part of the release\."):
        open_release(root).split("noisy_train")


def test_the_cache_notices_that_a_list_appears_or_disappears(
    write_release: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SETTLED", -1.0)
    built = []
    build = index.build_index

    def counted(*args: Any) -> index.Index:
        built.append(args)
        return build(*args)

    monkeypatch.setattr(index, "build_index", counted)
    root = write_release()
    away = root / "away.txt"
    check_lists(open_release(root), set(SPLITS))
    check_lists(open_release(root), set(SPLITS))
    assert len(built) == 1  # read from the cache since
    for number, split in enumerate(("clean_test", "clean_val", "noisy_train")):
        (root / LIST_FILES[split]).rename(away)
        check_lists(open_release(root), set(SPLITS) - {split})
        check_lists(open_release(root), set(SPLITS) - {split})
        assert len(built) == 2 + 2 * number
        away.rename(root / LIST_FILES[split])
        check_lists(open_release(root), set(SPLITS))
        assert len(built) == 3 + 2 * number


def test_an_import_into_one_list(tmp_path: Path) -> None:
    for name, count in (("cats", 3), ("dogs", 40), ("owls", 0)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "photos" / name / f"{number}.png")

    def imported(*options: str) -> tuple[Release | None, str]:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        done = CliRunner().invoke(app, ["import", str(tmp_path / "photos"), "--out", str(out), *options])
        return (open_release(out) if done.exit_code == 0 else None), done.output + str(done.exception or "")

    release, said = imported("--only", "noisy_train")
    assert release is not None, said
    split = release.split("noisy_train")
    assert np.bincount(split.labels, minlength=3).tolist() == [3, 40, 0]
    assert split.true.tolist() == [-1] * 43  # a site's own labels may be wrong
    assert {path.name for path in release.root.iterdir()} == {
        "category_names_eng.txt", "category_names_chn.txt", "noisy_label_kv.txt", "noisy_train_key_list.txt", "images",
        "originals.tsv",
    }  # fmt: skip
    assert "43 noisy_train images.\n" in said
    assert "test-split='none' val-split='none'" in said
    release, said = imported("--only", "noisy_train", "--noise-rate", "0.5")
    assert release is not None, said
    split = release.split("noisy_train")
    assert np.bincount(split.true, minlength=3).tolist() == [3, 40, 0]
    assert 0.2 < (split.true != split.labels).mean() < 0.8
    release, said = imported("--only", "clean_test")
    assert release is not None, said
    assert np.bincount(release.split("clean_test").labels, minlength=3).tolist() == [3, 40, 0]
    assert [release.has(name) for name in SPLITS] == [False, False, False, True]
    assert said.splitlines()[-1].endswith("43 clean_test images.")
    for options, told in (
        (("--only", "test"), "--only is 'test'; it must be one of noisy_train, clean_train, clean_val, clean_test."),
        (
            ("--only", "clean_test", "--val", "0.2"),
            "--only puts all images into clean_test; leave out --val, or --only.",
        ),
        (("--only", "clean_test", "--noise-rate", "0.2"), "with --only clean_test no label is noisy; leave it out."),
        ((), "class 'cats' has 3 images; it must have at least 4, one for each list."),
    ):
        release, said = imported(*options)
        assert release is None
        assert told in said
