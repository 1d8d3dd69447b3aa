"""What a check that was stopped has written down: the next one goes on from there."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.check import begin_check
from data.check import images as check_images
from data.errors import DataError
from tests.data.test_check import check, zero_bytes


@pytest.fixture
def root(tiny_sample: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_sample, tmp_path / "release"))


def test_a_stopped_check_resumes_and_reads_bad_images_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero_bytes(root)
    expected = check(root).found
    looked_at: list[bytes] = []
    look = check_images._look_at

    def counting(*args: Any) -> check_images.Outcome:
        looked_at.append(args[-1])
        if len(looked_at) == 100:
            raise KeyboardInterrupt
        return look(*args)

    monkeypatch.setattr(check_images, "_look_at", counting)
    monkeypatch.setattr(check_images, "CHUNK", 8)
    with pytest.raises(KeyboardInterrupt):
        check(root, threads=1)
    journal = root.parent / "progress"
    os.truncate(journal, journal.stat().st_size - 3)  # a record that was being written
    looked_at.clear()
    looked_at.append(b"")
    assert sorted(check(root, threads=1).found.items()) == sorted(expected.items())
    assert 192 - 100 < len(looked_at) <= 192 - 80


def test_a_journal_of_other_images_is_not_used(root: Path) -> None:
    (root.parent / "progress").write_bytes(os.urandom(3000))
    assert check(root).num_problems == 0


def test_a_journal_that_cannot_be_written_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be written: .*; give another --out"):
        begin_check(root).images(root / "absent" / "journal", threads=1)
